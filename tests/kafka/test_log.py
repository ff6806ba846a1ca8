"""Apache Kafka is the log that the shards rely on, and that is simulated: see tests/simulation/test_log.py."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from streams.messages import Outgoing
from streams.relay import KafkaPublisher, Publisher
from streams.topics import Topic
from tests.kafka.conftest import RealServers
from tests.pipeline import Installation
from tests.simulation.log import placed
from tests.simulation.log_contract import PARTITIONS, LogContract


class Kafka:
    """Apache Kafka and its clients."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._open: list[AIOKafkaProducer] = []
        self.reader = installation.reader
        self.now_ms = time.time_ns() // 1_000_000

    def _id(self, transactional_id: str) -> str:
        return f"{self._installation.settings.kafka_group}-{transactional_id}"

    def publisher(self, transactional_id: str | None = None) -> Publisher:
        """A publisher that is not claimed yet."""
        arguments = self._installation.settings.kafka_arguments()
        if transactional_id is None:
            return KafkaPublisher(arguments, self._installation.names, idempotent=True)
        return KafkaPublisher(arguments, self._installation.names, transactional_id=self._id(transactional_id))

    async def leave_open(self, transactional_id: str, records: list[Outgoing]) -> Callable[[], Awaitable[None]]:
        """Claim the id, send the records, do not commit. Returns what would commit them."""
        producer = AIOKafkaProducer(
            **self._installation.settings.kafka_arguments(), transactional_id=self._id(transactional_id)
        )
        await producer.start()
        self._open.append(producer)
        await producer.begin_transaction()
        for (topic, partition), batch in placed(records, PARTITIONS).items():
            for record in batch:
                await producer.send_and_wait(
                    self._installation.names.name(topic),
                    record.value,
                    key=record.key,
                    partition=partition,
                    timestamp_ms=record.timestamp_ms,
                )
        commit: Callable[[], Awaitable[None]] = producer.commit_transaction
        return commit

    async def cut(self, place: tuple[Topic, int], first: int) -> None:
        """Let all records before an offset go."""
        admin = AIOKafkaAdminClient(**self._installation.settings.kafka_arguments())
        await admin.start()
        tp = TopicPartition(self._installation.names.name(place[0]), place[1])
        await admin.delete_records({tp: RecordsToDelete(before_offset=first)})
        await admin.close()

    async def close(self) -> None:
        """Let what was left open go."""
        for producer in self._open:
            await producer.stop()


@pytest.fixture
async def log(servers: RealServers) -> AsyncIterator[Kafka]:
    """Topics of its own."""
    async with Installation(servers, partitions=PARTITIONS, kafka_transactions=True) as installation:
        kafka = Kafka(installation)
        yield kafka
        await kafka.close()


class TestKafka(LogContract):
    """All that is relied on."""
