"""The oracle finds nothing wrong where nothing is, and each of its invariants finds the damage that it is there for."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson
import pytest
from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis

from segmentation.account import Account
from segmentation.classification import Traits
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.money import Converter
from segmentation.population import Member
from segmentation.risk import Level, Risk
from segmentation.segments import Segment
from state.documents import decode_account, decode_member, encode_account, encode_member, encode_traits
from state.founding import Founding, NoInstallation
from state.keys import ShardKeys, StageName, shard_keys
from state.shard_store import ShardStore
from streams.changes import INPUT_OFFSET
from streams.embedded import Embedded
from streams.instants import format_instant, parse_instant
from streams.log import LogReader
from streams.messages import Outgoing, encode_outgoing, json_bytes
from streams.oracle import CannotVerify, Report, verify
from streams.oracle.database import Database, EventRecord
from streams.oracle.invariants import INVARIANTS
from streams.rest import unrest
from streams.settings import Settings
from streams.shard import LogPosition
from streams.snapshot import AccountShardState, Snapshot
from streams.topics import EVENT_TOPICS, TOLD_TOPICS, Topic
from tests.streams.bad_records import BAD_RECORDS
from tests.streams.installation import (
    GROWN,
    PARTITIONS,
    PHASE_DAYS,
    RULES,
    Installed,
    connections,
    installed,
    policy_for,
    story,
)

ACCOUNT = GROWN
"""It has all that can be damaged: revenue in the window, a tier, several changes."""


@pytest.fixture(params=RULES, ids=lambda rules: f"band {rules[0]} by {rules[1]}")
def installation(request: pytest.FixtureRequest, embedded: Embedded) -> Installed:
    """One under each of the rules."""
    return installed(embedded)[request.param]


@pytest.fixture
def pure(embedded: Embedded) -> Installed:
    """The installation with a band of 0, by revenue."""
    return installed(embedded)[0, "revenue"]


# -- nothing is wrong --------------------------------------------------------------------------------------


async def test_an_installation_is_what_its_log_says(installation: Installed) -> None:
    """Late, future-dated, duplicate, foreign and bad records later, the oracle agrees with every account."""
    async with connections(installation.settings) as (redis, reader):
        report = await verify(*installation, redis, reader)
        segments = {member.segment async for _, member in _members(redis, installation.settings)}
    assert report.mismatches == []
    assert report.warnings == []
    assert report.is_right
    assert report.events == sum(len(records) for _, records in story(7))
    assert report.dead_letters == len(BAD_RECORDS)
    assert report.applied + report.duplicates + report.dead_letters == report.events
    assert report.duplicates >= 20 * len(PHASE_DAYS) - len(BAD_RECORDS)
    assert report.changes > report.accounts > 50
    assert segments == set(Segment)


async def test_a_report_ends_in_one_line_for_programs(pure: Installed) -> None:
    """The line has the fields that other programs read, in their order."""
    async with connections(pure.settings) as (redis, reader):
        report = await verify(*pure, redis, reader)
    fields = dict(field.split("=") for field in report.line().split(" "))
    assert list(fields) == [
        "events", "applied", "duplicates", "dead_letters", "accounts", "changes", "mismatches", "seconds",
    ]  # fmt: skip
    assert fields["mismatches"] == "0"
    assert int(fields["events"]) == report.events


async def test_progress_is_told_up_to_the_end(pure: Installed) -> None:
    """Whoever waits hears how much of the log is read, up to all of it."""
    heard: list[tuple[int, int]] = []
    async with connections(pure.settings) as (redis, reader):
        await verify(*pure, redis, reader, progress=lambda read, total: heard.append((read, total)))
    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1] > 1_000


async def test_another_policy_is_refused(pure: Installed) -> None:
    """Against other rules everything would be wrong, so what differs is said instead."""
    other = pure.policy.with_changes(window_days=30)
    async with connections(pure.settings) as (redis, reader):
        with pytest.raises(CannotVerify, match="window_days: 365 -> 30"):
            await verify(pure.settings, other, redis, reader)


async def test_an_empty_store_is_no_installation(pure: Installed) -> None:
    """A wrong prefix is said at once, not after waiting for rest."""
    settings = pure.settings.model_copy(update={"redis_prefix": "nobody"})
    async with connections(settings) as (redis, reader):
        with pytest.raises(NoInstallation, match="'nobody'"):
            await verify(settings, pure.policy, redis, reader)


async def test_unrest_is_said(pure: Installed) -> None:
    """Where something is still under way, the report warns of it and says what."""
    async with damaged(pure) as (redis, reader):
        keys = shard_keys(pure.settings.redis_prefix, StageName.ACCOUNTS, 1)
        await redis.rpush(keys.outbox, encode_outgoing(Outgoing([], None, None, [], 0)))
        report = await verify(*pure, redis, reader, rest_timeout_seconds=0)
    assert len(report.warnings) == 1
    assert "account shard 1 has 1 records to publish" in report.warnings[0]
    assert report.is_right


# -- the state is damaged ----------------------------------------------------------------------------------


@asynccontextmanager
async def damaged(installation: Installed) -> AsyncIterator[tuple[Redis, LogReader]]:
    """Everything that is done to the store is undone at the end."""
    prefix = installation.settings.redis_prefix
    async with connections(installation.settings) as (redis, reader):
        keys = [key for stage in StageName for number in range(PARTITIONS) for key in shard_keys(prefix, stage, number)]
        before = {key: await redis.dump(key) for key in keys}
        try:
            yield redis, reader
        finally:
            await redis.unlink(*keys)
            for key, value in before.items():
                if value is not None:
                    await redis.restore(key, 0, value)


async def _find(redis: Redis, settings: Settings, stage: StageName) -> tuple[ShardKeys, bytes]:
    """The keys of the shard that holds ACCOUNT, and its document."""
    for number in range(PARTITIONS):
        store = ShardStore(redis, settings.redis_prefix, stage, number)
        (document,) = await store.load("documents", [ACCOUNT])
        if document is not None:
            return store.keys, document
    raise AssertionError(f"no {stage} shard holds {ACCOUNT}")


async def _members(redis: Redis, settings: Settings) -> AsyncIterator[tuple[str, Member]]:
    for number in range(PARTITIONS):
        store = ShardStore(redis, settings.redis_prefix, StageName.RANKING, number)
        async for account_id, document in store.scan("documents"):
            yield account_id, decode_member(account_id, document)[0]


Damage = Callable[[Redis, Settings], Awaitable[None]]


def account_damage(change: Callable[[Account], None]) -> Damage:
    """Damage that changes the account's document."""

    async def damage(redis: Redis, settings: Settings) -> None:
        keys, document = await _find(redis, settings, StageName.ACCOUNTS)
        account = decode_account(ACCOUNT, document, None)
        change(account)
        await redis.hset(keys.documents, ACCOUNT, encode_account(account))

    return damage


