"""Following a topic as it grows."""

from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import ConsumerRecord

from streams.settings import Settings
from streams.topics import Topic, TopicNames


async def follow(settings: Settings, topic: Topic, *, from_beginning: bool = False) -> AsyncIterator[ConsumerRecord]:
    """Every record that comes from now on, or from the log's begin, for ever. In order by partition.

    Belongs to no group and commits nothing. Raises KafkaError, also where the topic is not there.
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
        else:
            await consumer.seek_to_end(*partitions)
        async for record in consumer:
            yield record
    finally:
        await consumer.stop()
