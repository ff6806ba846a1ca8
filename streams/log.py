"""Reading topics outside of the stages: where they begin and end, and everything that is in them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import ConsumerRecord

from streams.shard import LogPosition
from streams.topics import Topic, TopicNames

READ_TIMEOUT_SECONDS = 60.0
"""The broker says that there are more records; if none come for this long, something is wrong with it."""

_BEYOND_ANY_LOG = 2**62
_READ_COMMITTED = 1


class LogReader:
    """A connection to the log that belongs to no group. Use as an async context manager; may be used concurrently."""

    def __init__(self, kafka_arguments: Mapping[str, Any], topic_prefix: str) -> None:
        self._arguments = dict(kafka_arguments)
        self._names = TopicNames(topic_prefix)
        self._consumer: AIOKafkaConsumer | None = None
        self._cluster: ClusterMetadata | None = None
        self._fetch_says_end: bool | None = None
        """Whether this is a broker whose other answer is wrong; None: not known yet."""

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
            TopicPartition(self._names.name(topic), partition): (topic, partition) for topic, partition in partitions
        }
        first = await self._consumer.beginning_offsets(list(wanted))
        end = await self._consumer.end_offsets(list(wanted)) | await self._ends_beside_a_fetch(list(wanted))
        return {key: LogPosition(first[tp], end[tp]) for tp, key in wanted.items()}

    async def _ends_beside_a_fetch(self, wanted: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The ends as the embedded broker knows them; nothing with any other broker.

        Asked for the end of a partition it counts its newest batch as one record. Beside a fetch it says the right end,
        and it is known by its not minding a fetch from beyond the end.
        """
        if self._fetch_says_end is False or not wanted:
            return {}
        assert self._consumer is not None
        partitions: dict[str, list[tuple[int, int, int]]] = {}
        for tp in wanted:
            partitions.setdefault(tp.topic, []).append((tp.partition, _BEYOND_ANY_LOG, 1))
        client = self._consumer._client
        # it waits the 2 ms, and answers nothing at all if told not to
        request = FetchRequest(2, 1, 1, _READ_COMMITTED, list(partitions.items()))
        response = await client.send(client.get_random_node(), request)
        ends = {
            TopicPartition(topic, partition): end
            for topic, answers in response.topics
            for partition, error_code, end, *_ in answers
            if not error_code
        }
        self._fetch_says_end = bool(ends)
        return ends

    async def refresh(self) -> None:
        """Ask the broker which topics there are. Raises KafkaError."""
        assert self._consumer is not None
        self._cluster = await self._consumer._client.fetch_all_metadata()

    def partition_count(self, topic: Topic) -> int:
        """How many partitions a topic had when last asked; 0 where it was not there."""
        assert self._cluster is not None, "refresh first"
        return len(self._cluster.partitions_for_topic(self._names.name(topic)) or ())

    async def read(self, starts: Mapping[tuple[Topic, int], int]) -> AsyncIterator[tuple[Topic, ConsumerRecord]]:
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
