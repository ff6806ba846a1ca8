"""Publishing records into the input topics, in order, as fast as the broker takes them."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from streams.partitions import partition_of
from streams.settings import Settings
from streams.tasks import heard
from streams.topics import Topic, TopicNames

BATCH_BYTES_MAX = 128 * 1024
"""Records of one partition that travel together. A larger record travels alone."""


class EventWriter:
    """Appends records to topics and knows where they ended up. Use as an async context manager, from one task.

    Records of one partition keep the order they were written in, whatever happens on the way. Nothing is sure to be in
    the log before `flush` has returned.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = TopicNames(settings.topic_prefix)
        self._kafka_arguments = settings.kafka_arguments()
        self._builders: dict[tuple[Topic, int], BatchBuilder] = {}
        self._sent: deque[tuple[tuple[Topic, int], int, asyncio.Future[RecordMetadata]]] = deque()
        self._counts: dict[Topic, int] = {}
        self._without_key = 0
        self.ends: dict[tuple[Topic, int], int] = {}
        """Of each partition written to, the offset after the newest record of this writer, as of the last flush."""

    async def __aenter__(self) -> Self:
        """Connect. Raises KafkaError."""
        producer = AIOKafkaProducer(**self._kafka_arguments, acks="all", max_batch_size=BATCH_BYTES_MAX)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def partition_count(self, topic: Topic) -> int:
        """How many partitions a topic has. Raises KafkaError, also where the topic is not there."""
        if topic not in self._counts:
            found = await self._producer.partitions_for(self._names.name(topic))
            self._counts[topic] = len(found)
        return self._counts[topic]

    async def write(self, topic: Topic, key: bytes | None, value: bytes | None, *, partition: int | None = None) -> int:
        """Append one record; returns its partition: the one Kafka's default partitioner gives the key.

        Records without a key take turns. Raises KafkaError.
        """
        if partition is None:
            partition = self._partition(key, self._counts.get(topic) or await self.partition_count(topic))
        place = (topic, partition)
        builder = self._builders.get(place)
        if builder is None or builder.append(timestamp=None, key=key, value=value) is None:
            if builder is not None:
                await self._send(place, builder)
            builder = self._builders[place] = self._producer.create_batch()
            builder.append(timestamp=None, key=key, value=value)
        return partition

    async def flush(self) -> None:
        """Return when the broker has all that was written. Raises KafkaError."""
        for place, builder in self._builders.items():
            await self._send(place, builder)
        self._builders.clear()
        await self._confirm(0)

    def _partition(self, key: bytes | None, count: int) -> int:
        if key is None:
            self._without_key += 1
            return self._without_key % count
        return partition_of(key, count)

    async def _send(self, place: tuple[Topic, int], builder: Any) -> None:
        topic, partition = place
        builder.close()
        # waits while the batch before it in this partition is not on its way yet
        future = await self._producer.send_batch(builder, self._names.name(topic), partition=partition)
        # whoever leaves early is not told of the batches that failed after the first one
        future.add_done_callback(heard)
        self._sent.append((place, builder.record_count(), future))
        await self._confirm(1_000)

    async def _confirm(self, unconfirmed_max: int) -> None:
        """Wait for the oldest batches, so that a broker's refusal is heard and memory is bounded."""
        while len(self._sent) > unconfirmed_max:
            place, count, future = self._sent[0]
            metadata = await future
            self._sent.popleft()
            self.ends[place] = max(self.ends.get(place, 0), metadata.offset + count)
