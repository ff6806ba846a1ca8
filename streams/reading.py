"""Following a topic as it grows."""

from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import ConsumerRecord

from streams.settings import Settings
from streams.topics import Topic, TopicNames


async def follow(
    settings: Settings, topic: Topic, *, from_beginning: bool = False, since_ms: int | None = None
) -> AsyncIterator[ConsumerRecord]:
    """Every record that comes from now on, or from the log's begin, for ever. In order by partition.

    since_ms: every record whose timestamp is not before that. What workers write has the broker's time, or on the
    embedded one theirs. Belongs to no group and commits nothing. Raises KafkaError, also where the topic is not there.
    """
    name = TopicNames(settings.topic_prefix).name(topic)
    consumer = AIOKafkaConsumer(
        **settings.kafka_arguments(),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=50,
    )
    try:
        await consumer.start()
        # of the whole cluster: asked for a topic that is not there, some brokers would make it
        cluster = await consumer._client.fetch_all_metadata()
        partitions = [TopicPartition(name, number) for number in cluster.partitions_for_topic(name) or ()]
        if not partitions:
            raise UnknownTopicOrPartitionError(f"topic {name} is missing; make it with `resegment topics create`")
        consumer.assign(partitions)
        if from_beginning:
            await consumer.seek_to_beginning(*partitions)
        elif since_ms is not None:
            # asked for first: what comes between the two questions is not before the time either
            ends = await consumer.end_offsets(partitions)
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            for partition, end in ends.items():
                first = found.get(partition)
                consumer.seek(partition, end if first is None else first.offset)
        else:
            await consumer.seek_to_end(*partitions)
        async for record in consumer:
            if since_ms is None or record.timestamp >= since_ms:
                yield record
    finally:
        await consumer.stop()
