"""An installation of its own for one command: embedded broker and store, topics, and a worker as a child process."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from segmentation.policy import Policy
from streams.cli.failures import CommandFailed
from streams.cli.running import admin, read_policy, read_settings
from streams.embedded import Embedded
from streams.settings import Settings
from streams.topics import create_topics

PARTITIONS = 2
"""The embedded broker looks through every batch of a partition at each fetch: more partitions, slower days."""

LEAVE_SECONDS = 15.0


class WorkerProcess:
    """A worker, running."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes] | None) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises CommandFailed, with its last words, if it has ended."""
        status = self._process.poll()
        if status is None:
            return
        said = ""
        if self._log is not None:
            self._log.seek(0)
            lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
            said = f": {lines[-1]}" if lines else ""
        raise CommandFailed(f"the worker ended with status {status}{said}", code=1)


class Local(NamedTuple):
    """An installation that lives as long as its context."""

    settings: Settings
    policy: Policy
    worker: WorkerProcess


@asynccontextmanager
async def local_installation(
    *, clock: Literal["wall", "replay"], policy: Path | None, worker_log_shown: bool = False
) -> AsyncIterator[Local]:
    """Runs everything; leaves no process and no file behind, however it ends.

    Raises EmbeddedMissing, ServerFailed, KafkaError, PolicyError.
    """
    with Embedded() as servers:
        settings = read_settings(
            kafka_bootstrap_servers=servers.kafka,
            kafka_security_protocol="PLAINTEXT",
            kafka_transactions=False,
            kafka_session_timeout_seconds=6,
            redis_url=servers.redis,
            clock=clock,
            policy=policy,
        )
        rules = read_policy(settings)
        async with admin(settings) as client:
            await create_topics(client, settings, rules, PARTITIONS, 1)
        with _worker(settings, shown=worker_log_shown) as worker:
            yield Local(settings, rules, worker)


@contextmanager
def _worker(settings: Settings, *, shown: bool) -> Iterator[WorkerProcess]:
    with contextlib.nullcontext() if shown else tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "worker", "--until-input-ends"],
            # when this process dies, however it dies, the pipe ends and the worker with it
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **_environment(settings)},
            # Ctrl-C is for this process alone, which then ends the worker
            start_new_session=True,
        )
        try:
            yield WorkerProcess(process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(LEAVE_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        assert process.stdin is not None
        process.stdin.close()


def _environment(settings: Settings) -> dict[str, str]:
    environment = {
        "RESEGMENT_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "RESEGMENT_KAFKA_SECURITY_PROTOCOL": settings.kafka_security_protocol,
        "RESEGMENT_KAFKA_TRANSACTIONS": "false",
        "RESEGMENT_KAFKA_SESSION_TIMEOUT_SECONDS": str(settings.kafka_session_timeout_seconds),
        "RESEGMENT_REDIS_URL": settings.redis_url.get_secret_value(),
        "RESEGMENT_CLOCK": settings.clock,
    }
    if settings.policy:
        environment["RESEGMENT_POLICY"] = str(settings.policy)
    if settings.clock == "replay":
        # nothing gathers while the replayer waits: the sooner a day is done, the sooner the next one begins
        environment["RESEGMENT_RELAY_INTERVAL_MS"] = "2"
        environment["RESEGMENT_FETCH_WAIT_MS"] = "10"
    return environment
