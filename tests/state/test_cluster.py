"""The client of a cluster: what it does where a store on one node would do nothing."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import (
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    ResponseError,
    TryAgainError,
)

from segmentation.segments import Segment
from state.client import PackedConnection, PackedSSLConnection, connect
from state.cluster import ClusterRedis, masters
from state.founding import found, is_partly_lost
from state.keys import StageName, founding_key, shard_keys
from state.rights import FOUNDING_COMMANDS, SHARD_COMMANDS, missing_rights
from state.shard_store import Commit, ShardStore
from streams.embedded import store_executable
from streams.rest import SHARDS_AT_ONCE, look
from streams.server_process import LOOPBACK, free_port
from tests.pipeline import until
from tests.servers import RedisCluster
from tests.state.conftest import PREFIX
from tests.state.keyspace import all_keys, keyspace

pytestmark = pytest.mark.parametrize("redis", ["cluster"], indirect=True)


@pytest.fixture
async def full(store: ShardStore) -> ShardStore:
    """A claimed shard with all its keys."""
    await store.claim("one")
    await store.commit(full_commit(1))
    return store


def full_commit(number: int) -> Commit:
    """Writes each key of the shard."""
    commit = Commit({"purchases": number}, {"number": number})
    stages = ("documents", "history", "engagements", "profiles", "traits", "transfers", "figures")
    alerts = ("alerts", "messages", "undelivered", "told", "handed", "seen", "decisions", "requests")
    for name in (*stages, *alerts):
        commit.set(name, "acme", b"%d" % number)
    for name in ("due", "owners", *(f"worklist_{segment}" for segment in Segment)):
        commit.score(name, "acme", number)
    commit.outbox = [b"%d" % number]
    return commit


def meta(stage: StageName, partition: int) -> str:
    """The key by which a shard's slot is meant here."""
    return shard_keys(PREFIX, stage, partition).meta


# -- finding the way -------------------------------------------------------------------------------------------------


async def test_shards_are_spread_and_found_again_by_who_knows_nothing(redis: Redis, cluster: RedisCluster) -> None:
    """Every node has some, and a client that has one address only finds each."""
    await found(redis, PREFIX, "policy", "1", 8)
    assert all([await node.dbsize() for node in (await masters(redis)).values()])
    client = connect(f"redis+cluster://{cluster.masters[2].address}")
    assert len(await masters(client)) == 3
    for stage in StageName:
        for partition in range(8):
            assert await ShardStore(client, PREFIX, stage, partition).peek() is not None
    await client.aclose()


async def test_a_node_that_is_away_need_not_be_asked(redis: Redis, cluster: RedisCluster, store: ShardStore) -> None:
    """Any address that answers is enough; where none does, that is an error like any other store's."""
    nobody = f"{LOOPBACK}:{free_port()}"
    client = connect(f"redis+cluster://{nobody},{cluster.masters[0].address}")
    assert await ShardStore(client, PREFIX, store.stage, store.partition).claim("one")
    await client.aclose()
    client = connect(f"redis+cluster://{nobody}")
    with pytest.raises(ConnectionError):
        await client.ping()
    await client.aclose()


async def test_scripts_are_loaded_on_the_node_that_needs_them(redis: Redis, cluster: RedisCluster) -> None:
    """Each node forgets its scripts when it is restarted, and knows only those that it was told."""
    await found(redis, PREFIX, "policy", "1", 8)
    for node in (await masters(redis)).values():
        await node.script_flush()
    store = ShardStore(redis, PREFIX, StageName.ACCOUNTS, 0)
    await store.claim("one")
    knows = {master: cluster.command(master, "SCRIPT", "EXISTS", store._claim.sha) == [1] for master in cluster.masters}
    assert [master for master, known in knows.items() if known] == [cluster.owner(store.keys.meta)]
    for partition in range(8):
        assert await ShardStore(redis, PREFIX, StageName.RANKING, partition).claim("one")
    with pytest.raises(ResponseError, match="No matching script"):
        await redis.evalsha("f" * 40, 1, store.keys.meta)


async def test_a_transaction_has_one_slot(redis: Redis) -> None:
    """Nothing of it is carried out where it has two: it would not be one."""
    async with redis.pipeline(transaction=True) as pipeline:
        for partition in range(2):
            pipeline.hsetnx(meta(StageName.ACCOUNTS, partition), "progress", "{}")
        with pytest.raises(ClusterCrossSlotError):
            await pipeline.execute()
    assert await all_keys(redis) == []


async def test_a_replica_that_takes_over_is_followed(redis: Redis) -> None:
    """Its master does not answer: that is one error, as of any store that is away, and then the others know."""
    with RedisCluster(executable=store_executable()) as cluster:
        client = connect(cluster.url)
        store = ShardStore(client, PREFIX, StageName.ACCOUNTS, 0)
        await store.create()
        await store.claim("one")
        master = cluster.owner(store.keys.meta)
        replica = cluster.add_replica(master)
        await store.commit(full_commit(1))
        assert cluster.command(master, "WAIT", 1, 10_000) == 1
        master.kill()
        with pytest.raises(ConnectionError):
            await store.commit(full_commit(2))
        cluster.command(replica, "CLUSTER", "FAILOVER", "TAKEOVER")

        async def committed() -> bool:
            with contextlib.suppress(ConnectionError, ClusterDownError):
                await store.commit(full_commit(2))
                return True
            return False

        await until(committed, "a commit on the replica")
        assert await store.outbox() == [b"1", b"2"]
        assert replica.address in await masters(client)
        await client.aclose()


