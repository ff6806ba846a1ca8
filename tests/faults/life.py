"""What happens in the world of a schedule: events without a pause, and the time they happen in."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from aiokafka.errors import KafkaError

from streams.instants import parse_instant
from tests.pipeline import Installation, Load, moment

ACCOUNTS = 60
BAD_SHARE = 0.03
PACE_SECONDS = 0.05
RETRY_SECONDS = 0.2
DAYS_MAX = 2.0
"""Between some events and the next ones."""


class Life:
    """Sends events and time, whatever becomes of the broker meanwhile.

    With a clock file time is what the workers read there, and tick by themselves; else it is told in the log, as by a
    replay.
    """

    def __init__(self, installation: Installation, chance: Random, clock_file: Path | None) -> None:
        self._installation = installation
        self._chance = chance
        self._clock_file = clock_file
        self._load = Load(installation, chance, accounts=ACCOUNTS, bad_share=BAD_SHARE)
        self._is_over = False
        self._show_time()

    async def run(self) -> None:
        """Go on until `finish`."""
        chance = self._chance
        while not self._is_over:
            records = self._load.some(chance.randint(5, 60))
            await self._persist(lambda records=records: self._installation.send(*records))  # type: ignore[misc]
            await self._tick_on(DAYS_MAX * chance.random())
            await asyncio.sleep(PACE_SECONDS)

    def end(self) -> None:
        """Let `run` come to its end."""
        self._is_over = True

    async def finish(self) -> None:
        """A last day, on which all clocks agree."""
        await self._tick_on(1.0)

    @property
    def now_us(self) -> int:
        """The newest instant that was told."""
        return parse_instant(moment(self._load.day).isoformat())

    def jump(self, days: float) -> None:
        """Time goes on by so many days at once."""
        self._load.day += days

    async def go_back(self, days: float, seconds: float) -> None:
        """For so many seconds a clock that is wrong says an earlier time."""
        at = moment(self._load.day - days)
        if self._clock_file is None:
            await self._persist(lambda: self._installation.tick(at))
            return
        self._clock_file.write_text(str(parse_instant(at.isoformat())))
        await asyncio.sleep(seconds)
        self._show_time()

    async def _tick_on(self, days: float) -> None:
        self._load.day += days
        if self._clock_file is None:
            await self._persist(lambda: self._installation.tick(moment(self._load.day)))
        else:
            self._show_time()

    def _show_time(self) -> None:
        if self._clock_file is not None:
            new = self._clock_file.with_suffix(".new")
            new.write_text(str(self.now_us))
            new.replace(self._clock_file)

    @staticmethod
    async def _persist(send: Callable[[], Awaitable[object]]) -> None:
        """Send, and again after an error: what is there twice by then is one more duplicate."""
        while True:
            try:
                await send()
                return
            except (KafkaError, OSError):
                await asyncio.sleep(RETRY_SECONDS)
