# Every target makes .venv first where it is missing or older than the locked requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_FLAGS ?=

export CUSTOM_COMPILE_COMMAND := make lock
PIP_COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-options \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links $(LOCK_FLAGS) pyproject.toml
# `make lock LOCK_FLAGS=` keeps the versions that still fit; the default takes the newest ones.
LOCK_FLAGS ?= --upgrade

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-kafka simulate lint format bench lock clean

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

test: $(STAMP) ## all tests that need nothing but .venv
	$(BIN)/python -m pytest --ignore=tests/kafka $(PYTEST_FLAGS)

test-kafka: $(STAMP) ## the tests on Apache Kafka and Redis (Java 17, Maven and redis-server needed)
	RESEGMENT_FORBID_SKIPS=1 $(BIN)/python -m pytest tests/kafka $(PYTEST_FLAGS)

# The same seed is the same schedule in any process: what is ordered by a hash must be ordered the same.
simulate: $(STAMP) ## both stages under faults in simulated time: N=20000 schedules, or SEED=n, one of them again
	PYTHONHASHSEED=0 N=$(N) FIRST=$(FIRST) SEED=$(SEED) $(BIN)/python -m tests.simulation

lint: $(STAMP) ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code into the style that `make lint` checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## events a second, latency and CPU, beside a plain Faust agent
	$(BIN)/python -m benchmarks.throughput

lock: $(STAMP) ## work the locked requirements out again from pyproject.toml
	$(PIP_COMPILE) --all-extras --all-build-deps --output-file requirements/dev.txt
	$(PIP_COMPILE) --constraint requirements/dev.txt --output-file requirements/base.txt
	$(PIP_COMPILE) --constraint requirements/dev.txt --only-build-deps --all-build-deps --output-file requirements/build.txt

clean: ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .grimp_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
