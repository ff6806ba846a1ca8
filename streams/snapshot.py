"""Reading the state of an installation without claiming anything: what it holds, whether it is at rest."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from redis.asyncio import Redis

from segmentation.account import Account
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.population import Member
from state.documents import decode_account, decode_member
from state.founding import Founding, read_founding
from state.keys import StageName, shard_keys
from state.shard_store import Claim, NoSuchShard, ShardStore
from streams.log import LogReader
from streams.messages import Reached
from streams.settings import Settings
from streams.topics import ACCOUNT_INPUTS, Topic

PASSES_MAX = 6
"""How often shards that changed while they were read are read again."""

_NO_COUNTS: dict[str, int] = {"applied": 0, "duplicates": 0, "dead_letters": 0}

Ends = Mapping[tuple[Topic, int], int]
"""(Input topic, partition) -> its end offset."""


class NoInstallation(Exception):
    """The store holds nothing under this prefix: start a worker, or look at RESEGMENT_REDIS_URL and _PREFIX."""


class StillChanging(Exception):
    """Events came faster than the state could be read: try again when there are fewer, or stop the senders."""


@dataclass
class ShardState:
    """One shard, as one moment saw it."""

    partition: int
    progress: dict[str, int] = field(default_factory=dict)
    """Next offset of each input topic; a topic without one has not been read."""
    state: dict[str, Any] = field(default_factory=dict)
    """The stage's own small state, as stored."""

    @property
    def clock_us(self) -> int:
        """The instant that the shard's clock shows; 0 before the first tick."""
        return int(self.state.get("clock_us", 0))

    @property
    def day(self) -> int:
        """The day that the shard's clock shows; 0 before the first tick."""
        return self.clock_us // MICROSECONDS_PER_DAY


@dataclass
class AccountShardState(ShardState):
    """One shard of the account stage."""

    accounts: dict[str, Account] = field(default_factory=dict)
    """By account id. Of the history only the open block is there."""

    def counts(self, topic: Topic) -> dict[str, int]:
        """Records of an input that were `applied`, `duplicates` and `dead_letters`."""
        return {**_NO_COUNTS, **self.state.get("counts", {}).get(topic, {})}


@dataclass
class RankingShardState(ShardState):
    """One shard of the ranking stage."""

    populations: dict[str, dict[str, Member]] = field(default_factory=dict)
    """Population -> its members by account id."""

    def counts(self) -> dict[str, int]:
        """Records of its one input that were `applied`, `duplicates` and `dead_letters`."""
        return {**_NO_COUNTS, **self.state.get("counts", {})}


@dataclass
class Snapshot:
    """The state of an installation: each shard whole, and all of one moment if nothing was under way."""

    founding: Founding
    account_shards: list[AccountShardState]
    ranking_shards: list[RankingShardState]

    @property
    def as_of_us(self) -> int:
        """The latest instant that a shard's clock shows; 0 before the first tick."""
        return max((shard.clock_us for shard in self.account_shards), default=0)

    @property
    def day(self) -> int:
        """The day of `as_of_us`."""
        return self.as_of_us // MICROSECONDS_PER_DAY

    def members(self) -> dict[str, tuple[Member, str]]:
        """Every member with its population, by account id. O(n)."""
        return {
            account_id: (member, population)
            for shard in self.ranking_shards
            for population, members in shard.populations.items()
            for account_id, member in members.items()
        }


# -- reading it all ----------------------------------------------------------------------------------------


