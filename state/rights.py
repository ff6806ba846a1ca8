"""Whether the store lets this user do all that a worker does.

Asked before a worker begins: a script that may not carry out one of its commands ends there, and Redis does not take
back what it has written before. (`commit` and `trim` therefore ask, too, each time, before they write: rights may change
under a worker.)
"""

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
    shards = [shard_keys(prefix, stage, 0) for stage in StageName]
    try:
        found = [await script(keys=list(keys), args=SHARD_COMMANDS) for keys in shards]
        found.append(await script(keys=[founding_key(prefix)], args=FOUNDING_COMMANDS))
    except NoPermissionError as error:
        # of the script itself: EVALSHA, SCRIPT LOAD, or no right to the keys at all
        return [f"{error} (with keys like {shards[0].meta})"]
    return [missing.decode() for listed in found for missing in listed]
