"""What is relied on of faust-streaming 0.15.3, aiokafka and the embedded broker. New versions have to pass it."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, cast

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import UnknownError
from aiokafka.protocol.metadata import MetadataResponse_v0
from faust.types import TP

from streams import transport
from streams.embedded import Embedded
from streams.topics import Topic
from tests.pipeline import Installation, Sent, moment, purchase, until

PARTITIONS = 2


class Reader:
    """A Faust application that takes batches from two topics and keeps them."""

    def __init__(self, broker: str) -> None:
        self.broker = broker
        self.group = f"t{uuid.uuid4().hex[:8]}"
        self.topics = [f"{self.group}-one", f"{self.group}-two"]
        self.batches: dict[TP, list[transport.Batch]] = defaultdict(list)
        self.claimed: list[set[TP]] = []
        self.stored: dict[TP, int] = {}
        """Where the claim says that each partition goes on."""
        self.may_claim = asyncio.Event()
        self.may_claim.set()
        self.on_batch: Callable[[transport.Batch], Any] = lambda batch: None

    async def __aenter__(self) -> Self:
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await self.admin.start()
        await self.admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in self.topics])
        self.producer = AIOKafkaProducer(bootstrap_servers=self.broker)
        await self.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()
        await self.admin.close()

    async def send(self, count: int, *, each_alone: bool = False) -> None:
        """So many records to every partition."""
        for topic in self.topics:
            for partition in range(PARTITIONS):
                sent = [await self.producer.send(topic, b"%d" % n, partition=partition) for n in range(count)]
                await asyncio.gather(*sent)
                if each_alone:
                    await self.producer.flush()

    def new_app(self, **changes: Any) -> transport.App:
        """As streams.worker makes it."""
        app = transport.App(
            self.group,
            broker=f"batches://{self.broker}",
            broker_session_timeout=2.0,
            broker_heartbeat_interval=0.5,
            broker_commit_interval=0.1,
            ConsumerScheduler=transport.BatchScheduler,
            PartitionAssignor=transport.Assignor,
            agent_supervisor="mode.CrashingSupervisor",
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            store="memory://",
            loghandlers=[],
            logging_config={"version": 1, "disable_existing_loggers": False},
            **changes,
        )

        async def claim(assigned: set[TP]) -> dict[TP, int]:
            self.claimed.append(set(assigned))
            await self.may_claim.wait()
            return {tp: self.stored.get(tp, 0) for tp in assigned}

        app.claim_partitions = claim
        for number, name in enumerate(self.topics):
            app.agent(app.topic(name, schema=transport.BatchSchema()), name=f"agent-{number}", concurrency=1)(
                self._take
            )
        return app

    async def _take(self, stream: Any) -> None:
        async for event in stream.noack().events():
            batch = event.value
            self.batches[TP(batch.topic, batch.partition)].append(batch)
            await (self.on_batch(batch) or asyncio.sleep(0))
            event.ack()

    @asynccontextmanager
    async def reading(self, **changes: Any) -> AsyncIterator[transport.App]:
        """Run the application."""
        app = self.new_app(**changes)
        app.finalize()
        try:
            await app.start()
            yield app
        finally:
            await app.stop()

    def records(self, tp: TP) -> list[int]:
        """Offsets in the order they came."""
        return [record.offset for batch in self.batches[tp] for record in batch.records]

    @property
    def all(self) -> list[TP]:
        """Every partition."""
        return [TP(topic, number) for topic in self.topics for number in range(PARTITIONS)]

    async def until_read(self, offset: int) -> None:
        """Return when every partition is read up to the offset."""

        async def read() -> bool:
            return all(self.batches[tp] and self.batches[tp][-1].end >= offset for tp in self.all)

        await until(read, f"offset {offset}")


async def until_crashed(app: transport.App) -> None:
    """Return when it has ended of an error."""

    async def crashed() -> bool:
        return app._crashed.is_set()

    await until(crashed, "the end of the application")


async def test_a_poll_brings_one_batch_of_each_partition(embedded: Embedded) -> None:
    """What one poll brings of a partition comes as one list, undecoded, with the positions before and after it."""
    async with Reader(embedded.kafka) as reader:
        await reader.send(500)
        async with reader.reading():
            await reader.until_read(500)
    for tp in reader.all:
        batches = reader.batches[tp]
        assert reader.records(tp) == list(range(500))
        assert len(batches) < 50
        assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
        assert batches[0].records[0].value == b"0"
    assert reader.claimed == [set(reader.all)]


async def test_reading_begins_where_the_claim_says(embedded: Embedded) -> None:
    """Neither the offsets committed to the group nor the end of the log count."""
    async with Reader(embedded.kafka) as reader:
        await reader.send(100)
        one, *others = reader.all
        reader.stored = {one: 7, **dict.fromkeys(others, 0)}
        committer = AIOKafkaConsumer(bootstrap_servers=embedded.kafka, group_id=reader.group, enable_auto_commit=False)
        await committer.start()
        committer.assign([TopicPartition(*tp) for tp in reader.all])
        await committer.commit({TopicPartition(*tp): 60 for tp in reader.all})
        await committer.stop()
        async with reader.reading():
            await reader.until_read(100)
    assert reader.records(one) == list(range(7, 100))
    assert [reader.records(tp) for tp in others] == [list(range(100))] * 3
    assert reader.batches[one][0].start == 7


async def test_seeking_tells_old_batches_from_new_ones(embedded: Embedded) -> None:
    """After a seek the records come again, in batches that have counted it."""
    async with Reader(embedded.kafka) as reader:
        await reader.send(100)
        async with reader.reading() as app:
            await reader.until_read(100)
            consumer: Any = app.consumer
            tp = reader.all[0]
            before = consumer.seeks(tp)
            assert {batch.seeks for batch in reader.batches[tp]} == {before}
            await consumer.seek_wait({tp: 40})
            assert consumer.seeks(tp) == before + 1

            async def again() -> bool:
                return len(reader.records(tp)) >= 160

            await until(again, "the records again")
            assert reader.records(tp) == [*range(100), *range(40, 100)]
            again_batches = [batch for batch in reader.batches[tp] if batch.seeks == before + 1]
            assert again_batches[0].start == 40
            assert reader.records(reader.all[1]) == list(range(100))


async def test_committed_offsets_follow(embedded: Embedded) -> None:
    """Whoever looks at the group's lag sees none once all is done: 0.15.3 by itself would stop at a gap or a seek."""
    async with Reader(embedded.kafka) as reader:
        async with reader.reading() as app:
            consumer: Any = app.consumer
            for round_number in range(1, 4):
                await reader.send(50)
                await reader.until_read(50 * round_number)
                await consumer.seek_wait(dict.fromkeys(reader.all, 50 * round_number - 20))

            async def committed() -> bool:
                return all(consumer._committed_offset[tp] == 150 for tp in reader.all)

            await until(committed, "committed offsets")
            assert all(not consumer._acked[tp] and not consumer._gap[tp] for tp in reader.all), "nothing is kept"
        looker = AIOKafkaConsumer(bootstrap_servers=embedded.kafka, group_id=reader.group)
        await looker.start()
        assert [await looker.committed(TopicPartition(*tp)) for tp in reader.all] == [150] * 4
        await looker.stop()


