"""A real Valkey for the tests of the state, and the rule that nothing may be written outside the prefix."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from state.client import connect
from state.keys import StageName
from state.shard_store import ShardStore

PREFIX = "test"


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """An empty Valkey. Fails the test that leaves keys outside its prefix."""
    client = connect(valkey_url)
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
