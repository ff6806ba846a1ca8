"""Publishing what a shard has decided: the outbox, oldest first, then trimmed.

What is in the outbox is committed, so it is published until the broker has it, the same bytes each time. A record may
appear twice in the log, after a crash between publishing and trimming; it is never missing and never different.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from redis.exceptions import RedisError

from state.shard_store import OUTBOX_READ_BYTES, Refused, ShardStore
from streams.backoff import Backoff
from streams.messages import Outgoing, decode_outgoing
from streams.tasks import heard, is_cancelled
from streams.topics import DEAD_LETTER_BYTES_MAX, Topic, TopicNames, place_name

log = logging.getLogger(__name__)

PRODUCER_ARGUMENTS: dict[str, Any] = {
    "acks": "all",
    "linger_ms": 0,
    "max_batch_size": 262_144,
    "max_request_size": DEAD_LETTER_BYTES_MAX + 65_536,
}

PUBLISH_SECONDS_MAX = 20.0
"""A producer with an id retries for ever, and after a broker's restart it may wait for what never comes. After this
long a new one takes over."""

KEPT_BYTES_MAX = 32 * 1024 * 1024
"""Of one shard's outbox, how much is in memory too. Where more waits the broker is behind, and it is read again."""

STOP_SECONDS = 2.0
"""How long a producer may take to end. It retries for ever, so without its broker it would never."""

Told = dict[str, int]
"""Partition of a topic that others read (`place_name`) -> offset after the last record that was published there."""


class Publisher(Protocol):
    """Takes records to the broker."""

    is_atomic: bool
    """Whether all records of a call are published, or none."""

    async def claim(self) -> None:
        """From now on whatever an earlier owner still sends is refused, where the broker can do that."""

    async def publish(self, records: list[Outgoing]) -> Told:
        """Return when the broker has all of them. Raises ProducerFenced when another worker claimed since."""

    async def close(self) -> None:
        """Let the connection go."""