def member_damage(change: Callable[[Member], None]) -> Damage:
    """Damage that changes the member's document."""

    async def damage(redis: Redis, settings: Settings) -> None:
        keys, document = await _find(redis, settings, StageName.RANKING)
        member, population = decode_member(ACCOUNT, document)
        change(member)
        await redis.hset(keys.documents, ACCOUNT, encode_member(member, population))

    return damage


def lost(stage: StageName) -> Damage:
    """Damage that removes the document."""

    async def damage(redis: Redis, settings: Settings) -> None:
        keys, _ = await _find(redis, settings, stage)
        await redis.hdel(keys.documents, ACCOUNT)

    return damage


async def another_account(redis: Redis, settings: Settings) -> None:
    """Damage that adds an account which nothing in the log speaks of."""
    keys = shard_keys(settings.redis_prefix, StageName.ACCOUNTS, 0)
    await redis.hset(keys.documents, "nobody", encode_account(Account("nobody")))


async def another_member(redis: Redis, settings: Settings) -> None:
    """Damage that makes the account a member in a second shard, too."""
    found, document = await _find(redis, settings, StageName.RANKING)
    for number in range(PARTITIONS):
        keys = shard_keys(settings.redis_prefix, StageName.RANKING, number)
        if keys != found:
            await redis.hset(keys.documents, ACCOUNT, document)
            return


async def another_population(redis: Redis, settings: Settings) -> None:
    """Damage that ranks the account where it does not belong."""
    keys, document = await _find(redis, settings, StageName.RANKING)
    await redis.hset(keys.documents, ACCOUNT, encode_member(decode_member(ACCOUNT, document)[0], "north"))


async def attributes_made_up(redis: Redis, settings: Settings) -> None:
    """Damage that lets the ranking stage know what the account has never said."""
    keys, _ = await _find(redis, settings, StageName.RANKING)
    await redis.hset(keys.traits, ACCOUNT, encode_traits(Traits(("retail",), 0, "", ""), 0))


