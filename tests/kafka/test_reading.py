"""Following a topic of Apache Kafka from a time on; the rest of `watch` is in tests/streams."""

import asyncio
import time

from streams.reading import follow
from streams.topics import Topic
from tests.kafka.conftest import RealServers
from tests.pipeline import Installation


async def test_following_begins_with_what_the_broker_got_at_that_time(servers: RealServers) -> None:
    """Whatever the worker's clock said; also in a partition that has nothing from then on yet."""
    async with Installation(servers, partitions=2, kafka_transactions=True) as installation:

        async def write(value: bytes, partition: int) -> None:
            name, years_ago_ms = installation.names.name(Topic.SEGMENT_CHANGES), 1_500_000_000_000
            await installation.producer.send_and_wait(name, value, partition=partition, timestamp_ms=years_ago_ms)

        for partition in (0, 1):
            await write(b"before", partition)
        await asyncio.sleep(0.01)
        since_ms = time.time_ns() // 1_000_000
        await asyncio.sleep(0.01)
        await write(b"since", 0)
        following = aiter(follow(installation.settings, Topic.SEGMENT_CHANGES, since_ms=since_ms))
        first = await anext(following)
        assert (first.partition, first.value) == (0, b"since")
        await write(b"later", 1)
        second = await anext(following)
        assert (second.partition, second.value) == (1, b"later")
        await following.aclose()  # type: ignore[attr-defined]