class KafkaPublisher:
    """Takes records to Kafka by one producer, as strictly as the broker allows.

    With a transactional id: one transaction for all records of a call, and a later claim of that id fences this one.
    Idempotent: in order and once, but what an owner of yesterday still holds may follow. Neither, for a broker that
    knows no producer ids: a record may be there twice after an error, and one worker is the limit.

    `turns` is shared by publishers that must not write at the same time: where two producers write to one partition of
    the embedded broker, a record may become visible after the one that follows it, and whoever reads at the end of the
    log never sees it.
    """

    def __init__(
        self,
        kafka_arguments: dict[str, Any],
        names: TopicNames,
        *,
        transactional_id: str | None = None,
        idempotent: bool = False,
        turns: asyncio.Lock | None = None,
    ) -> None:
        self._arguments = {**kafka_arguments, **PRODUCER_ARGUMENTS}
        if transactional_id is not None:
            self._arguments["transactional_id"] = transactional_id
        elif idempotent:
            self._arguments["enable_idempotence"] = True
        self._names = names
        self._turns = turns
        self._producer: AIOKafkaProducer | None = None
        self.is_atomic = transactional_id is not None

    async def claim(self) -> None:
        """Begin with a new producer; aborts the transaction that an earlier owner left open. Raises TimeoutError."""
        await self.close()
        producer = AIOKafkaProducer(**self._arguments)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS_MAX):
                await producer.start()
        except BaseException:
            await asyncio.shield(_let_go(producer))
            raise
        self._producer = producer

    async def publish(self, records: list[Outgoing]) -> Told:
        """Return when the broker has the records. After any error, TimeoutError too, claim before publishing again."""
        producer = self._producer
        assert producer is not None
        try:
            async with self._turns or contextlib.nullcontext(), asyncio.timeout(PUBLISH_SECONDS_MAX):
                if not self.is_atomic:
                    return await _send(producer, records, self._names)
                await producer.begin_transaction()
                told = await _send(producer, records, self._names)
                await producer.commit_transaction()
                return told
        except BaseException:
            # A transaction is not aborted here: the claim that comes next, of whatever worker, does it. Waiting for
            # that here would hold up whoever takes the shard away, for ever if no answer comes.
            self._producer = None
            await asyncio.shield(_let_go(producer))
            raise

    async def close(self) -> None:
        """Let the connection go."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _let_go(producer)


async def _let_go(producer: AIOKafkaProducer) -> None:
    """Stop a producer, without waiting for a broker that does not answer: what it holds is in the outbox still."""
    try:
        await asyncio.wait_for(producer.stop(), STOP_SECONDS)
    except Exception as error:
        log.debug("a producer did not stop cleanly", extra={"reason": repr(error)})
        if producer._sender.sender_task is not None:
            producer._sender.sender_task.cancel()
        with contextlib.suppress(Exception):  # whatever is the matter with it: it is of no use any more
            await producer.client.close()
    _hear_all(producer)


def _hear_all(producer: AIOKafkaProducer) -> None:
    """Its failure is known already; asyncio would complain of each future that nobody asked."""
    batches = [*producer._message_accumulator._pending_batches]
    batches += [batch for queue in producer._message_accumulator._batches.values() for batch in queue]
    futures = [batch._drain_waiter for batch in batches]
    if producer._txn_manager is not None:
        futures.append(producer._txn_manager.wait_for_transaction_end())
    for future in futures:
        if future is not None and future.done():
            heard(future)


async def _send(producer: AIOKafkaProducer, records: list[Outgoing], names: TopicNames) -> Told:
    """Records packed into the broker's batches here: the producer's own way costs four times as much a record."""
    packed: dict[tuple[str, int], list[BatchBuilder]] = {}
    partitions: dict[str, int] = {}
    for record in records:
        topics, key, value, headers, timestamp_ms, _ = record
        count = partition = 0
        for topic in topics:
            if topic not in partitions:
                partitions[topic] = len(await producer.partitions_for(names.name(Topic(topic))))
            if partitions[topic] != count:  # mostly once for both topics of a change
                count = partitions[topic]
                partition = record.place(count)
            place = topic, partition
            builders = packed.get(place)
            if builders is None:
                builders = packed[place] = [producer.create_batch()]
            if builders[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
                builders.append(producer.create_batch())  # whose first record always fits
                builders[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers)
    sent = [
        (
            topic,
            await producer.send_batch(builder, names.name(Topic(topic)), partition=partition),
            builder.record_count(),
        )
        for (topic, partition), builders in packed.items()
        for builder in builders
    ]
    told: Told = {}
    for _, future, _ in sent:
        future.add_done_callback(heard)  # after the first failure nobody asks for the others
    for topic, future, count in sent:
        metadata = await future
        if topic != Topic.STANDINGS:
            told[place_name(topic, metadata.partition)] = metadata.offset + count
    return told


class Relay:
    """Publishes one shard's outbox for as long as the shard is this worker's.

    What this worker has put there it still has in memory, and only what an earlier one left, or what the broker or the
    store failed at, is read from the store.
    """

    def __init__(
        self,
        store: ShardStore,
        publisher: Publisher,
        *,
        interval_ms: int,
        lost: Callable[[str], Awaitable[None]],
    ) -> None:
        self.store = store
        self.publisher = publisher
        self.interval_ms = interval_ms
        self._lost = lost
        self._wake = asyncio.Event()
        self._published = asyncio.Condition()
        self._pushed = 0
        """Outgoing records put into the outbox so far, by all owners, as far as this worker knows."""
        self._kept: deque[tuple[Outgoing, int]] = deque()
        """The newest of the records that wait, oldest first, each with its bytes in the outbox."""
        self._kept_bytes = 0
        self.told: Told = {}
        self._told_is_news = False

    @property
    def waiting(self) -> int:
        """Outgoing records not trimmed yet, as far as this worker knows. For a moment it may be below 0: what a commit
        put into the outbox can be published before the commit has returned and is counted."""
        return self._pushed - self.store.trimmed

    async def restart(self, *, waiting: int, told: Mapping[str, int]) -> None:
        """Begin anew with what the store holds; whoever waits looks again."""
        self._forget()
        self._told_is_news = False
        async with self._published:
            self._pushed, self.told = self.store.trimmed + waiting, dict(told)
            self._published.notify_all()

    def add(self, records: Sequence[Outgoing], sizes: Sequence[int]) -> None:
        """A commit has put records into the outbox, of these sizes there."""
        if not records:
            return
        self._pushed += len(records)
        self._kept.extend(zip(records, sizes, strict=True))
        self._kept_bytes += sum(sizes)
        self._drop_trimmed()
        if self._kept_bytes > KEPT_BYTES_MAX:
            self._forget()
        self._wake.set()

    def _drop_trimmed(self) -> None:
        for _ in range(len(self._kept) - max(0, self.waiting)):
            self._kept_bytes -= self._kept.popleft()[1]

    def save_told(self) -> None:
        """Store how far it is known what the world was told, though nothing may wait."""
        self._told_is_news = True
        self._wake.set()

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    async def drained_to(self, records_max: int) -> None:
        """Wait until no more than this many records wait: the broker's pace becomes the shard's."""
        async with self._published:
            await self._published.wait_for(lambda: self.waiting <= records_max)

    async def run(self) -> None:
        """Publish and trim until cancelled, or until the shard turns out to be another worker's.

        The publisher is claimed before the outbox is read, by its owner only: a worker that comes back late either is
        fenced by the broker, or is refused by the store.
        """
        self._wake.set()  # what the last owner left
        backoff = Backoff()
        claimed = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if not claimed:
                    await self.store.outbox()  # an owner of yesterday learns it here, and fences nobody
                    await self.publisher.claim()
                    claimed = True
                while await self.publish_some():
                    pass
                backoff.reset()
            except (Refused, ProducerFenced) as error:
                await self._lost(f"{type(error).__name__}: {error}")
                return
            except (KafkaError, RedisError, OSError, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise
                self._forget()  # whether they were trimmed only the store knows
                claimed = False
                self._wake.set()
                await backoff.wait("publishing", f"{self.store.stage} shard {self.store.partition}", error)
                continue
            await asyncio.sleep(self.interval_ms / 1000)

    async def publish_some(self) -> int:
        """Publish the oldest records and trim them. Returns how many there were."""
        if self.waiting > len(self._kept):
            records = [decode_outgoing(entry) for entry in await self.store.outbox()]
        else:
            records = self._oldest_kept()
        if records:
            self.told |= await self.publisher.publish(records)
        if records or self._told_is_news:
            await self.store.trim(len(records), self.told)
            self._told_is_news = False
            self._drop_trimmed()
        async with self._published:
            self._published.notify_all()
        return len(records)

    def _oldest_kept(self) -> list[Outgoing]:
        records, left = [], OUTBOX_READ_BYTES
        for record, size in self._kept:
            records.append(record)
            left -= size
            if left <= 0:
                break
        return records
