"""Servers for the tests, and the rule that a skipped test is a failed one where nothing may be skipped."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from streams.embedded import Embedded, embedded_store, store_executable
from tests.servers import RedisCluster

# How long an example takes, or is made, says only what else the machine does.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    """An embedded broker and store, shared by the whole session: use topics, groups and keys of one's own."""
    with Embedded() as servers:
        yield servers


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey of its own, which no worker uses: a test may flush it."""
    with embedded_store() as url:
        yield url


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisCluster]:
    """Three Valkeys that share the slots, which no worker uses: a test may empty them."""
    with RedisCluster(executable=store_executable()) as servers:
        yield servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why a run with nothing but passed and skipped tests failed."""
    if _skips_forbidden() and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("FAILED: tests were skipped, and RESEGMENT_FORBID_SKIPS is set", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Counts a skipped test as a failure where `RESEGMENT_FORBID_SKIPS=1` says that all of them can run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if _skips_forbidden() and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skips_forbidden() -> bool:
    return os.environ.get("RESEGMENT_FORBID_SKIPS") == "1"
