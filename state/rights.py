"""Whether the store lets this user do all that a worker does.

Asked before a worker begins: a script that may not carry out one of its commands ends there, and Redis does not take
back what it has written before. (`commit` and `trim` therefore ask, too, each time before they write: rights may change
under a worker.)
"""

from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from state.keys import StageName, founding_key, shard_keys

SHARD_COMMANDS = (
    *("EXISTS", "HDEL", "HMGET", "HSCAN", "HSET", "HSETNX", "LLEN", "LRANGE", "LTRIM", "RPUSH", "ZADD", "ZRANGE"),
    *("ZREM", "MULTI", "EXEC"),
)
"""On each key of a shard. A little more than is done to each: who may write a hash may as well write all."""
FOUNDING_COMMANDS = ("HGETALL", "HSETNX")


async def missing_rights(redis: Redis, prefix: str) -> list[str]:
    """What this user may not do though a worker does it, in words; empty: nothing is missing. Raises RedisError."""
    script = redis.register_script((Path(__file__).parent / "rights.lua").read_text())
    asked: list[tuple[Sequence[str], Sequence[str]]] = [
        *((shard_keys(prefix, stage, 0), SHARD_COMMANDS) for stage in StageName),
        ([founding_key(prefix)], FOUNDING_COMMANDS),
    ]
    missing = []
    for keys, commands in asked:
        try:
            missing += [f"{command.decode()} on {keys[0]}" for command in await script(keys=[*keys], args=[*commands])]
        except NoPermissionError as error:
            # of the script itself: EVALSHA, SCRIPT LOAD, or the keys
            missing.append(f"{error} (asked about {keys[0]})")
    return missing