async def read_snapshot(redis: Redis, settings: Settings) -> Snapshot:
    """Everything that the shards hold. A shard that changes meanwhile is read again; its clock may go on.

    O(n), about 10 us and 1 KB an account. Raises NoInstallation, NoSuchShard, StillChanging, RedisError.
    """
    founding = await read_founding(redis, settings.redis_prefix)
    if founding is None:
        raise NoInstallation(f"the store holds no installation under {settings.redis_prefix!r}")
    stores = _stores(redis, settings, founding.partitions)
    account_shards = [AccountShardState(number) for number in range(founding.partitions)]
    ranking_shards = [RankingShardState(number) for number in range(founding.partitions)]
    shards: list[AccountShardState | RankingShardState] = [*account_shards, *ranking_shards]
    seen: list[object] = [None] * len(shards)
    for _ in range(PASSES_MAX):
        is_steady = True
        for number, (store, shard) in enumerate(zip(stores, shards, strict=True)):
            claim = await _peek(store)
            shard.progress, shard.state = claim.progress, claim.state
            signature = _signature(claim)
            if signature != seen[number]:
                is_steady, seen[number] = False, signature
                await _read_documents(store, shard)
        if is_steady:
            return Snapshot(founding, account_shards, ranking_shards)
    raise StillChanging(f"the state changed again while it was read, {PASSES_MAX} times")


async def has_moved(redis: Redis, settings: Settings, snapshot: Snapshot) -> bool:
    """Whether a shard has changed since the snapshot was read; clocks do not count. One round trip a shard."""
    stores = _stores(redis, settings, snapshot.founding.partitions)
    shards: list[ShardState] = [*snapshot.account_shards, *snapshot.ranking_shards]
    for store, shard in zip(stores, shards, strict=True):
        if _signature(await _peek(store)) != _signature(Claim(shard.progress, shard.state, {})):
            return True
    return False


def _stores(redis: Redis, settings: Settings, partitions: int) -> list[ShardStore]:
    return [
        ShardStore(redis, settings.redis_prefix, stage, number)
        for stage in (StageName.ACCOUNTS, StageName.RANKING)
        for number in range(partitions)
    ]


async def _peek(store: ShardStore) -> Claim:
    claim = await store.peek()
    if claim is None:
        raise NoSuchShard(f"{store.stage} shard {store.partition}: nothing at {store.keys.meta}")
    return claim


def _signature(claim: Claim) -> object:
    """Differs whenever documents may. Ticks leave them alone until they bring another day."""
    progress = {topic: offset for topic, offset in claim.progress.items() if topic != Topic.TICKS}
    day = claim.state.get("clock_us", 0) // MICROSECONDS_PER_DAY
    return progress, day, claim.state.get("cursor"), claim.state.get("muted_until")


async def _read_documents(store: ShardStore, shard: AccountShardState | RankingShardState) -> None:
    if isinstance(shard, AccountShardState):
        shard.accounts = {
            account_id: decode_account(account_id, document, None)
            async for account_id, document in store.scan("documents")
        }
        return
    shard.populations = {}
    async for account_id, document in store.scan("documents"):
        member, population = decode_member(account_id, document)
        shard.populations.setdefault(population, {})[account_id] = member


# -- at rest -----------------------------------------------------------------------------------------------


async def at_rest(redis: Redis, reader: LogReader | None, settings: Settings, *, ends: Ends | None = None) -> bool:
    """Whether all that is in the inputs has had all its effects, and they are published.

    Give `ends`, the end offsets of all four inputs in every partition, where they are known: then this is one
    round trip to Redis and none to the broker, and `reader` may be None. What is not in `ends` counts as empty.
    Raises NoInstallation, RedisError, KafkaError.
    """
    return await unrest(redis, reader, settings, ends=ends) is None


async def wait_at_rest(
    redis: Redis,
    reader: LogReader | None,
    settings: Settings,
    *,
    timeout_seconds: float,
    ends: Ends | None = None,
    poll_seconds: float = 0.02,
) -> None:
    """Return once the installation is at rest. Raises what `at_rest` raises, and TimeoutError, saying why."""
    until = asyncio.get_running_loop().time() + timeout_seconds
    while (reason := await unrest(redis, reader, settings, ends=ends)) is not None:
        if asyncio.get_running_loop().time() >= until:
            raise TimeoutError(f"not at rest after {timeout_seconds:g} s: {reason}")
        await asyncio.sleep(poll_seconds)


