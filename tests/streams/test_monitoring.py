"""How a worker fares: /metrics, /healthz and /readyz, and that each reason not to be ready is found, and goes again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from state.keys import StageName, shard_keys
from streams import worker_figures
from streams.embedded import Embedded, embedded_broker, store_executable
from streams.monitoring import FIGURES, listening
from streams.relay import KafkaPublisher
from streams.server_process import free_port
from streams.settings import Settings, host_and_port
from streams.topics import Topic
from streams.worker import Worker, wall_clock_us
from streams.worker_figures import WorkerFigures
from tests.pipeline import CommandProcess, InProcess, Installation, moment, purchase, until
from tests.servers import RedisServer


class Looker:
    """Asks a role how it fares."""

    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and document."""
        async with aiohttp.ClientSession() as session, session.get(self._at + path) as answer:
            return answer.status, await answer.json()

    async def reasons(self) -> set[str]:
        """Why it is not ready."""
        status, found = await self.get("/readyz")
        reasons = {why["reason"] for why in found["reasons"]}
        assert (status, found["ready"]) == ((503, False) if reasons else (200, True))
        return reasons

    async def until_ready(self) -> None:
        """Return once it is."""

        async def ready() -> bool:
            return not await self.reasons()

        await until(ready, "a worker that is ready")

    async def until_unready(self, reason: str) -> dict[str, str]:
        """The reason, once it is found."""

        async def unready() -> dict[str, str] | None:
            _, found = await self.get("/readyz")
            return next((why for why in found["reasons"] if why["reason"] == reason), None)

        return await until(unready, reason)

    async def text(self) -> str:
        """What Prometheus is told."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._at}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Name and values of labels, in order of the labels' names -> value."""
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(await self.text())
            for sample in family.samples
        }


class Watched(NamedTuple):
    """A worker in this process, and who looks at it."""

    installation: Installation
    running: InProcess
    looker: Looker


@asynccontextmanager
async def watched(servers: Any, **changes: Any) -> AsyncIterator[Watched]:
    """A worker in live time that is looked at, once it is ready."""
    port, fields = free_port(), {"clock": "wall", "tick_seconds": 0.1, "partitions": 1, **changes}
    async with Installation(servers, **fields) as installation:
        running = installation.start()
        async with listening(str(port), WorkerFigures(running.worker)):
            looker = Looker(port)
            await looker.until_ready()
            yield Watched(installation, running, looker)
        await installation.stop(running)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_where_it_listens(address: str, place: tuple[str, int]) -> None:
    """On the loopback, unless another host is said."""
    assert host_and_port(Settings(monitoring_address=address).monitoring_address) == place


