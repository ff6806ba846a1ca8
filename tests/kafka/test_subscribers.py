"""The examples of subscribers have, at the end, what `resegment export` says, and have acted upon each change once."""

import asyncio
import hashlib
import json
import random
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest
from aiokafka import AIOKafkaProducer

from examples.subscribers import subscription
from streams.topics import Topic
from tests.kafka.conftest import RealServers
from tests.pipeline import PURE, CommandProcess, Installation, Load, ProgramProcess, WorkerProcess, check
from tests.servers import MissingPrerequisite, maven_jars, program

EXAMPLES = Path(__file__).parents[2] / "examples" / "subscribers"


def commands() -> dict[str, list[str]]:
    """How each is started, but for its argument. Skips the test without Java or Maven."""
    pom = (EXAMPLES / "pom.xml").read_text()
    try:
        jars = maven_jars(f"subscriber-{hashlib.sha256(pom.encode()).hexdigest()[:12]}", pom)
        program("javac", "Java 17 or newer, a JDK (Debian: default-jdk-headless)")
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    python = [sys.executable, "-m"]
    return {
        "segments": [*python, "examples.subscribers.segments"],
        "churn_flags": [*python, "examples.subscribers.churn_flags"],
        "Segments": [shutil.which("java") or "java", "-Xmx128m", "-cp", f"{jars}/*", str(EXAMPLES / "Segments.java")],
    }


@pytest.fixture
async def installation(servers: RealServers) -> AsyncIterator[Installation]:
    """An empty installation whose workers notice within three seconds that one is gone."""
    async with Installation(
        servers,
        policy=PURE,
        partitions=4,
        kafka_transactions=True,
        kafka_session_timeout_seconds=3.0,
        relay_interval_ms=20,
    ) as new:
        yield new


class Subscribers:
    """Examples that run, each with its log. Use as a context manager."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.out = directory / "out"
        self.running: list[tuple[str, ProgramProcess]] = []
        self._installation, self._directory, self._commands = installation, directory, commands()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _, process in self.running:
            process.kill()

    async def begin(self, *names: str) -> None:
        """Start some, all of them unless named, and return when each has acted upon a change."""
        first = len(self.running)
        for name in names or self._commands:
            log, command = f"{name}-{len(self.running)}", self._commands[name]
            file = self.out / ("risks.csv" if name == "churn_flags" else "accounts.csv")
            process = ProgramProcess(self._installation, self._directory, log, *command, str(file))
            self.running.append((name, process))
        for _, process in self.running[first:]:
            await process.until_said("\t")


@asynccontextmanager
async def under_load(load: Load) -> AsyncIterator[None]:
    """Events come for as long as the context lasts: so many a second that the workers keep up on a busy machine."""
    is_over = False

    async def send() -> None:
        while not is_over:
            await load.run(1)
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        is_over = True
        await sending


async def test_subscribers_have_what_is_exported_though_a_worker_dies(
    installation: Installation, tmp_path: Path
) -> None:
    """Some begin while records come, some after kill -9, one when much was told again: none misses or doubles any."""
    load = Load(installation, random.Random(12), accounts=100)
    with (
        Subscribers(installation, tmp_path) as subscribers,
        WorkerProcess(installation, tmp_path, "stays") as stays,
        WorkerProcess(installation, tmp_path, "dies") as dies,
    ):
        await stays.until_said("claimed 4 shards")
        await load.run(10)
        async with under_load(load):
            await subscribers.begin()
            dies.kill()
            await subscribers.begin()
        await installation.rest()
        await tell_again(installation)
        async with under_load(load):
            await subscribers.begin("segments")
        await load.finish()
        changes = {account: len(chain) for account, chain in (await check(installation)).items()}
        risks = await risk_sequences(installation)
        patient = {"RESEGMENT_KAFKA_SESSION_TIMEOUT_SECONDS": "6"}
        export = CommandProcess(installation, tmp_path, "export", "export", str(subscribers.out), variables=patient)
        assert await export.ended() == 0, export.said()
        for name, process in subscribers.running:
            assert await process.ended() == 0, process.said()
            is_segments = name != "churn_flags"
            check_acted(process.said(), changes if is_segments else risks, every=is_segments)


async def test_what_one_topic_shows_before_the_other_is_not_lost(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction is over in `segment-changes` and, for a moment, not in `segments`: who begins just then waits."""
    monkeypatch.setattr(subscription, "SERVERS", installation.settings.kafka_bootstrap_servers)
    monkeypatch.setattr(subscription, "PREFIX", installation.settings.topic_prefix)
    names, change = installation.names, {"account_id": "acme", "sequence": 1}
    value = json.dumps(change).encode()
    producer = AIOKafkaProducer(
        **installation.settings.kafka_arguments(), transactional_id=f"{installation.settings.kafka_group}-relay"
    )
    async with producer:
        await producer.begin_transaction()
        await producer.send_and_wait(names.name(Topic.SEGMENTS), value, key=b"acme")
        await installation.producer.send_and_wait(names.name(Topic.SEGMENT_CHANGES), value, key=b"acme")
        following = subscription.follow(Topic.SEGMENTS, Topic.SEGMENT_CHANGES)
        first = asyncio.ensure_future(anext(following))
        done, _ = await asyncio.wait([first], timeout=3)
        assert not done
        await producer.commit_transaction()
        assert await first == (change, False)
        assert await anext(following) == (None, True)
        await following.aclose()


async def tell_again(installation: Installation) -> None:
    """Publish once more what was told of some accounts, the same bytes, as a relay does after a crash."""
    for topic in (Topic.SEGMENT_CHANGES, Topic.SEGMENTS, Topic.CHURN_RISK, Topic.RISKS):
        records = [record for _, record in await installation.records(topic)]
        for record in records[-50:]:
            name = installation.names.name(topic)
            await installation.producer.send_and_wait(
                name, record.value, key=record.key, partition=record.partition, headers=list(record.headers)
            )


async def risk_sequences(installation: Installation) -> dict[str, int]:
    """Of each account the sequence of its last change of risk."""
    members = await installation.members()
    return {account: member.risk.sequence for account, member in members.items() if member.risk is not None}


def check_acted(said: str, last: dict[str, int], *, every: bool) -> None:
    """Each account's changes from where a subscriber began, in order and each once.

    every: it acts upon each, so to the last one there is no gap.
    """
    acted = defaultdict(list)
    for line in said.splitlines():
        if "\t" in line:
            account, sequence, *_ = line.split("\t")
            acted[account].append(int(sequence))
    for account, sequences in acted.items():
        assert sequences == sorted({*sequences}), (account, sequences)
        assert sequences[-1] <= last[account]
        if every:
            assert sequences == [*range(sequences[0], last[account] + 1)], (account, sequences, last[account])
