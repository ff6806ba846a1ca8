"""Servers that die under the workers, and a store that comes back older than it was."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kafka.conftest import RealServers
from tests.pipeline import Installation, Load, WorkerProcess, chains, check
from tests.servers import KafkaServer, RedisServer

PARTITIONS = 2


@pytest.fixture
def store() -> Iterator[RedisServer]:
    """A Redis for one test alone, which may kill it."""
    with RedisServer(append_only=True) as server:
        yield server


@pytest.fixture
async def installation(kafka: KafkaServer, store: RedisServer) -> AsyncIterator[Installation]:
    """An empty installation on the Redis of this test."""
    async with Installation(
        RealServers(kafka.address, store.url, kafka, store),
        partitions=PARTITIONS,
        kafka_transactions=True,
        kafka_session_timeout_seconds=3.0,
        relay_interval_ms=20,
        due_chunk_accounts=20,
    ) as new:
        yield new


class Backup:
    """A copy of all that a store had written to its disk at one moment."""

    def __init__(self, store: RedisServer, directory: Path) -> None:
        self._store = store
        self._data = store.log.parent / "appendonlydir"
        self._copy = directory / "backup"
        shutil.copytree(self._data, self._copy)

    def restore(self) -> None:
        """Kill the store, and start it again as it was."""
        self._store.kill()
        shutil.rmtree(self._data)
        shutil.copytree(self._copy, self._data)
        self._store.start()


@pytest.mark.parametrize("seed", range(3))
async def test_a_store_goes_back_in_time_under_a_worker(
    installation: Installation, store: RedisServer, tmp_path: Path, seed: int
) -> None:
    """What was announced stays announced, sequences go on without a gap or a fork, and the numbers are exact."""
    load = Load(installation, random.Random(seed), accounts=60)
    with WorkerProcess(installation, tmp_path) as process:
        await process.until_said("claimed 4 shards")
        await load.run(10)
        await installation.rest()
        sending = asyncio.create_task(load.run(60, 20))
        await installation.until_told(lambda told: len(told) > 80, "changes")
        backup = Backup(store, tmp_path)
        before = len(await installation.changes())
        await installation.until_told(lambda told: len(told) > before + 20, "changes that the backup does not know")
        backup.restore()
        await sending
        await load.finish()
        await check(installation)
        assert "that were announced" in process.said()
        process.check()


async def test_a_store_went_back_in_time_while_no_worker_ran(
    installation: Installation, store: RedisServer, tmp_path: Path
) -> None:
    """A new worker on the older store learns from the log what the world was told, and tells nothing twice."""
    load = Load(installation, random.Random(5), accounts=60)
    with WorkerProcess(installation, tmp_path, "before") as process:
        await process.until_said("claimed 4 shards")
        await load.run(10)
        await installation.rest()
        # everysec: what is told and a second old is on the disk
        backup = Backup(store, tmp_path)
        await load.run(20)
        await load.finish()
        await installation.rest()
        process.kill()
    told = chains(await installation.changes())
    backup.restore()
    with WorkerProcess(installation, tmp_path, "after") as process:
        await process.until_said("claimed 4 shards")
        assert chains(await installation.changes()) == told
        await check(installation)
        await load.run(5)
        await load.finish()
        changes = await check(installation)
        assert all(changes[account][: len(chain)] == chain for account, chain in told.items())


async def test_a_store_dies_again_and_again(installation: Installation, store: RedisServer, tmp_path: Path) -> None:
    """kill -9 of Redis, which may lose its last second, and its restart: the worker goes on by itself."""
    load = Load(installation, random.Random(6), accounts=60)
    with WorkerProcess(installation, tmp_path) as process:
        await process.until_said("claimed 4 shards")
        for _ in range(4):
            sending = asyncio.create_task(load.run(25))
            before = len(await installation.changes())
            await installation.until_told(lambda told, n=before: len(told) > n + 5, "changes")  # type: ignore[misc]
            store.kill()
            store.start()
            await sending
        await load.finish()
        await check(installation)
        process.check()


async def test_a_broker_dies_and_comes_back(installation: Installation, kafka: KafkaServer, tmp_path: Path) -> None:
    """kill -9 of Kafka in the middle of a load: worker and senders go on when it is back, and nothing is lost."""
    load = Load(installation, random.Random(7), accounts=60)
    with WorkerProcess(installation, tmp_path) as process:
        await process.until_said("claimed 4 shards")
        await load.run(20)
        for _ in range(2):
            sending = asyncio.create_task(installation.send(*load.some(2_000)))
            before = len(await installation.changes())
            await installation.until_told(lambda told, n=before: len(told) > n, "changes")  # type: ignore[misc]
            kafka.kill()
            kafka.start()
            await sending
        await load.finish()
        await check(installation)
        process.check()
