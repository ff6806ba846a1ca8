"""Reading topics outside of the stages: where they begin and end, and everything that is in them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.structs import ConsumerRecord

from streams.shard import LogPosition
from streams.topics import Topic, TopicNames

READ_TIMEOUT_SECONDS = 60.0
"""The broker says that there are more records; if none come for this long, something is wrong with it."""


class LogReader:
    """A connection to the log that belongs to no group. Use as an async context manager; may be used concurrently."""

    def __init__(self, kafka_arguments: Mapping[str, Any], topic_prefix: str) -> None:
        self._arguments = dict(kafka_arguments)
        self._names = TopicNames(topic_prefix)
        self._consumer: AIOKafkaConsumer | None = None
        self._cluster: ClusterMetadata | None = None

    def _new_consumer(self, **arguments: Any) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._arguments,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
            **arguments,
        )

    async def __aenter__(self) -> "LogReader":
        consumer = self._new_consumer()
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def bounds(self, partitions: Sequence[tuple[Topic, int]]) -> dict[tuple[Topic, int], LogPosition]:
        """Where the log begins and ends. Raises KafkaError."""
        assert self._consumer is not None
        wanted = {
            TopicPartition(self._names.name(topic), partition): (topic, partition)
            for topic, partition in partitions
        }
        first = await self._consumer.beginning_offsets(list(wanted))
        end = await self._consumer.end_offsets(list(wanted))
        return {key: LogPosition(first[tp], end[tp]) for tp, key in wanted.items()}

    async def refresh(self) -> None:
        """Ask the broker which topics there are. Raises KafkaError."""
        assert self._consumer is not None
        self._cluster = await self._consumer._client.fetch_all_metadata()

    def partition_count(self, topic: Topic) -> int:
        """How many partitions a topic had when last asked; 0 where it was not there."""
        assert self._cluster is not None, "refresh first"
        return len(self._cluster.partitions_for_topic(self._names.name(topic)) or ())

    async def read(
        self, starts: Mapping[tuple[Topic, int], int]
    ) -> AsyncIterator[tuple[Topic, ConsumerRecord]]:
        """Every record from these offsets (or the log's begin) to the end the log has now, in order by partition.

        Raises KafkaError, TimeoutError.
        """
        bounds = await self.bounds(list(starts))
        ends: dict[TopicPartition, int] = {}
        seeks: dict[TopicPartition, int] = {}
        topics: dict[TopicPartition, Topic] = {}
        for (topic, partition), (first, end) in bounds.items():
            start = max(first, starts[topic, partition])
            if start < end:
                tp = TopicPartition(self._names.name(topic), partition)
                ends[tp], seeks[tp], topics[tp] = end, start, topic
        if not ends:
            return
        consumer = self._new_consumer(max_poll_records=5_000)
        await consumer.start()
        try:
            consumer.assign(list(ends))
            for tp, start in seeks.items():
                consumer.seek(tp, start)
            silent_since = asyncio.get_running_loop().time()
            while ends:
                polled = await consumer.getmany(timeout_ms=100)
                now = asyncio.get_running_loop().time()
                if polled:
                    silent_since = now
                elif now - silent_since > READ_TIMEOUT_SECONDS:
                    raise TimeoutError(f"no more records of {sorted(ends)} for {READ_TIMEOUT_SECONDS:g} s")
                for tp, records in polled.items():
                    for record in records:
                        if tp in ends and record.offset < ends[tp]:
                            yield topics[tp], record
                for tp in list(ends):
                    # a position, not the last record: at the end there may be markers of transactions only
                    if await consumer.position(tp) >= ends[tp]:
                        del ends[tp]
        finally:
            await consumer.stop()
