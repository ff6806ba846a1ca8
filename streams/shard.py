"""What both stages have in common: a shard takes batches in, commits each in one write, and publishes what it decided.

A shard is one partition of one stage. Its input positions live in its own state, written together with what the input
changed. So the log can be read again from there after anything, and nothing is lost or counted twice.
"""

import asyncio
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from aiokafka.errors import KafkaError, ProducerFenced
from redis.exceptions import RedisError

from state.shard_store import Claim, Commit, Refused, ShardStore
from streams.backoff import Backoff
from streams.messages import Outgoing, encode_outgoing
from streams.relay import Publisher, Relay
from streams.tasks import end_tasks, is_cancelled
from streams.topics import Topic

log = logging.getLogger(__name__)

T = TypeVar("T")

CLAIM_BACK_SECONDS = 3.0
"""A worker that woke from a long sleep learns within a heartbeat that its partitions went to another one. Until then it
must not take the shard back, or the two would take it from each other in turns."""

WallClock = Callable[[], int]
"""Microseconds since 1970, for `recorded_at` alone."""


class CorruptState(Exception):
    """The stored state cannot be right. The worker stops and says so: a person decides what happens next."""


class Record(Protocol):
    """A record as the consumer brings it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Batch(Protocol):
    """What one poll brought of one partition; see transport.Batch."""

    records: Sequence[Record]
    start: int
    end: int
    seeks: int


class LogPosition(NamedTuple):
    """Where the log begins and ends in one partition of a topic."""

    first: int
    end: int


class InputLog(Protocol):
    """What a shard needs of the log it reads."""

    async def bounds(self, partition: int, topics: Sequence[Topic]) -> dict[Topic, LogPosition]:
        """Where the log begins and ends in this partition of the topics."""

    async def seek(self, partition: int, offsets: Mapping[Topic, int]) -> dict[Topic, int]:
        """Go on reading from these offsets. Returns for each how often its position was set by now."""


class Shard(ABC):
    """One partition of a stage, owned by this worker."""

    inputs: Sequence[Topic]

    def __init__(
        self,
        store: ShardStore,
        publisher: Publisher,
        input_log: InputLog,
        *,
        wall_clock: WallClock,
        relay_interval_ms: int,
        outbox_records_max: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.store = store
        self.partition = store.partition
        self.input_log = input_log
        self.publisher = publisher
        self.wall_clock = wall_clock
        self.outbox_records_max = outbox_records_max
        self.lock = asyncio.Lock()
        """Held while the shard's state changes: batches and due work take turns, first come, first served."""
        self.progress: dict[str, int] = {}
        """Next offset of each input, as committed."""
        self.position: dict[str, int] = {}
        """Next offset of each input, as read; ahead of the progress for what is held back."""
        self._position_seen: dict[str, int] = {}
        self._seeks: dict[Topic, int] = {}
        self.due_work = asyncio.Event()
        """Set where there may be work for `due`."""
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self._recovery: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        """Of going back, until a commit succeeds: what the store refuses now it may refuse again."""
        self._handovers = 0
        """Calls of `claim` under way, and of `close` ever: with them nothing is left to go back to."""
        self.relay = Relay(store, publisher, interval_ms=relay_interval_ms, lost=self._lost)
        self.owned = False
        self.committed_at_us: int | None = None
        """When a commit of this worker succeeded last, since 1970; None: none has yet."""

    def __repr__(self) -> str:
        return f"{self.store.stage} shard {self.partition}"

    @property
    def is_going_back(self) -> bool:
        """Whether it lost the shard, or a write failed, and it will claim the shard again."""
        return self._recovery is not None and not self._recovery.done()

    # -- what a stage does -------------------------------------------------------------------------------------------

    @abstractmethod
    async def load(self, claim: Claim) -> None:
        """Begin anew from what is stored. Raises CorruptState."""

    @abstractmethod
    async def take(self, topic: Topic, records: Sequence[Record], end: int) -> None:
        """Apply the records of one input up to the position `end`, and commit."""

    async def due(self) -> bool:
        """Do one chunk of the work that no record brings. Returns whether there may be more."""
        return False

    async def pace(self) -> None:
        """Wait until more work of that kind holds nobody up."""
        await self.relay.drained_to(self.outbox_records_max)

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def claim(self) -> dict[Topic, int]:
        """Take the shard over, from whoever has it. Returns where to read each input from.

        Retries while the broker or the store cannot be reached. Raises CorruptState, NoSuchShard.
        """
        self._handovers += 1
        try:
            await self._stop_recovery()
            async with self.lock:
                return await self._claim()
        finally:
            self._handovers -= 1

    async def _claim(self) -> dict[Topic, int]:
        self.owned = False
        await self._stop_tasks()
        backoff = Backoff()
        while True:
            try:
                # The producer first: once it is claimed, no earlier owner's records can follow what we read now.
                await self.publisher.claim()
                claim = await self.store.claim(uuid.uuid4().hex)
                bounds = await self.input_log.bounds(self.partition, self.inputs)
                self.progress = {
                    topic: self._resume(topic, claim.progress.get(topic), bounds[topic]) for topic in self.inputs
                }
                self.position = dict(self.progress)
                await self.load(claim)
                await self.relay.restart(waiting=await self.store.outbox_size(), told=claim.told)
                break
            except (Refused, ProducerFenced, KafkaError, RedisError, OSError, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise
                await backoff.wait("claiming", self, error)
        self.owned = True
        self._tasks = [
            asyncio.create_task(self._watched(self.relay.run())),
            asyncio.create_task(self._watched(self._do_due_work())),
        ]
        return {topic: self.progress[topic] for topic in self.inputs}

    def _resume(self, topic: Topic, stored: int | None, bounds: LogPosition) -> int:
        """Where to go on reading an input. Says loudly where the log no longer has what comes next."""
        if stored is None:
            return bounds.first
        if stored > bounds.end:
            raise CorruptState(
                f"{self} has applied {topic} up to offset {stored}, but the log ends at {bounds.end}: "
                "it is another log, or it was cut off. Restore the log, or `resegment worker --rebuild`."
            )
        if stored < bounds.first:
            log.error(
                "%d offsets are gone: retention is too short for how long no worker ran; the events in between are not "
                "counted",
                bounds.first - stored,
                extra={"shard": self, "topic": topic, "first_offset": stored, "end_offset": bounds.first},
            )
            return bounds.first
        return stored

    async def _lost(self, why: str) -> None:
        self._go_back(why, CLAIM_BACK_SECONDS)

    def _go_back(self, why: str, wait_seconds: float, **batch: object) -> None:
        """Forget what is in memory, and claim the shard again unless a rebalance takes it away first."""
        if self.owned:
            log.warning("going back to what is stored", extra={"shard": self, "reason": why, **batch})
            self.owned = False
            if not self._handovers:
                self._recovery = asyncio.create_task(self._watched(self._claim_back(wait_seconds)))

    async def _claim_back(self, wait_seconds: float) -> None:
        await asyncio.sleep(wait_seconds)
        async with self.lock:
            offsets = await self._claim()
            backoff = Backoff()
            while True:
                try:
                    self._seeks.update(await self.input_log.seek(self.partition, offsets))
                    return
                except (KafkaError, OSError) as error:
                    await backoff.wait("seeking", self, error)

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop working on the shard; with drain_seconds, publish first what waits, for as long as that at most."""
        self._handovers += 1
        await self._stop_recovery()
        async with self.lock:
            owned, self.owned = self.owned, False
            if owned and drain_seconds:
                try:
                    await asyncio.wait_for(self.relay.drained_to(0), drain_seconds)
                except TimeoutError:
                    log.warning(
                        "%d records wait in the outbox for the next owner", self.relay.waiting, extra={"shard": self}
                    )
            await self._stop_tasks()
            await self.relay.restart(waiting=0, told={})
            await self.publisher.close()

    async def _stop_recovery(self) -> None:
        await end_tasks([self._recovery] if self._recovery else [])
        self._recovery = None

    async def _stop_tasks(self) -> None:
        # Forgotten when they have ended, not before: a claim that is cancelled here leaves them to the next one. A
        # relay that ended later would take the new relay's producer with it.
        await end_tasks(self._tasks)
        self._tasks = []

    async def _watched(self, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failed(error)

    # -- working -----------------------------------------------------------------------------------------------------

    async def offer(self, topic: Topic, batch: Batch) -> None:
        """Take a batch in, if it is the next one: older ones are skipped, and after a gap reading goes back.

        Returns when it is committed. Raises CorruptState.
        """
        async with self.lock:
            if not self.owned or batch.seeks < self._seeks.get(topic, 0):
                return  # read before the position was last set
            position = self.position[topic]
            if batch.end <= position:
                return
            if batch.start > position:
                # Faust dropped what lay between, in a pause or a rebalance
                self._seeks.update(await self.input_log.seek(self.partition, {topic: position}))
                return
            records = [record for record in batch.records if record.offset >= position]
            self.position[topic] = batch.end
            await self._guarded(
                self.take(topic, records, batch.end), topic=topic, first_offset=position, end_offset=batch.end
            )
        await self.relay.drained_to(self.outbox_records_max)

    async def watch_reading(self) -> None:
        """Go back to where the shard is if nothing came since the last call although the log has more.

        A batch that Faust dropped is noticed when the next one comes; if none comes, here.
        """
        seen, self._position_seen = self._position_seen, dict(self.position)
        if not self.owned or self.lock.locked() or self.relay.waiting > self.outbox_records_max:
            return
        bounds = await self.input_log.bounds(self.partition, self.inputs)
        async with self.lock:
            for topic in self.inputs:
                position = self.position.get(topic)
                if self.owned and position == seen.get(topic) and position is not None and position < bounds[topic].end:
                    log.warning(
                        "reading stood still although the log has more; reading on",
                        extra={
                            **{"shard": self, "topic": topic},
                            **{"first_offset": position, "end_offset": bounds[topic].end},
                        },
                    )
                    self._seeks.update(await self.input_log.seek(self.partition, {topic: position}))

    async def _do_due_work(self) -> None:
        while True:
            async with self.lock:
                if not self.owned:
                    return
                more = await self._guarded(self.due())
            if not more:
                await self.due_work.wait()
                self.due_work.clear()
            await self.pace()

    async def _guarded(self, work: Awaitable[T], **batch: object) -> T | None:
        """Do work that ends in a commit. Where that fails nothing was written, or it is found when read again.

        `batch`: what it is, for the log. Raises CorruptState.
        """
        try:
            try:
                return await work
            except CorruptState as error:
                # Not if it was read partly before and partly after another owner wrote, or the store went back.
                if await self.store.is_current():
                    raise
                raise Refused(str(error)) from error
        except Refused as error:
            why = f"claimed by another worker, or the store went back in time ({error})"
            self._go_back(why, CLAIM_BACK_SECONDS, **batch)
        except (RedisError, KafkaError, OSError, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            self._go_back(f"{type(error).__name__}: {error}", self._backoff.next(), **batch)
        return None

    async def commit(self, commit: Commit, records: Sequence[Outgoing]) -> None:
        """Write a batch and what it sends out, at once or not at all. Raises Refused, RedisError."""
        commit.outbox = [encode_outgoing(record) for record in records]
        await self.store.commit(commit)
        self.committed_at_us = self.wall_clock()
        self._backoff.reset()
        self.progress = commit.progress
        self.relay.add(records, [len(entry) for entry in commit.outbox])
