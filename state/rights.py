"""Whether the store lets this user do all that a worker does.

Asked before a worker begins: a script that may not carry out one of its commands ends there, and Redis does not take
back what it has written before. (`commit` and `trim` therefore ask, too, each time before they write: rights may change
under a worker.)
"""

from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoPermissionError

from state.cluster import ClusterRedis
from state.keys import StageName, founding_key, shard_keys

SHARD_COMMANDS = (
    *(
        "EXISTS",
        "HDEL",
        "HLEN",
        "HMGET",
        "HSCAN",
        "HSET",
        "HSETNX",
        "LLEN",
        "LRANGE",
        "LTRIM",
        "RPUSH",
        "ZADD",
        "ZRANGE",
    ),
    *("ZREM", "MULTI", "EXEC"),
)
"""On each key of a shard. A little more than is done to each: who may write a hash may as well write all."""
FOUNDING_COMMANDS = ("HGETALL", "HSET", "HSETNX")

CLUSTER_COMMANDS = ("ASKING",)
"""Of a client of a cluster: what is done to a key that is on its way to another node."""


async def missing_rights(redis: Redis, prefix: str, partitions: int = 1) -> list[str]:
    """What this user may not do though a worker does it, in words; empty: nothing is missing. Raises RedisError.

    It is asked about each shard, as each node of a cluster has users of its own, but once something is missing about
    no more of this stage. A round trip a shard.
    """
    script = redis.register_script((Path(__file__).parent / "rights.lua").read_text())
    commands = SHARD_COMMANDS + (CLUSTER_COMMANDS if isinstance(redis, ClusterRedis) else ())
    missing: list[str] = []
    for stage in StageName:
        for number in range(partitions):
            if found := await _missing(script, shard_keys(prefix, stage, number), commands):
                missing += found
                break
    return missing + await _missing(script, [founding_key(prefix)], FOUNDING_COMMANDS)


async def _missing(script: AsyncScript, keys: Sequence[str], commands: Sequence[str]) -> list[str]:
    try:
        return [f"{command.decode()} on {keys[0]}" for command in await script(keys=[*keys], args=[*commands])]
    except NoPermissionError as error:
        # of the script itself: EVALSHA, SCRIPT LOAD, or the keys
        return [f"{error} (asked about {keys[0]})"]
