"""Faust reading whole batches, and resuming from where the shards' own state says.

A plain Faust agent costs about 160 us a message, most of it four asyncio tasks for each message on its way from the
consumer to the stream. Here what one poll brings of one partition travels as a single message, undecoded, so the cost
is that of a batch. Written against faust-streaming 0.15.3; tests/streams/test_transport.py holds it to that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import SchedulingStrategyT
from mode import Service

from streams.tasks import end_tasks

log = logging.getLogger(__name__)

CLIENT_WATCH_SECONDS = 1.0
CLAIM_SECONDS_MAX = 60.0

Claim = Callable[[set[TP]], Awaitable[dict[TP, int]]]
"""Called with all partitions this worker now has, none too; returns the offset to go on from for each."""


class App(faust.App):
    """A Faust application that reads batches, and resumes from where its shards say."""

    claim_partitions: Claim
    partitions = 0
    """How many every topic has that is read; known before it starts."""
    fetch_wait_ms = 50
    """How long the broker waits for a record before it answers that there is none."""

    def _create_directories(self) -> None:
        """None: nothing is kept on disk, and a worker that is killed could not clear away after itself."""


class Batch:
    """All records that one poll brought of one partition, in the shape that Faust expects of a record.

    `start` and `end` are the consumer's positions before and after the poll. They differ from the records' offsets
    where the log has transaction markers or was compacted, so only they can tell such a hole from a batch that was
    dropped on its way. A batch without records says that the position moved over such a hole.
    """

    key = headers = checksum = None
    serialized_key_size = serialized_value_size = 0
    timestamp_type = 0

    __slots__ = ("end", "offset", "partition", "records", "seeks", "start", "timestamp", "topic")

    def __init__(self, tp: TopicPartition, records: list[ConsumerRecord], start: int, end: int, seeks: int) -> None:
        self.topic = tp.topic
        self.partition = tp.partition
        self.records = records
        self.start = start
        self.end = end
        self.seeks = seeks
        """How often the partition's position had been set when this was read: fewer than since, and it is stale."""
        self.offset = end - 1
        self.timestamp = records[-1].timestamp if records else 0

    @property
    def value(self) -> "Batch":
        """Itself. Kept in a field, only the garbage collector could free a batch, which it rarely looks for."""
        return self


class BatchScheduler(SchedulingStrategyT):
    """Hands each polled partition over as one message."""

    def iterate(self, records: Mapping[TP, Any]) -> Iterator[tuple[TP, Any]]:
        """One (partition, batch) for each partition polled."""
        yield from records.items()


class BatchSchema(faust.Schema[Any, Any]):
    """Hands batches to the agent as they are; it decodes them itself, so that a bad record becomes a dead letter."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> None:
        """Batches have no key."""
        return None

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The batch."""
        return message.value


class Assignor(PartitionAssignor):
    """Assigns the partitions that there are, also while the broker does not say so.

    Just after it was started a broker may not know its topics yet. Whoever leads the group at that moment would assign
    nothing, to nobody, and with that everybody would be content for ever.
    """

    app: App

    def _assign(self, cluster: Any, member_metadata: Any) -> Any:
        return super()._assign(_KnownTopics(cluster, self.app.partitions), member_metadata)


class SoleAssignor(Assignor):
    """Gives every partition to one member, whoever has them already; the others stand by until it is gone.

    For a role whose state is one whole: a second process makes it outlast the first, not faster.
    """

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        known = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        chosen = min(known, key=lambda member: (not known[member].assignment.actives, member))
        given = super()._perform_assignment(cluster, {chosen: member_metadata[chosen]})
        self._update_member_urls(known)
        standing_by = {
            member: ClientAssignment(actives={}, standbys={}) for member in member_metadata if member != chosen
        }
        return {**given, **self._protocol_assignments(standing_by, {}, {}, {})}


