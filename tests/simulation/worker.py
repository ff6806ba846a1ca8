"""A worker as streams.worker and streams.transport make one of Faust: the real shards, and batches handed to them.

The group gives partitions away as a broker's does, and tells each worker in its own time: for a while two of them may
think that they own a shard.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple, cast

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from segmentation.policy import Policy
from state import founding
from state.keys import StageName
from state.shard_store import ShardStore
from streams.accounts import AccountShard
from streams.applying import Policies
from streams.partitions import partition_of
from streams.ranking import RankingShard
from streams.relay import Publisher
from streams.shard import Batch as ShardBatch
from streams.shard import CorruptState, LogPosition, Shard
from streams.shard import Record as ShardRecord
from streams.topics import ACCOUNT_INPUTS, Topic, told_places
from streams.transport import Batch
from streams.worker import WATCH_SECONDS, beginnings_of_shards
from tests.simulation.log import Partition, Place, SimulatedLog, SimulatedPublisher, SimulatedReader
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.store import SimulatedRedis

PREFIX = "simulated"
SESSION_SECONDS = 6.0
"""After so long a silence the group gives a worker's partitions to others."""
HEARTBEAT_SECONDS = 1.5
DRAIN_SECONDS = 10.0
START_AGAIN_SECONDS = 1.0
STREAM_BUFFER = 16

Shards = frozenset[tuple[StageName, int]]


class Settings(NamedTuple):
    """What a worker runs with."""

    policy: Policy
    partitions: int
    transactions: bool
    batch_records_max: int
    cache_accounts: int
    due_chunk_accounts: int
    relay_interval_ms: int
    outbox_records_max: int


class World:
    """What the workers of one schedule share."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: Random,
        settings: Settings,
        log: SimulatedLog,
        redis: SimulatedRedis,
        note: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.chance = chance
        self.settings = settings
        self.log = log
        self.redis = redis
        self.note = note
        """Into the trace."""
        self.wall_clock_us = 0
        self.dropped = 0.0
        """How often a batch is lost between the consumer and the stream."""
        self.ended: Callable[[Worker, BaseException], None] = lambda worker, error: None
        """Called when a worker has ended by an error."""
        self.policy = settings.policy
        """Of the file that a worker is started with."""
        self.files = {self.policy.hash: self.policy}
        """All files there are, by the hash of their rules: one of them is at hand where another one is refused."""
        self.group = Group(self)
        self.workers: list[Worker] = []
        """Those that run."""

    def strife(self) -> str | None:
        """A shard that not exactly one worker owns, in words; None: there is none."""
        for stage in StageName:
            for number in range(self.settings.partitions):
                owners = [
                    f"{worker}{'' if shard is worker.shards.get((stage, number)) else ' (which let it go)'}"
                    for worker in self.workers
                    for shard in worker.all_shards
                    if shard.owned and (shard.store.stage, shard.partition) == (stage, number)
                ]
                if len(owners) != 1:
                    return f"{stage} shard {number} is owned by {', '.join(owners) or 'nobody'}"
        return None


class Group:
    """Gives partitions to the workers that are there."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.members: list[Worker] = []
        self.generation = 0

    def join(self, worker: "Worker") -> None:
        """The worker takes part from now on."""
        if worker not in self.members:
            self.members.append(worker)
            self.rebalance()

    def leave(self, worker: "Worker") -> None:
        """The others get its partitions."""
        if worker in self.members:
            self.members.remove(worker)
            self.rebalance()

    def rebalance(self) -> None:
        """Deal the partitions anew, and tell everybody."""
        self.generation += 1
        if not self.members:
            return
        chance, count = self._world.chance, len(self.members)
        given: list[set[tuple[StageName, int]]] = [set() for _ in self.members]
        for stage in StageName:
            first = chance.randrange(count)
            for number in range(self._world.settings.partitions):
                given[(first + number) % count].add((stage, number))
        for worker, shards in zip(self.members, given, strict=True):
            self._world.loop.serve(
                chance.random() * HEARTBEAT_SECONDS, worker.assigned, self.generation, frozenset(shards)
            )

    def silent(self, worker: "Worker") -> None:
        """A worker is dead or frozen: in a while that shows."""
        self._world.loop.serve(SESSION_SECONDS, self._expire, worker)

    def _expire(self, worker: "Worker") -> None:
        if worker.process.frozen or not worker.process.alive:
            self.leave(worker)


