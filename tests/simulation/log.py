"""A log in memory that behaves as Apache Kafka's does towards who reads committed records and writes transactions.

Markers of transactions take offsets, records of open transactions hold back all that come after them, a transactional
id that is claimed again fences whoever had it, and a transaction's end is decided a while before it can be seen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from aiokafka.errors import ConcurrentTransactions, KafkaConnectionError, KafkaError, ProducerFenced

from streams.messages import Outgoing
from streams.relay import PUBLISH_SECONDS_MAX, STOP_SECONDS, Told
from streams.shard import LogPosition
from streams.topics import Topic, place_name
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Network, Troubles

Place = tuple[Topic, int]
"""A topic and one of its partitions."""

TRANSACTION_SECONDS_MAX = 60.0
"""How long a transaction may stay open; Kafka's default."""

MARKER_SECONDS_MAX = 0.05
ASK_AGAIN_SECONDS = 0.02


class Record:
    """A record as a consumer brings it."""

    __slots__ = ("headers", "key", "meaning", "offset", "partition", "timestamp", "topic", "transaction", "value")

    def __init__(
        self,
        place: Place,
        offset: int,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        transaction: "Transaction | None",
        meaning: object,
    ) -> None:
        self.topic, self.partition = place
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = headers
        self.transaction = transaction
        self.meaning = meaning
        """What whoever made it knows of it."""


class Transaction:
    """One transaction: where its records begin, and how it ended."""

    __slots__ = ("aborted", "begins")

    def __init__(self) -> None:
        self.begins: dict[Place, int] = {}
        """Of each partition whose marker is not written yet, the offset of its first record."""
        self.aborted = False


class Partition:
    """One partition's records, markers and holes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.first = 0
        self._records: list[Record | None] = []
        """By offset. None: a marker, a record of an aborted transaction, or one that compaction or retention took."""
        self.open: set[Transaction] = set()
        self.meanings: list[object] = []
        """What each record that belongs to no transaction means, also after retention took it."""

    @property
    def end(self) -> int:
        """The next record's offset."""
        return len(self._records)

    @property
    def stable_end(self) -> int:
        """Up to where committed records can be read."""
        if not self.open:
            return len(self._records)
        return min(transaction.begins[self.place] for transaction in self.open)

    def append(self, outgoing: Outgoing, transaction: Transaction | None, meaning: object = None) -> int:
        """Add a record. Returns its offset."""
        key, value, headers, timestamp = outgoing.key, outgoing.value, outgoing.headers, outgoing.timestamp_ms
        offset = self.end
        self._records.append(Record(self.place, offset, timestamp, key, value, tuple(headers), transaction, meaning))
        if transaction is not None and self.place not in transaction.begins:
            transaction.begins[self.place] = offset
            self.open.add(transaction)
        if transaction is None:
            self.meanings.append(meaning)
        return offset

    def mark(self, transaction: Transaction) -> None:
        """Write the marker that ends a transaction here."""
        begin = transaction.begins.pop(self.place)
        self.open.discard(transaction)
        if transaction.aborted:
            self._records[begin:] = [
                None if record is not None and record.transaction is transaction else record
                for record in self._records[begin:]
            ]
        self._records.append(None)

    def read(self, start: int, count: int) -> tuple[list[Record], int]:
        """At most so many committed records from an offset, and the position after them; over what nobody sees too."""
        found: list[Record] = []
        position, end = max(start, self.first), self.stable_end
        while position < end and len(found) < count:
            record = self._records[position]
            position += 1
            if record is not None:
                found.append(record)
        while position < end and self._records[position] is None:
            position += 1
        return found, max(start, position)

    def cut(self, first: int) -> None:
        """Retention takes all before an offset."""
        first = min(first, self.stable_end)
        for offset in range(self.first, first):
            self._records[offset] = None
        self.first = max(self.first, first)

    def compact(self) -> None:
        """Of each key only the latest record stays, as far as the log is settled."""
        latest: set[bytes | None] = set()
        for offset in range(self.stable_end - 1, self.first - 1, -1):
            record = self._records[offset]
            if record is not None and record.key in latest:
                self._records[offset] = None
            elif record is not None:
                latest.add(record.key)


class _Producer(NamedTuple):
    epoch: int
    transaction: Transaction | None
    ending: bool
    done: dict[int, int]
    """Number of a call in this epoch -> what it answered: asked again, it is not done again."""


