"""A real Valkey for the tests of the state, and the rule that nothing may be written outside the prefix.

Every test runs against a cluster of three as well, and against the simulated store: what the simulation shows is worth
as much as the two are alike.
"""

from collections.abc import AsyncIterator
from typing import cast

import pytest
from redis.asyncio import Redis

from state.client import connect
from state.keys import StageName
from state.shard_store import ShardStore
from tests.simulation.store import SimulatedRedis
from tests.state.keyspace import all_keys, empty

PREFIX = "test"


@pytest.fixture(params=["valkey", "cluster", "simulated"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """An empty store. Fails the test that leaves keys outside its prefix."""
    if request.param == "simulated":
        client = cast(Redis, SimulatedRedis())
    elif request.param == "cluster":
        client = connect(request.getfixturevalue("cluster").url)
    else:
        client = connect(request.getfixturevalue("valkey_url"))
    await empty(client)
    yield client
    keys = await all_keys(client)
    await empty(client)
    await client.aclose()
    leaked = [key for key in keys if not key.startswith((b"{%s:" % PREFIX.encode(), b"{%s}:" % PREFIX.encode()))]
    assert not leaked, f"keys outside the prefix: {leaked}"


@pytest.fixture
async def store(redis: Redis) -> ShardStore:
    """A shard that exists and is not claimed."""
    shard = ShardStore(redis, PREFIX, StageName.ACCOUNTS, 3)
    await shard.create()
    return shard
