"""Apache Kafka and Redis for the tests in this folder: `make test-kafka`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers import KafkaServer, MissingPrerequisite, RedisServer


class RealServers(NamedTuple):
    """Apache Kafka and Redis: their addresses, and themselves."""

    kafka: str
    redis: str
    kafka_server: KafkaServer
    redis_server: RedisServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """One Apache Kafka for the session. A test that stops it starts it again, or runs one of its own."""
    try:
        server = KafkaServer()
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis with an append-only file for the session: flush it first, or use keys of one's own."""
    try:
        server = RedisServer(append_only=True)
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def servers(kafka: KafkaServer, redis_server: RedisServer) -> RealServers:
    """Both, shared by the session."""
    return RealServers(kafka.address, redis_server.url, kafka, redis_server)
