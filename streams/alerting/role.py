"""The process of `resegment alerts`: a Faust application in a group of its own, and the ledger.

It reads what the ranking stage announces, and nothing waits for it: it may stop, restart or lag.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, cast

from aiokafka.errors import KafkaError
from faust.types import TP
from redis.asyncio import Redis

from segmentation.policy import Policy
from state import founding
from state.documents import decode_profile
from state.keys import LedgerName, StageName
from state.shard_store import SCHEMA_VERSION, ShardStore
from streams import transport
from streams.alerting.channels import Channel, variable_of
from streams.alerting.ledger import READ, AlertShard
from streams.alerting.news import Facts
from streams.alerting.texts import BadTemplate, Texts
from streams.application import Failure, new_app
from streams.log import LogReader
from streams.partitions import partition_of
from streams.settings import Settings
from streams.shard import LogPosition
from streams.topics import Topic, TopicNames, place_name, place_of, require_fit
from streams.worker import DRAIN_SECONDS, WATCH_SECONDS, CannotStart, wall_clock_us

log = logging.getLogger(__name__)


class AlertsRole:
    """Tells people of changes, until stopped or something is wrong."""

    def __init__(self, settings: Settings, policy: Policy, redis: Redis) -> None:
        self.settings = settings
        self.policy = policy
        self.redis = redis
        self.names = TopicNames(settings.topic_prefix)
        self.reader = LogReader(settings.kafka_arguments(), settings.topic_prefix)
        self.shard: AlertShard | None = None
        self.stands_by = False
        """Whether another process has the ledger."""
        self.partitions = 0
        self._store = ShardStore(redis, settings.redis_prefix, LedgerName.ALERTS, 0)
        self._failure = Failure()
        self.app = self._new_app()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is being sent. Raises CannotStart, CorruptState."""
        async with AsyncExitStack() as stack:
            check_alerts(self.settings, self.policy)
            await stack.enter_async_context(self.reader)
            await self.prepare()
            watch = asyncio.create_task(self._watch_reading())
            self.app.finalize()
            try:
                await self.app.start()
                await self._failure.until_stopped(self.app, stop)
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                await cast(transport.Consumer, self.app.consumer).stop_claiming()
                if self.shard is not None:
                    await self.shard.close(drain_seconds=DRAIN_SECONDS)
                await self.app.stop()

    async def prepare(self) -> None:
        """See that what is needed is there, and begin the ledger if there is none. Raises CannotStart, UnfitTopics."""
        await self.reader.refresh()
        counts = {topic: self.reader.partition_count(topic) for topic in READ}
        require_fit(counts, self.names, equal=READ)
        self.partitions = self.app.partitions = counts[Topic.TICKS]
        known = await founding.read_founding(self.redis, self.settings.redis_prefix)
        if known is None:
            raise CannotStart("no worker has begun with this store yet; start one first")
        if known.schema_version != SCHEMA_VERSION:
            raise CannotStart(f"the store has schema {known.schema_version}, this program reads {SCHEMA_VERSION}")
        if await self._store.peek() is None:
            bounds = await self.reader.bounds([place_of(place) for place in self._places()])
            await self._store.create({place_name(*place): bound.end for place, bound in bounds.items()})
            log.warning("there is no ledger of alerts yet: this one begins with what is announced from now on")

    def _places(self) -> list[str]:
        return [place_name(topic, number) for topic in READ for number in range(self.partitions)]

    def _new_app(self) -> transport.App:
        settings = self.settings
        app = new_app(settings, f"{settings.kafka_group}-alerts", transport.SoleAssignor)
        app.claim_partitions = self.claim_partitions
        topics = app.topic(*map(self.names.name, READ), schema=transport.BatchSchema())
        app.agent(topics, name="alerts", concurrency=1)(self._agent)
        return app

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            batch = event.value
            if self.shard is not None:
                place = place_name(self.names.topic(batch.topic), batch.partition)
                try:
                    await self.shard.offer(cast(Topic, place), batch)
                except Exception as error:
                    self._failure.tell(error)
                    return
            event.ack()

    async def claim_partitions(self, assigned: set[TP]) -> dict[TP, int]:
        """Claim the ledger if all partitions are ours, or let it go if none is. Returns where to read on."""
        if self.app.should_stop:
            return {}
        try:
            self.stands_by = not assigned
            if self.stands_by:
                await self._stand_by()
                return {}
            assert len(assigned) == len(self._places()), "one process has all partitions, or none"
            if self.shard is None:
                self.shard = self._new_shard()
            offsets = await self.shard.claim()
        except Exception as error:
            self._failure.tell(error)
            return {}
        log.info("claimed the ledger of alerts")
        return {self._tp(place): offset for place, offset in offsets.items()}

    async def _stand_by(self) -> None:
        if self.shard is not None:
            await self.shard.close()
            self.shard = None
        log.info("standing by: another process sends the alerts")

    def _tp(self, place: str) -> TP:
        topic, number = place_of(place)
        return TP(self.names.name(topic), number)

    def _new_shard(self) -> AlertShard:
        settings = self.settings

        def channel_of(name: str) -> Channel:
            return Channel(name, settings.alerts_url.get(name), timeout_seconds=settings.alerts_send_seconds)

        return AlertShard(
            self._store,
            self,
            settings=settings,
            policy=self.policy,
            partitions=self.partitions,
            facts_of=facts_reader(self.redis, settings.redis_prefix, self.partitions),
            clock_of_accounts=clock_reader(self.redis, settings.redis_prefix, self.partitions),
            channel_of=channel_of,
            wall_clock=wall_clock_us,
            failed=self._failure.tell,
        )

    async def bounds(self, partition: int, topics: Sequence[Topic]) -> dict[Topic, LogPosition]:
        """Where the log begins and ends in these places, whatever the partition."""
        found = await self.reader.bounds([place_of(place) for place in topics])
        return {cast(Topic, place_name(*place)): position for place, position in found.items()}

    async def seek(self, partition: int, offsets: Mapping[Topic, int]) -> dict[Topic, int]:
        """Go on reading from these offsets of places. Returns for each how often its position was set by now."""
        consumer = cast(transport.Consumer, self.app.consumer)
        tps = {place: self._tp(place) for place in offsets}
        assigned = consumer.assignment()
        await consumer.seek_wait({tp: offsets[place] for place, tp in tps.items() if tp in assigned})
        return {place: consumer.seeks(tp) for place, tp in tps.items()}

    @property
    def failure(self) -> BaseException | None:
        """What it will end of, once it has left; None: of nothing."""
        return self._failure.of(self.app)

    async def _watch_reading(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if self.shard is not None:
                    await self.shard.watch_reading()
            except (KafkaError, OSError) as error:
                log.debug("cannot see where the log ends: %s", error)


def channels_of(policy: Policy) -> list[str]:
    """The channels that a policy tells people by."""
    return sorted({rule.channel for rule in policy.alerts} | {p.channel for p in policy.people.values() if p.channel})


def check_alerts(settings: Settings, policy: Policy) -> None:
    """See that messages can be written and sent. Raises CannotStart."""
    if not policy.alerts:
        raise CannotStart("the policy has no [[alerts]]: there is nothing to tell anybody (docs/alerts.md)")
    missing = [variable_of(name) for name in channels_of(policy) if name not in settings.alerts_url]
    if missing:
        raise CannotStart(f"channels of the policy have no address: set {', '.join(missing)}")
    try:
        Texts(policy)
    except BadTemplate as error:
        raise CannotStart(str(error)) from None


def facts_reader(
    redis: Redis, prefix: str, partitions: int
) -> Callable[[Sequence[str]], Awaitable[Mapping[str, Facts]]]:
    """What accounts say of themselves, as the account stage knows it. A round trip a partition."""

    async def read(accounts: Sequence[str]) -> Mapping[str, Facts]:
        by_partition: dict[int, list[str]] = {}
        for account in accounts:
            by_partition.setdefault(partition_of(account.encode(), partitions), []).append(account)
        facts: dict[str, Facts] = {}
        for number, ids in by_partition.items():
            profiles = await ShardStore(redis, prefix, StageName.ACCOUNTS, number).load("profiles", ids)
            facts |= {id_: Facts.of(decode_profile(profile)) for id_, profile in zip(ids, profiles, strict=True)}
        return facts

    return read


def clock_reader(redis: Redis, prefix: str, partitions: int) -> Callable[[], Awaitable[int]]:
    """The time up to which the whole account stage has applied everything, in microseconds. A round trip a partition,
    side by side."""
    stores = [ShardStore(redis, prefix, StageName.ACCOUNTS, number) for number in range(partitions)]

    async def read() -> int:
        claims = await asyncio.gather(*(store.peek() for store in stores))
        return min(claim.state.get("clock_us", 0) if claim else 0 for claim in claims)

    return read