async def test_partitions_are_assigned_though_the_broker_does_not_know_its_topics_yet() -> None:
    """As just after it was started: else whoever leads the group assigns nothing, and nobody ever asks again."""
    reader = Reader("127.0.0.1:1")
    app = reader.new_app()
    app.partitions = PARTITIONS
    assignor = cast(transport.Assignor, app.assignor)
    members = {name: assignor.metadata(set(reader.topics)) for name in ("one", "other")}
    assigned = assignor.assign(ClusterMetadata(), members)
    given = [TP(*tp) for member in assigned.values() for tp in member.partitions()]
    assert sorted(given) == sorted(reader.all)


async def test_fetches_wait_shortly_and_read_committed(embedded: Embedded) -> None:
    """Both are set where aiokafka uses them."""
    async with Reader(embedded.kafka) as reader, reader.reading() as app:
        thread: Any = cast(transport.Consumer, app.consumer)._thread
        await reader.send(1)
        await reader.until_read(1)
        fetcher = thread._consumer._fetcher
        assert (fetcher._fetch_max_wait_ms, fetcher._isolation_level) == (50, 1)


async def test_who_gets_no_partitions_is_told(embedded: Embedded) -> None:
    """More processes than partitions: else the one that got nothing would keep what it had."""
    async with Reader(embedded.kafka) as reader, AsyncExitStack() as stack:
        for _ in range(PARTITIONS + 1):
            await stack.enter_async_context(reader.reading())

        async def told() -> bool:
            return set() in reader.claimed

        await until(told, "a claim of nothing")


