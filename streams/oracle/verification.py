"""Verifying an installation: its log is read, what must follow is worked out in SQL, and the two are compared."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

import msgpack
from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis

from segmentation.policy import Policy
from streams.changes import INPUT_OFFSET
from streams.dead_letters import read_dead_letter
from streams.log import LogReader
from streams.oracle.database import ROWS_AT_ONCE, CannotVerify, ChangeRecord, Database, EventRecord
from streams.oracle.invariants import INVARIANTS
from streams.oracle.report import Mismatch, Report
from streams.rest import wait_at_rest
from streams.settings import Settings
from streams.snapshot import Snapshot, has_moved, read_snapshot
from streams.topics import ACCOUNT_INPUTS, EVENT_TOPICS, Topic

REST_TIMEOUT_SECONDS = 30.0
"""How long to wait for an installation at rest before looking at one that is not."""

Progress = Callable[[int, int], None]
"""Called with the offsets read so far and all there are."""

Place = tuple[Topic, int]
"""A topic and one of its partitions."""


async def verify(
    settings: Settings,
    policy: Policy,
    redis: Redis,
    reader: LogReader,
    *,
    rest_timeout_seconds: float = REST_TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> Report:
    """Compare the state and the changes of an installation with what follows from its log.

    It claims and changes nothing, so workers may go on; if they never come to rest the report warns of that.
    About 30 us a record of the log, 20 us an account, and a temporary file about as large as the log.
    Raises CannotVerify, NoInstallation, NoSuchShard, StillChanging, KafkaError, RedisError.
    """
    started = time.monotonic()
    report = Report()
    try:
        await wait_at_rest(redis, reader, settings, timeout_seconds=rest_timeout_seconds, until_placed=True)
    except TimeoutError as error:
        report.warnings.append(f"{error}; what is under way shows up as mismatches")
    snapshot = await read_snapshot(redis, settings)
    if snapshot.founding.policy_hash != policy.hash:
        differences = "; ".join(policy.differences(snapshot.founding.policy))
        raise CannotVerify(f"the state was made with another policy (state -> this one): {differences}")
    if others := policy.risk_differences(snapshot.founding.rest or policy.canonical_rest()):
        raise CannotVerify(f"the workers tell risk by another policy (theirs -> this one): {'; '.join(others)}")
    with tempfile.TemporaryDirectory(prefix="resegment-verify-", ignore_cleanup_errors=True) as directory:
        database = await asyncio.to_thread(Database, Path(directory))
        try:
            loading = _Loading(database, reader, snapshot, progress)
            await loading.load(policy)
            report.warnings += loading.warnings
            if await has_moved(redis, settings, snapshot):
                report.warnings.append("events came while the log was read; what they did is left out")
                await asyncio.to_thread(database.leave_out_later)
            await asyncio.to_thread(database.expect)
            await asyncio.to_thread(_compare, database, report)
        finally:
            await asyncio.to_thread(database.close)
    report.seconds = time.monotonic() - started
    return report


class _Loading:
    """Fills the database from the state and the log."""

    def __init__(self, database: Database, reader: LogReader, snapshot: Snapshot, progress: Progress | None) -> None:
        self._database = database
        self._reader = reader
        self._snapshot = snapshot
        self._progress = progress
        self._read = self._total = 0
        self.warnings: list[str] = []
        self._reached: dict[Place, int] = {
            (topic, shard.partition): shard.progress.get(topic, 0)
            for shard in snapshot.account_shards
            for topic in ACCOUNT_INPUTS
        } | {
            (Topic.STANDINGS, shard.partition): shard.progress.get(Topic.STANDINGS, 0)
            for shard in snapshot.ranking_shards
        }
        """Input and partition -> up to which offset the state has taken it in."""
        self._begins: dict[Place, int] = {
            (Topic.STANDINGS, shard.partition): shard.begin for shard in snapshot.ranking_shards
        }
        """Input and partition -> from which offset the state counts, where that is not its beginning."""
        self._events: list[EventRecord] = []
        self._changes: list[ChangeRecord] = []

    async def load(self, policy: Policy) -> None:
        """Everything that is compared. Raises KafkaError, TimeoutError."""
        places, firsts = await self._places()
        records: Counter[Place] = Counter()
        database = self._database
        await asyncio.to_thread(database.load_policy, policy)
        await asyncio.to_thread(database.load_snapshot, self._snapshot, policy)
        await asyncio.to_thread(database.load_worklists, self._snapshot, policy)
        if unplaced := sum(shard.unplaced for shard in self._snapshot.ranking_shards):
            self.warnings.append(f"{unplaced:,} accounts are not in their places yet: the worklists are not compared")
        await self._load_dead_letters([place for place in places if place[0] is Topic.DEAD_LETTERS])
        wanted = {place: 0 for place in places if place[0] is not Topic.DEAD_LETTERS}
        async for topic, record in self._reader.read(wanted):
            self._count(1)
            place = (topic, record.partition)
            if place in self._reached:
                if not self._begins.get(place, 0) <= record.offset < self._reached[place]:
                    continue
                records[place] += 1
            if topic in EVENT_TOPICS:
                await self._add_event(topic, record)
            elif topic in (Topic.SEGMENT_CHANGES, Topic.SEGMENTS, Topic.CHURN_RISK, Topic.RISKS):
                await self._add_change(topic, record)
        await self._flush_events()
        await self._flush_changes()
        counted = {place: records[place] for place in self._reached if place in wanted}
        await asyncio.to_thread(database.load_progress, self._snapshot, counted, firsts)
        await asyncio.to_thread(database.parse)

    async def _places(self) -> tuple[list[Place], dict[Place, int]]:
        """What to read, and where it begins. Ticks and standings are only counted, so only where all are there."""
        reader = self._reader
        await reader.refresh()
        all_places = [(topic, number) for topic in Topic for number in range(reader.partition_count(topic))]
        bounds = await reader.bounds(all_places)
        firsts = {place: bound.first for place, bound in bounds.items()}
        self._warn_of_cut(firsts)
        places = [place for place in all_places if not (place[0] in (Topic.TICKS, Topic.STANDINGS) and firsts[place])]
        self._total = sum(bounds[place].end - bounds[place].first for place in places)
        return places, firsts

    def _warn_of_cut(self, firsts: Mapping[Place, int]) -> None:
        lost = {
            Topic.DEAD_LETTERS: "records cannot be told from dead letters: revenue and stage are not compared",
            Topic.SEGMENT_CHANGES: "chains are compared from where they begin now",
            Topic.CHURN_RISK: "chains are compared from where they begin now",
            **dict.fromkeys(EVENT_TOPICS, "revenue and stage of their accounts are not compared"),
        }
        for topic, consequence in lost.items():
            cut = [str(partition) for (name, partition), first in firsts.items() if name is topic and first]
            if cut:
                self.warnings.append(
                    f"the log of {topic} no longer has its beginning in partitions {', '.join(cut)}: {consequence}"
                )

    def _count(self, records: int) -> None:
        self._read += records
        if self._progress is not None and (self._read % 1_000 == 0 or self._read == self._total):
            self._progress(self._read, self._total)

    async def _load_dead_letters(self, places: list[Place]) -> None:
        names: list[tuple[str, int, int]] = []
        async for _, record in self._reader.read(dict.fromkeys(places, 0)):
            self._count(1)
            try:
                letter = read_dead_letter(record.key, None, record.headers)
            except ValueError:
                continue  # not written by a worker: it names no record
            place = letter.topic, letter.partition
            if place in self._reached and self._begins.get(place, 0) <= letter.offset < 2**63:
                names.append((letter.topic, letter.partition, letter.offset))
        await asyncio.to_thread(self._database.load_dead_letters, names)

    async def _add_event(self, topic: Topic, record: ConsumerRecord) -> None:
        self._events.append(EventRecord(str(topic), record.partition, record.offset, _text(record.value)))
        if len(self._events) >= ROWS_AT_ONCE:
            await self._flush_events()

    async def _flush_events(self) -> None:
        await asyncio.to_thread(self._database.load_events, self._events)
        self._events.clear()

    async def _add_change(self, topic: Topic, record: ConsumerRecord) -> None:
        self._changes.append(_change_record(topic, record))
        if len(self._changes) >= ROWS_AT_ONCE:
            await self._flush_changes()

    async def _flush_changes(self) -> None:
        await asyncio.to_thread(self._database.load_changes, self._changes)
        self._changes.clear()


def _change_record(topic: Topic, record: ConsumerRecord) -> ChangeRecord:
    headers = dict(record.headers)
    input_offset = headers.get(INPUT_OFFSET, b"")
    whole: bytes = msgpack.packb((record.key, record.value, record.headers))
    return ChangeRecord(
        topic=str(topic),
        part=record.partition,
        log_offset=record.offset,
        key=_text(record.key),
        ce_id=_text(headers.get("ce_id")),
        input_offset=int(input_offset) if input_offset.isdigit() and len(input_offset) < 19 else None,
        fingerprint=blake2b(whole, digest_size=16).hexdigest(),
        payload=_text(record.value),
    )


def _text(data: bytes | None) -> str | None:
    """None for bytes that are not UTF-8, too: nothing that holds them can be read."""
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _compare(database: Database, report: Report) -> None:
    report.events, report.applied, report.duplicates = map(
        int,
        database.one("""
            SELECT
                coalesce(sum(records), 0),
                coalesce(sum(applied), 0),
                coalesce(sum(duplicates), 0)
            FROM inputs
            WHERE topic IN ('purchases', 'signups', 'engagements')
        """),
    )
    (report.dead_letters,) = database.one("""
        SELECT count(*) FROM dead_letters WHERE topic IN ('purchases', 'signups', 'engagements')
    """)
    (report.accounts,) = database.one("SELECT count(*) FROM accounts")
    (report.changes,) = database.one("SELECT count(*) FROM told WHERE subject = 'segment'")
    for invariant in INVARIANTS:
        for subject, expected, found in invariant(database):
            report.add(Mismatch(invariant.__name__, subject, expected, found))
