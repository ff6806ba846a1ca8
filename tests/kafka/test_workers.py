"""Workers on Apache Kafka and Redis, as processes; what happens to them when things break is in tests/faults."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from segmentation.policy import Policy
from streams.oracle import verify
from streams.topics import EVENT_TOPICS, Topic
from tests.kafka.conftest import RealServers
from tests.pipeline import (
    PURE,
    CommandProcess,
    Installation,
    Load,
    Sent,
    WorkerProcess,
    account_in,
    check,
    moment,
    outboxes,
    purchase,
)

PARTITIONS = 4


@pytest.fixture
async def installation(servers: RealServers) -> AsyncIterator[Installation]:
    """An empty installation whose workers notice within three seconds that one is gone."""
    async with Installation(
        servers,
        partitions=PARTITIONS,
        kafka_transactions=True,
        kafka_session_timeout_seconds=3.0,
        relay_interval_ms=20,
        due_chunk_accounts=20,
    ) as new:
        yield new


async def test_a_worker_that_is_asked_to_leave_hands_over_at_once(installation: Installation, tmp_path: Path) -> None:
    """SIGTERM in the middle of a load: within ten seconds it has left, and the other has all partitions."""
    load = Load(installation, random.Random(3))
    clock = asyncio.get_running_loop().time
    with (
        WorkerProcess(installation, tmp_path, "leaving") as leaving,
        WorkerProcess(installation, tmp_path, "staying") as staying,
    ):
        await leaving.until_said("claimed 4 shards")
        await staying.until_said("claimed 4 shards")
        sending = asyncio.create_task(load.run(60))
        await installation.until_told(lambda told: len(told) > 10, "changes")
        before = len(staying.said())
        leaving.signal(signal.SIGTERM)
        began = clock()
        assert await leaving.ended() == 0
        assert clock() - began < 10
        await staying.until_said("claimed 8 shards", after=before)
        assert clock() - began < 10
        await sending
        await load.finish()
        await check(installation)


async def test_accounts_go_from_population_to_population_while_a_worker_dies(
    installation: Installation, tmp_path: Path
) -> None:
    """Each population is ranked by the worker that has its shard: nobody who moves is lost, or has two chains."""
    installation.policy = PURE.with_changes(population="region")
    load = Load(installation, random.Random(6))
    with WorkerProcess(installation, tmp_path, "one"), WorkerProcess(installation, tmp_path, "two") as two:
        await two.until_said("claimed 4 shards")
        sending = asyncio.create_task(load.run(40))
        await installation.until_told(lambda told: len(told) > 50, "changes")
        two.signal(signal.SIGKILL)
        await sending
        await load.finish()
        await installation.rest()
        report = await verify(installation.settings, installation.policy, installation.redis, installation.reader)
        assert report.is_right and not report.warnings
        moved = [change for change in await installation.changes() if change.data["previous_population"]]
        assert len({change.data["population"] for change in moved}) > 2


async def test_a_policy_is_applied_while_a_worker_is_killed(installation: Installation, tmp_path: Path) -> None:
    """Under load, and the worker that takes over was started with the new file: every account is what it says then."""
    load = Load(installation, random.Random(5))
    with (
        WorkerProcess(installation, tmp_path, "killed") as killed,
        WorkerProcess(installation, tmp_path, "stays") as stays,
    ):
        await killed.until_said("claimed 4 shards")
        await stays.until_said("claimed 4 shards")
        await load.run(30)
        await load.finish()
        await installation.rest()
        sending = asyncio.create_task(load.run(30))
        await installation.apply(
            installation.policy.with_changes(
                version="2",
                window_days=60,
                new_start_days=20,
                tiers={"key": 20, "enterprise": 40, "commercial": 40},
            )
        )
        killed.kill()
        with WorkerProcess(installation, tmp_path, "later") as later:
            await sending
            await load.finish()
            changes = await check(installation)
            later.check()
    causes = {told.cause for of_account in changes.values() for told in of_account}
    assert "policy_changed" in causes
    report = await verify(installation.settings, installation.policy, installation.redis, installation.reader)
    assert report.mismatches == []


@pytest.mark.parametrize("days", [-400.0, 3.0])
async def test_a_worker_whose_clock_is_wrong(installation: Installation, tmp_path: Path, days: float) -> None:
    """The broker neither refuses what seems to be from the future, nor drops what seems older than it keeps."""
    load = Load(installation, random.Random(4))
    module = ["tests.faults.worker", "--clock-days-off", str(days)]
    with WorkerProcess(installation, tmp_path, module=module) as process:
        await process.until_said("claimed 8 shards")
        # standings wait in the log while retention is at work
        for _ in range(3):
            await load.run(5)
            await load.finish()
            await installation.rest()
        process.kill()
    with WorkerProcess(installation, tmp_path, "later") as process:
        await process.until_said("claimed 8 shards")
        assert len(await check(installation)) == 40
        process.check()


async def test_the_command_leaves_when_it_is_asked(servers: RealServers, tmp_path: Path) -> None:
    """`resegment worker`: SIGTERM drains, status 0; where the broker does not answer, a second one ends it at once."""
    clock = asyncio.get_running_loop().time
    async with Installation(
        servers,
        partitions=PARTITIONS,
        policy=Policy.default(),
        kafka_transactions=True,
        kafka_session_timeout_seconds=6.0,
    ) as installation:
        with CommandProcess(installation, tmp_path, "first", "worker") as process:
            await process.until_said("claimed 8 shards")
            await installation.send(*(purchase(f"a{n}", "1", moment(0), 100 + n) for n in range(500)))
            await installation.tick(moment(100))
            await installation.until_told(bool, "a change")
            process.signal(signal.SIGTERM)
            began = clock()
            assert await process.ended() == 0
            assert clock() - began < 10
        assert not any([await installation.redis.llen(key) for key in await outboxes(installation)])
        with CommandProcess(installation, tmp_path, "second", "worker") as process:
            await process.until_said("claimed 8 shards")
            await installation.rest()
            servers.kafka_server.pause()
            try:
                process.signal(signal.SIGTERM)
                await process.until_said("once more ends it at once")
                process.signal(signal.SIGTERM)
                began = clock()
                assert await process.ended() == 128 + signal.SIGTERM
                assert clock() - began < 2
            finally:
                servers.kafka_server.resume()


async def test_inputs_written_in_transactions(installation: Installation, tmp_path: Path) -> None:
    """Records of aborted transactions do not exist, and the holes that markers leave hold up neither data nor time."""
    account = account_in(0, PARTITIONS, "acme")
    producer = AIOKafkaProducer(
        **installation.settings.kafka_arguments(), transactional_id=f"{installation.settings.kafka_group}-sender"
    )
    await producer.start()

    async def transaction(records: list[Sent], *, abort: bool) -> None:
        await producer.begin_transaction()
        for record in records:
            await producer.send(installation.names.name(record.topic), record.value, key=record.key)
        await (producer.abort_transaction() if abort else producer.commit_transaction())

    with WorkerProcess(installation, tmp_path) as process:
        await process.until_said("claimed 8 shards")
        for number in range(20):
            await transaction(
                [purchase(account, f"{number}-{n}", moment(number), 100) for n in range(number % 3 + 1)],
                abort=number % 4 == 1,
            )
        # on a quiet topic, nothing but a marker follows
        await transaction([purchase(account, "aborted", moment(1), 10**9)], abort=True)
        await installation.tick(moment(200))
        changes = await check(installation)
        assert [told.current for told in changes[account]] == ["key"]
        kept = [number % 3 + 1 for number in range(20) if number % 4 != 1]
        assert changes[account][0].data["rolling_revenue_minor"] == 100 * sum(kept)
        bounds = await installation.reader.bounds([(topic, 0) for topic in EVENT_TOPICS])
        assert bounds[Topic.PURCHASES, 0].end > sum(kept) + 20
        assert (await installation.state()).account_shards[0].progress[Topic.PURCHASES] == bounds[
            Topic.PURCHASES, 0
        ].end
        process.check()
    await producer.stop()
