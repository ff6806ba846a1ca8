"""Workers on Apache Kafka and a Redis Cluster of three masters, through which the shards are spread."""

import asyncio
import itertools
import random
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.exceptions import NoPermissionError

from segmentation.policy import ALL, load_policy
from state.client import connect
from state.cluster import masters
from state.founding import found
from state.keys import StageName, founding_key, shard_keys
from state.rights import missing_rights
from state.shard_store import Claim, Commit, ShardStore
from streams.partitions import partition_of
from streams.rest import look
from streams.settings import Settings
from streams.snapshot import read_snapshot
from streams.topics import Topic
from tests.certificates import Authority
from tests.pipeline import CommandProcess, Installation, Load, chains, check, environment_of, until
from tests.secure_servers import SecureRedisCluster
from tests.servers import KafkaServer, MissingPrerequisite, RedisCluster
from tests.state.keyspace import empty
from tests.streams.command_line import POLICY, Done, is_one_line, resegment

PARTITIONS = 6


class Addresses(NamedTuple):
    """Of the servers, as an installation wants them."""

    kafka: str
    redis: str


@pytest.fixture(scope="module")
def stores() -> Iterator[RedisCluster]:
    """Three masters with append-only files."""
    try:
        cluster = RedisCluster(append_only=True)
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    with cluster:
        yield cluster


