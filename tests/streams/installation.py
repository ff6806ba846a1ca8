"""A small installation that ran on the embedded servers: a year and a half of events, then rest, then no worker."""

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import SecretStr
from redis.asyncio import Redis

from segmentation.policy import Policy
from state.client import connect
from streams.embedded import Embedded
from streams.instants import parse_instant
from streams.log import LogReader
from streams.messages import Tick, encode_tick
from streams.rest import ShardsAtWork
from streams.settings import Settings
from streams.topics import ACCOUNT_INPUTS, EVENT_TOPICS, Topic, TopicNames, create_topics
from streams.worker import Worker
from tests.streams.bad_records import BAD_RECORDS, partition_of

PARTITIONS = 3
ACCOUNTS = 60
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
PHASE_DAYS = (200, 320, 366, 420, 540)
"""Days after the first one on which the installation comes to rest before it goes on."""
REST_SECONDS = 30.0

GROWN = "grown"
"""An account with at least three changes: prospect, new start, a tier."""

TOPICS = {"purchase": Topic.PURCHASES, "signup": Topic.SIGNUPS, "engagement": Topic.ENGAGEMENTS}


class Sent(NamedTuple):
    """A record of an event topic, as it is to be sent."""

    topic: Topic
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    """None: as Kafka's default partitioner says."""


def new_settings(servers: Embedded) -> Settings:
    """Settings with names of their own on shared servers."""
    name = f"t{uuid.uuid4().hex[:8]}"
    return Settings(
        kafka_bootstrap_servers=servers.kafka,
        kafka_transactions=False,
        kafka_session_timeout_seconds=6,
        kafka_group=name,
        topic_prefix=f"{name}-",
        redis_url=SecretStr(servers.redis),
        redis_prefix=name,
        clock="replay",
        due_chunk_accounts=7,
        relay_interval_ms=1,
    )


@asynccontextmanager
async def connections(settings: Settings) -> AsyncIterator[tuple[Redis, LogReader]]:
    """A store and a log to read."""
    redis = connect(settings.redis_url.get_secret_value())
    try:
        async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
            yield redis, reader
    finally:
        await redis.aclose()


# -- what happens ------------------------------------------------------------------------------------------


def event(topic_kind: str, account: str, number: int, at: datetime, /, **fields: Any) -> Sent:
    """A good record."""
    document = {
        "event_id": f"{topic_kind}-{number}",
        "account_id": account,
        "occurred_at": at.isoformat(timespec="milliseconds"),
        **fields,
    }
    return Sent(TOPICS[topic_kind], account.encode(), json.dumps(document).encode())


def story(seed: int) -> Iterator[tuple[int, list[Sent]]]:
    """(Day, what is sent up to then): purchases above all, late, dated ahead, twice, in two currencies, taken back."""
    chance = random.Random(seed)
    names = [f"acct-{number}" for number in range(ACCOUNTS)]
    begin = 0
    for phase, end in enumerate(PHASE_DAYS):
        sent: list[Sent] = []
        for number in range(120):
            # some never buy, some stop early, some begin late, and a few buy for much more than others
            who = min(int(chance.expovariate(1 / 15)), ACCOUNTS - 6) + (5 if phase > 2 else 0)
            day = chance.randint(begin, end) + chance.choice([0, 0, 0, -40, -400, 30])
            at = FIRST_DAY + timedelta(days=day, seconds=chance.randrange(86_400))
            at = at.astimezone(timezone(timedelta(minutes=chance.choice([0, 0, 330, -600]))))
            sent.append(_anything(chance, names[who], phase * 1_000 + number, at))
        sent += chance.sample(sent, 20) + _of_the_grown_one(phase)
        if phase == 1:
            sent += _bad_ones()
        chance.shuffle(sent)
        yield end, sent
        begin = end


def _anything(chance: random.Random, account: str, number: int, at: datetime) -> Sent:
    draw = chance.random()
    if draw < 0.1:
        return event("signup", account, number, at, name=f"Name {number}", attributes={"employees": number})
    if draw < 0.2:
        return event("engagement", account, number, at, kind="login")
    amount = chance.choice([0, 1, 99, 1_250, 1_250, 20_001, 500_000, 2**53 - 1]) + chance.randrange(3)
    amount = min(amount, 2**53 - 1)
    currency = chance.choice(["USD", "USD", "EUR", "JPY", "KWD"])
    if draw < 0.35:
        taken_from = (at - timedelta(days=chance.randrange(30))).isoformat()
        return event(
            "purchase", account, number, at,
            amount_minor=amount // 2, currency=currency, kind="refund", purchased_at=taken_from,
        )  # fmt: skip
    return event("purchase", account, number, at, amount_minor=amount, currency=currency)


