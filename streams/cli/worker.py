"""`resegment worker`."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis

from streams.cli.failures import CHECK_FAILED
from streams.cli.log_lines import formatter
from streams.cli.running import keep_libraries_quiet, reach_broker, read_policy, read_settings, store
from streams.event_loop import fast_loop
from streams.monitoring import listening
from streams.settings import Settings
from streams.worker import DRAIN_SECONDS, Worker
from streams.worker_figures import WorkerFigures

log = logging.getLogger(__name__)

LEAVE_SECONDS = DRAIN_SECONDS + 20
"""A worker that was asked to leave and is still there after this ends itself: what it owes is in the outbox."""

ORPHAN_LEAVE_SECONDS = 3.0
"""The same where the process that started it has died, and the servers with it."""


def run_worker(
    *, policy: Path | None, clock: Literal["wall", "replay"] | None, rebuild: bool, until_input_ends: bool
) -> None:
    """Work until a signal says to leave."""
    settings = read_settings(policy=policy, clock=clock)
    rules = read_policy(settings)

    async def work(redis: Redis, stop: asyncio.Event) -> None:
        if not settings.kafka_transactions:
            log.warning("RESEGMENT_KAFKA_TRANSACTIONS is off: nothing fences a second worker, so run only this one")
        worker = Worker(settings, rules, redis)
        async with listening(settings.monitoring_address, WorkerFigures(worker)):
            await worker.run(stop, rebuild=rebuild)

    run_role(settings, work, until_input_ends=until_input_ends)


def run_role(
    settings: Settings, role: Callable[[Redis, asyncio.Event], Awaitable[None]], *, until_input_ends: bool = False
) -> None:
    """Run a role of the program, with a log of what it does, until a signal says to leave."""
    keep_libraries_quiet()

    async def work() -> None:
        stop = _stop_on_signals()
        if until_input_ends:
            _stop_when_input_ends(stop)
        async with store(settings) as redis:
            await reach_broker(settings)
            _say_what_happens(settings)
            await role(redis, stop)
        log.info("left")

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(work())


def _say_what_happens(settings: Settings) -> None:
    """Begin to log. Until here, what fails is said by the error alone."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        handler.setLevel(logging.NOTSET)
        handler.setFormatter(formatter(is_terminal=sys.stderr.isatty()))
        handler.addFilter(_is_ours)
    logging.getLogger("streams").setLevel(settings.log_level)
    if settings.log_level == "DEBUG":
        for name in ("faust", "mode", "redis", "asyncio"):
            logging.getLogger(name).setLevel(logging.DEBUG)
    # below that it repeats what goes over the wire: records, and passwords
    logging.getLogger("aiokafka").setLevel(logging.WARNING)


def _is_ours(record: logging.LogRecord) -> bool:
    """Each service of the stream processor says that it starts and stops, in the name of some module of ours."""
    return record.levelno > logging.INFO or not record.getMessage().startswith("[^")


def _stop_on_signals() -> asyncio.Event:
    """The first signal asks the worker to leave, the second one ends it."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        log.info("%s: publishing what is decided, then leaving; once more ends it at once", number.name)
        _leave_within(LEAVE_SECONDS, stop)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, received, number)
    return stop


def _leave_within(seconds: float, stop: asyncio.Event) -> None:
    def give_up() -> None:
        log.error("could not leave within %g s; ending. What was to be published waits in the outbox", seconds)
        os._exit(CHECK_FAILED)

    stop.set()
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()


def _stop_when_input_ends(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(_leave_within, ORPHAN_LEAVE_SECONDS, stop)

    threading.Thread(target=wait, daemon=True).start()