@pytest.mark.parametrize("address", ["x", "127.0.0.1", "host:", "1:0", "host:65536", "-1", "²"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """Before anything is begun."""
    with pytest.raises(ValidationError, match="expected PORT or HOST:PORT"):
        Settings(monitoring_address=address)


async def test_a_worker_says_how_it_fares(embedded: Embedded, tmp_path: Path) -> None:
    """The command, with the setting: on the loopback alone, and every figure that there is."""
    port = free_port()
    async with Installation(
        embedded,
        kafka_session_timeout_seconds=6.0,
        clock="wall",
        tick_seconds=0.1,
        monitoring_address=str(port),
    ) as installation:
        with CommandProcess(installation, tmp_path, "worker", "worker") as process:
            await process.until_said("claimed 4 shards")
            looker = Looker(port)
            await looker.until_ready()
            assert await looker.get("/healthz") == (200, {"healthy": True})
            now = datetime.now(UTC)
            await installation.send(*[purchase("acme", "1", now, 100)] * 2, purchase("umbrella", "1", "yesterday", 100))

            async def counted() -> dict[tuple[str, ...], float] | None:
                found = await looker.metrics()
                totals = {
                    outcome: sum(value for key, value in found.items() if key[1:2] == (outcome,) and "purchases" in key)
                    for outcome in ("applied", "duplicates", "dead_letters")
                }
                is_applied = totals == {"applied": 1, "duplicates": 1, "dead_letters": 1}
                return found if is_applied and sum(_of(found, "resegment_segment_changes_total")) == 1 else None

            found = await until(counted, "what was sent, in the figures")
            listens = [at for at in psutil.Process(process.pid).net_connections() if at.status == psutil.CONN_LISTEN]
            assert [at.laddr for at in listens] == [("127.0.0.1", port)]
            process.check()
    names = {key[0] for key in found}
    own = {figure.name for figure in (*WorkerFigures.figures, *FIGURES)} - {"resegment_unready"}
    assert names >= own and {name for name in names if name.startswith("resegment_")} == own
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= names
    assert _of(found, "resegment_shard_owned") == [1] * 4
    assert all(value == 0 for value in _of(found, "resegment_silent"))
    assert all(-1 < value < 10 for value in _of(found, "resegment_clock_delay_seconds"))
    assert max(_of(found, "resegment_last_commit_timestamp_seconds")) > now.timestamp() - 1
    assert sum(_of(found, "resegment_accounts")) == 1
    assert _of(found, "resegment_ready") == _of(found, "resegment_broker_up") == _of(found, "resegment_store_up") == [1]


def _of(found: dict[tuple[str, ...], float], name: str) -> list[float]:
    return [value for key, value in found.items() if key[0] == name]


async def test_a_worker_that_has_not_begun_is_healthy_and_not_ready(embedded: Embedded) -> None:
    """As while it looks whether everything fits together."""
    port = free_port()
    async with Installation(embedded) as installation:
        worker = Worker(installation.settings, installation.policy, installation.redis)
        async with listening(str(port), WorkerFigures(worker)):
            looker = Looker(port)
            assert await looker.reasons() == {"starting"}
            assert (await looker.get("/healthz"))[0] == 200
            metrics = await looker.metrics()
            assert metrics["resegment_ready",] == 0 and metrics["resegment_unready", "starting"] == 1
            assert (await looker.metrics())["resegment_build_info", "worker", _version(metrics)] == 1
        with pytest.raises(aiohttp.ClientError):
            await looker.reasons()


def _version(metrics: dict[tuple[str, ...], float]) -> str:
    return next(key[2] for key in metrics if key[0] == "resegment_build_info")


async def test_a_port_that_is_taken_is_said(embedded: Embedded, tmp_path: Path) -> None:
    """With the setting that names it; the worker does not run unseen."""
    port = free_port()
    async with Installation(embedded, monitoring_address=str(port)) as installation:
        worker = Worker(installation.settings, installation.policy, installation.redis)
        async with listening(str(port), WorkerFigures(worker)):
            variables = {"RESEGMENT_KAFKA_SESSION_TIMEOUT_SECONDS": "6"}
            with CommandProcess(installation, tmp_path, "worker", "worker", variables=variables) as process:
                assert await process.ended() == 2
                said = process.said().splitlines()[-1]
    assert said == f"resegment: cannot listen on {port} (RESEGMENT_MONITORING_ADDRESS): Address already in use"


async def test_a_worker_that_has_failed_is_not_healthy(embedded: Embedded) -> None:
    """It ends, and until then says of what."""
    async with watched(embedded) as (_, running, looker):
        running.worker._failure.tell(ArithmeticError("wrong"))
        assert await looker.get("/healthz") == (503, {"healthy": False, "failure": "ArithmeticError"})
        with pytest.raises(ArithmeticError):
            await running.task
        running.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_shard_that_goes_back_is_missing(embedded: Embedded) -> None:
    """Until it is claimed again."""
    async with watched(embedded) as (installation, _, looker):
        meta = shard_keys(installation.settings.redis_prefix, StageName.ACCOUNTS, 0).meta
        await installation.redis.hset(meta, "owner", "another")
        why = await looker.until_unready("shard_missing")
        assert why == {
            "reason": "shard_missing",
            "shard": "accounts shard 0",
            "text": "it goes back to what is stored",
        }
        await looker.until_ready()


async def test_an_old_outbox_a_late_clock_and_a_shard_that_stands_still(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is found when it is beyond its limit, and only then."""
    async with watched(embedded) as (installation, running, looker):
        publish, going = KafkaPublisher.publish, asyncio.Event()

        async def wait(publisher: KafkaPublisher, records: Any) -> Any:
            await going.wait()
            return await publish(publisher, records)

        with monkeypatch.context() as patched:
            patched.setattr(KafkaPublisher, "publish", wait)
            await installation.send(purchase("acme", "1", "2024-01-01T00:00:00Z", 100))
            await until(lambda: _waits(looker), "an outgoing record")
            assert await looker.reasons() == set()
            patched.setattr(worker_figures, "OUTBOX_AGE_SECONDS_MAX", 0.1)
            assert "has waited for" in (await looker.until_unready("outbox_old"))["text"]
            going.set()
            await looker.until_ready()
        with monkeypatch.context() as patched:
            patched.setattr(worker_figures, "wall_clock_us", lambda: wall_clock_us() + 60_000_000)
            why = await looker.until_unready("clock_late")
            assert why["shard"] == "accounts shard 0" and why["text"] in (
                "its clock is 60 s behind",
                "its clock is 61 s behind",
            )
        await looker.until_ready()
        with monkeypatch.context() as patched:
            patched.setattr(worker_figures, "COMMIT_SECONDS_MAX", 0.3)
            async with running.worker.shards[StageName.ACCOUNTS, 0].lock:
                await installation.send(purchase("acme", "2", "2024-01-01T00:00:00Z", 100))
                assert "not_committing" not in await looker.reasons()
                why = await looker.until_unready("not_committing")
            assert "1 of purchases" in why["text"]
            await looker.until_ready()


async def _waits(looker: Looker) -> bool:
    return (await looker.metrics())["resegment_outbox_records", "0", "accounts"] > 0


async def test_time_that_is_replayed_is_not_late(embedded: Embedded) -> None:
    """It has nothing to do with the wall clock, nor has its delay."""
    async with watched(embedded, clock="replay") as (installation, _, looker):
        await installation.tick(moment(1))
        await installation.rest()
        await looker.until_ready()
        assert not _of(await looker.metrics(), "resegment_clock_delay_seconds")


class OwnServers(NamedTuple):
    """A broker and a store for one test."""

    kafka: str
    redis: str


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OwnServers, Callable[[str], psutil.Process]]]:
    """Servers of one's own, and which process has an address."""
    monkeypatch.setattr(worker_figures, "LOOK_SECONDS_MAX", 0.5)
    with embedded_broker() as kafka, RedisServer(executable=store_executable()) as store:
        yield (
            OwnServers(kafka, store.url),
            lambda address: _process_at(int(address.rpartition(":")[2].partition("/")[0])),
        )


def _process_at(port: int) -> psutil.Process:
    for process in psutil.Process().children(recursive=True):
        if any(at.laddr.port == port and at.status == psutil.CONN_LISTEN for at in process.net_connections()):
            return process
    raise AssertionError(f"nobody listens on {port}")


async def test_broker_and_store_that_do_not_answer(
    paused: tuple[OwnServers, Callable[[str], psutil.Process]],
) -> None:
    """Are reasons not to be ready; the look ends all the same."""
    servers, process_at = paused
    async with watched(servers) as (_, _, looker):
        for address, reason, figure in (
            (servers.kafka, "broker_unreachable", "resegment_broker_up"),
            (servers.redis, "store_unreachable", "resegment_store_up"),
        ):
            process = process_at(address)
            process.suspend()
            try:
                await looker.until_unready(reason)
                assert (await looker.metrics())[figure,] == 0
                assert (await looker.get("/healthz"))[0] == 200
            finally:
                process.resume()
            await looker.until_ready()


async def test_lag_is_what_is_not_applied(embedded: Embedded) -> None:
    """In records, of each input."""
    async with watched(embedded, clock="replay") as (installation, running, looker):
        async with running.worker.shards[StageName.ACCOUNTS, 0].lock:
            await installation.send(*(purchase("acme", str(number), moment(0), 1) for number in range(7)))
            found = await looker.metrics()
            assert found["resegment_input_lag_records", "0", "accounts", Topic.PURCHASES] == 7
            assert found["resegment_input_lag_records", "0", "accounts", Topic.SIGNUPS] == 0
        await installation.tick(moment(1))
        await installation.rest()
        found = await looker.metrics()
        assert not any(_of(found, "resegment_input_lag_records"))
