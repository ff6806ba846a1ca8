"""One schedule of faults against workers, broker and store as processes, and what must hold when it is over."""

import asyncio
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from segmentation.policy import Policy
from state.founding import NoInstallation
from streams.oracle import Report, verify
from streams.rest import look, unrest
from streams.topics import Topic
from tests.faults.alerts import Alerts, alerts
from tests.faults.crew import Crew
from tests.faults.harm import SESSION_SECONDS, Harm
from tests.faults.life import Life
from tests.kafka.conftest import RealServers
from tests.pipeline import POLL_SECONDS, Installation
from tests.servers import KafkaServer, RedisServer

PARTITIONS = 3
LIFE_SECONDS_MIN = 4.0
"""Some schedules have but one fault that is over at once; there is to be something for it to harm."""
VERIFICATIONS_MAX = 3
"""A verification during which something moved says so, and is done again."""
LOOK_AGAIN_SECONDS = 3.0
"""After mismatches: what is lost stays so, and what was late does not."""
REST_SECONDS = 120.0
"""Within so many seconds after the last fault everything is at rest, on a busy machine. The longest that anybody waits
by himself is 20 s, for a producer of which a broker that was killed knows nothing any more; the group may wait for 60 s
for members that do not come (Faust's `broker_rebalance_timeout`)."""

_MODEL = {
    **{"r": 3.0, "alpha_days": 10.0, "a": 0.2, "b": 3.0, "p": 5, "q": 4, "gamma_minor": 1_000},
    "fitted_at": "2026-01-01",
    "accounts": 1,
}
_POLICIES = [
    Policy.default().with_changes(
        band=band,
        basis=basis,
        window_days=window_days,
        new_start_days=new_start_days,
        model=_MODEL,
        risk={"horizon_days": 2, "watch": 40, "high": 60, "band": 5 * band},
        **population,
    )
    for population in ({}, {"population": "region"})
    for band in (0, 2)
    for basis in ("revenue", "accounts")
    for window_days, new_start_days in ((90, 20), (30, 3))
]


class Outcome(NamedTuple):
    """What came of a schedule."""

    seed: int
    violations: list[str]
    faults: Counter[str]
    events: int
    """Records of the event topics that were applied, found to be duplicates or dead letters."""
    changes: int
    seconds: float
    rest_seconds: float
    """From the end of the faults and the load until everything was done."""

    def line(self) -> str:
        """For the log of a run."""
        faults = ", ".join(f"{count} {name}" if count > 1 else name for name, count in sorted(self.faults.items()))
        return (
            f"seed={self.seed} events={self.events} changes={self.changes} violations={len(self.violations)} "
            f"seconds={self.seconds:.1f} rest_seconds={self.rest_seconds:.1f} faults: {faults or 'none'}"
        )