async def test_a_claim_may_take_longer_than_faust_waits(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on, reading begins where it says, and further rebalances are taken part in."""
    monkeypatch.setattr(transport, "CLAIM_SECONDS_MAX", 0.5)
    async with Reader(embedded.kafka) as reader:
        await reader.send(3)
        reader.stored = dict.fromkeys(reader.all, 1)
        reader.may_claim.clear()
        async with reader.reading(broker_request_timeout=2.5):
            await asyncio.sleep(5)
            assert reader.claimed and not reader.batches
            reader.may_claim.set()
            await reader.until_read(3)
            assert all(reader.records(tp) == [1, 2] for tp in reader.all)
            async with reader.reading():

                async def shared() -> bool:
                    return len(reader.claimed[-1]) < len(reader.all)

                await until(shared, "a rebalance")
                await reader.send(2)
                await reader.until_read(5)


async def test_an_error_of_the_group_ends_the_application(embedded: Embedded) -> None:
    """Also of one that reads nothing: aiokafka waits with it until somebody reads."""
    async with Reader(embedded.kafka) as reader, reader.reading() as app:
        thread: Any = cast(transport.Consumer, app.consumer)._thread
        coordinator = thread._consumer._coordinator
        coordinator._pending_exception = UnknownError("of the group")
        await until_crashed(app)
        assert isinstance(app.crash_reason, UnknownError)


async def test_an_error_in_an_agent_ends_the_application(embedded: Embedded) -> None:
    """It is not restarted in silence, which would acknowledge the batch it lost."""
    async with Reader(embedded.kafka) as reader:
        await reader.send(1)

        def fail(batch: transport.Batch) -> None:
            raise ArithmeticError("in the middle of a batch")

        reader.on_batch = fail
        async with reader.reading() as app:
            await until_crashed(app)
            assert isinstance(app.crash_reason, ArithmeticError)
            assert sum(len(batches) for batches in reader.batches.values()) <= 2


@pytest.mark.parametrize(("workers", "partitions"), [(2, 8), (3, 8), (5, 4)])
def test_a_worker_gets_the_same_partitions_of_every_topic(workers: int, partitions: int) -> None:
    """Purchases, signups, engagements and ticks of an account go to one worker, however many there are."""
    reader = Reader("127.0.0.1:1")
    app = reader.new_app()
    together = app.topic(*(f"topic-{number}" for number in range(4)), schema=transport.BatchSchema())
    app.agent(together, name="together", concurrency=1)(reader._take)
    app.finalize()
    topics = {f"topic-{number}" for number in range(4)}
    for topic in topics:
        app.topics.add(app.topic(topic))
    assignor: Any = app.assignor
    assert app.conf.table_standby_replicas == 1, "with 0 Faust assigns each topic for itself"
    cluster = ClusterMetadata()
    cluster.update_metadata(
        MetadataResponse_v0(
            [(0, "localhost", 9092)],
            [(0, topic, [(0, number, 0, [0], [0]) for number in range(partitions)]) for topic in topics],
        )
    )
    members = {f"worker-{number}": assignor.metadata(topics) for number in range(workers)}
    assignment = assignor.assign(cluster, members)
    seen = []
    for member in assignment.values():
        of_topic = {topic: sorted(numbers) for topic, numbers in member.assignment}
        numbers = list(of_topic.values())
        assert all(other == numbers[0] for other in numbers) and len(numbers) in (0, 4)
        seen += numbers[0] if numbers else []
    assert sorted(seen) == list(range(partitions))


async def test_a_worker_opens_no_port(embedded: Embedded) -> None:
    """While a worker runs, its process listens on nothing."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.send(purchase("acme", "1", moment(0), 100))
        await installation.tick(moment(1))
        await installation.rest()
        connections = psutil.Process().net_connections(kind="all")
        assert [found for found in connections if found.status == psutil.CONN_LISTEN] == []
        assert any(found.status == psutil.CONN_ESTABLISHED for found in connections)


@pytest.mark.parametrize("another_follows", [True, False])
async def test_a_dropped_batch_is_read_again(
    embedded: Embedded, another_follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Faust loses a batch on its way, in a pause or a rebalance, the shard goes back for it.

    When the next batch comes, or, where none does, when somebody looks.
    """
    monkeypatch.setattr("streams.worker.WATCH_SECONDS", 60.0 if another_follows else 0.3)
    async with Installation(embedded, partitions=1) as installation, installation.worker() as running:
        await installation.send(purchase("acme", "1", moment(0), 100))
        await installation.tick(moment(1))
        await installation.rest()
        thread: Any = cast(transport.Consumer, running.worker.app.consumer)._thread
        fetch = thread._fetch_records
        dropped: list[transport.Batch] = []

        async def drop(*arguments: Any, **named: Any) -> Any:
            batches = await fetch(*arguments, **named)
            lost = [tp for tp in batches if tp.topic.endswith(Topic.PURCHASES)]
            if lost and len(dropped) < 2:
                dropped.extend(batches.pop(tp) for tp in lost)
            return batches

        thread._fetch_records = drop
        number = 1
        while len(dropped) < 2:  # the poll under way when this began drops nothing
            number += 1
            await installation.send(purchase("acme", str(number), moment(0), 100))
        if another_follows:
            number += 1
            await installation.send(purchase("acme", "last", moment(0), 100))
        await installation.rest()
        assert await installation.counts(Topic.PURCHASES) == {
            "applied": number,
            "duplicates": 0,
            "dead_letters": 0,
        }
        assert (await installation.members())["acme"].revenue_minor == number * 100


async def test_the_log_says_where_it_ends(embedded: Embedded) -> None:
    """Also behind a batch of several records, of which the embedded broker counts one when it is asked plainly."""
    async with Installation(embedded, partitions=2) as installation:
        end = 0
        for count in (1, 5, 1, 30):
            await installation.send(*[Sent(Topic.PURCHASES, b"k", b"v", 1)] * count)
            end += count
            bounds = await installation.reader.bounds([(Topic.PURCHASES, 0), (Topic.PURCHASES, 1)])
            assert [tuple(bound) for bound in bounds.values()] == [(0, 0), (0, end)]
            assert len(await installation.records(Topic.PURCHASES)) == end
