"""One schedule: what a seed makes happen, until everything is at rest and every invariant is checked."""

import asyncio
import gc
import logging
import random
from collections import Counter
from random import Random
from typing import NamedTuple, cast

import orjson
from aiokafka.errors import KafkaConnectionError
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from segmentation.policy import Policy
from state import shard_store
from state.founding import require_founding
from state.keys import StageName, shard_keys
from streams import ranking, worklists
from streams import settings as real_settings
from streams.cli.log_lines import fields_of
from streams.log import LogReader
from streams.messages import PolicySwitch, Tick
from streams.oracle.verification import verify
from streams.rest import look
from streams.snapshot import Snapshot, read_snapshot
from streams.topics import ACCOUNT_INPUTS, Topic
from tests.simulation.faults import Faults
from tests.simulation.load import Load
from tests.simulation.log import SimulatedLog, SimulatedReader
from tests.simulation.loop import PROCESS, NothingToDo, SimulatedLoop
from tests.simulation.network import Network, Troubles
from tests.simulation.operator import Operator
from tests.simulation.oracle import wrongs
from tests.simulation.store import SimulatedRedis
from tests.simulation.worker import PREFIX, Settings, World

PARTITIONS = 2
LOADS_MIN, LOADS_MAX = 3, 20
"""How often something is sent. Mostly few times: in the same time, short schedules notice more of the planted bugs that
are rarely noticed (`ack-before-commit`, `due-work-lost-at-restart`, `way-there-skipped`), and long ones a few."""
REST_SECONDS = 120.0
"""Within so many virtual seconds after the last fault everything is at rest."""
SETTLE_SECONDS = 15.0
"""Until somebody looks whether all goes by the policy that was applied last."""
LOOK_SECONDS = 0.25
STEPS_MAX = 400_000
SQL_EVERY = 500

_METAS = [shard_keys(PREFIX, StageName.ACCOUNTS, number).meta for number in range(PARTITIONS)]
_SETTINGS = real_settings.Settings(redis_prefix=PREFIX)
_POLICY = Policy.default()
_MODEL = {
    **{"r": 3.0, "alpha_days": 1.0, "a": 0.2, "b": 3.0, "p": 5, "q": 4, "gamma_minor": 1_000},
    "fitted_at": "2026-01-01",
    "accounts": 1,
}
_RISKS = [
    {
        "horizon_days": 1,
        "watch": 40,
        "high": 70,
        "band": 0,
        "evidence": {"days": 2, "tier_fall": 3, "engagement_fall": 2},
    },
    {"horizon_days": 1, "watch": 30, "high": 60, "band": 15, "evidence": {"days": 1, "refund": 0.5}},
]
_POLICIES = [
    _POLICY.with_changes(
        basis=basis,
        band=band,
        window_days=window_days,
        new_start_days=new_start_days,
        model=_MODEL,
        engagement_days=6 + (basis == "revenue"),
        potential={"horizon_days": 3},
        needs={"training": {"next_step": "Book a course"}},
        icp=[{"attribute": "employees", "at_least": 100, "points": 60}],
        risk=_RISKS[band > 0],
        **population,
    )
    for population in ({}, {"population": "region"})
    for basis in ("revenue", "accounts")
    for band in (0, 2)
    for window_days, new_start_days in ((3, 1), (5, 2), (6, 0), (4, 6))
]


class Outcome(NamedTuple):
    """What came of a schedule."""

    seed: int
    wrongs: list[str]
    """What broke an invariant; empty: nothing did."""
    trace: list[str]
    digest: int
    """Equal for two runs only if everything happened in the same order."""
    faults: Counter[str]
    events: int
    changes: int
    steps: int
    seconds: float
    """Virtual."""


