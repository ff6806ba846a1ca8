"""The store is put back from an old copy, as docs/operations.md says: nothing is lost, and nothing announced twice."""

import random
from pathlib import Path

import pytest

from streams.worker import CannotStart
from tests.faults.backup import Backup
from tests.kafka.conftest import RealServers
from tests.pipeline import Installation, Load, WorkerProcess, chains, check
from tests.servers import KafkaServer, MissingPrerequisite, RedisServer


@pytest.fixture
def own_store(kafka: KafkaServer) -> RealServers:
    """The broker, and a store that this test may kill."""
    try:
        store = RedisServer(append_only=True)
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    return RealServers(kafka.address, store.url, kafka, store)


async def test_a_store_from_an_old_copy_goes_on_where_the_world_is(own_store: RealServers, tmp_path: Path) -> None:
    """What was announced since the copy is known from the log: it is not announced again, and sequences go on."""
    store = own_store.redis_server
    with store:
        async with Installation(own_store, kafka_transactions=True) as installation:
            load = Load(installation, random.Random(11))

            with WorkerProcess(installation, tmp_path, "before the copy") as worker:
                await worker.until_said("claimed 4 shards")
                await load.run(4)
                await installation.rest()
                before_copy = len(await installation.changes())
                copy = Backup(store, tmp_path)  # what `cp -r` of its folder, or a snapshot of its disk, would take
                await load.run(8)
                await installation.rest()
                worker.kill()
            announced = sorted(await installation.changes())
            assert len(announced) > before_copy, "there must be changes that the copy does not know"

            copy.restore()

            with WorkerProcess(installation, tmp_path, "after the copy") as worker:
                await worker.until_said("the store had lost")
                await installation.rest()
                told = sorted(await installation.changes())
                assert told == announced, "nothing is announced twice, and nothing else either"
                await load.run(4)
                await load.finish()
                await check(installation)
            changes = await installation.changes()
            assert len(changes) > len(announced), "and then it goes on"
            assert len(changes) == sum(map(len, chains(changes).values())), "each change once"


async def test_a_policy_that_the_copy_does_not_know_is_found_in_the_log(own_store: RealServers, tmp_path: Path) -> None:
    """Workers begin with the file of the copy, and go by the newer one as soon as they have read that far."""
    store = own_store.redis_server
    with store:
        async with Installation(own_store, kafka_transactions=True) as installation:
            load, first = Load(installation, random.Random(12)), installation.policy
            newer = first.with_changes(new_start_days=30)
            with WorkerProcess(installation, tmp_path, "before the copy") as worker:
                await worker.until_said("claimed 4 shards")
                await load.run(4)
                await installation.rest()
                copy = Backup(store, tmp_path)
                await installation.apply(newer)
                await load.run(4)
                await installation.rest()
                worker.kill()
            announced = sorted(await installation.changes())

            copy.restore()

            with pytest.raises(CannotStart, match="new_start_days: 90 -> 30"):
                await installation.start().task
            installation._running.clear()
            installation.policy = first
            with WorkerProcess(installation, tmp_path, "after the copy") as worker:
                await worker.until_said("claimed 4 shards")
                await installation.rest()
                installation.policy = newer
                assert sorted(await installation.changes()) == announced
                await load.run(4)
                await load.finish()
                await check(installation)
            async with installation.worker():
                await check(installation)
            changes = await installation.changes()
            assert len(changes) == sum(map(len, chains(changes).values()))
            assert {told.data["policy_version"] for told in changes} == {first.version}
