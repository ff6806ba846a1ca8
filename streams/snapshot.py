"""Reading the state of an installation without claiming anything: what it holds, whether it is at rest."""

from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from segmentation.account import Account, Profile
from segmentation.classification import Traits
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.population import Member
from segmentation.worklist import WORKLISTS
from state.documents import decode_account, decode_member, decode_profile, decode_traits
from state.founding import Founding, require_founding
from state.keys import StageName
from state.shard_store import Claim, NoSuchShard, ShardStore
from streams.settings import Settings
from streams.topics import Topic
from streams.worklists import Classes, read_classes

PASSES_MAX = 6
"""How often shards that changed while they were read are read again."""

_NO_COUNTS: dict[str, int] = {"applied": 0, "duplicates": 0, "dead_letters": 0}


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
    profiles: dict[str, Profile] = field(default_factory=dict)
    """By account id, of those that have one."""

    def counts(self, topic: Topic) -> dict[str, int]:
        """Records of an input that were `applied`, `duplicates` and `dead_letters`."""
        return {**_NO_COUNTS, **self.state.get("counts", {}).get(topic, {})}


@dataclass
class RankingShardState(ShardState):
    """One shard of the ranking stage."""

    populations: dict[str, dict[str, Member]] = field(default_factory=dict)
    """Population -> its members by account id."""
    traits: dict[str, Traits] = field(default_factory=dict)
    """By account id, of those that have any."""
    classes: Classes = field(default_factory=lambda: Classes({}, {}))
    """What the classes add up to, and where the tiers begin."""
    worklists: dict[str, list[str]] = field(default_factory=dict)
    """The entries of each worklist, and of the owners'."""

    @property
    def unplaced(self) -> int:
        """Accounts that are not in their places on the worklists yet."""
        return int(self.state.get("unplaced", 0))

    @property
    def begin(self) -> int:
        """The offset of its one input from which this state counts."""
        return int(self.state.get("begin", 0))

    def counts(self) -> dict[str, int]:
        """Records of its one input, from `begin`, that were `applied`, `duplicates` and `dead_letters`."""
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
    founding = await require_founding(redis, settings.redis_prefix)
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
        shard.profiles = {account_id: decode_profile(document) async for account_id, document in store.scan("profiles")}
        return
    shard.populations = {}
    async for account_id, document in store.scan("documents"):
        member, population = decode_member(account_id, document)
        shard.populations.setdefault(population, {})[account_id] = member
    shard.traits = {account_id: decode_traits(document) async for account_id, document in store.scan("traits")}
    shard.classes = await read_classes(store)
    shard.worklists = {name: await store.entries(name) for name in WORKLISTS}