async def unrest(redis: Redis, reader: LogReader | None, settings: Settings, *, ends: Ends | None = None) -> str | None:
    """What keeps the installation from being at rest; None where it is. Otherwise as `at_rest`."""
    firsts: Ends = {}
    if ends is None:
        assert reader is not None, "without the ends of the inputs somebody must ask the broker for them"
        founding = await read_founding(redis, settings.redis_prefix)
        if founding is None:
            raise NoInstallation(f"the store holds no installation under {settings.redis_prefix!r}")
        partitions = founding.partitions
        bounds = await reader.bounds([(topic, number) for topic in ACCOUNT_INPUTS for number in range(partitions)])
        ends = {key: bound.end for key, bound in bounds.items()}
        firsts = {key: bound.first for key, bound in bounds.items()}
    else:
        partitions = 1 + max((partition for _, partition in ends), default=-1)
    shards = await _read_rest(redis, settings, partitions)
    if isinstance(shards, str):
        return shards
    accounts, rankings = shards
    taken: dict[str, list[Any]] = {}
    for number, shard in enumerate(rankings):
        if shard.waiting:
            return f"ranking shard {number} has {shard.waiting} records to publish"
        if shard.state.get("muted_until"):
            return f"ranking shard {number} reads on silently, up to where it was before its state was lost"
        for source, reached in shard.state.get("sources", {}).items():
            taken.setdefault(source, []).append(reached)
    for number, shard in enumerate(accounts):
        for topic in ACCOUNT_INPUTS:
            end = ends.get((topic, number), 0)
            reached = shard.progress.get(topic, firsts.get((topic, number), 0))
            if reached < end:
                return f"account shard {number} has applied {topic} up to {reached} of {end}"
        if shard.first_due is not None and shard.first_due <= shard.day:
            return f"account shard {number} has accounts that are due since day {shard.first_due}"
        if shard.waiting:
            return f"account shard {number} has {shard.waiting} records to publish"
        sent = shard.state.get("sent")
        # not: equal, as after the store went back in time the ranking stage may know more than was sent again
        if sent is not None and all(
            Reached.of(sent).is_ahead_of(Reached.of(reached)) for reached in taken.get(str(number), ())
        ):
            return f"the newest standings of account shard {number} have not been taken"
    return None


@dataclass
class _Rest:
    """Of a shard, what tells whether it is at rest."""

    progress: dict[str, int]
    state: dict[str, Any]
    waiting: int
    first_due: int | None

    @property
    def day(self) -> int:
        return int(self.state.get("clock_us", 0)) // MICROSECONDS_PER_DAY


async def _read_rest(redis: Redis, settings: Settings, partitions: int) -> tuple[list[_Rest], list[_Rest]] | str:
    """All account and all ranking shards, at one moment: else something could slip from one to the other."""
    stages = [(stage, number) for stage in StageName for number in range(partitions)]
    async with redis.pipeline(transaction=True) as pipeline:
        for stage, number in stages:
            keys = shard_keys(settings.redis_prefix, stage, number)
            pipeline.hmget(keys.meta, ["progress", "state"])
            pipeline.llen(keys.outbox)
            pipeline.zrange(keys.due, 0, 0, withscores=True)
        answers = await pipeline.execute()
    shards: dict[StageName, list[_Rest]] = {stage: [] for stage in StageName}
    for (stage, number), at in zip(stages, range(0, len(answers), 3), strict=True):
        (progress, state), waiting, due = answers[at : at + 3]
        if progress is None:
            return f"{stage} shard {number} is not there (yet)"
        shards[stage].append(
            _Rest(
                orjson.loads(progress),
                orjson.loads(state) if state else {},
                cast(int, waiting),
                int(due[0][1]) if due else None,
            )
        )
    return shards[StageName.ACCOUNTS], shards[StageName.RANKING]
