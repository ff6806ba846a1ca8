"""A million accounts: `python -m benchmarks.scale`.

Accounts are written to the store as a worker would have written them, each with 2 to 27 purchases, so that the blocks
of their newest events are anywhere between empty and full, as they are after a long time. Then, with one worker:

    restart    from the start of the process to the first change, and what memory an account takes in the ranking stage
    midnight   a quarter of all accounts lose revenue at once; how long purchases take to become changes meanwhile
    soak       purchases as fast as they can be done; then, once everybody is in place on the worklists, at half of
               that rate for minutes: latency, memory and the size of the store, minute by minute
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis

from benchmarks.purchases import account_id
from benchmarks.throughput import PARTITIONS, Bench, servers
from segmentation.account import Account, Standing, entry_id_of
from segmentation.events import MICROSECONDS_PER_DAY, Purchase
from segmentation.ledger import OPEN_ENTRIES_MAX
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.population import Population
from segmentation.risk import RiskRules
from segmentation.risk_watch import RiskWatch
from segmentation.segments import TIERS, Segment
from state.client import connect
from state.documents import encode_account, encode_member
from state.founding import Beginning, found
from state.keys import StageName, shard_keys
from streams.accounts import standing_of
from streams.instants import format_instant
from streams.log import LogReader
from streams.messages import Tick, encode_tick
from streams.partitions import partition_of
from streams.rest import look, wait_at_rest
from streams.topics import EVENT_TOPICS, Topic, TopicNames
from streams.worker import wall_clock_us

POPULATION = "all"
LEAVING_SHARE = 4
"""One account in so many has a purchase that leaves the window at the next midnight."""
CHUNK = 2_000
REST_SECONDS = 900.0


class Scale:
    """An installation with many accounts, a minute before midnight."""

    def __init__(self, bench: Bench, redis: Redis, accounts: int) -> None:
        self.bench, self.redis, self.accounts = bench, redis, accounts
        self.policy = Policy.default()
        self.settings = bench.settings("scale", clock="replay")
        self.midnight_us = wall_clock_us() // MICROSECONDS_PER_DAY * MICROSECONDS_PER_DAY
        self.clock_us = self.midnight_us - 60_000_000
        self.numbers = count()
        self.sent: dict[str, float] = {}
        self.latencies: list[tuple[float, float]] = []
        """When a purchase was sent, and the milliseconds until its own change was read."""
        self.changes = 0

    async def seed(self) -> None:
        """Found the installation and write the accounts of both stages."""
        today = self.clock_us // MICROSECONDS_PER_DAY
        state = {"mode": "replay", "clock_us": self.clock_us, "told_day": today}
        watched = {"told_days": {str(number): today for number in range(PARTITIONS)}, "watched_day": today}
        beginnings = {
            (stage, number): Beginning({}, state if stage is StageName.ACCOUNTS else watched)
            for stage in StageName
            for number in range(PARTITIONS)
        }
        policy, prefix = self.policy, self.settings.redis_prefix
        await found(self.redis, prefix, policy.canonical(), policy.hash, PARTITIONS, beginnings)
        population = Population(
            POPULATION, basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp
        )
        population.muted = True
        rng = random.Random(1)
        for first in range(0, self.accounts, CHUNK):
            accounts = [self._account(rng, number) for number in range(first, min(first + CHUNK, self.accounts))]
            population.apply(map(self._standing, accounts), self.clock_us)  # muted: nothing is announced
            pipeline = self.redis.pipeline(transaction=False)
            for number in range(PARTITIONS):
                keys = shard_keys(prefix, StageName.ACCOUNTS, number)
                here = [a for a in accounts if partition_of(a.account_id.encode(), PARTITIONS) == number]
                pipeline.hset(keys.documents, mapping={a.account_id: encode_account(a) for a in here})
                pipeline.zadd(keys.due, {a.account_id: a.due_day for a in here})
            await pipeline.execute()
        keys = shard_keys(prefix, StageName.RANKING, partition_of(POPULATION.encode(), PARTITIONS))
        members = list(population.members.values())
        watch = RiskWatch(RiskRules.of(policy))
        for member in members:
            member.segment, member.sequence, member.effective_at_us = member.current_segment, 1, self.clock_us
            watch.look(member, today)
            if member.is_risk_untold:
                assert member.risk is not None
                member.risk.told_level, member.risk.sequence = member.risk.level, 1
        for first in range(0, len(members), CHUNK):
            chunk = {m.account_id: encode_member(m, POPULATION) for m in members[first : first + CHUNK]}
            await self.redis.hset(keys.documents, mapping=chunk)  # type: ignore[arg-type]
        self.commercial = [m.account_id for m in members if m.segment is Segment.COMMERCIAL]
        rng.shuffle(self.commercial)
        rise = population.tiers.gates(TIERS.index(Segment.COMMERCIAL))[-1]
        assert rise is not None
        self.enough_minor = rise + rise // 10

    def _account(self, rng: random.Random, number: int) -> Account:
        """An established account, with any number of purchases that an open block holds."""
        today, policy = self.clock_us // MICROSECONDS_PER_DAY, self.policy
        account = Account(account_id(number))
        account.advance(today, policy)
        leaving = number % LEAVING_SHARE == 0
        purchases = rng.randrange(2, OPEN_ENTRIES_MAX)
        first = policy.window_days - 1 if leaving else rng.randrange(200, 360)
        for index in range(purchases):
            day = today - (first if index == 0 else rng.randrange(95, 200))
            amount = int(rng.lognormvariate(9, 1.5)) // purchases + 1
            event = Purchase(account.account_id, f"seed-{index}", day * MICROSECONDS_PER_DAY, day, amount, False)
            account.apply(event, entry_id_of(event), policy)
        account.announced = True
        return account

    def _standing(self, account: Account) -> Standing:
        policy = self.policy
        return standing_of(account, account.stage(policy.new_start_days), None, None, policy.window_days, POPULATION)

    def purchase(self, account: str, amount_minor: int) -> tuple[str, bytes]:
        """(event id, payload) of a purchase a minute before midnight."""
        event_id = f"p-{next(self.numbers)}"
        payload = {
            "event_id": event_id,
            "account_id": account,
            "occurred_at": format_instant(self.clock_us),
            "amount_minor": amount_minor,
            "currency": "USD",
        }
        return event_id, json.dumps(payload).encode()

    async def send(self, producer: AIOKafkaProducer) -> None:
        """One purchase that takes an account out of the lowest tier, and so has a change of its own."""
        account = self.commercial.pop()
        event_id, payload = self.purchase(account, self.enough_minor)
        self.sent[event_id] = time.monotonic()
        await producer.send(self._name(Topic.PURCHASES), payload, key=account.encode())

    def _name(self, topic: Topic) -> str:
        return TopicNames(self.settings.topic_prefix).name(topic)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[AIOKafkaProducer]:
        """A producer, while the changes are read."""
        arguments = self.settings.kafka_arguments()
        consumer = AIOKafkaConsumer(
            self._name(Topic.SEGMENT_CHANGES), **arguments, isolation_level="read_committed", fetch_max_wait_ms=50
        )

        async def follow() -> None:
            async for record in consumer:
                self.changes += 1
                at = self.sent.pop(json.loads(record.value)["cause"]["event_id"], None)
                if at is not None:
                    self.latencies.append((at, (time.monotonic() - at) * 1000))

        async with consumer, AIOKafkaProducer(**arguments, acks="all", linger_ms=2) as producer:
            task = asyncio.create_task(follow())
            try:
                yield producer
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Any, seconds: float = REST_SECONDS) -> None:
        """Wait for a condition. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.05)

    async def restart(self, producer: AIOKafkaProducer, spawn: float) -> float:
        """Seconds from the start of a worker's process to its first change."""

        async def changed() -> bool:
            return bool(self.latencies)

        await self.send(producer)
        await self.until(changed)
        self.latencies.clear()
        return time.monotonic() - spawn

    async def midnight(self, producer: AIOKafkaProducer, reader: LogReader, rate: float) -> tuple[float, float]:
        """Purchases at a rate, midnight after five seconds. Returns when it was ticked and when it was done."""
        steady = asyncio.create_task(self.steady(producer, rate))
        await asyncio.sleep(5.0)
        ticked = time.monotonic()
        partitions = range(PARTITIONS)
        bounds = await reader.bounds([(topic, number) for number in partitions for topic in EVENT_TOPICS])
        for number in partitions:
            ends = {str(topic): bounds[topic, number].end for topic in EVENT_TOPICS}
            tick = encode_tick(Tick(self.midnight_us + 1_000_000, "replay", ends))
            await producer.send(self._name(Topic.TICKS), tick, partition=number)

        async def done() -> bool:
            now = await look(self.redis, self.settings.redis_prefix, PARTITIONS)
            return all(
                shard.clock_us >= self.midnight_us and not shard.has_due_work for shard in now.accounts
            ) and not any(shard.waiting > 1_000 for shard in now.ranking)

        await self.until(done)
        finished = time.monotonic()
        await asyncio.sleep(3.0)
        steady.cancel()
        await asyncio.gather(steady, return_exceptions=True)
        await producer.flush()
        await wait_at_rest(self.redis, reader, self.settings, timeout_seconds=REST_SECONDS)
        await asyncio.sleep(1.0)
        return ticked, finished

    async def steady(self, producer: AIOKafkaProducer, rate: float) -> None:
        """Purchases that move accounts, at a rate, until cancelled."""
        start = time.monotonic()
        for number in count():
            if number % 16 == 0:
                await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            await self.send(producer)

    async def as_fast_as_possible(self, producer: AIOKafkaProducer, reader: LogReader, purchases: int) -> float:
        """Purchases of all accounts a second, from when they are all in the log until everything is at rest."""
        rng = random.Random(3)
        for number in range(purchases):
            await self.send_any(producer, rng)
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        await producer.flush()
        now = await look(self.redis, self.settings.redis_prefix, PARTITIONS)
        done = sum(shard.progress.get(Topic.PURCHASES, 0) for shard in now.accounts)
        start = time.monotonic()
        await wait_at_rest(self.redis, reader, self.settings, timeout_seconds=REST_SECONDS)
        seconds = time.monotonic() - start
        now = await look(self.redis, self.settings.redis_prefix, PARTITIONS)
        return (sum(shard.progress.get(Topic.PURCHASES, 0) for shard in now.accounts) - done) / seconds

    async def until_placed(self, reader: LogReader) -> float:
        """The seconds until every account is in its place on the worklists: what grows until then is theirs."""
        start = time.monotonic()
        await wait_at_rest(self.redis, reader, self.settings, timeout_seconds=REST_SECONDS, until_placed=True)
        return time.monotonic() - start

    async def send_any(self, producer: AIOKafkaProducer, rng: random.Random) -> None:
        """A purchase of any account."""
        account = account_id(rng.randrange(self.accounts))
        _, payload = self.purchase(account, int(rng.lognormvariate(7, 1.5)) + 1)
        await producer.send(self._name(Topic.PURCHASES), payload, key=account.encode())

    async def soak(self, producer: AIOKafkaProducer, pid: int, rate: float, minutes: int) -> None:
        """Purchases of all accounts at a rate, with a look at everything each minute."""
        rng = random.Random(2)
        start = time.monotonic()
        sent, minute = 0, 0
        self.latencies.clear()
        while minute < minutes:
            if sent % 64 == 0:
                await asyncio.sleep(max(0.0, start + sent / rate - time.monotonic()))
            if sent % 20 == 0 and self.commercial:
                await self.send(producer)
            else:
                await self.send_any(producer, rng)
            sent += 1
            if time.monotonic() >= start + 60 * (minute + 1):
                minute += 1
                found_ms, self.latencies = self.latencies, []
                store_mb = (await self.redis.info("memory"))["used_memory"] / 2**20
                now = await look(self.redis, self.settings.redis_prefix, PARTITIONS)
                waiting = sum(shard.waiting for shard in (*now.accounts, *now.ranking))
                print(
                    f"  minute {minute:2}: {sent / (time.monotonic() - start):,.0f} events/s, {quantiles(found_ms)}, "
                    f"worker {rss_mb(pid):,.0f} MB, store {store_mb:,.0f} MB, {waiting:,} in outboxes",
                    flush=True,
                )


