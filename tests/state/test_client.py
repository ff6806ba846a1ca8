"""The connections pack commands in C: what goes over the wire must be what redis-py would send."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, TimeoutError

from state.client import PackedConnection, PackedSocketConnection, PackedSSLConnection, connect
from state.keys import StageName
from state.shard_store import ShardStore

of_valkey = pytest.mark.parametrize("redis", ["valkey"], indirect=True)
"""What is tested is the client."""

arguments = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=20),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.sampled_from(StageName),
    ),
    max_size=8,
)
names = st.sampled_from(
    ["SET", "SCRIPT LOAD", "EVALSHA", "CONFIG GET", "CLIENT SETINFO", "CLUSTER SLOTS", "XGROUP CREATE"]
)


@settings(max_examples=200)
@given(names, arguments)
def test_commands_are_packed_as_redis_py_packs_them(name: str, rest: list[str | bytes | int | float]) -> None:
    """Names of two words are two words, and arguments of any bytes stay whole."""
    assert b"".join(PackedConnection().pack_command(name, *rest)) == b"".join(Connection().pack_command(name, *rest))


@pytest.mark.parametrize("argument", [None, [1], {"a": 1}, object()])
def test_what_is_no_value_is_refused(argument: object) -> None:
    """Nothing is turned into text by itself: None would be stored as "None"."""
    with pytest.raises((TypeError, RedisError)):
        PackedConnection().pack_command("SET", "key", argument)  # type: ignore[arg-type]


@of_valkey
async def test_arguments_of_any_bytes_arrive(redis: Redis) -> None:
    """Every byte, an empty value, and a megabyte; through pipelines, too."""
    key, values = "{test}:bytes", [bytes(range(256)), b"", b"\r\n" * 500_000, b"$3\r\nfoo\r\n"]
    await redis.rpush(key, *values)
    assert await redis.lrange(key, 0, -1) == values
    async with redis.pipeline(transaction=True) as pipeline:
        for value in values:
            pipeline.hset("{test}:hash", mapping={value: value})
        pipeline.hgetall("{test}:hash")
        *_, found = await pipeline.execute()
    assert found == {value: value for value in values}


@of_valkey
async def test_a_command_can_be_cancelled_at_any_moment(redis: Redis) -> None:
    """A cancellation is never swallowed: whoever cancels a task that talks to the store may wait for its end."""
    await redis.rpush("{test}:list", *[b"x" * 100] * 20)

    async def talk() -> None:
        while True:
            await redis.lrange("{test}:list", 0, -1)

    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    for count in range(60):
        talking = asyncio.create_task(talk())
        await turns(count)
        talking.cancel()
        done, _ = await asyncio.wait([talking], timeout=5)
        talking.cancel()
        assert done, f"cancelled in turn {count} of the loop, it went on"
    assert await redis.llen("{test}:list") == 20


async def test_a_store_that_reads_nothing_is_given_up() -> None:
    """A write that cannot go on for as long as the timeout is an error, and the connection is closed."""
    ended = asyncio.Event()

    async def stare(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async def no_handshake(_: object) -> None:
        pass

    server = await asyncio.start_server(stare, "127.0.0.1", 0, limit=1)
    port = server.sockets[0].getsockname()[1]
    connection = PackedConnection(host="127.0.0.1", port=port, socket_timeout=0.1, redis_connect_func=no_handshake)
    await connection.connect()  # type: ignore[no-untyped-call]
    with pytest.raises(TimeoutError):
        await connection.send_command("SET", "key", bytes(50_000_000))
    assert not connection.is_connected
    assert connection.socket_timeout == 0.1
    ended.set()
    server.close()
    await server.wait_closed()


@of_valkey
async def test_scripts_are_loaded_where_the_store_does_not_know_them(redis: Redis, store: ShardStore) -> None:
    """A store that was restarted has forgotten all scripts."""
    await store.claim("one")
    await redis.script_flush()
    assert await store.outbox() == []
    digest = await redis.script_load("return {KEYS[1], ARGV[1]}")
    assert await redis.evalsha(digest, 1, "{test}:key", b"\xff\0") == [b"{test}:key", b"\xff\0"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:1/0", PackedConnection),
        ("rediss://user:secret@127.0.0.1:1/0?ssl_cert_reqs=none", PackedSSLConnection),
        ("unix:///nowhere.sock?db=2", PackedSocketConnection),
    ],
)
def test_every_kind_of_address_gets_its_packed_connection(url: str, kind: type) -> None:
    """TCP, TLS and a socket; nothing is connected yet."""
    pool = connect(url).connection_pool
    assert pool.connection_class is kind


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://127.0.0.1:6379", "redis://127.0.0.1:port"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """At once, not when it is first used."""
    with pytest.raises(ValueError, match=r".+"):
        connect(url)


@pytest.mark.parametrize(
    "address",
    [
        "redis://resegment:can/ary@host:6379/0",
        "redis://resegment:123/canary@host:6379/0",
        "redis://resegment:123#canary@host",
        "redis://resegment:123?canary@host",
        "redis://resegment:canary@host:canary/0",
        "redis://resegment:can[ary@host:1/0",
        "http://resegment:canary@host",
        "rediss://resegment:canary@host/0?ssl_ca_certs=/does/not/exist",
        "canary",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_the_password(address: str) -> None:
    """Also one whose password has characters that end it too early: no part of it is looked up as a host, or shown."""
    with pytest.raises(ValueError) as refused:
        connect(address)
    assert not any(part in str(refused.value) for part in ("canary", "can", "123", "resegment"))
