"""The load of roles and owners, read from the store and the log: what `resegment capacity` says."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from redis.asyncio import Redis

from segmentation.account import Profile
from segmentation.capacity import Capacity, Move, capacity
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.policy import Policy
from segmentation.population import Member
from segmentation.segments import Segment
from state.documents import decode_profile
from state.keys import StageName
from state.shard_store import ShardStore
from streams.changes import ChangeData
from streams.instants import parse_instant
from streams.log import LogReader
from streams.settings import Settings
from streams.snapshot import Snapshot, read_snapshot
from streams.topics import Topic

PERIOD_DAYS = 30
"""Whose moves are looked at."""
OWNER = "attributes.owner"


class CapacityNow(NamedTuple):
    """The load as the state has it."""

    as_of_us: int
    """The latest clock of a shard; 0 before the first tick."""
    since_us: int
    """Moves that took effect after this instant are counted."""
    capacity: Capacity
    incomplete: int
    """Accounts of whose moves in the period not all are in the log: published a moment later, or no longer kept."""


class DifferentPolicy(Exception):
    """The state was made with other rules; the message says what differs."""


async def read_capacity(settings: Settings, policy: Policy, redis: Redis, reader: LogReader) -> CapacityNow:
    """Read it all. Accounts count with the segment that was announced; before the first tick there are none.

    O(accounts + changes in the log), about 1 KB an account. Raises DifferentPolicy, NoInstallation, NoSuchShard,
    StillChanging, RedisError, KafkaError.
    """
    # In this order: what is announced while the log is read is not part of the state that was read before.
    snapshot = await read_snapshot(redis, settings)
    if snapshot.founding.policy_hash != policy.hash:
        differences = "; ".join(policy.differences(snapshot.founding.policy))
        raise DifferentPolicy(f"the state was made with another policy (state -> this one): {differences}")
    owners = await _owners(redis, settings, snapshot)
    members = {account_id: member for account_id, (member, _) in snapshot.members().items()}
    since_us = snapshot.as_of_us - PERIOD_DAYS * MICROSECONDS_PER_DAY
    moves, incomplete = await _moves(reader, members, since_us)
    accounts = [
        (member.segment, owners.get(account_id)) for account_id, member in members.items() if member.segment is not None
    ]
    return CapacityNow(snapshot.as_of_us, since_us, capacity(policy, accounts, moves), incomplete)


async def _owners(redis: Redis, settings: Settings, snapshot: Snapshot) -> dict[str, str]:
    """Account -> its owner, of those that have one."""
    owners = {}
    for shard in snapshot.account_shards:
        store = ShardStore(redis, settings.redis_prefix, StageName.ACCOUNTS, shard.partition)
        async for account_id, document in store.scan("profiles"):
            owner = owner_of(decode_profile(document))
            if owner is not None:
                owners[account_id] = owner
    return owners


def owner_of(profile: Profile) -> str | None:
    """Who an account says it belongs to; None where it says nothing, or nothing but blanks."""
    value, _ = profile.fields.get(OWNER, ("", 0))
    return str(value).strip() or None


async def _moves(reader: LogReader, members: Mapping[str, Member], since_us: int) -> tuple[Counter[Move], int]:
    """How often each move of the period happened that these members know of, and of how many some are missing."""
    await reader.refresh()
    partitions = range(reader.partition_count(Topic.SEGMENT_CHANGES))
    moves: Counter[Move] = Counter()
    seen: dict[str, int] = {}
    incomplete: set[str] = set()
    async for _, record in reader.read({(Topic.SEGMENT_CHANGES, number): 0 for number in partitions}):
        try:
            change = ChangeData.model_validate_json(record.value or b"")
            previous = None if change.previous_segment is None else Segment(change.previous_segment)
            move = Move(previous, Segment(change.current_segment))
            is_in_period = parse_instant(change.effective_at) > since_us
        except ValueError:
            continue  # a stranger's: the topic may be written by others
        member = members.get(change.account_id)
        before = seen.get(change.account_id, 0)
        if member is None or not before < change.sequence <= member.sequence:
            continue  # a repetition, or newer than the state that was read
        if is_in_period:
            moves[move] += 1
            if change.sequence != before + 1:
                incomplete.add(change.account_id)
        seen[change.account_id] = change.sequence
    incomplete.update(
        account_id
        for account_id, member in members.items()
        if member.effective_at_us > since_us and seen.get(account_id, 0) < member.sequence
    )
    return moves, len(incomplete)