class Schedule:
    """Everything that takes part in one."""

    def __init__(self, seed: int) -> None:
        random.seed(seed)  # streams.backoff takes its jitter from there
        chance = self.chance = Random(seed)
        self.seed = seed
        self.loop = SimulatedLoop(seed)
        self.trace: list[tuple[float, str]] = []
        self._progress: dict[str, bytes] = {}
        self.wrongs: list[str] = []
        self.policy = chance.choice(_POLICIES)
        broker = Network(Random(seed + 1), KafkaConnectionError, Troubles())
        store = Network(Random(seed + 2), RedisConnectionError, Troubles())
        broker.loop = store.loop = self.loop
        self.log = SimulatedLog(PARTITIONS, Random(seed + 3), broker)
        self.redis = SimulatedRedis(store)
        self.redis.watchers.append(self._check_time)
        settings = Settings(
            policy=self.policy,
            partitions=PARTITIONS,
            transactions=chance.random() < 0.85,
            batch_records_max=chance.choice([1, 3, 10]),
            cache_accounts=chance.choice([1, 3, 100]),
            due_chunk_accounts=chance.choice([1, 2, 5]),
            relay_interval_ms=chance.choice([0, 10, 100]),
            outbox_records_max=chance.choice([0, 2, 100]),
        )
        shard_store.OUTBOX_READ_MAX = chance.choice([1, 3, 500])
        ranking.STANDINGS_AT_ONCE = chance.choice([1, 3, 500])
        ranking.CHANGES_AT_ONCE = chance.choice([1, 2, 500])
        worklists.COUNTED_AT_ONCE = chance.choice([1, 3, 500])
        worklists.PLACED_AT_ONCE = chance.choice([1, 3, 500])
        self.load = Load(chance, self.policy, self.log, chance.randint(4, 12))
        self.world = World(self.loop, chance, settings, self.log, self.redis, self.note)
        self.faults = Faults(self.world)
        self.operator = Operator(self.world, _POLICIES)

    def note(self, text: str) -> None:
        """Into the trace."""
        self.trace.append((self.loop.time(), text))

    def run(self) -> Outcome:
        """All of it."""
        handler = _Listener(self)
        logger = logging.getLogger("streams")
        logger.addHandler(handler)
        logger.propagate = False
        snapshot: Snapshot | None = None
        try:
            snapshot = self.loop.run(self._run())
        except NothingToDo:
            self.wrongs.append("rest: everybody waits for ever")
        finally:
            logger.removeHandler(handler)
            logger.propagate = True
        self.wrongs += [f"nobody heard of it: {failure}" for failure in self.loop.failures]
        self.log.network.loop = self.redis.network.loop = None
        if snapshot is not None:
            self.wrongs += map(str, wrongs(snapshot, self.log, self.policy))
        return Outcome(
            self.seed,
            self.wrongs,
            [f"{at:8.3f} {text}" for at, text in self.trace],
            self.loop.digest,
            self.faults.counts + Counter(self.operator.counts),
            self.load.events,
            sum(member.sequence for member, _ in snapshot.members().values()) if snapshot else 0,
            self.loop.steps,
            self.loop.time(),
        )

    async def _run(self) -> Snapshot | None:
        chance, load = self.chance, self.load
        faults = self.loop.start(None, self.faults.run())
        operator = self.loop.start(None, self.operator.run())
        for _ in range(LOADS_MIN + int(chance.random() ** 2 * (LOADS_MAX - LOADS_MIN + 1))):
            load.send(chance.randint(1, 6))
            await asyncio.sleep(chance.random() ** 3 * 4)
            if chance.random() < 0.7:
                load.tick(chance.random() ** 2 * 2)
                self.world.wall_clock_us = load.now_us
            await asyncio.sleep(chance.random() ** 3 * 4)
        finishes_late = chance.random() < 0.5
        if not finishes_late:
            load.finish()
        await faults
        await operator
        if finishes_late:
            load.finish()
        load.last_tick()
        self.world.wall_clock_us = load.now_us
        self.note("the faults are over, the last tick is sent")
        await asyncio.sleep(SETTLE_SECONDS)
        await self.operator.complete()
        return await self._rest()

    async def _rest(self) -> Snapshot | None:
        redis, reader = cast(Redis, self.redis), SimulatedReader(self.log)
        until = self.loop.time() + REST_SECONDS
        places = [(topic, number) for topic in ACCOUNT_INPUTS for number in range(PARTITIONS)]
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.faults.wrongs or self.wrongs:
                self.wrongs += self.faults.wrongs
                return None
            bounds = await reader.bounds(places)
            now, known = await look(redis, PREFIX, PARTITIONS), await require_founding(redis, PREFIX)
            reason = now.unrest(
                {place: bound.end for place, bound in bounds.items()},
                {place: bound.first for place, bound in bounds.items()},
            )
            reason = reason or now.unjudged(known) or self.world.strife() or now.not_in_place()
            if reason is None:
                break
            if self.loop.time() > until or self.loop.steps > STEPS_MAX:
                self.wrongs.append(f"rest: not within {REST_SECONDS:g} s: {reason}")
                return None
        await asyncio.sleep(1.0)  # the markers of the last transactions
        snapshot = await read_snapshot(redis, _SETTINGS)
        known = snapshot.founding
        rest = known.rest or self.world.files[known.policy_hash].canonical_rest()
        self.policy = Policy.of(known.policy, rest)
        return snapshot

    def check(self) -> list[str]:
        """What the oracle in Python has to say of it, once it is over."""
        snapshot = asyncio.run(read_snapshot(cast(Redis, self.redis), _SETTINGS))
        return [str(wrong) for wrong in wrongs(snapshot, self.log, self.policy)]

    def verify(self) -> list[str]:
        """What `resegment verify` has to say of it, once it is over."""
        reader, redis = cast(LogReader, SimulatedReader(self.log)), cast(Redis, self.redis)
        report = asyncio.run(verify(_SETTINGS, self.policy, redis, reader))
        return [f"SQL: {mismatch}" for mismatch in report.mismatches]

    def _check_time(self, key: str) -> None:
        """Time never overtakes data: what a shard has stored of a tick, it has stored of the events before it."""
        if key not in _METAS:
            return
        stored = self.redis.stored(key, b"progress")
        if stored is None or stored == self._progress.get(key):
            return
        self._progress[key] = stored
        number, progress = _METAS.index(key), orjson.loads(stored)
        ticks = self.log.places[Topic.TICKS, number].meanings[: progress.get("ticks", 0)]
        for tick in ticks[-1:]:
            if isinstance(tick, Tick | PolicySwitch) and any(progress.get(t, 0) < end for t, end in tick.ends.items()):
                self.wrongs.append(f"time overtook data: shard {number} at {progress}, tick with {tick.ends}")


class _Listener(logging.Handler):
    """Takes what the workers log into the trace."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(logging.WARNING)
        self._schedule = schedule

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self._schedule.note(f"{PROCESS.get()}: {record.getMessage()} {fields_of(record)}")


def run(seed: int) -> Outcome:
    """Run one schedule. Raises nothing that the system under test does wrong."""
    return Schedule(seed).run()


def run_and_verify(seed: int) -> Outcome:
    """As `run`; one schedule of so many is verified with `resegment verify`'s SQL as well."""
    schedule = Schedule(seed)
    outcome = schedule.run()
    if seed % SQL_EVERY == 0 and not outcome.wrongs:
        outcome.wrongs.extend(schedule.verify())
    return outcome


def prepare_process() -> None:
    """Most objects live as long as the process: looking at them again and again would cost as much as a schedule."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
