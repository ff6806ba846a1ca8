"""Publishing what a shard has decided: the outbox, oldest first, then trimmed.

What is in the outbox is committed, so it is published until the broker has it, the same bytes each time. A record may
appear twice in the log, after a crash between publishing and trimming; it is never missing and never different.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.structs import RecordMetadata
from redis.exceptions import RedisError

from state.shard_store import Refused, ShardStore
from streams.backoff import Backoff
from streams.messages import Outgoing, decode_outgoing
from streams.topics import DEAD_LETTER_BYTES_MAX, Topic, TopicNames

log = logging.getLogger(__name__)

PRODUCER_ARGUMENTS: dict[str, Any] = {
    "acks": "all",
    "linger_ms": 0,
    "max_request_size": DEAD_LETTER_BYTES_MAX + 65_536,
}


class Publisher(Protocol):
    """Takes records to the broker."""

    async def claim(self) -> None:
        """From now on whatever an earlier owner still sends is refused, where the broker can do that."""

    async def publish(self, records: list[Outgoing]) -> list[tuple[Topic, RecordMetadata]]:
        """Return when the broker has all of them. Raises ProducerFenced when another worker claimed since."""

    async def close(self) -> None:
        """Let the connection go."""


class TransactionalPublisher:
    """One transaction for all records of a call, by one transactional id for each shard: a later claim fences this."""

    def __init__(self, kafka_arguments: dict[str, Any], transactional_id: str, names: TopicNames) -> None:
        self._arguments = kafka_arguments
        self._transactional_id = transactional_id
        self._names = names
        self._producer: AIOKafkaProducer | None = None

    async def claim(self) -> None:
        """Take the transactional id; aborts what an earlier owner left open."""
        await self.close()
        producer = AIOKafkaProducer(
            **self._arguments, **PRODUCER_ARGUMENTS, transactional_id=self._transactional_id
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def publish(self, records: list[Outgoing]) -> list[tuple[Topic, RecordMetadata]]:
        """All or none of the records. After any error, claim before publishing again."""
        producer = self._producer
        assert producer is not None
        try:
            async with producer.transaction():
                return await _send(producer, records, self._names)
        except BaseException:
            self._producer = None
            await asyncio.shield(_stop(producer))
            raise

    async def close(self) -> None:
        """Let the connection go."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()


class PlainPublisher:
    """For a broker that knows no producer ids: nothing is fenced, so one worker is the limit."""

    def __init__(self, kafka_arguments: dict[str, Any], names: TopicNames) -> None:
        self._arguments = kafka_arguments
        self._names = names
        self._producer: AIOKafkaProducer | None = None

    async def claim(self) -> None:
        """Connect."""
        if self._producer is None:
            producer = AIOKafkaProducer(**self._arguments, **PRODUCER_ARGUMENTS)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer

    async def publish(self, records: list[Outgoing]) -> list[tuple[Topic, RecordMetadata]]:
        """Each record acknowledged by the broker."""
        assert self._producer is not None
        return await _send(self._producer, records, self._names)

    async def close(self) -> None:
        """Let the connection go."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        await producer.stop()
    except (KafkaError, OSError) as error:
        log.debug("a failed producer did not stop cleanly: %s", error)


async def _send(
    producer: AIOKafkaProducer, records: list[Outgoing], names: TopicNames
) -> list[tuple[Topic, RecordMetadata]]:
    sent = []
    for record in records:
        for topic in record.topics:
            future = await producer.send(
                names.name(Topic(topic)),
                record.value,
                key=record.key,
                headers=record.headers,
                timestamp_ms=record.timestamp_ms,
            )
            sent.append((Topic(topic), future))
    return [(topic, await future) for topic, future in sent]


class Relay:
    """Publishes one shard's outbox for as long as the shard is this worker's."""

    def __init__(
        self,
        store: ShardStore,
        publisher: Publisher,
        *,
        interval_ms: int,
        lost: Callable[[str], Awaitable[None]],
    ) -> None:
        self.store = store
        self.publisher = publisher
        self.interval_ms = interval_ms
        self._lost = lost
        self._wake = asyncio.Event()
        self._published = asyncio.Condition()
        self.waiting = 0
        """Outgoing records not trimmed yet, as far as this worker knows."""
        self.told: dict[str, int] = {}

    async def restart(self, *, waiting: int, told: Mapping[str, int]) -> None:
        """Begin anew with what the store holds; whoever waits looks again."""
        async with self._published:
            self.waiting, self.told = waiting, dict(told)
            self._published.notify_all()

    def add(self, count: int) -> None:
        """A commit has put records into the outbox."""
        self.waiting += count
        if count:
            self._wake.set()

    async def drained_to(self, records_max: int) -> None:
        """Wait until no more than this many records wait: the broker's pace becomes the shard's."""
        async with self._published:
            await self._published.wait_for(lambda: self.waiting <= records_max)

    async def run(self) -> None:
        """Publish and trim until cancelled, or until the shard turns out to be another worker's.

        The publisher is claimed before the outbox is read, by its owner only: a worker that comes back late either is
        fenced by the broker, or is refused by the store.
        """
        self._wake.set()  # what the last owner left
        backoff = Backoff()
        claimed = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if not claimed:
                    await self.publisher.claim()
                    claimed = True
                while await self.publish_some():
                    pass
                backoff.reset()
            except (Refused, ProducerFenced) as error:
                await self._lost(f"{type(error).__name__}: {error}")
                return
            except (KafkaError, RedisError, OSError) as error:
                claimed = False
                self._wake.set()
                await backoff.wait(f"publishing for {self.store.stage} shard {self.store.partition}", error)
                continue
            await asyncio.sleep(self.interval_ms / 1000)

    async def publish_some(self) -> int:
        """Publish the oldest records and trim them. Returns how many there were."""
        entries = await self.store.outbox()
        if entries:
            for topic, metadata in await self.publisher.publish(
                [decode_outgoing(entry) for entry in entries]
            ):
                if topic is Topic.SEGMENTS:
                    self.told[str(metadata.partition)] = metadata.offset + 1
            await self.store.trim(len(entries), self.told)
        async with self._published:
            self.waiting = max(0, self.waiting - len(entries))
            self._published.notify_all()
        return len(entries)
