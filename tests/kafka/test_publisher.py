"""The publisher that the relays use on Apache Kafka: all or nothing, fenced, and never waiting for ever."""

import asyncio
import time

import pytest
from aiokafka.errors import ProducerFenced

from streams import relay
from streams.messages import Outgoing
from streams.relay import KafkaPublisher
from streams.topics import Topic, place_name
from tests.kafka.conftest import RealServers
from tests.pipeline import Installation, until

NOW_MS = time.time_ns() // 1_000_000  # what is older than the retention would be gone at once
TOPICS: list[str] = [Topic.SEGMENT_CHANGES, Topic.SEGMENTS]
RECORDS = [Outgoing(TOPICS, b"acme", b"%d" % number, [("n", b"1")], NOW_MS) for number in range(3)]


def _publisher(installation: Installation) -> KafkaPublisher:
    settings = installation.settings
    identity = f"{settings.kafka_group}-x"
    return KafkaPublisher(settings.kafka_arguments(), installation.names, transactional_id=identity)


async def _until_read(installation: Installation, *expected: bytes) -> None:
    """What was published can be read a moment later, in one topic before the other."""

    async def are_read() -> bool:
        read = [[record.value for _, record in await installation.records(Topic(topic))] for topic in TOPICS]
        return read == [[*expected]] * len(TOPICS)

    await until(are_read, f"{expected} in both topics")


async def test_a_later_claim_fences_an_earlier_publisher(servers: RealServers) -> None:
    """What an owner of yesterday still sends is refused, and nobody sees it."""
    async with Installation(servers, partitions=1, kafka_transactions=True) as installation:
        earlier, later = _publisher(installation), _publisher(installation)
        await earlier.claim()
        told = await earlier.publish(RECORDS[:1])
        assert told == {place_name(topic, 0): 1 for topic in TOPICS}
        await later.claim()
        with pytest.raises(ProducerFenced):
            await earlier.publish(RECORDS[1:2])
        told = await later.publish(RECORDS[2:])
        assert told[place_name(Topic.SEGMENTS, 0)] > 1
        await _until_read(installation, b"0", b"2")
        await earlier.close()
        await later.close()


async def test_a_publisher_does_not_wait_for_ever(servers: RealServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker is silent publishing fails in the end, and goes on after the next claim, with nothing twice."""
    monkeypatch.setattr(relay, "PUBLISH_SECONDS_MAX", 0.5)
    monkeypatch.setattr(relay, "STOP_SECONDS", 0.2)
    clock = asyncio.get_running_loop().time
    async with Installation(servers, partitions=1, kafka_transactions=True) as installation:
        publisher = _publisher(installation)
        await publisher.claim()
        await publisher.publish(RECORDS[:1])
        servers.kafka_server.pause()
        try:
            began = clock()
            with pytest.raises(TimeoutError):
                await publisher.publish(RECORDS[1:])
            with pytest.raises(TimeoutError):
                await publisher.claim()
            assert clock() - began < 5
        finally:
            servers.kafka_server.resume()
        monkeypatch.undo()
        await publisher.claim()
        await publisher.publish(RECORDS[1:])
        await _until_read(installation, b"0", b"1", b"2")
        await publisher.close()
