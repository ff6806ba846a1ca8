"""How fast, beside the obvious program: `make bench`.

One after the other, on the same broker and store:

    a   one Resegment worker, accounts that are new to it
    a1  the same with accounts that are known, with one day of history
    b   one plain Faust agent that adds up in Redis event by event and knows no tiers
    c   as a1, with accounts that have a purchase on each of 364 days

Each reads what was published before it starts, as fast as it can; a then also runs at half of that rate, to see how
long a purchase takes to become a change. Only ratios within one run mean anything: the machine is shared and noisy.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import SecretStr
from redis.asyncio import Redis

from benchmarks.purchases import DAYS, account_id, now, publish, purchases
from segmentation.account import Account, entry_id_of
from segmentation.events import MICROSECONDS_PER_DAY, Purchase
from segmentation.ledger import ENTRY, OPEN_ENTRIES_MAX
from segmentation.policy import Policy
from state.client import connect
from state.documents import encode_account
from state.founding import found
from state.keys import StageName, shard_keys
from streams.log import LogReader
from streams.partitions import partition_of
from streams.rest import wait_at_rest
from streams.settings import Settings
from streams.topics import Topic, TopicNames, create_topics
from streams.worker import wall_clock_us

PARTITIONS = 2
"""As many as this machine has cores: each more is another round of fetch, commit and publishing for the same events."""
REST_SECONDS = 600.0


@dataclass
class Result:
    """What one run of a Resegment worker took."""

    events: int
    seconds: float
    cpu: dict[str, float]
    """CPU seconds by part, `total` for the process, and `memory_mb`."""
    changes: int

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    def us(self, *parts: str) -> float:
        """CPU microseconds an event of some parts."""
        return 1e6 * sum(self.cpu[part] for part in parts) / self.events

    @property
    def stages_us(self) -> float:
        """CPU microseconds an event of both stages."""
        return self.us("accounts", "due", "ranking")


@contextmanager
def servers() -> Iterator[tuple[str, str, bool]]:
    """Broker, store, and whether they are Apache Kafka and Redis (else the embedded ones)."""
    if shutil.which("java") and shutil.which("redis-server") and shutil.which("mvn"):
        from tests.servers import KafkaServer, RedisServer

        with KafkaServer(heap="1g") as kafka, RedisServer() as redis:
            yield kafka.address, redis.url, True
    else:
        from streams.embedded import Embedded

        with Embedded() as embedded:
            yield embedded.kafka, embedded.redis, False


class Bench:
    """The runs, on one pair of servers. Each run has topics and keys of its own."""

    def __init__(self, kafka: str, redis_url: str, *, transactions: bool, events: int, accounts: int) -> None:
        self.kafka, self.redis_url, self.transactions = kafka, redis_url, transactions
        self.events, self.accounts = events, accounts
        self.now = now()

    def settings(self, name: str, **more: str) -> Settings:
        """The settings of a run."""
        return Settings.model_validate(
            more
            | {
                "kafka_bootstrap_servers": self.kafka,
                "redis_url": self.redis_url,
                "kafka_transactions": self.transactions,
                "kafka_group": f"bench-{name}",
                "topic_prefix": f"{name}-",
                "redis_prefix": f"bench-{name}",
            }
        )

    async def make_topics(self, settings: Settings) -> None:
        """The topics of a run."""
        admin = AIOKafkaAdminClient(**settings.kafka_arguments())
        await admin.start()
        await create_topics(admin, settings, Policy.default(), PARTITIONS, 1)
        await admin.close()

    @asynccontextmanager
    async def worker(
        self, settings: Settings, module: str, *arguments: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A child process, ended by SIGTERM."""
        named = {name: getattr(settings, name) for name in settings.model_fields_set}
        values = {name: v.get_secret_value() if isinstance(v, SecretStr) else str(v) for name, v in named.items()}
        environment = os.environ | {f"RESEGMENT_{name.upper()}": value for name, value in values.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"benchmarks.{module}", *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def seed(self, settings: Settings, redis: Redis, days: int) -> None:
        """Accounts that have a purchase on each of the last days, written as a worker would have written them."""
        policy = Policy.default()
        await found(redis, settings.redis_prefix, policy.canonical(), policy.hash, PARTITIONS)
        today = wall_clock_us() // MICROSECONDS_PER_DAY
        template = Account("")
        for day in range(today - DAYS + 1, today - DAYS + 1 + days):
            amount_minor = 1_000 * DAYS // days  # the same revenue, however many days it comes from
            event = Purchase("", f"seed-{day}", day * MICROSECONDS_PER_DAY, day, amount_minor, False)
            template.apply(event, entry_id_of(event), policy)
        history = template.history
        closed = {str(block.number): history.blocks[block.number] for block in history.closed}
        if closed:
            closed["index"] = history.index
        room = OPEN_ENTRIES_MAX * ENTRY.size - len(history.open)
        assert room > 0
        for first in range(0, self.accounts, 1_000):
            pipeline = redis.pipeline(transaction=False)
            for number in range(first, min(first + 1_000, self.accounts)):
                name = account_id(number)
                keys = shard_keys(settings.redis_prefix, StageName.ACCOUNTS, partition_of(name.encode(), PARTITIONS))
                pipeline.hset(keys.documents, name, encode_account(template))
                pipeline.zadd(keys.due, {name: template.due_day})
                if closed:
                    pipeline.hset(keys.history, mapping={f"{name}|{field}": data for field, data in closed.items()})
            await pipeline.execute()

    async def run(self, name: str, *, seed_days: int) -> Result:
        """One Resegment worker on what was published before."""
        settings = self.settings(name)
        redis = connect(self.redis_url)
        await self.make_topics(settings)
        async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
            if seed_days:
                await self.seed(settings, redis, seed_days)
            async with self.worker(settings, "metered_worker"):
                await self.until_ticked(redis, settings)
                await wait_at_rest(redis, reader, settings, timeout_seconds=REST_SECONDS)
            before = await self._count_changes(reader)
            records = purchases(self.events, self.accounts, seed=1, now=self.now)
            await publish(settings.kafka_arguments(), settings.topic_prefix, records)
            async with self.worker(settings, "metered_worker") as process:
                start = await self._until_moved(redis, settings)
                await wait_at_rest(redis, reader, settings, timeout_seconds=REST_SECONDS)
                seconds = time.monotonic() - start
            assert process.stdout is not None
            cpu = json.loads(await process.stdout.read())
            changes = await self._count_changes(reader) - before
        await redis.aclose()
        return Result(self.events, seconds, cpu, changes)

    async def until_ticked(self, redis: Redis, settings: Settings) -> None:
        """Return when every shard has a worker and its first tick."""
        keys = [shard_keys(settings.redis_prefix, StageName.ACCOUNTS, number).meta for number in range(PARTITIONS)]
        while not all([b'"mode":"live"' in cast(bytes, await redis.hget(key, "state") or b"") for key in keys]):
            await asyncio.sleep(0.05)

    async def _until_moved(self, redis: Redis, settings: Settings) -> float:
        """The moment when the first batch was committed, which is a little late: one batch of 150."""
        keys = [shard_keys(settings.redis_prefix, StageName.ACCOUNTS, number).meta for number in range(PARTITIONS)]
        before = [await redis.hget(key, "progress") for key in keys]
        while [await redis.hget(key, "progress") for key in keys] == before:
            await asyncio.sleep(0.01)
        return time.monotonic()

    async def _count_changes(self, reader: LogReader) -> int:
        count = 0
        async for _ in reader.read({(Topic.SEGMENT_CHANGES, number): 0 for number in range(PARTITIONS)}):
            count += 1
        return count

    async def run_plain(self, events: int) -> tuple[float, float]:
        """Events a second of the plain agent, and its CPU in microseconds an event."""
        settings = self.settings("b")
        redis = connect(self.redis_url)
        await self.make_topics(settings)
        await publish(
            settings.kafka_arguments(),
            settings.topic_prefix,
            purchases(events, self.accounts, seed=1, now=self.now),
        )
        async with self.worker(settings, "plain_agent", "worker", "-l", "error", "--without-web") as process:
            while not (first := int(await redis.get("plain:events") or 0)):
                await asyncio.sleep(0.01)
            start, cpu = time.monotonic(), _cpu_seconds(process.pid)
            while int(await redis.get("plain:events") or 0) < events:
                await asyncio.sleep(0.05)
            seconds, cpu = time.monotonic() - start, _cpu_seconds(process.pid) - cpu
        await redis.aclose()
        return (events - first) / seconds, 1e6 * cpu / (events - first)

    async def latency(self, name: str, rate: float, seconds: float) -> tuple[list[float], float]:
        """Milliseconds from the moment a purchase is sent until its own change is read, sorted; and the worker's CPU
        in microseconds an event."""
        settings = self.settings(name)
        names = TopicNames(settings.topic_prefix)
        sent: dict[str, float] = {}
        latencies: list[float] = []
        consumer = AIOKafkaConsumer(
            names.name(Topic.SEGMENT_CHANGES),
            **settings.kafka_arguments(),
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
        )
        redis = connect(self.redis_url)
        async with (
            LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader,
            self.worker(settings, "metered_worker") as process,
            consumer,
            AIOKafkaProducer(**settings.kafka_arguments(), acks="all") as producer,
        ):
            await wait_at_rest(redis, reader, settings, timeout_seconds=REST_SECONDS)
            await self._until_moved(redis, settings)  # a tick: the worker has its partitions

            async def follow() -> None:
                async for record in consumer:
                    event_id = json.loads(record.value)["cause"]["event_id"]
                    if event_id in sent:
                        latencies.append((time.monotonic() - sent[event_id]) * 1000)

            following = asyncio.create_task(follow())
            records = enumerate(purchases(int(rate * seconds), self.accounts, seed=2, now=self.now))
            start = time.monotonic()
            while chunk := list(islice(records, 64)):
                await asyncio.sleep(max(0.0, start + chunk[0][0] / rate - time.monotonic()))
                # packed here: sent one by one they would cost this machine as much as the worker's work on them
                builders = [producer.create_batch() for _ in range(PARTITIONS)]
                for number, (key, value) in chunk:
                    builders[partition_of(key, PARTITIONS)].append(timestamp=None, key=key, value=value)
                    sent[f"2-{number}"] = time.monotonic()
                for partition, builder in enumerate(builders):
                    if builder.record_count():
                        await producer.send_batch(builder, names.name(Topic.PURCHASES), partition=partition)
            await producer.flush()
            await wait_at_rest(redis, reader, settings, timeout_seconds=REST_SECONDS)
            await asyncio.sleep(0.5)
            following.cancel()
            process.terminate()
            assert process.stdout is not None
            cpu = json.loads(await process.stdout.read())
        await redis.aclose()
        return sorted(latencies), 1e6 * cpu["total"] / (rate * seconds)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _say(name: str, result: Result) -> None:
    print(
        f"{name:3} {result.rate:8,.0f} events/s   CPU us/event: accounts {result.us('accounts'):.1f}"
        f" + due {result.us('due'):.1f} + ranking {result.us('ranking'):.1f} = {result.stages_us:.1f},"
        f" relay {result.us('relay'):.1f}, whole process {result.us('total'):.1f}"
        f"   {result.changes:,} changes   {result.cpu['memory_mb']:.0f} MB",
        flush=True,
    )


async def _say_latency(bench: Bench, rate: float) -> None:
    found_ms, cpu_us = await bench.latency("a", rate, 10.0)
    p50, p99 = (found_ms[int(len(found_ms) * share)] for share in (0.5, 0.99))
    print(
        f"    at {rate:,.0f} events/s: p50 {p50:.0f} ms, p99 {p99:.0f} ms of {len(found_ms):,} changes, "
        f"whole process {cpu_us:.1f} us/event",
        flush=True,
    )


async def main() -> None:
    """All runs, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--plain-events", type=int, default=60_000)
    parser.add_argument("--only", default="a,a1,b,c,latency", help="which runs, comma separated")
    options = parser.parse_args()
    only = set(options.only.split(","))
    with servers() as (kafka, redis_url, are_real):
        what = "Apache Kafka and Redis" if are_real else "the embedded broker and store"
        print(f"on {what}, {os.cpu_count()} cores:", flush=True)
        bench = Bench(kafka, redis_url, transactions=are_real, events=options.events, accounts=options.accounts)
        results: dict[str, Result] = {}
        for name, seed_days in (("a", 0), ("a1", 1), ("c", DAYS)):
            if name in only:
                results[name] = await bench.run(name, seed_days=seed_days)
                _say(name, results[name])
            if name == "a" and {"a", "latency"} <= only:
                # now, as later the store is busy with what it has got
                await _say_latency(bench, results["a"].rate / 2)
        if "b" in only:
            rate, cpu_us = await bench.run_plain(options.plain_events)
            print(f"b   {rate:8,.0f} events/s   CPU us/event: {cpu_us:.1f}", flush=True)
            if "a" in results:
                print(f"ratio a/b: {results['a'].rate / rate:.1f} by rate (goal: 20 or more)")
        if {"a1", "c"} <= results.keys():
            print(f"ratio c/a1: {results['c'].stages_us / results['a1'].stages_us:.2f} by CPU (goal: 1.3 or less)")


if __name__ == "__main__":
    asyncio.run(main())