class Worker:
    """The shards of the partitions that the group gave, their consumer and the two agents."""

    def __init__(self, world: World, name: str, *, rebuild: bool = False) -> None:
        self.world = world
        self.process = Process(name)
        self.reader = SimulatedReader(world.log)
        self.shards: dict[tuple[StageName, int], Shard] = {}
        self.all_shards: list[Shard] = []
        """Those that it has let go, too."""
        self.failure: BaseException | None = None
        self.is_prepared = False
        """Whether it has seen that everything is there to begin with."""
        self._rebuild = rebuild
        self._tasks: list[asyncio.Task[None]] = []
        self._assignment: Shards = frozenset()
        self._offered: tuple[int, Shards] | None = None
        self._told = asyncio.Event()
        self._flowing = False
        self._generation = 0
        self._positions: dict[Place, int] = {}
        self._seeks: dict[Place, int] = {}
        self._read: list[tuple[Place, Partition]] = []
        """What the consumer reads."""
        self._queues: dict[StageName, asyncio.Queue[Batch]] = {}
        self.is_leaving = False
        self._start(self._run())

    def __repr__(self) -> str:
        return self.process.name

    def _start(self, work: Any) -> None:
        self._tasks.append(self.world.loop.start(self.process, self._vital(work)))

    async def _vital(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """The worker ends; its process with it."""
        if self.failure is None and not self.world.loop.is_closed():
            self.failure = error
            self.world.note(f"{self} ends: {type(error).__name__}: {error}")
            self.world.ended(self, error)
        self.die()

    def die(self) -> None:
        """As by kill -9."""
        self.world.loop.kill(self.process)
        if self in self.world.workers:
            self.world.workers.remove(self)
        self.world.group.silent(self)

    async def _run(self) -> None:
        await self._prepare()
        self.is_prepared = True
        self._queues = {stage: asyncio.Queue(STREAM_BUFFER) for stage in StageName}
        for stage in StageName:
            self._start(self._agent(stage))
        self._start(self._fetch())
        self._start(self._watch_reading())
        self.world.group.join(self)
        while not self.is_leaving:
            await self._told.wait()
            self._told.clear()
            while self._offered is not None:
                (self._generation, self._assignment), self._offered = self._offered, None
                await self._take_over()
        self._flowing = False
        await asyncio.gather(*(shard.close(drain_seconds=DRAIN_SECONDS) for shard in self.shards.values()))
        self.world.note(f"{self} has left")
        self.world.group.leave(self)
        self.die()

    def leave(self) -> None:
        """Drain and go, as by SIGTERM."""
        self.is_leaving = True
        self._told.set()

    async def _prepare(self) -> None:
        """See streams.worker.Worker.prepare."""
        world, redis = self.world, cast(Redis, self.world.redis)
        while True:
            policy = world.policy
            try:
                numbers = range(world.settings.partitions)
                bounds = await self.reader.bounds([*told_places({}, self.reader.partition_count)])
                was_told = any(bound.end > bound.first for bound in bounds.values())
                known = await founding.read_founding(redis, PREFIX)
                if known is None:
                    if was_told and not self._rebuild:
                        raise CorruptState("the store holds nothing, but the log holds changes")
                    beginnings = await beginnings_of_shards(redis, PREFIX, self.reader, len(numbers))
                    known = await founding.found(
                        redis, PREFIX, policy.canonical(), policy.hash, world.settings.partitions, beginnings
                    )
                if known.policy_hash == policy.hash:
                    rest = policy.canonical_rest()
                    if known.rest != rest:
                        await founding.note_rest(redis, PREFIX, rest, policy.risk_hash, policy.classification_hash)
                    self._policies = Policies(redis, PREFIX, policy)
                    return
                world.policy = world.files[known.policy_hash]  # it is refused, and says so
            except (KafkaError, RedisError, OSError):
                await asyncio.sleep(START_AGAIN_SECONDS)  # it ends, and whoever runs it starts it again

    # -- the group -----------------------------------------------------------------------------------------------------

    def assigned(self, generation: int, shards: Shards) -> None:
        """The group's word; it is heard when the process runs, and taken note of one after the other."""
        if self.process.frozen:
            self.world.loop.serve(HEARTBEAT_SECONDS, self.assigned, generation, shards)
        elif generation == self.world.group.generation:
            self._offered = generation, shards
            self._told.set()

    def thawed(self) -> None:
        """Back from a long sleep: at its next heartbeat it hears that it is out, and joins anew."""
        wait = self.world.chance.random() * HEARTBEAT_SECONDS
        self.world.loop.serve(wait, self.world.group.join, self)

    async def _take_over(self) -> None:
        """What Faust does on a rebalance: stop the flow, clear the streams, claim, seek, go on."""
        self._flowing = False
        for queue in self._queues.values():
            while not queue.empty():
                queue.get_nowait()
        assignment = self._assignment
        self.world.note(f"{self} is given {_listed(assignment)}")
        gone = [self.shards.pop(key) for key in sorted(self.shards) if key not in assignment]
        await asyncio.gather(*(shard.close() for shard in gone))
        for key in sorted(assignment - self.shards.keys()):
            self.shards[key] = self._new_shard(*key)
            self.all_shards.append(self.shards[key])
        wanted = sorted(assignment)
        claimed = await asyncio.gather(*(self.shards[key].claim() for key in wanted))
        for (_, number), offsets in zip(wanted, claimed, strict=True):
            for topic, offset in offsets.items():
                self._seek((topic, number), offset)
        places = self.world.log.places
        self._read = [(place, places[place]) for key in wanted for place in _places_of(*key)]
        self._flowing = True
        self.world.log.changed()

    def reclaim(self) -> None:
        """What Faust does where a poll comes back while the flow is stopped: everything as after a rebalance."""
        if self._offered is None and self._generation:
            self._offered = self._generation, self._assignment
            self._told.set()

    # -- the consumer --------------------------------------------------------------------------------------------------

    def _seek(self, place: Place, offset: int) -> None:
        self._positions[place] = offset
        self._seeks[place] = self._seeks.get(place, 0) + 1

    async def _fetch(self) -> None:
        log, chance = self.world.log, self.world.chance
        while True:
            batches = self._poll() if self._flowing and self.world.loop.time() >= log.network.down_until else []
            if not batches:
                await log.wait_for_more(self._positions)
                continue
            await asyncio.sleep(chance.random() * 0.01)
            for batch in batches:
                if not self._flowing or chance.random() < self.world.dropped:
                    continue  # a pause or a rebalance came in between
                await self._queues[_stage_of(Topic(batch.topic))].put(batch)

    def _poll(self) -> list[Batch]:
        batches, count_max, random = [], self.world.settings.batch_records_max, self.world.chance.random
        for place, partition in self._read:
            start = self._positions[place]
            if partition.end > start:
                records, end = partition.read(start, 1 + int(random() * count_max))
                if end > start:
                    self._positions[place] = end
                    batches.append(Batch(TopicPartition(*place), cast(Any, records), start, end, self._seeks[place]))
        if len(batches) > 1:
            self.world.chance.shuffle(batches)
        return batches

    async def _agent(self, stage: StageName) -> None:
        queue = self._queues[stage]
        taking: dict[int, asyncio.Task[None]] = {}
        while True:
            batch = await queue.get()
            if batch.partition in taking:
                await taking[batch.partition]
            taking[batch.partition] = asyncio.create_task(self._vital(self._take(stage, batch)))

    async def _take(self, stage: StageName, batch: Batch) -> None:
        shard = self.shards.get((stage, batch.partition))
        if shard is not None:
            await shard.offer(Topic(batch.topic), cast(ShardBatch, batch))

    async def _watch_reading(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for shard in list(self.shards.values()):
                try:
                    await shard.watch_reading()
                except (KafkaError, OSError):
                    continue

    # -- what the shards ask -------------------------------------------------------------------------------------------

    async def bounds(self, partition: int, topics: Sequence[Topic]) -> dict[Topic, LogPosition]:
        """Where the log begins and ends in this partition of the topics."""
        found = await self.reader.bounds([(topic, partition) for topic in topics])
        return {topic: position for (topic, _), position in found.items()}

    async def seek(self, partition: int, offsets: Mapping[Topic, int]) -> dict[Topic, int]:
        """Go on reading from these offsets. Returns for each how often its position was set by now."""
        await asyncio.sleep(self.world.chance.random() * 0.005)  # the consumer has a thread of its own
        for topic, offset in offsets.items():
            if (_stage_of(topic), partition) in self._assignment:
                self._seek((topic, partition), offset)
        self.world.log.changed()
        return {topic: self._seeks.get((topic, partition), 0) for topic in offsets}

    async def _read_told(self, told: Mapping[str, int]) -> AsyncIterator[tuple[Topic, ShardRecord]]:
        async for topic, record in self.reader.read(told_places(told, self.reader.partition_count)):
            yield topic, record

    def _new_shard(self, stage: StageName, partition: int) -> Shard:
        world, settings = self.world, self.world.settings

        def store_of(stage: StageName, number: int) -> ShardStore:
            return ShardStore(cast(Redis, world.redis), PREFIX, stage, number)

        store = store_of(stage, partition)
        is_fenced = settings.transactions and stage is StageName.RANKING
        publisher: Publisher = SimulatedPublisher(
            world.log, world.chance, transactional_id=f"{stage}-{partition}" if is_fenced else None
        )
        common: dict[str, Any] = {
            "wall_clock": lambda: world.wall_clock_us,
            "relay_interval_ms": settings.relay_interval_ms,
            "outbox_records_max": settings.outbox_records_max,
            "failed": self._failed,
            "policy_of": self._policies.of,
            "partitions": settings.partitions,
        }
        if stage is StageName.ACCOUNTS:
            return AccountShard(
                store,
                publisher,
                self,
                cache_accounts=settings.cache_accounts,
                due_chunk_accounts=settings.due_chunk_accounts,
                ranking=lambda number: store_of(StageName.RANKING, number),
                ranking_of=lambda name: partition_of(name.encode(), settings.partitions),
                **common,
            )
        return RankingShard(
            store,
            publisher,
            self,
            read_told=self._read_told,
            partition_of=lambda key: partition_of(key.encode(), settings.partitions),
            **common,
        )


def _stage_of(topic: Topic) -> StageName:
    return StageName.RANKING if topic is Topic.STANDINGS else StageName.ACCOUNTS


def _places_of(stage: StageName, number: int) -> list[Place]:
    topics = ACCOUNT_INPUTS if stage is StageName.ACCOUNTS else (Topic.STANDINGS,)
    return [(topic, number) for topic in topics]


def _listed(shards: Shards) -> str:
    return ", ".join(f"{stage} {number}" for stage, number in sorted(shards)) or "nothing"
