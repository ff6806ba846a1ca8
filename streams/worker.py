"""A worker: the Faust application, its two agents, and the shards of the partitions it was given."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, cast

import orjson
from aiokafka.errors import KafkaError
from faust.types import TP
from redis.asyncio import Redis

from segmentation.policy import Policy
from state import founding
from state.keys import StageName
from state.rights import missing_rights
from state.shard_store import SCHEMA_VERSION, ShardStore
from streams import rights, transport
from streams.accounts import AccountShard
from streams.application import Failure, new_app
from streams.applying import Bounds, Policies
from streams.log import LogReader
from streams.partitions import partition_of
from streams.ranking import RankingShard
from streams.relay import KafkaPublisher, Publisher
from streams.settings import Settings
from streams.shard import CorruptState, LogPosition, Record, Shard
from streams.ticker import Ticker
from streams.topics import ACCOUNT_INPUTS, SHARDED, Topic, TopicNames, require_fit, told_places

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0
"""How long a shard may stand still before the end of its log until it is looked into."""

DRAIN_SECONDS = 10.0
"""How long a worker that was asked to leave goes on publishing what it has decided."""


class CannotStart(Exception):
    """Something about the installation must be put right first; the message says what."""


def wall_clock_us() -> int:
    """Now, in microseconds since 1970."""
    return time.time_ns() // 1000


class Worker:
    """Runs both stages for the partitions that the consumer group gives it, until stopped or something is corrupt."""

    def __init__(self, settings: Settings, policy: Policy, redis: Redis) -> None:
        self.settings = settings
        self.policy = policy
        self.redis = redis
        self.names = TopicNames(settings.topic_prefix)
        self.kafka_arguments = settings.kafka_arguments()
        self.reader = LogReader(self.kafka_arguments, settings.topic_prefix)
        self.shards: dict[tuple[StageName, int], Shard] = {}
        self.assigned: set[tuple[StageName, int]] | None = None
        """The shards that the group gave this worker, whether it has them already or not; None: it gave nothing yet."""
        self.partitions = 0
        self._failure = Failure()
        self._turns = asyncio.Lock()
        self.app = self._new_app()

    # -- starting and stopping ---------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, rebuild: bool = False) -> None:
        """Work until `stop` is set, then drain and leave the group. Raises CannotStart, CorruptState."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.reader)
            await self.prepare(rebuild=rebuild)
            stack.enter_context(_few_garbage_collections())
            helpers = [asyncio.create_task(self._vital(self._watch_reading()))]
            if self.settings.clock == "wall":
                helpers.append(asyncio.create_task(self._vital(self._tick())))
            self.app.finalize()
            try:
                await self.app.start()
                await self._failure.until_stopped(self.app, stop)
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                await self._leave()

    async def _leave(self) -> None:
        await cast(transport.Consumer, self.app.consumer).stop_claiming()
        await asyncio.gather(*(shard.close(drain_seconds=DRAIN_SECONDS) for shard in self.shards.values()))
        self.shards.clear()
        await self.app.stop()

    @property
    def failure(self) -> BaseException | None:
        """What it will end of, once it has left; None: of nothing."""
        return self._failure.of(self.app)

    async def prepare(self, *, rebuild: bool) -> None:
        """See that topics, store and policy fit together, and found the installation if it is new.

        Raises CannotStart, UnfitTopics, CorruptState.
        """
        _require("broker", await rights.missing_rights(self.settings))
        await self.reader.refresh()
        counts = {topic: self.reader.partition_count(topic) for topic in Topic}
        require_fit(counts, self.names)
        self.partitions = self.app.partitions = counts[Topic.PURCHASES]
        prefix = self.settings.redis_prefix
        _require("store", await missing_rights(self.redis, prefix, self.partitions))
        # In this order: what another worker founds meanwhile, and tells, must not look like a store that lost its data.
        was_told = await self._was_anything_told()
        known = await founding.read_founding(self.redis, prefix)
        if known is None:
            if was_told and not rebuild:
                raise CorruptState(
                    f"the store holds nothing under {prefix!r}, but {self.names.name(Topic.SEGMENTS)} holds changes: "
                    "it lost its data, or this is the wrong store. Restore it, or start one worker with --rebuild."
                )
            if await founding.is_partly_lost(self.redis, prefix, self.partitions):
                raise CorruptState(
                    f"the store holds shards under {prefix!r}, but not what they were founded with: a node of the "
                    "cluster lost its data. Restore it; or drop the installation's keys on the others, too, and start "
                    "one worker with --rebuild."
                )
            policy = self.policy
            if was_told:
                log.warning("rebuilding the state from the log; nothing is announced before it is where the log ended")
            beginnings = await beginnings_of_shards(self.redis, prefix, self.reader, self.partitions)
            known = await founding.found(
                self.redis, prefix, policy.canonical(), policy.hash, self.partitions, beginnings
            )
        self._check(known)
        await self._take_rest(known)
        self._policies = Policies(self.redis, prefix, self.policy)

    def _check(self, known: founding.Founding) -> None:
        if known.schema_version != SCHEMA_VERSION:
            raise CannotStart(
                f"the store has schema {known.schema_version}, this program reads {SCHEMA_VERSION}: "
                "use the program that wrote it, or a newer one"
            )
        if known.partitions != self.partitions:
            raise CannotStart(
                f"the state was made for {known.partitions} partitions, the topics have {self.partitions}: "
                "accounts would be looked for in the wrong places"
            )
        if known.policy_hash != self.policy.hash:
            differences = "\n  ".join(self.policy.differences(known.policy))
            raise CannotStart(
                "the policy differs from the one that the installation goes by (installation -> this policy):\n"
                f"  {differences}\nStart with the installation's, or apply this one with `resegment policy apply`."
            )

    async def _take_rest(self, known: founding.Founding) -> None:
        """No account's segment depends on it: so it is not refused, but nobody is to be surprised by it."""
        policy, rest = self.policy, self.policy.canonical_rest()
        if known.rest == rest:
            return
        if known.rest is not None:
            log.warning(
                "rules that decide no segment are other ones from now on (before -> this policy):\n  %s",
                "\n  ".join(policy.rest_differences(known.rest)),
            )
        prefix = self.settings.redis_prefix
        await founding.note_rest(self.redis, prefix, rest, policy.risk_hash, policy.classification_hash)

    async def _was_anything_told(self) -> bool:
        bounds = await self.reader.bounds([*told_places({}, self.reader.partition_count)])
        return any(bound.end > bound.first for bound in bounds.values())

    # -- the Faust application ---------------------------------------------------------------------------------------

    def _new_app(self) -> transport.App:
        settings = self.settings
        app = new_app(settings, settings.kafka_group)
        app.claim_partitions = self.claim_partitions
        accounts = app.topic(*map(self.names.name, ACCOUNT_INPUTS), schema=transport.BatchSchema())
        standings = app.topic(self.names.name(Topic.STANDINGS), schema=transport.BatchSchema())
        app.agent(accounts, name="account_stage", concurrency=1)(self._agent(StageName.ACCOUNTS))
        app.agent(standings, name="ranking_stage", concurrency=1)(self._agent(StageName.RANKING))
        return app

    def _agent(self, stage: StageName) -> Any:
        async def agent(stream: Any) -> None:
            taking: dict[int, asyncio.Task[None]] = {}
            async for event in stream.noack().events():
                # One batch of a partition at a time, but the partitions do not wait for each other's commits.
                partition = event.value.partition
                if partition in taking:
                    await taking[partition]
                taking[partition] = asyncio.create_task(self._take(stage, event))

        return agent

    async def _take(self, stage: StageName, event: Any) -> None:
        batch = event.value
        shard = self.shards.get((stage, batch.partition))
        if shard is not None:
            try:
                await shard.offer(self.names.topic(batch.topic), batch)
            except Exception as error:
                self._failure.tell(error)
                return
        event.ack()

    async def claim_partitions(self, assigned: set[TP]) -> dict[TP, int]:
        """Claim the shards of these partitions and let the others go. Returns where to read on.

        Nowhere if that fails: the worker ends then, and says why itself. Faust would do so in forty lines.
        """
        if self.app.should_stop:
            return {}
        try:
            wanted = {(_stage_of(self.names.topic(tp.topic)), tp.partition) for tp in assigned}
            self.assigned = wanted
            gone = [key for key in self.shards if key not in wanted]
            await asyncio.gather(*(self.shards[key].close() for key in gone))
            for key in gone:  # when they are closed: if this is cancelled, the next one closes what is left
                del self.shards[key]
            for key in wanted - self.shards.keys():
                self.shards[key] = self._new_shard(*key)
            claimed = await asyncio.gather(*(self.shards[key].claim() for key in wanted))
        except Exception as error:
            self._failure.tell(error)
            return {}
        gc.freeze()  # what was loaded stays
        log.info("claimed %d shards", len(wanted))
        return {
            TP(self.names.name(topic), partition): offset
            for (_, partition), offsets in zip(wanted, claimed, strict=True)
            for topic, offset in offsets.items()
        }

    # -- shards ------------------------------------------------------------------------------------------------------

    def _new_shard(self, stage: StageName, partition: int) -> Shard:
        settings = self.settings
        store = self._store(stage, partition)
        common: dict[str, Any] = {
            "wall_clock": wall_clock_us,
            "outbox_records_max": settings.outbox_records_max,
            "failed": self._failure.tell,
            "policy_of": self._policies.of,
            "partitions": self.partitions,
        }
        if stage is StageName.ACCOUNTS:
            return AccountShard(
                store,
                self._new_publisher(stage, partition),
                self,
                cache_accounts=max(1_000, settings.cache_accounts // max(1, self.partitions)),
                due_chunk_accounts=settings.due_chunk_accounts,
                ranking=lambda number: self._store(StageName.RANKING, number),
                ranking_of=self._partition_of,
                relay_interval_ms=0,  # standings need no transaction: gathering them would only make changes late
                **common,
            )
        return RankingShard(
            store,
            self._new_publisher(stage, partition),
            self,
            read_told=self._read_told,
            partition_of=self._partition_of,
            relay_interval_ms=settings.relay_interval_ms,
            **common,
        )

    def _store(self, stage: StageName, partition: int) -> ShardStore:
        return ShardStore(self.redis, self.settings.redis_prefix, stage, partition)

    def _new_publisher(self, stage: StageName, partition: int) -> Publisher:
        """Changes need the fence: in a compacted topic a late old record would become the latest.

        Standings do not, as what an owner of yesterday still sends brings no news. Transactions would cost more than
        all other work on them, and hold back those of the other shards.
        """
        if not self.settings.kafka_transactions:
            return KafkaPublisher(self.kafka_arguments, self.names, turns=self._turns)
        if stage is StageName.ACCOUNTS:
            return KafkaPublisher(self.kafka_arguments, self.names, idempotent=True)
        transactional_id = f"{self.settings.kafka_group}-{self.settings.topic_prefix}{stage}-{partition}"
        return KafkaPublisher(self.kafka_arguments, self.names, transactional_id=transactional_id)

    def _partition_of(self, key: str) -> int:
        return partition_of(key.encode(), self.partitions)

    async def _read_told(self, told: Mapping[str, int]) -> AsyncIterator[tuple[Topic, Record]]:
        async for topic, record in self.reader.read(told_places(told, self.reader.partition_count)):
            yield topic, record

    async def bounds(self, partition: int, topics: Sequence[Topic]) -> dict[Topic, LogPosition]:
        """Where the log begins and ends in this partition of the topics."""
        found = await self.reader.bounds([(topic, partition) for topic in topics])
        return {topic: position for (topic, _), position in found.items()}

    async def seek(self, partition: int, offsets: Mapping[Topic, int]) -> dict[Topic, int]:
        """Go on reading from these offsets. Returns for each how often its position was set by now."""
        consumer = cast(transport.Consumer, self.app.consumer)
        tps = {TP(self.names.name(topic), partition): offset for topic, offset in offsets.items()}
        assigned = {tp: offset for tp, offset in tps.items() if tp in consumer.assignment()}
        await consumer.seek_wait(assigned)
        return {self.names.topic(tp.topic): consumer.seeks(tp) for tp in tps}

    async def _vital(self, work: Coroutine[Any, Any, None]) -> None:
        """Work without which the worker would only seem to run: its end by an error is the worker's."""
        try:
            await work
        except Exception as error:
            self._failure.tell(error)

    async def _watch_reading(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for shard in list(self.shards.values()):
                try:
                    await shard.watch_reading()
                except (KafkaError, OSError) as error:
                    log.debug("cannot see where the log ends", extra={"shard": shard, "reason": repr(error)})

    async def _tick(self) -> None:
        def owned() -> list[int]:
            return [
                number for (stage, number), shard in self.shards.items() if stage is StageName.ACCOUNTS and shard.owned
            ]

        ticker = Ticker(
            self.kafka_arguments,
            self.reader,
            self.names,
            seconds=self.settings.tick_seconds,
            wall_clock=wall_clock_us,
            partitions=owned,
        )
        await ticker.run()


async def beginnings_of_shards(
    redis: Redis, prefix: str, reader: Bounds, partitions: int
) -> dict[tuple[StageName, int], founding.Beginning]:
    """Shards that read the log from its start, and announce nothing before they are where it ended when they began.

    So a history is announced as what has come of it. Raises KafkaError, RedisError; then, and also after a crash, it
    may be tried again.
    """
    numbers = range(partitions)
    bounds = await reader.bounds([(topic, number) for topic in SHARDED for number in numbers])
    plan = {str(number): {str(topic): bounds[topic, number].end for topic in SHARDED} for number in numbers}
    plan = orjson.loads(await founding.agreed_beginning(redis, prefix, orjson.dumps(plan)))
    ends = {number: {str(topic): at[topic] for topic in ACCOUNT_INPUTS} for number, at in plan.items()}
    beginnings = {}
    for number in numbers:
        beginnings[StageName.ACCOUNTS, number] = founding.Beginning({}, {"backfill_until": ends[str(number)]})
        # The account stage tells every standing again; the old ones, if they are still there, are not needed.
        begin = plan[str(number)][Topic.STANDINGS]
        beginnings[StageName.RANKING, number] = founding.Beginning(
            {str(Topic.STANDINGS): begin}, {"begin": begin, "backfill_until": ends}
        )
    return beginnings


def _require(server: str, missing: Sequence[str]) -> None:
    """Raises CannotStart where a server would refuse later what a worker does."""
    if missing:
        raise CannotStart(
            f"the {server} does not let this user do all that a worker does (docs/security.md); "
            f"missing: {', '.join(missing)}"
        )


def _stage_of(topic: Topic) -> StageName:
    return StageName.RANKING if topic is Topic.STANDINGS else StageName.ACCOUNTS


@contextmanager
def _few_garbage_collections() -> Iterator[None]:
    """Accounts are many, small and free of cycles: with the default thresholds looking at them costs 9 us an event."""
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
