"""An installation under test: its topics and keys, events and time for it, workers, and what must always hold of it."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import ConsumerRecord, RecordMetadata
from pydantic import SecretStr
from redis.asyncio import Redis

from segmentation.policy import Policy
from segmentation.population import Member
from state.client import connect
from state.founding import NoInstallation
from state.keys import StageName, shard_keys
from streams.applying import apply_policy
from streams.dead_letters import DeadLetter, read_dead_letter
from streams.instants import parse_instant
from streams.log import LogReader
from streams.messages import Mode, Tick, encode_tick
from streams.partitions import partition_of
from streams.rest import unrest
from streams.settings import Settings
from streams.snapshot import Snapshot, read_snapshot
from streams.topics import ACCOUNT_INPUTS, EVENT_TOPICS, Topic, TopicNames, create_topics
from streams.worker import Worker
from tests.streams.bad_records import BAD_RECORDS
from tests.streams.bad_records import partition_of as bad_partition_of

T = TypeVar("T")

POLL_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
"""How long a condition may take to come true on a busy machine. No test takes that long where all is well."""

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
PURE = Policy.default().with_changes(band=0)
"""Without a band the tiers are a function of the data."""

_BAD_RECORDS = [bad for bad in BAD_RECORDS if len(bad.value or b"") < 10_000]
_REGIONS = ("EMEA", "apac", "Americas", "")
_ENGAGEMENTS = ("login", "cancel_request", "support_ticket")
_TOPICS = {"purchase": Topic.PURCHASES, "signup": Topic.SIGNUPS, "engagement": Topic.ENGAGEMENTS}


class Servers(Protocol):
    """A broker and a store."""

    @property
    def kafka(self) -> str:
        """The broker's "host:port"."""

    @property
    def redis(self) -> str:
        """The store's "redis://" address."""


class Sent(NamedTuple):
    """A record of an event topic, to be sent."""

    topic: Topic
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    """None: where Kafka's default partitioner puts the key."""


def moment(day: float, seconds: float = 0.0) -> datetime:
    """The instant so many days and seconds after FIRST_DAY."""
    return FIRST_DAY + timedelta(days=day, seconds=seconds)


def event(kind: str, account: str, event_id: str, at: datetime | str, /, **fields: object) -> Sent:
    """A record that keeps its contract, unless the fields spoil it."""
    stated = at if isinstance(at, str) else at.isoformat()
    document = {"event_id": event_id, "account_id": account, "occurred_at": stated, **fields}
    return Sent(_TOPICS[kind], account.encode(), json.dumps(document).encode())


def purchase(account: str, event_id: str, at: datetime | str, amount_minor: int, /, **fields: object) -> Sent:
    """A purchase in the base currency."""
    return event("purchase", account, event_id, at, amount_minor=amount_minor, currency="USD", **fields)