# -- slots that move -------------------------------------------------------------------------------------------------


async def test_a_shard_that_moves_is_followed(redis: Redis, cluster: RedisCluster, full: ShardStore) -> None:
    """While it is here, while it is there but not known to be, and when it belongs there: nothing else changes."""
    source = cluster.owner(full.keys.meta)
    to = cluster.another(source)
    cluster.begin_move(full.keys.meta, to)
    await full.commit(full_commit(2))
    cluster.move_keys(full.keys.meta, to)
    await full.commit(full_commit(3))  # to who has to be asked for it
    assert await full.load("documents", ["acme"]) == [b"3"]
    assert not await full.create()  # a transaction
    cluster.end_move(full.keys.meta, to)
    await full.commit(full_commit(4))
    assert await full.outbox() == [b"1", b"2", b"3", b"4"]
    assert [document async for document in full.scan("documents")] == [("acme", b"4")]
    assert cluster.command(source, "DBSIZE") == 0 and cluster.command(to, "DBSIZE") == len(full.keys)


async def test_a_shard_is_not_torn_while_it_moves(redis: Redis, cluster: RedisCluster, full: ShardStore) -> None:
    """With some keys here and some there a commit is carried out nowhere, and tried until they are together again."""
    to = cluster.another(cluster.owner(full.keys.meta))
    cluster.begin_move(full.keys.meta, to)
    cluster.move_keys(full.keys.meta, to, full.keys.documents)
    held = await full.load("documents", ["acme"])
    with pytest.raises(TryAgainError):
        await full.commit(full_commit(2))
    assert await full.load("documents", ["acme"]) == held
    assert await full.is_current()
    committing = asyncio.create_task(full.commit(full_commit(2)))
    cluster.move_keys(full.keys.meta, to)
    cluster.end_move(full.keys.meta, to)
    await committing
    assert await full.outbox() == [b"1", b"2"]


async def test_a_scan_does_not_go_on_elsewhere(redis: Redis, cluster: RedisCluster, full: ShardStore) -> None:
    """One node's cursor means nothing to another, which would leave members out: better an error, and all anew."""
    await redis.hset(full.keys.documents, mapping={f"a{number}": b"" for number in range(2_000)})
    to = cluster.another(cluster.owner(full.keys.meta))
    seen = 0
    with pytest.raises(ResponseError):
        async for _ in redis.hscan_iter(full.keys.documents, count=10):
            if not seen:
                cluster.begin_move(full.keys.meta, to)
                cluster.move_keys(full.keys.meta, to)
                cluster.end_move(full.keys.meta, to)
                # somebody else's call has learnt of it meanwhile
                assert await full.is_current()
            seen += 1
    assert seen < 2_000
    assert len({account async for account, _ in full.scan("documents")}) == 2_001


async def test_slots_that_nobody_has_are_waited_for_and_then_an_error(
    redis: Redis, cluster: RedisCluster, full: ShardStore
) -> None:
    """An error that is tried again, and over as soon as the slot is somebody's."""
    owner = cluster.owner(full.keys.meta)
    slot = cluster.slot(full.keys.meta)
    for master in cluster.masters:
        cluster.command(master, "CLUSTER", "DELSLOTS", slot)
    try:
        with pytest.raises(ClusterDownError):
            await full.commit(full_commit(2))
    finally:
        for master in cluster.masters:
            cluster.command(master, "CLUSTER", "SETSLOT", slot, "NODE", cluster.command(owner, "CLUSTER", "MYID"))
    cluster.until_ok()
    await full.commit(full_commit(2))


# -- all shards at one moment ----------------------------------------------------------------------------------------


