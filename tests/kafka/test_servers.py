"""The servers of the tests: what a test that stops, kills and freezes them relies on."""

import asyncio
import shutil
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.servers import KafkaServer, MissingPrerequisite, RedisServer

TOPIC = "test-servers"


async def test_kafka_keeps_its_log_over_a_kill() -> None:
    """A transaction that was committed before kill -9 is there after the next start, on the same port."""
    with KafkaServer() as kafka:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
        await admin.start()
        created = await admin.create_topics([NewTopic(TOPIC, 2, 1)])
        await admin.close()
        assert [error_code for _, error_code, _ in created.topic_errors] == [0]
        await _send_in_transaction(kafka, b"before")

        kafka.kill()
        kafka.start()

        await _send_in_transaction(kafka, b"after")
        partition = TopicPartition(TOPIC, 1)
        async with AIOKafkaConsumer(
            bootstrap_servers=kafka.address, auto_offset_reset="earliest", isolation_level="read_committed"
        ) as consumer:
            consumer.assign([partition])
            values = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(2)]
        assert values == [b"before", b"after"]


async def test_redis_keeps_its_data_over_a_clean_stop(redis_server: RedisServer) -> None:
    """What the append-only file holds is there after the next start, on the same port."""
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set("test-servers", "kept")
    redis_server.stop()
    redis_server.start()
    async with Redis.from_url(redis_server.url) as redis:
        assert await redis.getdel("test-servers") == b"kept"


async def test_a_paused_server_is_silent_and_goes_on_when_resumed(redis_server: RedisServer) -> None:
    """A frozen server accepts connections and answers nothing; woken up, it answers."""
    async with Redis.from_url(redis_server.url, socket_timeout=0.2, retry=None) as redis:
        assert await redis.ping()
        redis_server.pause()
        try:
            with pytest.raises(RedisTimeoutError):
                await redis.ping()
        finally:
            redis_server.resume()
    async with Redis.from_url(redis_server.url) as redis:
        assert await redis.ping()


def test_nothing_listens_beyond_the_loopback(kafka: KafkaServer, redis_server: RedisServer) -> None:
    """A test run opens no port that another machine could reach."""
    for pid in (kafka.pid, redis_server.pid):
        listening = [
            connection.laddr.ip.removeprefix("::ffff:")
            for connection in psutil.Process(pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}


def test_nothing_stays_after_the_context() -> None:
    """Neither the process nor its directory outlives the context."""
    with RedisServer(append_only=True) as redis:
        pid, directory = redis.pid, redis.log.parent
    assert not psutil.pid_exists(pid)
    assert not directory.exists()


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without redis-server or Java reads what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("redis-server") is None
    with pytest.raises(MissingPrerequisite, match="redis-server"):
        RedisServer()
    with pytest.raises(MissingPrerequisite, match="Java 17"):
        KafkaServer()


async def _send_in_transaction(kafka: KafkaServer, value: bytes) -> None:
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka.address, transactional_id="test-servers") as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(TOPIC, value, partition=1)