def quantiles(latencies: list[tuple[float, float]]) -> str:
    """Of some purchases, how long they took to become changes, in words."""
    if not latencies:
        return "no change"
    ordered = sorted(ms for _, ms in latencies)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:,.0f} ms, p99 {p99:,.0f} ms, longest {ordered[-1]:,.0f} ms of {len(ordered):,}"


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def memory_of_an_empty_worker(bench: Bench, redis: Redis) -> float:
    """MB of a worker that has its partitions and no account."""
    settings = bench.settings("empty")
    await bench.make_topics(settings)
    async with bench.worker(settings, "metered_worker") as process:
        await bench.until_ticked(redis, settings)
        return rss_mb(process.pid)


async def main() -> None:
    """All of it, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=500.0, help="purchases a second at midnight")
    parser.add_argument("--soak-minutes", type=int, default=0)
    options = parser.parse_args()
    with servers() as (kafka, redis_url, are_real):
        bench = Bench(kafka, redis_url, transactions=are_real, events=0, accounts=options.accounts)
        redis = connect(redis_url)
        empty_mb = await memory_of_an_empty_worker(bench, redis)
        scale = Scale(bench, redis, options.accounts)
        await bench.make_topics(scale.settings)
        start = time.monotonic()
        await scale.seed()
        store = await redis.info("memory")
        print(
            f"{options.accounts:,} accounts written in {time.monotonic() - start:.0f} s, "
            f"the store holds {store['used_memory'] / 2**20:,.0f} MB",
            flush=True,
        )
        async with (
            scale.following() as producer,
            LogReader(scale.settings.kafka_arguments(), scale.settings.topic_prefix) as reader,
        ):
            spawn = time.monotonic()
            async with bench.worker(scale.settings, "metered_worker") as process:
                seconds = await scale.restart(producer, spawn)
                held_mb = rss_mb(process.pid) - empty_mb
                print(
                    f"restart: first change after {seconds:.1f} s; {held_mb:,.0f} MB for the ranking stage, "
                    f"{held_mb * 2**20 / options.accounts:,.0f} bytes an account",
                    flush=True,
                )
                before = scale.changes
                ticked, finished = await scale.midnight(producer, reader, options.rate)
                quiet = [found for found in scale.latencies if found[0] < ticked]
                busy = [found for found in scale.latencies if ticked <= found[0] < finished]
                print(
                    f"midnight: {options.accounts // LEAVING_SHARE:,} due accounts done and announced in "
                    f"{finished - ticked:.1f} s, {scale.changes - before:,} changes\n"
                    f"  before it at {options.rate:,.0f} purchases/s: {quantiles(quiet)}\n"
                    f"  during it: {quantiles(busy)}\n"
                    f"  worker {rss_mb(process.pid):,.0f} MB",
                    flush=True,
                )
                if options.soak_minutes:
                    rate = await scale.as_fast_as_possible(producer, reader, 200_000)
                    seconds = await scale.until_placed(reader)
                    print(
                        f"soak: {rate:,.0f} purchases/s as fast as possible; {seconds:.0f} s later everybody is in "
                        f"place on the worklists, worker {rss_mb(process.pid):,.0f} MB; half of that rate:",
                        flush=True,
                    )
                    await scale.soak(producer, process.pid, rate / 2, options.soak_minutes)
        await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
