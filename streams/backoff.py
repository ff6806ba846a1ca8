"""Waiting before a transient fault is tried again."""

import asyncio
import logging
import random

log = logging.getLogger(__name__)

FIRST_SECONDS, LAST_SECONDS = 0.05, 5.0


class Backoff:
    """Doubles the wait from 50 ms to 5 s, with jitter, so that workers do not come back all at once."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def reset(self) -> None:
        """It worked: begin with the shortest wait again."""
        self._seconds = FIRST_SECONDS

    def next(self) -> float:
        """How many seconds to wait now; the next time it is more."""
        seconds = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(self._seconds * 2, LAST_SECONDS)
        return seconds

    async def wait(self, doing: str, shard: object, error: BaseException) -> None:
        """Say what failed, and wait."""
        log.warning(
            "%s failed; trying again", doing, extra={"shard": shard, "reason": f"{type(error).__name__}: {error}"}
        )
        await asyncio.sleep(self.next())