class SimulatedLog:
    """All topics, and the coordinator of transactions."""

    def __init__(self, partitions: int, chance: Random, network: Network | None = None) -> None:
        self.network = network or Network(Random(0), KafkaConnectionError, Troubles())
        self.count = partitions
        self.places = {(topic, number): Partition((topic, number)) for topic in Topic for number in range(partitions)}
        self._random = chance.random
        self._producers: dict[str, _Producer] = {}
        self._waiting: list[tuple[asyncio.Future[None], Collection[Place]]] = []

    @property
    def loop(self) -> SimulatedLoop | None:
        """None: no simulation is running; everything is done at once."""
        return self.network.loop

    # -- reading -------------------------------------------------------------------------------------------------------

    def position(self, place: Place) -> LogPosition:
        """Where a partition begins, and where what can be read ends."""
        partition = self.places[place]
        return LogPosition(partition.first, partition.stable_end)

    async def wait_for_more(self, places: Collection[Place]) -> None:
        """Return when something happened to one of the places, or somebody says so."""
        assert self.loop is not None
        future = self.loop.create_future()
        self._waiting.append((future, places))
        await future

    def changed(self, place: Place | None = None) -> None:
        """Wake who waits for this place; None: for any."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for future, places in waiting:
            if place is not None and place not in places:
                self._waiting.append((future, places))
            elif not future.done():
                future.set_result(None)

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, place: Place, records: Sequence[Outgoing], meaning: object = None) -> int:
        """Add records that belong to no transaction. Returns the first one's offset."""
        offsets = [self.places[place].append(record, None, meaning) for record in records]
        self.changed(place)
        return offsets[0]

    def claim(self, transactional_id: str) -> int:
        """InitProducerId. Raises ConcurrentTransactions until what an earlier owner left open is ended."""
        known = self._producers.get(transactional_id)
        if known is None:
            known = _Producer(0, None, False, {})
        elif known.transaction is not None:
            if not known.ending:
                self._end(transactional_id, known._replace(epoch=known.epoch + 1), aborted=True)
            raise ConcurrentTransactions
        self._producers[transactional_id] = _Producer(known.epoch + 1, None, False, {})
        return known.epoch + 1

    def append_in_transaction(
        self, transactional_id: str, epoch: int, number: int, place: Place, records: Sequence[Outgoing]
    ) -> int:
        """Produce, in the transaction that is open or begins with this. Returns the first offset. Once per `number`."""
        producer = self._owned(transactional_id, epoch)
        if number in producer.done:
            return producer.done[number]
        if producer.ending:
            raise ConcurrentTransactions
        transaction = producer.transaction
        if transaction is None:
            transaction = Transaction()
            producer = producer._replace(transaction=transaction)
            if self.loop is not None:
                self.loop.serve(TRANSACTION_SECONDS_MAX, self._expire, transactional_id, transaction)
        offsets = [self.places[place].append(record, transaction) for record in records]
        producer.done[number] = offsets[0]
        self._producers[transactional_id] = producer
        return offsets[0]

    def commit(self, transactional_id: str, epoch: int) -> None:
        """EndTxn: decided when this returns, to be seen a while later."""
        producer = self._owned(transactional_id, epoch)
        if producer.transaction is not None and not producer.ending:
            self._end(transactional_id, producer, aborted=False)

    def _owned(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers[transactional_id]
        if producer.epoch != epoch:
            raise ProducerFenced
        return producer

    def _expire(self, transactional_id: str, transaction: Transaction) -> None:
        producer = self._producers[transactional_id]
        if producer.transaction is transaction and not producer.ending:
            self._end(transactional_id, producer._replace(epoch=producer.epoch + 1), aborted=True)

    def _end(self, transactional_id: str, producer: _Producer, *, aborted: bool) -> None:
        transaction = producer.transaction
        assert transaction is not None
        transaction.aborted = aborted
        self._producers[transactional_id] = producer._replace(ending=True)
        for place in list(transaction.begins):
            if self.loop is None:
                self._mark(transactional_id, transaction, place)
            else:
                self.loop.serve(self._random() * MARKER_SECONDS_MAX, self._mark, transactional_id, transaction, place)

    def _mark(self, transactional_id: str, transaction: Transaction, place: Place) -> None:
        self.places[place].mark(transaction)
        self.changed(place)
        if not transaction.begins:
            producer = self._producers[transactional_id]
            self._producers[transactional_id] = producer._replace(transaction=None, ending=False)


class SimulatedReader:
    """What streams.log.LogReader is for a broker."""

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log

    async def refresh(self) -> None:
        """The topics are known."""

    def partition_count(self, topic: Topic) -> int:
        """The same for all."""
        return self._log.count

    async def bounds(self, places: Sequence[Place]) -> dict[Place, LogPosition]:
        """Where the log begins and ends. Raises KafkaError."""
        log = self._log
        return await log.network.call(lambda: {place: log.position(place) for place in places})

    async def read(self, starts: Mapping[Place, int]) -> AsyncIterator[tuple[Topic, Record]]:
        """Every record from these offsets to the end the log has now. Raises KafkaError."""
        log = self._log
        bounds = await self.bounds(list(starts))
        for place, bound in bounds.items():
            position = max(bound.first, starts[place])
            while position < bound.end:
                records, position = await log.network.call(log.places[place].read, position, 500)
                for record in records:
                    if record.offset < bound.end:
                        yield place[0], record


class SimulatedPublisher:
    """What streams.relay.KafkaPublisher is for a broker: with a transactional id fenced and atomic, else neither."""

    def __init__(self, log: SimulatedLog, chance: Random, *, transactional_id: str | None = None) -> None:
        self._log = log
        self._random = chance.random
        self._transactional_id = transactional_id
        self._epoch: int | None = None
        self._number = 0
        self.is_atomic = transactional_id is not None

    async def claim(self) -> None:
        """Begin anew; aborts the transaction that an earlier owner left open."""
        await self.close()
        epoch = 0
        if self._transactional_id is not None:
            async with asyncio.timeout(PUBLISH_SECONDS_MAX):
                while True:
                    try:
                        epoch = await self._log.network.call(self._log.claim, self._transactional_id)
                        break
                    except ConcurrentTransactions:
                        await asyncio.sleep(ASK_AGAIN_SECONDS)
        self._epoch = epoch

    async def publish(self, records: list[Outgoing]) -> Told:
        """Return when the broker has the records. After any error claim before publishing again."""
        assert self._epoch is not None
        epoch, told = self._epoch, Told()
        try:
            async with asyncio.timeout(PUBLISH_SECONDS_MAX):
                for place, batch in placed(records, self._log.count).items():
                    offset = await self._send(epoch, place, batch)
                    if place[0] is not Topic.STANDINGS:
                        told[place_name(*place)] = offset + len(batch)
                if self._transactional_id is not None:
                    await self._insist(self._log.commit, self._transactional_id, epoch)
        except BaseException:
            self._epoch = None
            raise
        return told

    async def _send(self, epoch: int, place: Place, batch: list[Outgoing]) -> int:
        if self._transactional_id is None:
            return await self._append(place, batch)
        self._number += 1
        send, transactional_id = self._log.append_in_transaction, self._transactional_id
        offset: int = await self._insist(send, transactional_id, epoch, self._number, place, batch)
        return offset

    async def _append(self, place: Place, batch: list[Outgoing]) -> int:
        """What is on its way when this is cancelled is waited for, as a producer's end waits for what it has sent."""
        sent = asyncio.ensure_future(self._log.network.call(self._log.append, place, batch))
        try:
            return await asyncio.shield(sent)
        except asyncio.CancelledError:
            await asyncio.wait([sent], timeout=STOP_SECONDS)
            raise

    async def _insist(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Ask again what has no answer, and do not wait for ever."""
        while True:
            try:
                return await self._log.network.call(operation, *arguments)
            except ProducerFenced:
                raise
            except KafkaError as error:
                if not isinstance(error, ConcurrentTransactions) and self._random() < 0.3:
                    raise
                await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def close(self) -> None:
        """Forget the claim."""
        self._epoch = None


def placed(records: list[Outgoing], partitions: int) -> dict[Place, list[Outgoing]]:
    """Records by where they belong."""
    placed: dict[Place, list[Outgoing]] = {}
    for record in records:
        for topic in record.topics:
            placed.setdefault((Topic(topic), record.place(partitions)), []).append(record)
    return placed