async def until(condition: Callable[[], Awaitable[T | None]], what: str, *, seconds: float = PATIENCE_SECONDS) -> T:
    """What the condition returns as soon as it is true. Raises TimeoutError, saying what did not come."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not (found := await condition()):
        if clock() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(POLL_SECONDS)
    return found


def settings_for(servers: Servers, **changes: Any) -> Settings:
    """Settings with names of their own on shared servers, for the embedded broker unless changed."""
    name = f"t{uuid.uuid4().hex[:8]}"
    fields: dict[str, Any] = {
        "kafka_bootstrap_servers": servers.kafka,
        "kafka_transactions": False,
        "kafka_group": name,
        "topic_prefix": f"{name}-",
        "redis_url": SecretStr(servers.redis),
        "redis_prefix": name,
        "clock": "replay",
        "due_chunk_accounts": 7,
        "relay_interval_ms": 1,
        **changes,
    }
    # Shorter than anybody else should have it: the embedded broker makes a group wait for half of it.
    session = fields.pop("kafka_session_timeout_seconds", 2.0)
    return Settings(**fields).model_copy(update={"kafka_session_timeout_seconds": session})


class Installation:
    """Topics, keys, and connections to look and to send. Use as an async context manager."""

    def __init__(self, servers: Servers, *, policy: Policy = PURE, partitions: int = 2, **changes: Any) -> None:
        self.settings = settings_for(servers, **changes)
        self.policy = policy
        self.partitions = partitions
        self.names = TopicNames(self.settings.topic_prefix)
        self.redis: Redis = connect(self.settings.redis_url.get_secret_value())
        self.reader = LogReader(self.settings.kafka_arguments(), self.settings.topic_prefix)
        self.producer = AIOKafkaProducer(
            **self.settings.kafka_arguments(), acks="all", linger_ms=0, max_request_size=4 * 1024 * 1024
        )
        self._running: list[InProcess] = []

    async def __aenter__(self) -> Self:
        await self.create_topics()
        await self.reader.__aenter__()
        await self.producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in list(self._running):
            await running.stop(ignore_failure=True)
        await self.producer.stop()
        await self.reader.__aexit__(kind, error, trace)
        await self.redis.aclose()

    async def create_topics(self) -> None:
        """Make the topics."""
        admin = AIOKafkaAdminClient(**self.settings.kafka_arguments())
        await admin.start()
        try:
            await create_topics(admin, self.settings, self.policy, self.partitions, 1)
        finally:
            await admin.close()

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(self, *records: Sent) -> list[RecordMetadata]:
        """Send, in order; return where they are when the broker has all of them."""
        futures = [
            await self.producer.send(
                self.names.name(record.topic), record.value, key=record.key, partition=record.partition
            )
            for record in records
        ]
        return [await future for future in futures]

    async def tick(
        self,
        at: datetime,
        *,
        mode: Mode = "replay",
        ahead: Mapping[Topic, int] | None = None,
        partitions: Iterable[int] | None = None,
    ) -> None:
        """Tell the shards the time, to be applied once all that was sent is applied, and `ahead` records more."""
        assert mode != "backfill"
        bounds = await self.reader.bounds(
            [(topic, number) for topic in EVENT_TOPICS for number in range(self.partitions)]
        )
        for number in range(self.partitions) if partitions is None else partitions:
            ends = {str(topic): bounds[topic, number].end + (ahead or {}).get(topic, 0) for topic in EVENT_TOPICS}
            value = encode_tick(Tick(parse_instant(at.isoformat()), mode, ends))
            await self.send(Sent(Topic.TICKS, None, value, number))

    # -- workers -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def worker(self, **changes: Any) -> "AsyncIterator[InProcess]":
        """A worker in this process, until the end of the context, where it must leave without an error."""
        running = self.start(**changes)
        yield running
        await self.stop(running)

    async def stop(self, running: "InProcess") -> None:
        """Let a worker drain and leave. Raises what it died of."""
        self._running.remove(running)
        await running.stop()

    def start(self, *, policy: Policy | None = None, rebuild: bool = False, **changes: Any) -> "InProcess":
        """Start a worker in this process."""
        running = InProcess(self.settings.model_copy(update=changes), policy or self.policy, rebuild=rebuild)
        self._running.append(running)
        return running

    async def apply(self, policy: Policy, *, is_silent: bool = False) -> None:
        """Apply another policy, as the command does; from now on workers are started with it. Raises CannotApply."""

        async def write(number: int, value: bytes) -> None:
            await self.send(Sent(Topic.TICKS, None, value, number))

        await apply_policy(self.redis, self.settings.redis_prefix, self.reader, write, policy, is_silent=is_silent)
        self.policy = policy

    # -- looking -----------------------------------------------------------------------------------------------------

    async def rest(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when all that is in the log has had all its effects. Raises what a worker in this process died of."""
        reason: str | None = ""

        async def at_rest() -> bool:
            nonlocal reason
            for running in self._running:
                running.check()
            try:
                reason = await unrest(self.redis, self.reader, self.settings, until_placed=True)
            except NoInstallation as error:
                reason = str(error)
            return reason is None

        try:
            await until(at_rest, "rest", seconds=seconds)
        except TimeoutError:
            raise TimeoutError(f"not at rest after {seconds:g} s: {reason}") from None

    async def records(self, *topics: Topic) -> list[tuple[Topic, ConsumerRecord]]:
        """All that consumers who read committed records see in these topics, in order by partition."""
        starts = {(topic, number): 0 for topic in topics for number in range(self.partitions)}
        return [found async for found in self.reader.read(starts)]

    async def changes(self) -> list["Told"]:
        """All records of segment changes, repeated ones too."""
        return [Told.of(record) for _, record in await self.records(Topic.SEGMENT_CHANGES)]

    async def dead_letters(self) -> list[DeadLetter]:
        """All dead letters, repeated ones too."""
        return [
            read_dead_letter(record.key, record.value, record.headers)
            for _, record in await self.records(Topic.DEAD_LETTERS)
        ]

    async def until_told(self, condition: Callable[[list["Told"]], bool], what: str) -> list["Told"]:
        """The segment changes as soon as they fulfil the condition."""

        async def told() -> list[Told] | None:
            for running in self._running:
                running.check()
            changes = await self.changes()
            return changes if condition(changes) else None

        return await until(told, what)

    async def state(self) -> Snapshot:
        """All that the shards hold."""
        return await read_snapshot(self.redis, self.settings)

    async def members(self) -> dict[str, Member]:
        """What the ranking stage knows of each account."""
        return {account: member for account, (member, _) in (await self.state()).members().items()}

    async def segments(self) -> dict[str, str]:
        """What each account is now."""
        return {account: str(member.current_segment) for account, member in (await self.members()).items()}

    async def counts(self, topic: Topic) -> dict[str, int]:
        """Records of an input that were applied, duplicates and dead letters, over all partitions."""
        totals: dict[str, int] = defaultdict(int)
        for shard in (await self.state()).account_shards:
            for name, count in shard.counts(topic).items():
                totals[name] += count
        return dict(totals)


