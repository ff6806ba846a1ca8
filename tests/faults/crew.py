"""The workers of a schedule: some are to run, whatever happens to them, and none may end without a reason."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from redis.exceptions import RedisError

from state.founding import read_founding
from tests.faults.worker import POINTS
from tests.pipeline import Installation, WorkerProcess, until

WATCH_SECONDS = 0.05
CONFESS_SECONDS = 1.0
WORKERS_MAX = 3
WRONG_CLOCK_SHARE = 0.1
"""Of the workers."""


class CrewMember(WorkerProcess):
    """One worker, and what is known of its fate."""

    def __init__(
        self,
        installation: Installation,
        directory: Path,
        name: str,
        *,
        point: str | None,
        passings: int,
        clock_file: Path | None,
        clock_days_off: float,
        rebuild: bool,
    ) -> None:
        self.name = name
        self.point = point
        self.saw_trouble = False
        """Whether a server was in trouble since it began: then it may end for want of it, until it has claimed."""
        self.is_leaving = False
        self.is_frozen = False
        arguments = ["tests.faults.worker", "--clock-days-off", str(clock_days_off)]
        if point:
            arguments += ["--point", point, "--passings", str(passings)]
        if clock_file:
            arguments += ["--clock-file", str(clock_file)]
        super().__init__(installation, directory, name, module=arguments, rebuild=rebuild)

    @property
    def has_claimed(self) -> bool:
        """Whether it has got so far that it retries whatever fails."""
        return "claimed" in self.said()


class Crew:
    """Starts workers, and replaces those that end."""

    def __init__(
        self, installation: Installation, directory: Path, chance: Random, counts: Counter[str], clock_file: Path | None
    ) -> None:
        self._installation = installation
        self._directory = directory
        self._chance = chance
        self._counts = counts
        self._clock_file = clock_file
        self._started = 0
        self._ambushes_left = 0
        self.members: list[CrewMember] = []
        self.wrongs: list[str] = []
        """Workers that ended although they had no reason to."""
        self._troubles = 0
        self.troubles_over = 0
        """So many times a server has been in trouble."""
        self.was_emptied = False
        """The store, by a fault: workers are to stop, and one is to rebuild it."""

    def plan_ambushes(self, count: int) -> None:
        """So many of the workers that start from now on kill themselves somewhere."""
        self._ambushes_left += count

    async def start(self) -> CrewMember | None:
        """One more, if there are not too many. The first one after the store was emptied rebuilds it."""
        if len(self.members) >= WORKERS_MAX:
            return None
        rebuild = self.was_emptied and await self._is_empty()
        point, passings = None, 1
        if self._ambushes_left:
            self._ambushes_left -= 1
            point = self._chance.choice(list(POINTS))
            passings = self._chance.randint(1, POINTS[point].passings_max)
        clock_days_off = 0.0
        if self._chance.random() < WRONG_CLOCK_SHARE:
            clock_days_off = self._chance.choice([-400.0, 3.0])
            self._counts["worker with a wrong clock"] += 1
        name = f"worker-{self._started}"
        self._started += 1
        member = CrewMember(
            self._installation,
            self._directory,
            name,
            point=point,
            passings=passings,
            clock_file=self._clock_file,
            clock_days_off=clock_days_off,
            rebuild=rebuild,
        )
        member.saw_trouble = self._troubles > 0
        self.members.append(member)
        return member

    async def _is_empty(self) -> bool:
        """Of a store that may be away, once it is back."""
        while True:
            try:
                return await read_founding(self._installation.redis, self._prefix) is None
            except (RedisError, OSError):
                await asyncio.sleep(WATCH_SECONDS)

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """In here a server does not serve."""
        self._troubles += 1
        for member in self.members:
            member.saw_trouble = True
        try:
            yield
        finally:
            self._troubles -= 1
            self.troubles_over += 1

    @property
    def is_troubled(self) -> bool:
        """Whether a server does not serve."""
        return self._troubles > 0

    async def until_claimed(self) -> None:
        """Return when one has partitions, so that the installation is founded."""

        async def claimed() -> bool:
            return any(member.has_claimed for member in self.members)

        await until(claimed, "a worker that has claimed shards")

    @property
    def _prefix(self) -> str:
        return self._installation.settings.redis_prefix

    def some(self) -> CrewMember | None:
        """One that runs."""
        running = [member for member in self.members if not member.is_frozen and not member.is_leaving]
        return self._chance.choice(running) if running else None

    def unrest(self) -> str | None:
        """Who was asked to leave and is still here; None: nobody."""
        leaving = [member.name for member in self.members if member.is_leaving]
        return f"{', '.join(leaving)} should have left" if leaving else None

    async def watch(self) -> None:
        """Look after them until cancelled."""
        while True:
            for member in list(self.members):
                status = member.status()
                if status is not None and member in self.members:  # it may have been killed for what another one said
                    self.members.remove(member)
                    self._judge(member, status)
            if not any(not member.is_frozen for member in self.members):
                await self.start()
            await asyncio.sleep(WATCH_SECONDS)

    def _judge(self, member: CrewMember, status: int) -> None:
        """Count what was meant to happen; anything else is wrong."""
        if member.point and status == -signal.SIGKILL:
            self._counts[f"worker killed {member.point}"] += 1
        elif member.is_leaving and (status == 0 or (status == -signal.SIGTERM and not member.said())):
            # the latter: it had not got so far that it listened
            self._counts["worker asked to leave"] += 1
        elif self.was_emptied and status == 1 and self._says_emptied(member):
            self._counts["worker stopped at an empty store"] += 1
            self.kill_all()
        elif member.saw_trouble and not member.has_claimed:
            self._counts["worker could not begin without a server"] += 1
        else:
            last = member.said().strip().splitlines()[-1:] or ["nothing"]
            self.wrongs.append(f"end: {member.name} ended with status {status}, saying {last[0]!r}")

    @staticmethod
    def _says_emptied(member: CrewMember) -> bool:
        return any(error in member.said() for error in ("CorruptState", "NoSuchShard"))

    async def confess(self) -> None:
        """Let each say in its log what it waits for."""
        for member in self.members:
            member.signal(signal.SIGUSR1)
        await asyncio.sleep(CONFESS_SECONDS)

    def kill(self, member: CrewMember) -> None:
        """kill -9."""
        self.members.remove(member)
        member.kill()

    def kill_all(self) -> None:
        """kill -9 of every one."""
        for member in list(self.members):
            self.kill(member)
