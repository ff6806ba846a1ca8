"""A worker for the campaign: kills itself at the n-th passing of a named point, and may live in a time of the test's.

    python -m tests.faults.worker --point "before a commit" --passings 17 --clock-file now_us

The point is reached by wrapping what passes it: the program itself knows of none.
"""

import argparse
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

import streams.worker
from segmentation.events import MICROSECONDS_PER_DAY
from state.shard_store import ShardStore
from streams.relay import KafkaPublisher
from streams.shard import Shard
from streams.ticker import Ticker
from tests import worker_process

Method = Callable[..., Awaitable[Any]]


class Point(NamedTuple):
    """A place in the program, next to an asynchronous method."""

    owner: type
    method: str
    is_after: bool
    """Whether it comes after the method has returned something, or before it is called."""
    passings_max: int
    """About as many times a worker passes it in a schedule."""


POINTS = {
    "before a commit": Point(ShardStore, "commit", False, 60),
    "between a commit and its publishing": Point(ShardStore, "commit", True, 60),
    "before a publishing": Point(KafkaPublisher, "publish", False, 40),
    "in the middle of a publishing": Point(AIOKafkaProducer, "send_batch", True, 60),
    "before the end of a transaction": Point(AIOKafkaProducer, "commit_transaction", False, 20),
    "before a trim": Point(ShardStore, "trim", False, 40),
    "after a trim": Point(ShardStore, "trim", True, 40),
    "between fence and claim": Point(KafkaPublisher, "claim", True, 6),
    "in a claim": Point(ShardStore, "claim", True, 6),
    "in due work": Point(ShardStore, "due", True, 12),
    "in a handover": Point(Shard, "close", False, 4),
}


def ambush(point: Point, passings: int) -> None:
    """Let this process die when it passes the point for so many times."""
    original: Method = getattr(point.owner, point.method)
    left = passings

    def pass_by() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        if not point.is_after:
            pass_by()
        answer = await original(*arguments, **named)
        # an empty list: there was no work to be in the middle of
        if point.is_after and answer != []:
            pass_by()
        return answer

    setattr(point.owner, point.method, wrapped)


def tick_by(file: Path) -> None:
    """Let the time that this worker tells its shards be what the file says, in microseconds since 1970."""

    def ticker(*arguments: Any, **named: Any) -> Ticker:
        return Ticker(*arguments, **named | {"wall_clock": lambda: int(file.read_text())})

    setattr(streams.worker, "Ticker", ticker)  # noqa: B010 (mypy is right that this is no class)


def be_wrong_by(days: float) -> None:
    """Let the clock of this worker's machine be wrong by so many days: its records say so."""
    right, off_us = streams.worker.wall_clock_us, int(days * MICROSECONDS_PER_DAY)
    streams.worker.wall_clock_us = lambda: right() + off_us


def main() -> None:
    """Work until asked to leave, or killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--point", choices=POINTS)
    parser.add_argument("--passings", type=int, default=1)
    parser.add_argument("--clock-file", type=Path)
    parser.add_argument("--clock-days-off", type=float, default=0.0)
    asked = parser.parse_args()
    if asked.point:
        ambush(POINTS[asked.point], asked.passings)
    if asked.clock_file:
        tick_by(asked.clock_file)
    be_wrong_by(asked.clock_days_off)
    worker_process.run()


if __name__ == "__main__":
    main()
