"""All that a store holds, to compare it with what it held before, or to take it back there."""

from typing import Any

from redis.asyncio import Redis

Keyspace = dict[Any, Any]
"""Key -> what DUMP says of it."""


async def keyspace(redis: Redis) -> Keyspace:
    """Everything in the store, byte for byte."""
    return {key: await redis.dump(key) for key in sorted(await redis.keys())}


async def take_back(redis: Redis, held: Keyspace) -> None:
    """The store forgets what was written since, as a replica does that was behind when it took over."""
    await redis.flushdb()
    for key, dump in held.items():
        await redis.restore(key, 0, dump)