async def class_damage(redis: Redis, settings: Settings) -> None:
    """Damage that counts an account more in every class."""
    keys, _ = await _find(redis, settings, StageName.RANKING)
    for field, document in (await redis.hgetall(keys.figures)).items():
        if cast(bytes, field).startswith(b"class"):
            accounts, *rest = json.loads(document)
            await redis.hset(keys.figures, field, json_bytes([accounts + 1, *rest]))


async def off_the_worklists(redis: Redis, settings: Settings) -> None:
    """Damage that takes the account off its worklist."""
    keys, document = await _find(redis, settings, StageName.RANKING)
    member, _ = decode_member(ACCOUNT, document)
    assert await redis.zrem(getattr(keys, f"worklist_{member.current_segment}"), ACCOUNT) == 1


def counted(topic: Topic, **changes: int) -> Damage:
    """Damage that changes what shard 1 has counted of an input."""

    async def damage(redis: Redis, settings: Settings) -> None:
        store = ShardStore(redis, settings.redis_prefix, StageName.ACCOUNTS, 1)
        claim = await store.peek()
        assert claim is not None
        for name, change in changes.items():
            claim.state["counts"][topic][name] += change
        await redis.hset(store.keys.meta, "state", orjson.dumps(claim.state))

    return damage


def _set(**fields: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for name, value in fields.items():
            setattr(document, name, value)

    return change


def _richer(document: Any) -> None:
    document.revenue_minor += 1


def _bought_earlier(account: Account) -> None:
    account.first_purchase_day -= 1


def _other_tier(member: Member) -> None:
    member.tier = 2 if member.tier != 2 else 0


def _told_otherwise(member: Member) -> None:
    member.segment = Segment.PROSPECT


def _risk_of(member: Member) -> Risk:
    assert member.risk is not None
    return member.risk


def _bought_less(member: Member) -> None:
    _risk_of(member).days_bought += 1


def _asked_to_cancel(member: Member) -> None:
    risk = _risk_of(member)
    risk.evidence_days = (1, *risk.evidence_days[1:])


def _engages_less(member: Member) -> None:
    risk = _risk_of(member)
    risk.engagement_fell = not risk.engagement_fell


def _other_risk(member: Member) -> None:
    risk = _risk_of(member)
    risk.level = Level.LOW if risk.level is not Level.LOW else Level.HIGH


def _risk_told(member: Member) -> None:
    risk = _risk_of(member)
    risk.told_level = Level.LOW if risk.told_level is not Level.LOW else Level.HIGH
    risk.sequence += 1


def _told_once_more(member: Member) -> None:
    member.sequence += 1


def _told_later(member: Member) -> None:
    member.effective_at_us += 1


STATE_DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "a revenue one cent off": (account_damage(_richer), {"revenue"}),
    "a first purchase a day off": (account_damage(_bought_earlier), {"first_purchase"}),
    "a first purchase forgotten": (account_damage(_set(first_purchase_day=65_535)), {"first_purchase", "stage"}),
    "an account not announced": (account_damage(_set(announced=False)), {"announced"}),
    "an account lost": (lost(StageName.ACCOUNTS), {"known_accounts", "announced"}),
    "an account of nobody": (another_account, {"known_accounts", "announced"}),
    "a member with another revenue": (member_damage(_richer), {"standing"}),
    "a member of another stage": (
        member_damage(_set(stage="prospect", tier=None)),
        {"standing", "segment", "told", "places"},
    ),
    "a member in another tier": (member_damage(_other_tier), {"segment", "told", "places"}),
    "a member told otherwise": (member_damage(_told_otherwise), {"told", "last_change", "compacted"}),
    "a member with a change more": (member_damage(_told_once_more), {"last_change", "compacted"}),
    "a member told at another time": (member_damage(_told_later), {"last_change"}),
    "a member lost": (
        lost(StageName.RANKING),
        {"announced", "last_change", "compacted", "rhythm", "class_figures", "places"},
    ),
    "a purchase day forgotten": (member_damage(_bought_less), {"rhythm"}),
    "a request to cancel made up": (member_damage(_asked_to_cancel), {"evidence"}),
    "a member at another risk": (member_damage(_other_risk), {"risk_level", "risk_told"}),
    "a member whose risk was told otherwise": (member_damage(_risk_told), {"risk_told", "last_change", "compacted"}),
    "a member twice": (another_member, {"announced", "class_figures"}),
    "a member of another population": (another_population, {"population", "class_figures"}),
    "an engagement that fell made up": (member_damage(_engages_less), {"engagement"}),
    "attributes made up": (attributes_made_up, {"traits"}),
    "a class with an account more": (class_damage, {"class_figures"}),
    "an account taken off the worklists": (off_the_worklists, {"places"}),
    "a record counted twice": (counted(Topic.PURCHASES, applied=1), {"consumed"}),
    "a tick not counted": (counted(Topic.TICKS, applied=-1), {"consumed"}),
    "new events taken for duplicates": (
        counted(Topic.SIGNUPS, applied=-20, duplicates=20),
        {"first_ones_applied"},
    ),
    "a dead letter counted and not written": (
        counted(Topic.PURCHASES, duplicates=-1, dead_letters=1),
        {"dead_letters"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATE_DAMAGES)
async def test_damage_to_the_state_is_found(pure: Installed, name: str) -> None:
    """Whatever is changed in the store, the invariants that it breaks say so, and no others."""
    damage, expected = STATE_DAMAGES[name]
    async with damaged(pure) as (redis, reader):
        await damage(redis, pure.settings)
        report = await verify(*pure, redis, reader)
    assert _kinds(report) == expected
    assert not report.is_right


@pytest.mark.parametrize("installation", [(2, "accounts")], indirect=True)
async def test_damage_is_found_within_the_band_too(installation: Installed) -> None:
    """A band allows another tier only near a boundary: no account may go from the best tier to the last."""
    async with damaged(installation) as (redis, reader):
        settings = installation.settings
        async for account_id, member in _members(redis, settings):
            if member.tier == 0:
                member.tier = 2
                keys, _ = await _find(redis, settings, StageName.RANKING)
                await redis.hset(keys.documents, account_id, encode_member(member, "all"))
                break
        report = await verify(*installation, redis, reader)
    (found,) = [mismatch for mismatch in report.mismatches if mismatch.kind == "segment"]
    assert found.found == "commercial"
    assert found.subject == account_id
    assert found.expected in ("key", "key or enterprise")


# -- the log is damaged ------------------------------------------------------------------------------------


class TamperedReader(LogReader):
    """Reads a log that is not quite what the broker has."""

    def __init__(self, settings: Settings, tamper: "Tamper", cut: Mapping[Topic, int] | None = None) -> None:
        super().__init__(settings.kafka_arguments(), settings.topic_prefix)
        self._tamper = tamper
        self._cut = cut or {}

    async def bounds(self, partitions: Any) -> dict[tuple[Topic, int], LogPosition]:
        """The log begins where it is cut."""
        bounds = await super().bounds(partitions)
        return {
            place: LogPosition(min(bound.end, self._cut.get(place[0], 0)), bound.end) for place, bound in bounds.items()
        }

    async def read(self, starts: Any) -> AsyncIterator[tuple[Topic, ConsumerRecord]]:
        """The records, tampered with."""
        async for topic, record in super().read(starts):
            if record.offset >= self._cut.get(topic, 0):
                for tampered in self._tamper(topic, record):
                    yield topic, tampered


Tamper = Callable[[Topic, ConsumerRecord], Iterable[ConsumerRecord]]


def untouched(_: Topic, record: ConsumerRecord) -> Iterable[ConsumerRecord]:
    """As it is."""
    return [record]


def _data(record: ConsumerRecord) -> dict[str, Any]:
    data: dict[str, Any] = orjson.loads(record.value)
    return data


def _with(record: ConsumerRecord, **data: Any) -> ConsumerRecord:
    return replace(record, value=orjson.dumps({**_data(record), **data}))


class OnChange:
    """Tampers with one change of the account: its second, which has one before and is not the last."""

    def __init__(self, change: Callable[[ConsumerRecord], list[ConsumerRecord]], topic: Topic, sequence: int) -> None:
        self._change = change
        self._topic = topic
        self._sequence = sequence

    def __call__(self, topic: Topic, record: ConsumerRecord) -> Iterable[ConsumerRecord]:
        is_it = topic is self._topic and record.key == ACCOUNT.encode()
        if is_it and _data(record)["sequence"] == self._sequence:
            return self._change(record)
        return [record]


def on_change(change: Callable[[ConsumerRecord], list[ConsumerRecord]], sequence: int = 2) -> Tamper:
    """Tampers with a change of the account."""
    return OnChange(change, Topic.SEGMENT_CHANGES, sequence)


def _later(record: ConsumerRecord, offsets: int) -> ConsumerRecord:
    return replace(record, offset=record.offset + offsets)


def _renamed(record: ConsumerRecord, sequence: int) -> ConsumerRecord:
    headers = [(name, f"{ACCOUNT}:{sequence}".encode() if name == "ce_id" else text) for name, text in record.headers]
    return replace(_with(record, sequence=sequence), headers=tuple(headers))


def _before(record: ConsumerRecord) -> str:
    return format_instant(parse_instant(_data(record)["effective_at"]) - 400 * MICROSECONDS_PER_DAY)


class First:
    """Tampers with the first record of a topic that is long enough to be a good event."""

    def __init__(self, topic: Topic, change: Callable[[ConsumerRecord], list[ConsumerRecord]]) -> None:
        self._topic = topic
        self._change = change
        self._done = False

    def __call__(self, topic: Topic, record: ConsumerRecord) -> Iterable[ConsumerRecord]:
        if self._done or topic is not self._topic:
            return [record]
        self._done = True
        return self._change(record)


def compacted_last(change: Callable[[ConsumerRecord], list[ConsumerRecord]]) -> Tamper:
    """Tampers with what the compacted topic has of the account."""

    def tamper(topic: Topic, record: ConsumerRecord) -> Iterable[ConsumerRecord]:
        is_it = topic is Topic.SEGMENTS and record.key == ACCOUNT.encode()
        return change(record) if is_it else [record]

    return tamper


LOG_DAMAGES: dict[str, tuple[Callable[[], Tamper], set[str]]] = {
    "a change dropped": (lambda: on_change(lambda record: []), {"chain", "links"}),
    "the first change dropped": (lambda: on_change(lambda record: [], 1), {"chain"}),
    "a change that comes later than the next": (
        lambda: on_change(lambda record: [_later(record, 1_000)]),
        {"chain"},
    ),
    "a change from another segment": (
        lambda: on_change(lambda record: [_with(record, previous_segment="key")]),
        {"links"},
    ),
    "a change that took effect before the last one": (
        lambda: on_change(lambda record: [_with(record, effective_at=_before(record))]),
        {"effective_order"},
    ),
    "a change published twice, differently": (
        lambda: on_change(lambda record: [record, _with(_later(record, 1_000), rolling_revenue_minor=1)]),
        {"republished"},
    ),
    "a change published twice, with another header": (
        lambda: on_change(lambda record: [record, replace(_later(record, 1_000), headers=record.headers[:-1])]),
        {"republished"},
    ),
    "a change under another key": (
        lambda: on_change(lambda record: [replace(record, key=b"acct-4")]),
        {"change_identity"},
    ),
    "a change with another id": (
        lambda: on_change(lambda record: [_with(_renamed(record, 2), account_id="acct-4x")]),
        {"change_identity", "chain", "links", "last_change"},
    ),
    "a change that is no JSON": (
        lambda: on_change(lambda record: [replace(record, value=b"{")]),
        {"change_identity", "chain", "links"},
    ),
    "a forged change": (
        lambda: First(Topic.SEGMENT_CHANGES, lambda record: [record, _renamed(_later(record, 1_000), 99)]),
        {"chain", "links", "last_change", "compacted_bytes", "change_identity"},
    ),
    "nothing of the account in the compacted topic": (
        lambda: compacted_last(lambda record: []),
        {"compacted"},
    ),
    "an old change in the compacted topic": (
        lambda: compacted_last(lambda record: [record] if _data(record)["sequence"] == 1 else []),
        {"compacted", "compacted_bytes"},
    ),
    "a tombstone in the compacted topic": (
        lambda: compacted_last(lambda record: [replace(record, value=None)]),
        {"compacted", "compacted_bytes"},
    ),
    "other bytes in the compacted topic": (
        lambda: compacted_last(lambda record: [replace(record, value=record.value + b" ")]),
        {"compacted_bytes"},
    ),
    "a signup lost": (lambda: First(Topic.SIGNUPS, lambda record: []), {"consumed"}),
    "a record that nobody can read": (
        lambda: First(Topic.ENGAGEMENTS, lambda record: [replace(record, value=b"\xff")]),
        {"readable"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOG_DAMAGES)
async def test_damage_to_the_log_is_found(pure: Installed, name: str) -> None:
    """Whatever the log says otherwise, the invariants that it breaks say so, and no others."""
    make_tamper, expected = LOG_DAMAGES[name]
    async with connections(pure.settings) as (redis, _), TamperedReader(pure.settings, make_tamper()) as reader:
        report = await verify(*pure, redis, reader)
    assert _kinds(report) == expected


async def test_a_purchase_more_in_the_log_is_missed_in_the_state(pure: Installed) -> None:
    """An event that the engine never saw changes its account, and perhaps others that it displaces."""

    def tamper(topic: Topic, record: ConsumerRecord) -> Iterable[ConsumerRecord]:
        yield record
        if topic is Topic.PURCHASES and record.key == ACCOUNT.encode() and b"JPY" not in record.value:
            yield _with(record, event_id=f"more-{record.offset}", amount_minor=7, kind="purchase")

    async with connections(pure.settings) as (redis, _), TamperedReader(pure.settings, tamper) as reader:
        report = await verify(*pure, redis, reader)
    assert {"revenue", "consumed"} <= _kinds(report)
    assert {mismatch.subject for mismatch in report.mismatches if mismatch.kind == "revenue"} == {ACCOUNT}


async def test_a_dead_letter_that_was_lost_is_found(pure: Installed) -> None:
    """Without its dead letter a bad record is one that was not applied."""
    tamper = First(Topic.DEAD_LETTERS, lambda record: [])
    async with connections(pure.settings) as (redis, _), TamperedReader(pure.settings, tamper) as reader:
        report = await verify(*pure, redis, reader)
    assert "dead_letters" in _kinds(report)


def test_every_invariant_was_seen_to_fail() -> None:
    """No check is there that nothing can break."""
    shown = [expected for _, expected in [*STATE_DAMAGES.values(), *LOG_DAMAGES.values()]]
    assert set().union(*shown) == {invariant.__name__ for invariant in INVARIANTS}


def _kinds(report: Report) -> set[str]:
    assert report.mismatch_count == len(report.mismatches)
    return {mismatch.kind for mismatch in report.mismatches}


async def test_what_comes_while_the_log_is_read_is_left_out(pure: Installed) -> None:
    """Events that are applied after the state was read are no mismatch, nor is anything that they did."""
    async with damaged(pure) as (redis, _):
        store = ShardStore(redis, pure.settings.redis_prefix, StageName.ACCOUNTS, 1)
        claim = await store.peek()
        assert claim is not None
        reached = claim.progress
        end = reached[Topic.PURCHASES]

        class Busy(LogReader):
            """A log that goes on while it is read."""

            async def read(self, starts: Any) -> AsyncIterator[tuple[Topic, ConsumerRecord]]:
                last: dict[Topic, ConsumerRecord] = {}
                async for topic, record in super().read(starts):
                    yield topic, record
                    if topic is not Topic.PURCHASES or record.partition == 1:
                        last[topic] = record
                progress = {**reached, Topic.PURCHASES: end + 2}
                await redis.hset(store.keys.meta, "progress", orjson.dumps(progress))
                for topic, record in last.items():
                    for later in self.later(topic, record):
                        yield topic, later

            def later(self, topic: Topic, record: ConsumerRecord) -> Iterable[ConsumerRecord]:
                """What is new of a topic."""
                if topic is Topic.PURCHASES:
                    return [replace(record, offset=end), replace(record, offset=end + 1, value=b"bad")]
                if topic in (Topic.SEGMENT_CHANGES, Topic.SEGMENTS):
                    return [_made_later(_later(record, 1_000))]
                if topic is Topic.DEAD_LETTERS:
                    about = {"topic": b"purchases", "partition": b"1", "offset": str(end + 1).encode()}
                    return [replace(record, headers=tuple(about.items()))]
                return []

        async with Busy(pure.settings.kafka_arguments(), pure.settings.topic_prefix) as reader:
            report = await verify(*pure, redis, reader)
    assert report.mismatches == []
    assert report.warnings == ["events came while the log was read; what they did is left out"]


def _made_later(record: ConsumerRecord) -> ConsumerRecord:
    """The account's next change, made after standings that are not there yet."""
    data = _data(record)
    sequence = data["sequence"] + 1
    headers = {**dict(record.headers), "ce_id": f"{data['account_id']}:{sequence}".encode(), INPUT_OFFSET: b"9999999"}
    return replace(_with(record, sequence=sequence), headers=tuple(headers.items()))


# -- the log no longer has its beginning -------------------------------------------------------------------

CUTS: dict[str, dict[Topic, int]] = {
    "purchases": {Topic.PURCHASES: 60},
    "all events": dict.fromkeys(EVENT_TOPICS, 10),
    "ticks and standings": {Topic.TICKS: 3, Topic.STANDINGS: 20},
    "dead letters": {Topic.DEAD_LETTERS: 2},
    "changes": {Topic.SEGMENT_CHANGES: 25},
    "everything but the latest": dict.fromkeys(set(Topic) - {*TOLD_TOPICS}, 30),
}


@pytest.mark.parametrize("installation", [(2, "revenue")], indirect=True)
@pytest.mark.parametrize("name", CUTS)
async def test_a_log_without_its_beginning_is_no_mismatch(installation: Installed, name: str) -> None:
    """What retention took cannot be compared: that is a warning, and the rest is still right."""
    async with (
        connections(installation.settings) as (redis, _),
        TamperedReader(installation.settings, untouched, CUTS[name]) as reader,
    ):
        report = await verify(*installation, redis, reader)
    assert report.mismatches == []
    said = " ".join(report.warnings)
    for topic in CUTS[name].keys() - {Topic.TICKS, Topic.STANDINGS}:
        assert f"the log of {topic} no longer has its beginning" in said


async def test_what_is_left_of_a_log_is_compared(pure: Installed) -> None:
    """Even without purchases to add up, tiers must follow from the revenues that are there."""
    async with damaged(pure) as (redis, _), TamperedReader(pure.settings, untouched, {Topic.PURCHASES: 60}) as reader:
        await member_damage(_other_tier)(redis, pure.settings)
        report = await verify(*pure, redis, reader)
    assert _kinds(report) == {"segment", "told", "places"}


# -- at rest -----------------------------------------------------------------------------------------------------------


async def lost_shard(redis: Redis, settings: Settings) -> None:
    """Damage that removes what a shard is known by."""
    await redis.unlink(shard_keys(settings.redis_prefix, StageName.RANKING, 2).meta)


async def _due(redis: Redis, settings: Settings) -> None:
    await redis.zadd(shard_keys(settings.redis_prefix, StageName.ACCOUNTS, 0).due, {"someone": 19_000})


async def _undue(redis: Redis, settings: Settings) -> None:
    await redis.zadd(shard_keys(settings.redis_prefix, StageName.ACCOUNTS, 0).due, {"someone": 65_000})


async def _not_taken(redis: Redis, settings: Settings) -> None:
    sent = {str(number): {"progress": {"purchases": 10**6}, "cursor": None} for number in range(PARTITIONS)}
    await _set_state(redis, settings, StageName.ACCOUNTS, sent=sent)


async def _silent(redis: Redis, settings: Settings) -> None:
    await _set_state(redis, settings, StageName.RANKING, muted_until=10**6)


async def _untold(redis: Redis, settings: Settings) -> None:
    await redis.rpush(shard_keys(settings.redis_prefix, StageName.RANKING, 1).outbox, b"x")


async def _behind(redis: Redis, settings: Settings) -> None:
    store = ShardStore(redis, settings.redis_prefix, StageName.ACCOUNTS, 1)
    claim = await store.peek()
    assert claim is not None
    progress = {**claim.progress, Topic.TICKS: claim.progress[Topic.TICKS] - 1}
    await redis.hset(store.keys.meta, "progress", orjson.dumps(progress))


async def _set_state(redis: Redis, settings: Settings, stage: StageName, **fields: Any) -> None:
    store = ShardStore(redis, settings.redis_prefix, stage, 1)
    claim = await store.peek()
    assert claim is not None
    await redis.hset(store.keys.meta, "state", orjson.dumps({**claim.state, **fields}))


@pytest.mark.parametrize(
    "disturb, reason",
    [
        (_undue, None),
        (_due, "account shard 0 has accounts that are due since day 19000"),
        (_not_taken, "the newest standings of account shard 1 have not been taken"),
        (_silent, "ranking shard 1 reads on silently"),
        (_untold, "ranking shard 1 has 1 records to publish"),
        (_behind, "account shard 1 has applied ticks up to 4 of 5"),
        (lost_shard, "ranking shard 2 is not there"),
    ],
    ids=["due later", "due", "standings", "muted", "outbox", "input", "no shard"],
)
async def test_whatever_is_left_to_do_is_unrest(pure: Installed, disturb: Damage, reason: str | None) -> None:
    """Rest is when nothing is: no input, no due account, no standing and no record that waits."""
    async with damaged(pure) as (redis, reader):
        assert await unrest(redis, reader, pure.settings) is None
        await disturb(redis, pure.settings)
        said = await unrest(redis, reader, pure.settings)
        assert (said is None) == (reason is None)
        assert (reason or "") in (said or "")


# -- arithmetic --------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty one."""
    database = Database(tmp_path)
    yield database
    database.close()


RATES = ["1", "1.08", "0.00645", "0.5", "3.25125", "0.000000000000000001", "123456789.123456789123456789"]
AMOUNTS = [0, 1, 2, 3, 5, 50, 99, 100, 101, 150, 250, 12_345, 10**9 + 7, 2**53 - 1]


@pytest.mark.parametrize("base, currency", [("USD", "EUR"), ("USD", "JPY"), ("JPY", "CLF"), ("CLF", "JPY")])
@pytest.mark.parametrize("rate", RATES)
def test_sql_converts_as_the_engine_does(database: Database, base: str, currency: str, rate: str) -> None:
    """Both round the exact product once, halves to even, however many digits a rate has."""
    converter = Converter(base, {currency: Decimal(rate)})
    numerator, denominator = converter.ratio(currency)
    expected = [converter.to_base_minor(amount, currency) for amount in AMOUNTS]
    rows = [
        (str(amount), str(numerator), str(denominator))
        for amount, base_minor in zip(AMOUNTS, expected, strict=True)
        if base_minor < 2**63
    ]
    database.insert("rates", rows, "SELECT c1, converted(c1::HUGEINT, c2::HUGEINT, c3::HUGEINT), 1 FROM part")
    found: dict[int, int] = dict(database.rows("SELECT currency::BIGINT, numerator FROM rates"))
    assert found == {
        amount: base_minor for amount, base_minor in zip(AMOUNTS, expected, strict=True) if base_minor < 2**63
    }
    assert found


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-02T00:00:00Z",
        "2024-02-29T23:59:59.999999999Z",
        "2024-03-01t00:00:00z",
        "2024-12-31T23:59:59+00:01",
        "2024-12-31T23:59:00-00:01",
        "2025-01-01T05:29:59.5+05:30",
        "2025-01-01T05:30:00.5+05:30",
        "2149-06-05T23:59:59Z",
        "1970-01-02T23:59:59+23:59",
        "2024-06-30T12:00:00-23:59",
    ],
)
def test_sql_finds_the_day_that_the_engine_does(database: Database, text: str) -> None:
    """Both take the UTC day of any RFC 3339 time, whatever its offset."""
    (day,) = database.one(f"SELECT day_of('{text}')")
    assert day == parse_instant(text) // MICROSECONDS_PER_DAY


class _Purchase(NamedTuple):
    """A record of `purchases` for the database alone."""

    event_id: str
    day: int
    amount_minor: int


@pytest.mark.parametrize(
    "purchases, is_certain, revenue_minor",
    [
        ([_Purchase("e1", 990, 5), _Purchase("e1", 990, 5)], True, 5),
        ([_Purchase("e1", 990, 5), _Purchase("e1", 995, 7)], True, 5),
        ([_Purchase("e1", 200, 5), _Purchase("e1", 200, 5), _Purchase("e2", 995, 7)], True, 7),
        ([_Purchase("e1", 200, 5), _Purchase("e1", 995, 7)], False, 0),
    ],
    ids=["the same twice", "another one in the window", "the same before the window", "another one after the window"],
)  # fmt: skip
def test_an_id_that_is_used_again_is_only_uncertain_after_the_window(
    database: Database, purchases: list[_Purchase], is_certain: bool, revenue_minor: int
) -> None:
    """The first event of an id counts, unless it may have been forgotten before the second came."""
    policy = policy_for(0, "revenue")
    shard = AccountShardState(0, state={"clock_us": 1_000 * MICROSECONDS_PER_DAY})
    database.load_policy(policy)
    database.load_progress(Snapshot(Founding(1, "", "", 1), [shard], []), {}, {(topic, 0): 0 for topic in Topic})
    payloads: list[str | None] = [
        orjson.dumps(
            {
                "event_id": purchase.event_id,
                "account_id": ACCOUNT,
                "occurred_at": format_instant(purchase.day * MICROSECONDS_PER_DAY),
                "amount_minor": purchase.amount_minor,
                "currency": "USD",
            }
        ).decode()
        for purchase in purchases
    ]
    database.load_events(EventRecord("purchases", 0, number, payload) for number, payload in enumerate(payloads))
    database.parse()
    database.expect()
    assert database.one("SELECT is_certain, revenue_minor FROM expected") == (is_certain, revenue_minor)