class Load:
    """Events of all kinds, some twice, some late, and the time they happen in."""

    def __init__(
        self, installation: Installation, chance: random.Random, *, accounts: int = 40, bad_share: float = 0.0
    ) -> None:
        """`bad_share`: how many of the records break their contract."""
        self._installation = installation
        self._bad_share = bad_share
        self._chance = chance
        self._accounts = [f"a{number}" for number in range(accounts)]
        self._sent: list[Sent] = []
        self.day = 100.0
        """Of the newest tick, after FIRST_DAY."""
        self.events = 0

    def some(self, count: int) -> list[Sent]:
        """New events, and one in twenty that was sent before."""
        chance, records = self._chance, []
        for _ in range(count):
            if self._sent and chance.random() < 0.05:
                records.append(chance.choice(self._sent))
                continue
            if self._bad_share and chance.random() < self._bad_share:
                records.append(self._bad())
                continue
            self.events += 1
            account, at = chance.choice(self._accounts), moment(self.day - chance.expovariate(1 / 40))
            kind = chance.choice(["purchase", "purchase", "purchase", "signup", "engagement"])
            fields: dict[str, object] = {"kind": chance.choice(_ENGAGEMENTS)} if kind == "engagement" else {}
            if kind == "purchase":
                fields = {"amount_minor": int(chance.paretovariate(1) * 100), "currency": "USD"}
                if chance.random() < 0.1:
                    fields["kind"] = "refund"
                    if self._bad_share and chance.random() < 0.5:
                        fields["purchased_at"] = moment(self.day - chance.expovariate(1 / 40)).isoformat()
            if kind == "signup" and self._installation.policy.population is not None:
                fields["attributes"] = {self._installation.policy.population: chance.choice(_REGIONS)}
            records.append(event(kind, account, f"{self.events}", at, **fields))
        self._sent = (self._sent + records)[-500:]
        return records

    def _bad(self) -> Sent:
        bad = self._chance.choice(_BAD_RECORDS)
        return Sent(_TOPICS[bad.kind], bad.key, bad.value, bad_partition_of(bad, self._installation.partitions))

    async def send(self, count: int) -> None:
        """Send some, and return when the broker has them."""
        await self._installation.send(*self.some(count))

    async def tick(self) -> None:
        """Let time go on, by up to three days."""
        self.day += 3 * self._chance.random()
        await self._installation.tick(moment(self.day))

    async def run(self, batches: int, count: int = 50) -> None:
        """Send so many batches, with time in between."""
        for _ in range(batches):
            await self.send(count)
            await self.tick()

    async def finish(self) -> None:
        """A last tick, with which all clocks agree."""
        self.day += 1
        await self._installation.tick(moment(self.day))