def _of_the_grown_one(phase: int) -> list[Sent]:
    """What GROWN does to be a prospect after the first phase, then a new start, and established after the fourth."""
    signed_up, bought = FIRST_DAY + timedelta(days=190), FIRST_DAY + timedelta(days=310)
    return {
        0: [event("signup", GROWN, 90_001, signed_up)],
        1: [event("purchase", GROWN, 90_002, bought, amount_minor=400_000, currency="USD")],
    }.get(phase, [])


def _bad_ones() -> list[Sent]:
    return [Sent(TOPICS[bad.kind], bad.key, bad.value, partition_of(bad, PARTITIONS)) for bad in BAD_RECORDS]


def policy_for(band: float, basis: str) -> Policy:
    """The default policy with these, and rates that have to be rounded."""
    rates = {"EUR": "1.0835", "JPY": "0.00645", "KWD": "3.25125"}
    return Policy.default().with_changes(band=band, basis=basis, rates=rates)


# -- making it happen --------------------------------------------------------------------------------------


class Player:
    """Sends records and ticks, and knows where the inputs end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = TopicNames(settings.topic_prefix)
        self.ends = {(topic, number): 0 for topic in ACCOUNT_INPUTS for number in range(PARTITIONS)}
        self._producer = AIOKafkaProducer(**settings.kafka_arguments(), acks="all", max_request_size=4 * 1024 * 1024)

    async def __aenter__(self) -> "Player":
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def send(self, records: Iterable[Sent]) -> None:
        """Send, in order."""
        futures = [
            await self._producer.send(
                self._names.name(record.topic), record.value, key=record.key, partition=record.partition
            )
            for record in records
        ]
        for record, future in zip(records, futures, strict=True):
            metadata = await future
            self.ends[record.topic, metadata.partition] = metadata.offset + 1

    async def tick(self, at_us: int) -> None:
        """Tell every partition the time."""
        for number in range(PARTITIONS):
            ends = {str(topic): self.ends[topic, number] for topic in EVENT_TOPICS}
            value = encode_tick(Tick(at_us, "replay", ends))
            metadata = await self._producer.send_and_wait(self._names.name(Topic.TICKS), value, partition=number)
            self.ends[Topic.TICKS, number] = metadata.offset + 1


@asynccontextmanager
async def working(settings: Settings, policy: Policy) -> AsyncIterator[tuple[Player, Redis]]:
    """Topics, a worker on them, and somebody who sends."""
    admin = AIOKafkaAdminClient(**settings.kafka_arguments())
    await admin.start()
    try:
        await create_topics(admin, settings, policy, PARTITIONS, 1)
    finally:
        await admin.close()
    redis = connect(settings.redis_url.get_secret_value())
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(settings, policy, redis).run(stop))
    try:
        async with Player(settings) as player:
            yield player, redis
    finally:
        stop.set()
        await worker
        await redis.aclose()


class Installed(NamedTuple):
    """An installation at rest that no worker runs any more."""

    settings: Settings
    policy: Policy


RULES = ((0, "revenue"), (2, "revenue"), (0, "accounts"), (2, "accounts"))
"""Band and basis of the installations of `installed`."""


@cache
def installed(servers: Embedded) -> dict[tuple[float, str], Installed]:
    """The same story under each of RULES, run once for all tests of a session. They leave it as they found it."""

    async def run() -> dict[tuple[float, str], Installed]:
        made: dict[tuple[float, str], Installed] = {
            rules: Installed(new_settings(servers), policy_for(*rules)) for rules in RULES
        }
        await asyncio.gather(*(run_story(*installed, seed=7) for installed in made.values()))
        return made

    return asyncio.run(run())


async def run_story(settings: Settings, policy: Policy, seed: int) -> None:
    """Run a worker until all of the story has had its effects."""
    async with working(settings, policy) as (player, redis):
        for day, records in story(seed):
            await player.send(records)
            midnight = (FIRST_DAY + timedelta(days=day)).isoformat()
            await player.tick(parse_instant(midnight) + 1_500_000)
            shards = ShardsAtWork(redis, settings.redis_prefix, PARTITIONS, no_progress_seconds=REST_SECONDS)
            await shards.until_at_rest(player.ends)
            await shards.until_placed()
