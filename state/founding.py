"""What an installation was founded with, and how its empty shards come to be.

A store that holds nothing is new only where the world was told nothing yet; otherwise it lost what it held. So an
installation is founded once: every shard is created, then the founding document is written. Whatever is missing later
was lost.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from state.keys import StageName, founding_key
from state.shard_store import SCHEMA_VERSION, ShardStore


class AppliedPolicy(NamedTuple):
    """A policy that took another one's place while the accounts went on."""

    number: int
    """1, 2, 3, ...; the one that the installation was founded with is 0."""
    policy: str
    """The canonical policy."""
    policy_hash: str
    is_silent: bool
    """Whether the changes that it makes are told as what nobody is to act upon."""
    risk_hash: str = ""
    """Of the risk rules applied with it. Wherever these come from in the end, what they change is its doing."""


class Founding(NamedTuple):
    """What must not change under the state, but for the policy, by the log; and the rules that decide no segment."""

    schema_version: int
    policy: str
    """The canonical policy: the one that was applied last."""
    policy_hash: str
    partitions: int
    rest: str | None = None
    """`Policy.canonical_rest` of the worker that began last with another one; None: none has yet."""
    risk_hash: str | None = None
    classification_hash: str | None = None
    """Of the same policy: shards that still have others are on their way to these."""
    applied: AppliedPolicy | None = None
    """The policy that was applied last; None: the installation goes by the one that it was founded with."""
    first_policy: str = ""
    """The canonical policy that it was founded with, where another one was applied since."""
    rests_before: Mapping[int, str] = MappingProxyType({})
    """Number of a policy that was applied -> `rest` until then: for the shards that do not go by it yet."""

    @property
    def number(self) -> int:
        """Of the policy that was applied last."""
        return self.applied.number if self.applied else 0


class NoInstallation(Exception):
    """The store holds nothing under this prefix: start a worker, or look at RESEGMENT_REDIS_URL and _PREFIX."""


async def require_founding(redis: Redis, prefix: str) -> Founding:
    """The founding document. Raises NoInstallation, RedisError."""
    founding = await read_founding(redis, prefix)
    if founding is None:
        raise NoInstallation(f"the store holds no installation under {prefix!r}")
    return founding


async def read_founding(redis: Redis, prefix: str) -> Founding | None:
    """The founding document; None where there is none."""
    found = await redis.hgetall(founding_key(prefix))
    return _founding(found) if b"schema_version" in found else None


async def agreed_beginning(redis: Redis, prefix: str, plan: bytes) -> bytes:
    """What an installation begins with: the plan of who came first, of two at once, or of one that was tried before.

    Shards that were made by two plans would wait for each other for ever.
    """
    key = founding_key(prefix)
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hsetnx(key, "beginning", plan)
        pipeline.hmget(key, ["beginning"])
        _, [agreed] = await pipeline.execute()
    return bytes(agreed)


async def is_partly_lost(redis: Redis, prefix: str, partitions: int) -> bool:
    """Whether shards are there, and what they were founded with is not: a node of a cluster may lose its data alone.

    To found the installation again would join shards of two beginnings. Two round trips a partition.
    """
    stores = [ShardStore(redis, prefix, stage, number) for stage in StageName for number in range(partitions)]
    held = [await store.peek() for store in stores]
    # in this order: another worker, which founds it meanwhile, agrees on the plan before it makes a shard
    [plan] = await redis.hmget(founding_key(prefix), ["beginning"])
    return plan is None and any(claim is not None for claim in held)


class Beginning(NamedTuple):
    """What a new shard holds: where it reads on, and its stage's own small state."""

    progress: Mapping[str, int]
    state: Mapping[str, Any]


_FROM_THE_START = Beginning({}, {})


async def found(
    redis: Redis,
    prefix: str,
    policy: str,
    policy_hash: str,
    partitions: int,
    beginnings: Mapping[tuple[StageName, int], Beginning] = MappingProxyType({}),
) -> Founding:
    """Create every shard that is not there, then the founding document where there is none.

    beginnings: of (stage, partition); a shard without one reads the log from its start.
    Safe to repeat, and for two at once: returns the document that is there now, which may be another's.
    """
    for stage in StageName:
        for partition in range(partitions):
            beginning = beginnings.get((stage, partition), _FROM_THE_START)
            await ShardStore(redis, prefix, stage, partition).create(*beginning)
    key, document = founding_key(prefix), Founding(SCHEMA_VERSION, policy, policy_hash, partitions)
    async with redis.pipeline(transaction=True) as pipeline:
        for field in ("schema_version", "policy", "policy_hash", "partitions"):
            pipeline.hsetnx(key, field, getattr(document, field))
        pipeline.hgetall(key)
        *_, found = await pipeline.execute()
    return _founding(found)


async def note_rest(redis: Redis, prefix: str, rest: str, risk_hash: str, classification_hash: str) -> None:
    """Say by which of the rules that decide no segment the shards work from now on: see `Founding`."""
    fields = {"rest": rest, "risk_hash": risk_hash, "classification_hash": classification_hash}
    await redis.hset(founding_key(prefix), mapping=fields)  # type: ignore[arg-type]


async def note_applied(
    redis: Redis, prefix: str, applied: AppliedPolicy, rest_before: str | None = None
) -> Founding | None:
    """Say that a policy is applied, unless another one has its number: of two at once one is first.

    rest_before: `Founding.rest` until then. Returns the document that is there now; None where there is none.
    """
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hsetnx(founding_key(prefix), f"{_APPLIED}{applied.number}", orjson.dumps([*applied, rest_before]))
        pipeline.hgetall(founding_key(prefix))
        _, found = await pipeline.execute()
    return _founding(found) if b"schema_version" in found else None


_APPLIED = "applied:"
"""Before the number: the fields of the policies that were applied."""


def _founding(found: Mapping[Any, Any]) -> Founding:
    text = {field.decode(): value.decode() for field, value in found.items()}
    noted = [orjson.loads(value) for field, value in text.items() if field.startswith(_APPLIED)]
    applied = max((AppliedPolicy(*policy) for *policy, _ in noted), default=None)
    return Founding(
        int(text["schema_version"]),
        applied.policy if applied else text["policy"],
        applied.policy_hash if applied else text["policy_hash"],
        int(text["partitions"]),
        text.get("rest"),
        text.get("risk_hash"),
        text.get("classification_hash"),
        applied,
        text["policy"] if applied else "",
        {number: rest for number, *_, rest in noted if rest is not None},
    )