async def test_all_shards_at_one_moment_or_not_at_all(redis: Redis, cluster: RedisCluster) -> None:
    """One shard is always written before another one. Whatever is said to be one moment shows them so."""
    partitions = SHARDS_AT_ONCE  # so that some are read later than others
    await found(redis, PREFIX, "policy", "1", partitions)
    second = ShardStore(redis, PREFIX, StageName.ACCOUNTS, 0)
    rankings = (ShardStore(redis, PREFIX, StageName.RANKING, number) for number in range(partitions))
    first = next(s for s in rankings if cluster.owner(s.keys.meta) is not cluster.owner(second.keys.meta))
    for store in (first, second):
        await store.claim("one")
    seen = {True: 0, False: 0}
    chance, settled = random.Random(1), asyncio.Event()

    async def write() -> None:
        number = 0
        while True:
            await settled.wait()
            settled.clear()
            for _ in range(chance.randrange(50)):
                number += 1
                for store in (first, second):
                    await store.commit(Commit({}, {"number": number}))

    writing = asyncio.create_task(write())
    while min(seen.values()) < 10:
        now = await look(redis, PREFIX, partitions)
        assert now.missing is None
        seen[now.is_one_moment] += 1
        if now.is_one_moment:
            before = now.ranking[first.partition].state.get("number", 0)
            assert before - now.accounts[0].state.get("number", 0) in (0, 1)
            settled.set()
        else:
            assert now.unrest({}, {}) == "the shards changed while they were looked at"
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_node_that_lost_all_is_not_taken_for_a_new_installation(redis: Redis) -> None:
    """Shards without what they were founded with are of another beginning; a founding that was cut off left a plan."""
    assert not await is_partly_lost(redis, PREFIX, 2)
    await redis.hset(founding_key(PREFIX), "beginning", b"plan")
    await ShardStore(redis, PREFIX, StageName.RANKING, 1).create()
    assert not await is_partly_lost(redis, PREFIX, 2)
    await redis.delete(founding_key(PREFIX))
    assert await is_partly_lost(redis, PREFIX, 2)


# -- users -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def limited(redis: Redis, cluster: RedisCluster) -> AsyncIterator[Redis]:
    """A user with what a worker needs, on each node."""
    commands = {*SHARD_COMMANDS, *FOUNDING_COMMANDS, "EVALSHA", "SCRIPT|LOAD", "ASKING"}
    words = ["reset", "on", ">p", "~{test:*", "~{test}:founding", "-@all", *(f"+{command}" for command in commands)]
    for master in cluster.masters:
        cluster.command(master, "ACL", "SETUSER", "limited", *words)
    client = connect(cluster.url.replace("://", "://limited:p@"))
    yield client
    await client.aclose()
    for master in cluster.masters:
        cluster.command(master, "ACL", "DELUSER", "limited")


async def test_these_rights_are_enough(limited: Redis, redis: Redis, cluster: RedisCluster) -> None:
    """To found, to work, and to follow a shard that moves; to ask who the masters are is none of it."""
    assert await missing_rights(limited, PREFIX, 8) == []
    assert await keyspace(redis) == {}
    await found(limited, PREFIX, "policy", "hash", 8)
    store = ShardStore(limited, PREFIX, StageName.ACCOUNTS, 0)
    await store.claim("one")
    await store.commit(full_commit(1))
    to = cluster.another(cluster.owner(store.keys.meta))
    cluster.begin_move(store.keys.meta, to)
    cluster.move_keys(store.keys.meta, to)
    await store.commit(full_commit(2))
    cluster.end_move(store.keys.meta, to)
    await store.commit(full_commit(3))
    assert (await look(limited, PREFIX, 8)).is_one_moment
    with pytest.raises(NoPermissionError):
        await masters(limited)


@pytest.mark.parametrize("command", ["ZREM", "ASKING", "EVALSHA"])
@pytest.mark.parametrize("number", range(3))
async def test_a_right_that_is_missing_on_one_node_is_named(
    limited: Redis, cluster: RedisCluster, number: int, command: str
) -> None:
    """The nodes do not tell each other who may do what."""
    cluster.command(cluster.masters[number], "ACL", "SETUSER", "limited", f"-{command}")
    missing = await missing_rights(limited, PREFIX, 8)
    assert missing and all(command.lower() in text.lower() for text in missing)


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "kind"), [("redis+cluster", PackedConnection), ("rediss+cluster", PackedSSLConnection)]
)
async def test_an_address_may_name_many_nodes(redis: Redis, scheme: str, kind: type) -> None:
    """Each is connected to in the same way; nothing is connected yet."""
    client = connect(f"{scheme}://user:se%2Ccret@one:1,two:2, [::1]:3/0")
    assert isinstance(client, ClusterRedis)
    pools = [node.connection_pool for node in client._nodes.values()]
    assert [(pool.connection_kwargs["host"], pool.connection_kwargs["port"]) for pool in pools] == [
        *(("one", 1), ("two", 2), ("::1", 3))
    ]
    for pool in [*pools, client._node("four", 4, client).connection_pool]:
        assert pool.connection_class is kind
        assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("user", "se,cret")


@pytest.mark.parametrize(
    "address",
    [
        "redis+cluster://resegment:canary@one:1,two:2/1",
        "redis+cluster://resegment:canary@one:1,two:canary",
        "redis+cluster://resegment:can/ary@one:1,two:2",
        "redis+cluster://resegment:can,ary/@one:1",
        "unix+cluster://canary",
        "rediss+cluster://resegment:canary@one:1,two:2?ssl_ca_certs=/does/not/exist",
    ],
)
async def test_an_address_that_is_none_is_refused_without_repeating_the_password(redis: Redis, address: str) -> None:
    """As a single server's; a cluster has one database alone."""
    with pytest.raises(ValueError) as refused:
        connect(address)
    assert not any(part in str(refused.value) for part in ("canary", "can", "ary", "resegment"))