class InProcess:
    """A worker in this process."""

    def __init__(self, settings: Settings, policy: Policy, *, rebuild: bool = False) -> None:
        self.redis: Redis = connect(settings.redis_url.get_secret_value())
        self.worker = Worker(settings, policy, self.redis)
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(self.worker.run(self._stop, rebuild=rebuild))

    def check(self) -> None:
        """Raise what the worker died of."""
        if self.task.done():
            self.task.result()
            raise AssertionError("the worker has left")

    async def claimed(self) -> None:
        """Return when it owns shards."""

        async def claimed() -> bool:
            self.check()
            return bool(self.worker.shards) and all(shard.owned for shard in self.worker.shards.values())

        await until(claimed, "a claimed shard")

    async def stop(self, *, ignore_failure: bool = False) -> None:
        """Let it drain and leave. Raises what it died of."""
        self._stop.set()
        try:
            await self.task
        except Exception:
            if not ignore_failure:
                raise
        finally:
            await self.redis.aclose()


class WorkerProcess:
    """A worker as a process of its own, with its log in a file."""

    def __init__(
        self,
        installation: Installation,
        directory: Path,
        name: str = "worker",
        *,
        module: Sequence[str] = ("tests.worker_process",),
        rebuild: bool = False,
    ) -> None:
        """`module`: with its arguments, another one that does what `tests.worker_process` does."""
        settings = installation.settings
        self.log = directory / f"{name}.log"
        document = settings.model_dump(mode="json") | {"redis_url": settings.redis_url.get_secret_value()}
        self._process = self._started([sys.executable, "-m", *module], dict(os.environ))
        assert self._process.stdin is not None
        given = {"settings": document, "policy": installation.policy.document(), "rebuild": rebuild}
        self._process.stdin.write(json.dumps(given).encode())
        self._process.stdin.close()

    def _started(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[1],
                env=environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            sys.stderr.write(f"--- {self.log.name}\n{self.said()[-30_000:]}\n")
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise AssertionError, with its last words, if it has ended."""
        assert self.status() is None, f"the worker ended with {self.status()}:\n{self.said()[-8000:]}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait."""
        self._process.kill()
        self._process.wait()

    async def ended(self) -> int:
        """Its exit status, once it has ended."""

        async def ended() -> bool:
            return self.status() is not None

        await until(ended, f"the end of the worker:\n{self.said()[-3000:]}")
        status = self.status()
        assert status is not None
        return status

    async def until_said(self, text: str, *, after: int = 0) -> None:
        """Return when its log has this text, behind so many characters."""

        async def said() -> bool:
            self.check()
            return text in self.said()[after:]

        await until(said, f"{text!r} in the log of the worker")


class CommandProcess(WorkerProcess):
    """A command of `resegment` as a process of its own, with the installation's settings in its environment."""

    def __init__(
        self,
        installation: Installation,
        directory: Path,
        name: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`variables` win over the settings."""
        self.log = directory / f"{name}.log"
        environment = os.environ | environment_of(installation.settings) | dict(variables or {})
        self._process = self._started(self.command(*arguments), environment)

    def command(self, *arguments: str) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "streams.cli", *arguments]


class ProgramProcess(CommandProcess):
    """Another program, as CommandProcess runs a command: the first argument is its path."""

    def command(self, *arguments: str) -> list[str]:
        """The arguments."""
        return [*arguments]


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that say these settings."""
    found: dict[str, str] = {}
    for name, value in settings:
        if name == "alerts_url":
            found |= {f"RESEGMENT_ALERTS_URL_{key.upper()}": url.get_secret_value() for key, url in value.items()}
        elif value is not None:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            found[f"RESEGMENT_{name.upper()}"] = str(plain)
    return found


# -- what must hold -------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A record of a segment change, as consumers see it."""

    account: str
    sequence: int
    offset: int
    bytes: tuple[bytes, bytes, tuple[tuple[str, bytes], ...], int]
    """Key, value, headers, partition: all that must be the same when it is told again."""
    previous: str | None
    current: str
    data: dict[str, Any]

    @classmethod
    def of(cls, record: ConsumerRecord) -> Self:
        """The change in a record."""
        data = json.loads(record.value)
        same = (record.key, record.value, tuple(record.headers), record.partition)
        told = cls(
            data["account_id"],
            data["sequence"],
            record.offset,
            same,
            data["previous_segment"],
            data["current_segment"],
            data,
        )
        assert record.key == told.account.encode()
        assert dict(record.headers)["ce_id"] == f"{told.account}:{told.sequence}".encode()
        return told

    @property
    def effective_at_us(self) -> int:
        """When it came to be."""
        return parse_instant(self.data["effective_at"])

    @property
    def cause(self) -> str:
        """The kind of its cause."""
        return str(self.data["cause"]["kind"])


def chains(changes: Sequence[Told]) -> dict[str, list[Told]]:
    """Each account's changes, each once, in order. Fails where a chain has a gap, a fork or a different repetition."""
    found: dict[str, list[Told]] = defaultdict(list)
    for told in sorted(changes, key=lambda told: (told.bytes[-1], told.offset)):
        chain = found[told.account]
        if told.sequence <= len(chain):
            assert chain[told.sequence - 1].bytes == told.bytes, "told again, and differently"
            continue
        last = chain[-1] if chain else None
        assert told.sequence == len(chain) + 1, f"{told.account}: {told.sequence} after {len(chain)}"
        assert told.previous == (last.current if last else None), f"{told.account}: a chain with a wrong link"
        assert told.current != told.previous, f"{told.account}: a change that changes nothing"
        if last:
            assert told.effective_at_us >= last.effective_at_us, f"{told.account}: goes back in time"
        chain.append(told)
    return dict(found)


class Expected(NamedTuple):
    """What an account must be, worked out from the log by definition."""

    revenue_minor: int
    segment: str


async def expected_accounts(installation: Installation, day: int) -> dict[str, Expected]:
    """What every account must be on a day without a band: everything anew, from the log and the dead letters alone."""
    policy = installation.policy
    dead = {(letter.topic, letter.partition, letter.offset) for letter in await installation.dead_letters()}
    purchases: dict[str, list[tuple[int, int, bool]]] = {}
    seen: set[tuple[str, str, str]] = set()
    for topic, record in await installation.records(*EVENT_TOPICS):
        if (topic, record.partition, record.offset) in dead:
            continue
        document = json.loads(record.value)
        account = document["account_id"]
        own = purchases.setdefault(account, [])
        identity = (topic, account, document["event_id"])
        if topic is Topic.PURCHASES and identity not in seen:
            own.append(_purchased(document))
        seen.add(identity)
    stages, revenues = {}, {}
    for account, listed in purchases.items():
        first = min((on for on, _, is_refund in listed if not is_refund), default=None)
        revenues[account] = sum(amount for on, amount, _ in listed if day - policy.window_days < on <= day)
        if first is None or first > day:
            stages[account] = "prospect"
        else:
            stages[account] = "new_start" if day - first < policy.new_start_days else "established"
    return dict(_ranked(policy, stages, revenues))


def _purchased(document: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Day, amount and whether it is a refund."""
    is_refund = document.get("kind") == "refund"
    at = document["purchased_at"] if is_refund and "purchased_at" in document else document["occurred_at"]
    on = datetime.fromisoformat(at).astimezone(UTC).date().toordinal() - datetime(1970, 1, 1).toordinal()
    assert document["currency"] == "USD", "the brute force knows no rates"
    return on, -document["amount_minor"] if is_refund else document["amount_minor"], is_refund


def _ranked(policy: Policy, stages: Mapping[str, str], revenues: Mapping[str, int]) -> Iterator[tuple[str, Expected]]:
    ranked = sorted(
        (revenue for account, revenue in revenues.items() if stages[account] == "established" and revenue > 0),
        reverse=True,
    )
    above: dict[int, int] = {}
    total, running = sum(ranked), 0
    for revenue in ranked:
        above.setdefault(revenue, running)
        running += revenue
    for account, stage in stages.items():
        revenue, segment = revenues[account], stage
        if stage == "established":
            segment = "commercial"
            if revenue > 0:
                first, second = policy.boundaries
                place = above[revenue] * 10_000
                segment = "key" if place < first * total else "enterprise" if place < second * total else segment
        yield account, Expected(revenue, segment)


async def check(installation: Installation) -> dict[str, list[Told]]:
    """Everything that must hold of an installation at rest, in a policy without a band. Returns the chains."""
    await installation.rest()
    snapshot = await installation.state()
    members = {account: member for account, (member, _) in snapshot.members().items()}
    await _until_visible(installation, {account: member.sequence for account, member in members.items()})
    changes = chains(await installation.changes())
    _check_counts(installation, snapshot, await _records_by_place(installation))
    await _check_dead_letters(installation, snapshot)
    await _check_latest(installation, changes)
    assert {account: (member.sequence, member.segment) for account, member in members.items() if member.sequence} == {
        account: (len(chain), chain[-1].current) for account, chain in changes.items()
    }
    days = {shard.day for shard in snapshot.account_shards if shard.day}
    if days:
        assert len(days) == 1, "the clocks differ: nothing to compare with"
        expected = await expected_accounts(installation, days.pop())
        assert {
            account: Expected(member.revenue_minor, str(member.current_segment)) for account, member in members.items()
        } == expected
        assert {account: chain[-1].current for account, chain in changes.items()} == {
            account: wanted.segment for account, wanted in expected.items()
        }
    else:
        assert not changes
    return changes


async def _until_visible(installation: Installation, sequences: Mapping[str, int]) -> None:
    """Return when readers see what was published: a transaction is over a moment before its markers are written."""

    async def visible() -> bool:
        for topic in (Topic.SEGMENT_CHANGES, Topic.SEGMENTS):
            seen: dict[str, int] = {}
            for _, record in await installation.records(topic):
                told = Told.of(record)
                seen[told.account] = max(told.sequence, seen.get(told.account, 0))
            if any(seen.get(account, 0) < sequence for account, sequence in sequences.items()):
                return False
        return True

    await until(visible, "all changes in the log")


async def _records_by_place(installation: Installation) -> dict[tuple[Topic, int], int]:
    counts: dict[tuple[Topic, int], int] = defaultdict(int)
    for topic, record in await installation.records(*ACCOUNT_INPUTS, Topic.STANDINGS):
        counts[topic, record.partition] += 1
    return counts


def _check_counts(installation: Installation, snapshot: Snapshot, records: Mapping[tuple[Topic, int], int]) -> None:
    """Consumed = applied + duplicates + dead letters, in every partition."""
    for shard in snapshot.account_shards:
        for topic in ACCOUNT_INPUTS:
            assert sum(shard.counts(topic).values()) == records.get((topic, shard.partition), 0), (
                topic,
                shard.partition,
                shard.counts(topic),
            )
    for ranking in snapshot.ranking_shards:
        place = (Topic.STANDINGS, ranking.partition)
        assert sum(ranking.counts().values()) == records.get(place, 0), (place, ranking.counts())


async def _check_dead_letters(installation: Installation, snapshot: Snapshot) -> None:
    """As many records are named by dead letters as were counted; a repeated one is the same."""
    named: dict[tuple[str, int, int], DeadLetter] = {}
    for letter in await installation.dead_letters():
        assert named.setdefault((letter.topic, letter.partition, letter.offset), letter) == letter
    counted = {
        (str(topic), shard.partition): count
        for shard in snapshot.account_shards
        for topic in ACCOUNT_INPUTS
        if (count := shard.counts(topic)["dead_letters"])
    } | {
        (str(Topic.STANDINGS), shard.partition): count
        for shard in snapshot.ranking_shards
        if (count := shard.counts()["dead_letters"])
    }
    found: dict[tuple[str, int], int] = defaultdict(int)
    for topic, partition, _ in named:
        found[topic, partition] += 1
    assert found == counted


async def _check_latest(installation: Installation, changes: Mapping[str, list[Told]]) -> None:
    """The compacted topic's latest of each account is its last change, byte for byte."""
    latest: dict[str, Told] = {}
    for _, record in await installation.records(Topic.SEGMENTS):
        told = Told.of(record)
        latest[told.account] = told
    assert {account: told.bytes for account, told in latest.items()} == {
        account: chain[-1].bytes for account, chain in changes.items()
    }


async def outboxes(installation: Installation) -> list[str]:
    """The keys of all outboxes."""
    return [
        shard_keys(installation.settings.redis_prefix, stage, number).outbox
        for stage in StageName
        for number in range(installation.partitions)
    ]


def day_of(at: datetime) -> int:
    """Days since 1970."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)).days


def account_in(partition: int, partitions: int, name: str) -> str:
    """An account of this partition whose id begins with the name."""
    number = 0
    while partition_of(f"{name}-{number}".encode(), partitions) != partition:
        number += 1
    return f"{name}-{number}"
