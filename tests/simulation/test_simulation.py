"""Schedules of faults against both stages: no change lost, doubled, out of order or wrong, whatever happens."""

import itertools
from collections.abc import Callable
from typing import cast

import orjson
import pytest

from segmentation.population import Member
from segmentation.segments import Segment, Stage
from state.documents import decode_account, decode_member, encode_account, encode_member
from state.keys import StageName, shard_keys
from streams.messages import Outgoing
from streams.partitions import partition_of
from streams.topics import Topic
from tests.simulation.oracle import all_records
from tests.simulation.schedule import PARTITIONS, Schedule, run, run_and_verify
from tests.simulation.worker import PREFIX

SCHEDULES = 1_000
CHUNK = 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_no_invariant_breaks(first: int) -> None:
    """Of 20,000 schedules, which `make simulate` runs, these are the first; some are verified in SQL as well."""
    outcomes = [run_and_verify(seed) for seed in range(first, first + CHUNK)]
    assert {outcome.seed: outcome.wrongs[:3] for outcome in outcomes if outcome.wrongs} == {}
    assert sum(outcome.faults.total() for outcome in outcomes) > 5 * CHUNK
    assert sum(outcome.changes for outcome in outcomes) > 10 * CHUNK


def test_a_seed_is_one_schedule() -> None:
    """Run again it is the same, step by step: a failure that was seen can be looked at."""
    for seed in range(20):
        first, second = run(seed), run(seed)
        assert first.trace == second.trace
        assert first == second
    assert len({run(seed).digest for seed in range(20)}) == 20


def wrong_revenue(schedule: Schedule, account_id: str) -> None:
    """A cent more than the log says."""
    key = shard_keys(PREFIX, StageName.ACCOUNTS, partition_of(account_id.encode(), PARTITIONS)).documents
    documents = cast(dict[bytes, bytes], schedule.redis.keyspace[key])
    account = decode_account(account_id, documents[account_id.encode()], None)
    account.revenue_minor += 1
    documents[account_id.encode()] = encode_account(account)


def _change_member(schedule: Schedule, account_id: str, change: Callable[[Member], None]) -> None:
    for number in range(PARTITIONS):
        key = shard_keys(PREFIX, StageName.RANKING, number).documents
        documents = cast(dict[bytes, bytes], schedule.redis.keyspace.get(key, {}))
        if account_id.encode() in documents:
            member, population = decode_member(account_id, documents[account_id.encode()])
            change(member)
            documents[account_id.encode()] = encode_member(member, population)


def wrong_segment(schedule: Schedule, account_id: str) -> None:
    """Another than was told."""

    def change(member: Member) -> None:
        member.segment = Segment.KEY if member.segment is not Segment.KEY else Segment.COMMERCIAL

    _change_member(schedule, account_id, change)


def wrong_stage(schedule: Schedule, account_id: str) -> None:
    """Another than the first purchase says."""

    def change(member: Member) -> None:
        member.stage = Stage.PROSPECT if member.stage != Stage.PROSPECT else Stage.NEW_START

    _change_member(schedule, account_id, change)


def forgotten_sequence(schedule: Schedule, account_id: str) -> None:
    """One change more in the log than the state knows."""

    def change(member: Member) -> None:
        member.sequence -= 1

    _change_member(schedule, account_id, change)


def _last_change(schedule: Schedule, account_id: str) -> tuple[int, Outgoing]:
    record = [r for r in all_records(schedule.log, Topic.SEGMENT_CHANGES) if r.key == account_id.encode()][-1]
    return record.partition, Outgoing([], record.key, record.value, list(record.headers), record.timestamp)


def told_again_differently(schedule: Schedule, account_id: str) -> None:
    """The last change once more, with other bytes."""
    partition, change = _last_change(schedule, account_id)
    schedule.log.append((Topic.SEGMENT_CHANGES, partition), [change._replace(headers=[*change.headers, ("n", b"1")])])


def another_compacted(schedule: Schedule, account_id: str) -> None:
    """The compacted topic's latest is not the last change."""
    partition, change = _last_change(schedule, account_id)
    value = (change.value or b"").replace(b'"sequence":', b'"sequence":9')
    schedule.log.append((Topic.SEGMENTS, partition), [change._replace(value=value)])


def skipped_sequence(schedule: Schedule, account_id: str) -> None:
    """A change whose predecessor is missing."""
    partition, change = _last_change(schedule, account_id)
    data = orjson.loads(change.value or b"")
    data["sequence"] += 2
    headers = [
        (name, f"{account_id}:{data['sequence']}".encode() if name == "ce_id" else v) for name, v in change.headers
    ]
    changed = change._replace(value=orjson.dumps(data), headers=headers)
    schedule.log.append((Topic.SEGMENT_CHANGES, partition), [changed])


def wrong_counts(schedule: Schedule, account_id: str) -> None:
    """A duplicate that nobody sent."""
    meta = cast(dict[bytes, bytes], schedule.redis.keyspace[shard_keys(PREFIX, StageName.ACCOUNTS, 0).meta])
    state = orjson.loads(meta[b"state"])
    state["counts"]["purchases"]["duplicates"] += 1
    meta[b"state"] = orjson.dumps(state)


def _with_a_whole_log() -> Schedule:
    """A schedule that is over: of what retention took the SQL can say nothing, and after a rebuild it counts amiss."""
    for seed in itertools.count():
        schedule = Schedule(seed)
        outcome = schedule.run()
        assert outcome.wrongs == []
        if not outcome.faults["cut"] and not outcome.faults["empty"] and outcome.changes > 10:
            return schedule
    raise AssertionError("no such seed")


@pytest.mark.parametrize(
    "spoil",
    [
        wrong_revenue,
        wrong_segment,
        wrong_stage,
        forgotten_sequence,
        told_again_differently,
        another_compacted,
        skipped_sequence,
        wrong_counts,
    ],
)
def test_both_oracles_see_what_is_wrong(spoil: Callable[[Schedule, str], None]) -> None:
    """The one in Python, which every schedule is checked by, and the one in SQL, by the same names."""
    schedule = _with_a_whole_log()
    assert schedule.check() == schedule.verify() == []
    account_id = (next(all_records(schedule.log, Topic.SEGMENT_CHANGES)).key or b"").decode()
    spoil(schedule, account_id)
    ours = {wrong.split(":")[0] for wrong in schedule.check()}
    theirs = {wrong.split(":")[1].strip() for wrong in schedule.verify()}
    assert ours
    assert ours <= theirs