@pytest.fixture
async def installation(kafka: KafkaServer, stores: RedisCluster, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation without a band, for workers that read their policy from a file."""
    policy = tmp_path / "policy.toml"
    policy.write_text(re.sub(r"(?m)^band = \S+", "band = 0", POLICY.read_text()))
    async with Installation(
        Addresses(kafka.address, stores.url),
        partitions=PARTITIONS,
        policy=load_policy(policy),
        kafka_transactions=True,
        kafka_session_timeout_seconds=6.0,
        relay_interval_ms=20,
        due_chunk_accounts=20,
    ) as new:
        new.settings = new.settings.model_copy(update={"policy": policy})
        await empty(new.redis)
        yield new


async def command(installation: Installation, *arguments: str | Path, **variables: str) -> Done:
    """A command of `resegment` with the installation's settings, to its end."""
    return await asyncio.to_thread(resegment, *arguments, values=environment_of(installation.settings) | variables)


def meta(installation: Installation, stage: StageName, partition: int) -> str:
    """A key of a shard."""
    return shard_keys(installation.settings.redis_prefix, stage, partition).meta


def ranking_key(installation: Installation) -> str:
    """A key of the shard that ranks everybody."""
    return meta(installation, StageName.RANKING, partition_of(ALL.encode(), PARTITIONS))


async def test_three_workers_on_three_masters(installation: Installation, stores: RedisCluster, tmp_path: Path) -> None:
    """Duplicates, refunds, and a worker killed with -9 in the middle: no mismatch, and every command can be used."""
    # a prefix that spreads the shards, however they are drawn elsewhere
    installation.settings = installation.settings.model_copy(update={"redis_prefix": "spread"})
    load = Load(installation, random.Random(5), accounts=100, bad_share=0.01)
    with (
        CommandProcess(installation, tmp_path, "first", "worker") as first,
        CommandProcess(installation, tmp_path, "second", "worker") as second,
        CommandProcess(installation, tmp_path, "third", "worker") as third,
    ):
        for worker in (first, second, third):
            await worker.until_said("claimed 4 shards")
        sending = asyncio.create_task(load.run(80))
        await installation.until_told(lambda told: len(told) > 50, "changes")
        second.kill()
        assert not sending.done()
        await sending
        await load.finish()
        changes = await check(installation)
        first.check()
        third.check()
        owners = [stores.owner(meta(installation, stage, n)) for stage in StageName for n in range(PARTITIONS)]
        assert all(owners.count(master) >= 2 for master in stores.masters)
        assert all([await node.dbsize() for node in (await masters(installation.redis)).values()])
        counts = await installation.counts(Topic.PURCHASES)
        assert counts["duplicates"] and counts["dead_letters"]

        verified = await command(installation, "verify")
        assert verified.status == 0 and " mismatches=0 " in verified.out, verified
        account = next(iter(changes))
        assert f"{account} is " in (await command(installation, "explain", account)).out
        exported = await command(installation, "export", tmp_path / "out")
        assert exported.status == 0 and (tmp_path / "out" / "accounts.csv").read_text().count("\n") > 90, exported
        watched = await command(installation, "watch", "--from-beginning", "--limit", "3")
        assert watched.status == 0 and watched.out.count("\n") == 3, watched
        assert (await command(installation, "dead-letters")).status == 0
        await doctor_looks_at_each_master(installation, stores)


async def doctor_looks_at_each_master(installation: Installation, stores: RedisCluster) -> None:
    """What is wrong with one is said of that one."""
    done = await command(installation, "doctor")
    assert done.status == 0, done
    for master in stores.masters:
        assert len([line for line in done.out.splitlines() if line.startswith("ok") and master.address in line]) == 3
    spoilt = stores.masters[1]
    stores.command(spoilt, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    stores.command(spoilt, "CONFIG", "SET", "appendonly", "no")
    done = await command(installation, "doctor")
    stores.command(spoilt, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    stores.command(spoilt, "CONFIG", "SET", "appendonly", "yes")
    assert done.status == 1
    (wrong,) = (line for line in done.out.splitlines() if line.startswith("wrong"))
    (warning,) = (line for line in done.out.splitlines() if line.startswith("warning") and "risk" not in line)
    assert f"{spoilt.address}: maxmemory-policy is allkeys-lru" in wrong
    assert f"{spoilt.address}: appendonly is off" in warning


async def test_a_shard_moves_to_another_master_under_a_load(
    installation: Installation, stores: RedisCluster, tmp_path: Path
) -> None:
    """It stands still while its keys are apart, and goes on when they are together; nobody has to do anything."""
    load = Load(installation, random.Random(6))
    key = ranking_key(installation)
    documents = key.removesuffix("meta") + "documents"
    to = stores.another(stores.owner(key))
    with CommandProcess(installation, tmp_path, "worker", "worker") as worker:
        await worker.until_said("claimed 12 shards")
        sending = asyncio.create_task(load.run(60))
        told = len(await installation.until_told(lambda told: len(told) > 10, "changes"))
        stores.begin_move(key, to)
        stores.move_keys(key, to, documents)
        await worker.until_said("TryAgainError")
        stores.move_keys(key, to)
        stores.end_move(key, to)
        await sending
        await load.run(5)
        await installation.until_told(lambda now: len(now) > told, "changes after the move")
        await load.finish()
        await check(installation)
        worker.check()
    assert stores.command(to, "EXISTS", key, documents) == 2


async def test_a_master_is_killed_under_a_load_and_comes_back(
    installation: Installation, stores: RedisCluster, tmp_path: Path
) -> None:
    """The others serve nothing either until it is back; then all goes on where it was."""
    load, is_over = Load(installation, random.Random(7)), asyncio.Event()

    async def send() -> None:
        while not is_over.is_set():
            await load.run(1)
            await asyncio.sleep(0.05)

    master = stores.owner(ranking_key(installation))
    with (
        CommandProcess(installation, tmp_path, "first", "worker") as first,
        CommandProcess(installation, tmp_path, "second", "worker") as second,
    ):
        for worker in (first, second):
            await worker.until_said("claimed 6 shards")
        sending = asyncio.create_task(send())
        await installation.until_told(lambda told: len(told) > 10, "changes")
        master.kill()
        for worker in (first, second):
            await worker.until_said("Error: ")

        async def down() -> bool:
            return "cluster_state:fail" in str(stores.command(stores.another(master), "CLUSTER", "INFO"))

        await until(down, "the cluster is down")
        master.start()
        stores.until_ok()
        is_over.set()
        await sending
        await load.finish()
        await check(installation)
        verified = await command(installation, "verify")
        assert verified.status == 0 and " mismatches=0 " in verified.out, verified
        first.check()
        second.check()


async def test_a_master_that_lost_its_data(installation: Installation, stores: RedisCluster, tmp_path: Path) -> None:
    """No worker begins, nor rebuilds a part beside the rest; with the rest gone, too, as the error says, it does."""
    for prefix in map("lost-{}".format, itertools.count()):
        installation.settings = installation.settings.model_copy(update={"redis_prefix": prefix})
        if stores.owner(ranking_key(installation)) is not stores.owner(founding_key(prefix)):
            break
    load = Load(installation, random.Random(8))
    with CommandProcess(installation, tmp_path, "before", "worker") as worker:
        await load.run(10)
        await load.finish()
        told = await check(installation)
        worker.check()
    for key, said in {
        ranking_key(installation): "the store lost data: ",
        founding_key(prefix): "but not what they were founded with",
    }.items():
        lose_all(stores, key)
        done = await command(installation, "worker", "--rebuild")
        assert done.status == 1 and said in done.err and "--rebuild" in done.err, done
    await empty(installation.redis)
    with CommandProcess(installation, tmp_path, "after", "worker", "--rebuild") as worker:
        await worker.until_said("rebuilding the state from the log")
        await load.run(5)
        await load.finish()
        await installation.rest()
        verified = await command(installation, "verify")
        assert verified.status == 0 and " mismatches=0 " in verified.out, verified
        again = chains(await installation.changes())
        assert all(again[account][: len(chain)] == chain for account, chain in told.items())
        assert sum(map(len, again.values())) > sum(map(len, told.values()))
        worker.check()


async def test_a_cluster_with_the_documented_users(tmp_path: Path) -> None:
    """TLS, also between the masters. The worker's user may do all that a worker does, the reader's may look."""
    try:
        new = SecureRedisCluster(Authority(tmp_path))
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    with new as cluster:
        worker, reader = (connect(cluster.url_of(f"resegment-{user}")) for user in ("worker", "reader"))
        assert await missing_rights(worker, "resegment", PARTITIONS) == []
        await found(worker, "resegment", "policy", "hash", PARTITIONS)
        store = ShardStore(worker, "resegment", StageName.RANKING, 0)
        await store.claim("one")
        await store.commit(Commit({"standings": 1}, {}))
        assert await ShardStore(reader, "resegment", StageName.RANKING, 0).peek() == Claim({"standings": 1}, {}, {})
        assert (await look(reader, "resegment", PARTITIONS)).missing is None
        assert len((await read_snapshot(reader, Settings())).ranking_shards) == PARTITIONS
        with pytest.raises(NoPermissionError):
            await reader.hset(store.keys.meta, "owner", "me")
        cluster.begin_move(store.keys.meta, cluster.another(cluster.owner(store.keys.meta)))
        for redis in (worker, reader):  # what is not here might be there already
            assert await ShardStore(redis, "resegment", StageName.RANKING, 0).load("documents", ["acme"]) == [None]
        await asyncio.gather(worker.aclose(), reader.aclose())


def lose_all(stores: RedisCluster, key: str) -> None:
    """The master that has this key comes back without any."""
    master = stores.owner(key)
    master.kill()
    shutil.rmtree(master.log.parent / "appendonlydir")
    master.start()
    stores.until_ok()


async def test_the_address_of_one_server_is_not_enough(installation: Installation, stores: RedisCluster) -> None:
    """One line says what to write instead."""
    url = stores.masters[0].url
    done = await command(installation, "worker", RESEGMENT_REDIS_URL=url)
    assert done.status == 2 and is_one_line(done.err) and "redis+cluster://" in done.err, done
    done = await command(installation, "doctor", RESEGMENT_REDIS_URL=url)
    assert done.status == 1 and "redis+cluster://" in done.out, done