class Schedule:
    """Everything that takes part in one."""

    def __init__(self, seed: int, kafka: KafkaServer, directory: Path) -> None:
        """The logs of the workers are left in the directory."""
        self.seed = seed
        self._kafka = kafka
        self._directory = directory
        self._chance = Random(seed)
        self._counts: Counter[str] = Counter()
        self._violations: list[str] = []

    async def run(self) -> Outcome:
        """All of it. Raises nothing that the system under test does wrong."""
        began = time.monotonic()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        with RedisServer(append_only=True) as redis:
            servers = RealServers(self._kafka.address, redis.url, self._kafka, redis)
            async with self._installation(servers) as installation:
                try:
                    events, changes, rest_seconds = await self._run(installation, servers)
                finally:
                    await _delete_topics(installation)
        seconds = time.monotonic() - began
        return Outcome(self.seed, self._violations, self._counts, events, changes, seconds, rest_seconds)

    def _installation(self, servers: RealServers) -> Installation:
        chance = self._chance
        return Installation(
            servers,
            policy=chance.choice(_POLICIES),
            partitions=PARTITIONS,
            clock="wall" if chance.random() < 0.5 else "replay",
            tick_seconds=0.1,
            kafka_transactions=True,
            kafka_session_timeout_seconds=SESSION_SECONDS,
            relay_interval_ms=chance.choice([0, 20, 100]),
            due_chunk_accounts=chance.choice([1, 5, 50]),
            batch_records_max=chance.choice([20, 500]),
        )

    async def _run(self, installation: Installation, servers: RealServers) -> tuple[int, int, float]:
        chance = self._chance
        clock_file = self._directory / "now_us" if installation.settings.clock == "wall" else None
        life = Life(installation, Random(chance.random()), clock_file)
        crew = Crew(installation, self._directory, Random(chance.random()), self._counts, clock_file)
        harm = Harm(installation, servers, crew, life, self._directory, Random(chance.random()), self._counts)
        crew.plan_ambushes(chance.choice([0, 1, 1, 2]))
        with alerts(installation, self._directory, crew, Random(chance.random()), self._counts) as told:
            return await self._live(installation, life, crew, harm, told)

    async def _live(
        self, installation: Installation, life: Life, crew: Crew, harm: Harm, told: Alerts
    ) -> tuple[int, int, float]:
        tasks = [asyncio.create_task(crew.watch())]
        try:
            for _ in range(self._chance.choice([1, 2, 2, 3])):
                await crew.start()
            await crew.until_claimed()
            tasks.append(asyncio.create_task(told.watch()))
            await told.until_begun()
            tasks.append(living := asyncio.create_task(life.run()))
            await asyncio.gather(harm.run(), told.harm(), asyncio.sleep(LIFE_SECONDS_MIN))
            life.end()
            await living
            await life.finish()
            ended = time.monotonic()
            await self._rest(installation, crew, told, life.now_us)
            rest_seconds = time.monotonic() - ended
            if crew.wrongs or told.wrongs or self._violations:
                return 0, 0, rest_seconds  # there is nothing to compare, or not yet
            for _ in range(VERIFICATIONS_MAX):
                report = await _verify(installation)
                # Where workers tick by themselves there is always news, and what is under way is no mismatch for long;
                # else it was the last of a rebalance.
                if not report.warnings or (installation.settings.clock == "wall" and not report.mismatches):
                    break
                await self._rest(installation, crew, told, life.now_us)
            self._judge(installation, report)
            if report.mismatches:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                again = await _verify(installation)
                self._violations.append(
                    f"looked at again: {again.mismatch_count} of {report.mismatch_count} mismatches; {again.warnings}"
                )
            self._violations += await told.violations()
            return report.events, report.changes, rest_seconds
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            crew.kill_all()
            self._violations += crew.wrongs + told.wrongs

    async def _rest(self, installation: Installation, crew: Crew, told: Alerts, now_us: int) -> None:
        """Return when everything is done and it is the last day everywhere; a violation if that takes too long."""
        deadline = time.monotonic() + REST_SECONDS
        reason: str | None = "nobody has looked"
        while reason is not None and not crew.wrongs and not told.wrongs:
            if time.monotonic() > deadline:
                self._violations.append(f"rest: not within {REST_SECONDS:g} s: {reason}")
                await crew.confess()
                return
            await asyncio.sleep(POLL_SECONDS)
            try:
                reason = await _unrest(installation, now_us) or crew.unrest() or await told.unrest()
            except (KafkaError, RedisError, OSError, NoInstallation) as error:
                reason = f"{type(error).__name__}: {error}"

    def _judge(self, installation: Installation, report: Report) -> None:
        self._violations += [str(mismatch) for mismatch in report.mismatches]
        if installation.settings.clock == "replay" or report.mismatches:
            self._violations += [f"not compared: {warning}" for warning in report.warnings]
        if not report.events or not report.changes:
            self._violations.append(f"nothing happened: {report.line()}")


async def _verify(installation: Installation) -> Report:
    return await verify(
        installation.settings,
        installation.policy,
        installation.redis,
        installation.reader,
        rest_timeout_seconds=5,
    )


async def _unrest(installation: Installation, now_us: int) -> str | None:
    reason = await unrest(installation.redis, installation.reader, installation.settings)
    if reason is None:
        now = await look(installation.redis, installation.settings.redis_prefix, PARTITIONS)
        if any(shard.clock_us < now_us for shard in now.accounts):
            return "a clock does not show the last instant yet"
    return reason


async def _delete_topics(installation: Installation) -> None:
    """A broker that is killed reads all its topics again when it starts."""
    admin = AIOKafkaAdminClient(**installation.settings.kafka_arguments())
    await admin.start()
    try:
        await admin.delete_topics([installation.names.name(topic) for topic in Topic])
    finally:
        await admin.close()
