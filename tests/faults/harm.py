"""What goes wrong in a schedule: every kind of harm that workers, broker and store, as processes, can come to."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from tests.faults.backup import Backup
from tests.faults.crew import Crew
from tests.faults.life import Life
from tests.kafka.conftest import RealServers
from tests.pipeline import Installation

SESSION_SECONDS = 3.0
"""How long the group waits for a silent worker. Shorter than anybody else should have it."""

Fault = Callable[[], Awaitable[bool]]
"""Does harm, and returns when that is over. False: there was nobody to do it to."""


class Harm:
    """Does a few things, those to the workers and those to the servers side by side."""

    def __init__(
        self,
        installation: Installation,
        servers: RealServers,
        crew: Crew,
        life: Life,
        directory: Path,
        chance: Random,
        counts: Counter[str],
    ) -> None:
        self._installation = installation
        self._kafka = servers.kafka_server
        self._redis = servers.redis_server
        self._crew = crew
        self._life = life
        self._directory = directory
        self._chance = chance
        self._counts = counts
        self._to_workers: dict[str, Fault] = {
            "worker killed": self._kill,
            "all workers killed": self._kill_all,
            "worker asked to leave": self._leave,
            "worker frozen beyond its session": self._freeze,
            "worker frozen for a moment": self._nap,
            "storm of joins and leaves": self._storm,
        }
        self._to_servers: dict[str, Fault] = {
            "store killed": self._kill_store,
            "store paused": self._pause_store,
            "store set back": self._set_store_back,
            "store out of memory": self._fill_store,
            "store read only": self._make_store_read_only,
            "store emptied": self._empty_store,
            "broker killed": self._kill_broker,
            "broker paused": self._pause_broker,
            "clock ahead": self._clock_ahead,
            "clock back": self._clock_back,
        }

    async def run(self) -> None:
        """All of it."""
        chance = self._chance
        to_workers = chance.sample(list(self._to_workers.items()), chance.choice([0, 1, 2]))
        to_servers = chance.sample(list(self._to_servers.items()), chance.choice([1, 1, 2, 2, 3]))
        await asyncio.gather(self._one_by_one(to_workers), self._one_by_one(to_servers))

    async def _one_by_one(self, faults: list[tuple[str, Fault]]) -> None:
        for name, fault in faults:
            await self._pause(0.8)
            if await fault() and name != "worker asked to leave":  # which counts when it has left
                self._counts[name] += 1

    async def _pause(self, seconds_max: float) -> None:
        await asyncio.sleep(seconds_max * self._chance.random())

    # -- workers -------------------------------------------------------------------------------------------------------

    async def _kill(self) -> bool:
        member = self._crew.some()
        if member is None:
            return False
        self._crew.kill(member)
        await self._pause(1.5)
        await self._crew.start()
        return True

    async def _kill_all(self) -> bool:
        self._crew.kill_all()
        return True

    async def _leave(self) -> bool:
        member = self._crew.some()
        if member is None:
            return False
        member.is_leaving = True
        member.signal(signal.SIGTERM)
        await self._pause(1.5)
        await self._crew.start()
        return True

    async def _freeze(self) -> bool:
        """It wakes as a zombie: others have its partitions by then."""
        return await self._freeze_for(SESSION_SECONDS + 0.5 + 2 * self._chance.random())

    async def _nap(self) -> bool:
        return await self._freeze_for(SESSION_SECONDS * self._chance.random())

    async def _freeze_for(self, seconds: float) -> bool:
        member = self._crew.some()
        if member is None:
            return False
        member.is_frozen = True
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.signal(signal.SIGCONT)
        member.is_frozen = False
        return True

    async def _storm(self) -> bool:
        for _ in range(self._chance.randint(3, 5)):
            if self._chance.random() < 0.5:
                await self._crew.start()
            elif (member := self._crew.some()) is not None and len(self._crew.members) > 1:
                member.is_leaving = True
                member.signal(signal.SIGTERM)
            await self._pause(1.0)
        return True

    # -- servers -------------------------------------------------------------------------------------------------------

    async def _kill_store(self) -> bool:
        with self._crew.trouble():
            self._redis.kill()
            await self._pause(2.0)
            await asyncio.to_thread(self._redis.start)
        return True

    async def _pause_store(self) -> bool:
        with self._crew.trouble():
            self._redis.pause()
            await self._pause(4.0)
            self._redis.resume()
        return True

    async def _set_store_back(self) -> bool:
        """To a copy from a few seconds ago."""
        await self._crew.until_claimed()
        with Backup(self._redis, self._directory) as backup:
            await self._pause(3.0)
            with self._crew.trouble():
                await asyncio.to_thread(backup.restore)
        return True

    async def _fill_store(self) -> bool:
        with self._crew.trouble():
            await self._installation.redis.config_set("maxmemory", 1)
            await self._pause(4.0)
            await self._installation.redis.config_set("maxmemory", 0)
        return True

    async def _make_store_read_only(self) -> bool:
        """As after a failover of which a worker has not heard: it still talks to what is a replica now."""
        with self._crew.trouble():
            # of a master that is not there: it serves what it has
            await self._installation.redis.replicaof("127.0.0.1", "1")
            await self._pause(4.0)
            await self._installation.redis.replicaof("NO", "ONE")
        return True

    async def _empty_store(self) -> bool:
        """Workers stop then, and one is told to rebuild what is lost."""
        await self._crew.until_claimed()
        await self._installation.redis.flushall()
        self._crew.was_emptied = True
        return True

    async def _kill_broker(self) -> bool:
        with self._crew.trouble():
            self._kafka.kill()
            await self._pause(1.0)
            await asyncio.to_thread(self._kafka.start)
        return True

    async def _pause_broker(self) -> bool:
        with self._crew.trouble():
            self._kafka.pause()
            await self._pause(5.0)
            self._kafka.resume()
        return True

    # -- time ----------------------------------------------------------------------------------------------------------

    async def _clock_ahead(self) -> bool:
        self._life.jump(self._chance.uniform(5, 120))
        return True

    async def _clock_back(self) -> bool:
        await self._life.go_back(self._chance.uniform(0.1, 30), seconds=self._chance.random())
        return True
