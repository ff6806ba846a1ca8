"""A real Valkey for the tests of the state, and the rule that nothing may be written outside the prefix.

Every test runs against the simulated store as well: what the simulation shows is worth as much as the two are alike.
"""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from state.client import connect
from state.keys import StageName
from state.shard_store import ShardStore
from tests.simulation.store import SimulatedRedis

PREFIX = "test"


@pytest.fixture(params=["valkey", "simulated"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """An empty store. Fails the test that leaves keys outside its prefix."""
    if request.param == "simulated":
        client = cast(Redis, SimulatedRedis())
    else:
        client = connect(request.getfixturevalue("valkey_url"))
    await client.flushdb()
    yield client
    keys: list[Any] = await client.keys()
    await client.flushdb()
    await client.aclose()
    leaked = [key for key in keys if not key.startswith((b"{%s:" % PREFIX.encode(), b"{%s}:" % PREFIX.encode()))]
    assert not leaked, f"keys outside the prefix: {leaked}"


@pytest.fixture
async def store(redis: Redis) -> ShardStore:
    """A shard that exists and is not claimed."""
    shard = ShardStore(redis, PREFIX, StageName.ACCOUNTS, 3)
    await shard.create()
    return shard
