"""All that a store holds, to compare it with what it held before, or to take it back there."""

from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis

from state.cluster import ClusterRedis

Keyspace = dict[Any, Any]
"""Key -> what DUMP says of it."""


async def keyspace(redis: Redis) -> Keyspace:
    """Everything in the store, byte for byte."""
    return {key: await redis.dump(key) for key in sorted(await all_keys(redis))}


async def all_keys(redis: Redis) -> list[Any]:
    """The names of all keys, of a cluster on every node."""
    return [key for node in await _nodes(redis) for key in await node.keys()]


async def empty(redis: Redis) -> None:
    """Drop everything, of a cluster on every node."""
    for node in await _nodes(redis):
        await node.flushdb()


async def _nodes(redis: Redis) -> Iterable[Redis]:
    return (await redis.masters()).values() if isinstance(redis, ClusterRedis) else [redis]


async def take_back(redis: Redis, held: Keyspace) -> None:
    """The store forgets what was written since, as a replica does that was behind when it took over."""
    await empty(redis)
    for key, dump in held.items():
        await redis.restore(key, 0, dump)
