"""Ending asyncio tasks, telling whose end an error means, and hearing of errors that nobody asks for."""

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_SECONDS = 1.0


def is_cancelled(error: BaseException) -> bool:
    """Whether this error says that the task that it came up in is to end.

    A library may let the end of a task of its own out, too, where it stops a connection that somebody waits for. Taken
    for our end that would leave a shard unclaimed, or a batch undone, without a word.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until they are done: a library may swallow a cancellation, and a rebalance would wait for ever."""
    left = list(tasks)
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
        left = [task for task in left if not task.done()]


def heard(future: asyncio.Future[Any]) -> None:
    """Ask for the error of something that is done, as nobody else may: asyncio would complain of it."""
    if not future.cancelled():
        future.exception()