class _KnownTopics:
    """What an assignor asks of a cluster, for topics that are there and have so many partitions."""

    def __init__(self, cluster: Any, partitions: int) -> None:
        self._cluster = cluster
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The numbers of a topic's partitions."""
        return self._cluster.partitions_for_topic(topic) or set(range(self._partitions))


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Polls batches and knows the positions."""

    app: App

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        self.positions: dict[TopicPartition, int] = {}
        self.seeks: dict[TopicPartition, int] = {}
        self._sought_in: dict[TopicPartition, Any] = {}
        """The assignment in which the position was set: after a rebalance it means nothing until it is set again."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms  # Faust fixes 1500
        consumer._isolation_level = "read_committed"  # Faust ties it to its own exactly_once
        return consumer

    @Service.task
    async def _watch_client(self) -> None:
        """End the application where its client of Kafka can do no more, as without the right to be in the group.

        aiokafka keeps such an error for whoever reads next, and waits. Without partitions nobody reads, and the process
        would stand by for ever.
        """
        while not self.should_stop:
            await self.sleep(CLIENT_WATCH_SECONDS)
            consumer = self._consumer
            if consumer is None or consumer._coordinator is None:
                continue  # it has not begun yet
            try:
                consumer._coordinator.check_errors()
                for task in (consumer._client._sync_task, consumer._fetcher._fetch_task):
                    if task is not None and task.done() and not task.cancelled():  # else it is being stopped
                        task.result()
            except Exception as error:
                asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)
                return

    async def _fetch_records(  # type: ignore[override]  # batches instead of lists of records
        self, consumer: Any, active_partitions: Any, timeout: Any = None, max_records: Any = None
    ) -> dict[TopicPartition, Batch]:
        polled = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        assignment = _assignment(consumer)
        batches: dict[TopicPartition, Batch] = {}
        for tp in tuple(active_partitions):  # the main thread may change it meanwhile
            sought_in = self._sought_in.get(tp)
            if sought_in is None or sought_in is not assignment:
                continue
            state = sought_in.state_value(tp)
            if state is None or not state.has_valid_position:
                continue
            start, end = self.positions[tp], state.position
            if end > start:
                self.positions[tp] = end
                batches[tp] = Batch(tp, list(polled.get(tp, ())), start, end, self.seeks[tp])
        return batches

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """What the broker does not take now is in the next commit: Faust would end the worker for it."""
        assigned = self.assignment()
        wanted = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        try:
            if wanted:
                await self._ensure_consumer().commit(wanted)
        except (KafkaError, OSError) as error:
            log.debug("offsets were not committed", extra={"reason": repr(error)})
            return False
        return True

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TopicPartition, int]) -> None:
        for tp, offset in partitions.items():
            self.positions[tp] = offset
            self.seeks[tp] = self.seeks.get(tp, 0) + 1
            self._sought_in[tp] = _assignment(consumer)
        await super()._seek_wait(consumer, partitions)


def _note_late_failure(claiming: asyncio.Task[Any]) -> None:
    """Where it could not seek, a rebalance has taken something away, and claims what is left."""
    if not claiming.cancelled() and (error := claiming.exception()) is not None:
        log.debug("a late claim came to nothing", extra={"reason": repr(error)})


def _assignment(consumer: Any) -> Any:
    """What the consumer is assigned now: another object after each rebalance; None in between."""
    subscription = consumer._subscription.subscription
    return subscription.assignment if subscription else None


class Consumer(driver.Consumer):
    """Resumes from what the shards' state says; Kafka's committed offsets are only telemetry."""

    app: App
    _thread: ConsumerThread
    _claiming: asyncio.Task[dict[TP, int]] | None = None
    """The newest claim."""
    _claimed: tuple[frozenset[TP], int] | None = None
    """What that is a claim of, in which generation of the group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._claim_lock = asyncio.Lock()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch is no gap; what is lost between two batches the shards notice."""

    def _new_offset(self, tp: TP) -> int | None:
        """What to commit of a partition: up to the newest batch that was acknowledged, as they are taken in order.

        Faust expands each batch into its offsets, keeps them sorted and looks for one that is missing: in a long run
        under load that came to a tenth of the worker's CPU.
        """
        acked = self._acked[tp]
        if not acked:
            return None
        newest: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return newest + 1

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let the shards go where nothing is ours any more: Faust does not ask then where to read on."""
        await super().on_partitions_assigned(assigned, generation_id)
        if not assigned:
            await self._claim(set())

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Claim the shards of all assigned partitions and go to where their state is."""
        return await self._claim(set(self.assignment()))

    async def _claim(self, assigned: set[TP]) -> Mapping[TP, int]:
        """Where to read on, if that is known soon; else nothing, and the claim goes on until the next one.

        Faust gives it 90 s (`broker_request_timeout`). After that it would forget the claim, and take part in no
        further rebalance, so an outage of the store that is longer would end with a worker that does nothing. And
        Faust may ask twice at the same time, for each rebalance and when it has read something in the middle of one.
        """
        async with self._claim_lock:
            wanted = frozenset(assigned), self.app.consumer_generation_id
            claiming = self._claiming
            if claiming is None or claiming.done() or wanted != self._claimed:
                await self.stop_claiming()
                self._claimed = wanted
                self._claiming = claiming = asyncio.create_task(self._claim_and_seek(assigned))
        await asyncio.wait([claiming], timeout=CLAIM_SECONDS_MAX)
        if not claiming.done():
            log.warning("claiming takes more than %g s; it goes on", CLAIM_SECONDS_MAX)
            claiming.add_done_callback(_note_late_failure)
            return {}
        if claiming is not self._claiming:
            return {}  # another one has taken its place
        return claiming.result()

    async def _claim_and_seek(self, assigned: set[TP]) -> dict[TP, int]:
        offsets = await self.app.claim_partitions(assigned)
        await self.seek_wait(offsets)
        return offsets

    async def stop_claiming(self) -> None:
        """Give a claim up that is under way."""
        claiming, self._claiming = self._claiming, None
        if claiming is not None:
            await end_tasks([claiming])

    def seeks(self, tp: TP) -> int:
        """How often the position of a partition was set."""
        return self._thread.seeks.get(tp, 0)


class Transport(driver.Transport):
    """The driver, under the URL scheme batches://."""

    Consumer = Consumer


TRANSPORTS.aliases["batches"] = f"{__name__}:Transport"
