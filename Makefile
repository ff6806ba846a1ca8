# Every target makes .venv first where it is missing or older than the locked requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_FLAGS ?=
AUDIT_VENV := build/audit
AUDIT_STAMP := $(AUDIT_VENV)/.installed

export CUSTOM_COMPILE_COMMAND := make lock
PIP_COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-options \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links $(LOCK_FLAGS)
# `make lock LOCK_FLAGS=` keeps the versions that still fit; the default takes the newest ones.
LOCK_FLAGS ?= --upgrade

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-kafka simulate faults mutants fuzz lint format contracts bench lock audit sbom clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

venv: $(STAMP) ## install everything into .venv

$(STAMP): requirements/dev.txt requirements/data.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Installing into $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/data.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## broker, store and worker in one process tree; the CDNOW log replayed and verified
	@$(BIN)/resegment demo

# Four at a time, each with a broker and a store of its own: most of them wait more than they work.
test: $(STAMP) ## all tests that need nothing but .venv
	$(BIN)/python -m pytest --ignore=tests/kafka --numprocesses=4 --dist=worksteal $(PYTEST_FLAGS)

test-kafka: $(STAMP) ## the tests on Apache Kafka and Redis (Java 17, Maven and redis-server needed)
	RESEGMENT_FORBID_SKIPS=1 $(BIN)/python -m pytest tests/kafka --numprocesses=2 --dist=worksteal $(PYTEST_FLAGS)

# The same seed is the same schedule in any process: what is ordered by a hash must be ordered the same.
simulate: $(STAMP) ## both stages under faults in simulated time: N=20000 schedules, or SEED=n, one of them again
	PYTHONHASHSEED=0 N=$(N) FIRST=$(FIRST) SEED=$(SEED) $(BIN)/python -m tests.simulation

faults: $(STAMP) ## Kafka, Redis and workers killed, frozen, set back: N=20 schedules, JOBS=1 at a time; or SEED=n, one again
	N=$(N) FIRST=$(FIRST) SEED=$(SEED) JOBS=$(JOBS) REPORT=$(REPORT) $(BIN)/python -m tests.faults

mutants: $(STAMP) ## planted bugs, each of which a test must notice (ONLY=name for one)
	ONLY=$(ONLY) REPORT=$(REPORT) $(BIN)/python -m tests.mutants

fuzz: $(STAMP) ## 100,000 mutated records through the decoders, 20,000 through a worker (N=... for another number)
	RESEGMENT_FUZZ_RECORDS=$(or $(N),100000) $(BIN)/python -m pytest tests/streams/test_fuzz.py -s $(PYTEST_FLAGS)

lint: $(STAMP) ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code into the style that `make lint` checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

contracts: $(STAMP) ## write docs/contracts, the AsyncAPI document and the JSON Schemas, from the models
	$(BIN)/python -m streams.contracts docs/contracts

bench: $(STAMP) ## events a second, latency and CPU, beside a plain Faust agent
	$(BIN)/python -m benchmarks.throughput

lock: $(STAMP) ## work the locked requirements out again from pyproject.toml
	$(PIP_COMPILE) --all-extras --all-build-deps --output-file requirements/dev.txt pyproject.toml
	$(PIP_COMPILE) --constraint requirements/dev.txt --output-file requirements/base.txt pyproject.toml
	$(PIP_COMPILE) --constraint requirements/dev.txt --only-build-deps --all-build-deps \
		--output-file requirements/build.txt pyproject.toml
	$(PIP_COMPILE) --output-file requirements/audit.txt requirements/audit.in

$(AUDIT_STAMP): requirements/audit.txt
	@$(PYTHON) -m venv $(AUDIT_VENV)
	@$(AUDIT_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/audit.txt
	@touch $@

# --strict: a package that could not be looked up is a failure, not a line that nobody reads.
audit: $(AUDIT_STAMP) ## known vulnerabilities of all that is locked (asks the advisory database of PyPI)
	@for file in base build dev; do \
		echo "requirements/$$file.txt"; \
		$(AUDIT_VENV)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes \
			-r requirements/$$file.txt || failed=1; \
	done; \
	[ -z "$$failed" ] || { echo 'audit: not passed: something is vulnerable, or could not be looked up (above)' >&2; exit 1; }

sbom: $(AUDIT_STAMP) ## what the program is made of, as CycloneDX: build/sbom.json
	@mkdir -p build
	@$(AUDIT_VENV)/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json requirements/base.txt
	@echo 'build/sbom.json: '$$(grep -c '"purl"' build/sbom.json)' packages, with the hashes they are installed by'

clean: ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .grimp_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
