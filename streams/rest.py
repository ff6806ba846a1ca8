"""Whether the shards have done everything that was published, told from their state: no worker needs to be asked."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson
from redis.asyncio import Redis

from segmentation.account import NEVER
from segmentation.events import MICROSECONDS_PER_DAY
from state.cluster import ClusterRedis
from state.founding import Founding, require_founding
from state.keys import StageName, shard_keys
from streams.log import LogReader
from streams.messages import Reached
from streams.settings import Settings
from streams.topics import ACCOUNT_INPUTS, Topic, place_of

POLL_SECONDS = 0.005
NO_PROGRESS_SECONDS = 60.0

SHARDS_AT_ONCE = 32
"""Of a cluster, read at the same time: each needs a connection meanwhile."""

Ends = Mapping[tuple[Topic, int], int]
"""(Input topic, partition) -> the offset up to which it has to be applied."""


class NoProgress(Exception):
    """Nothing was applied for a minute although there is something to do. The message says what to look at."""


class ShardNow(NamedTuple):
    """Of a shard, what tells whether it is at rest."""

    progress: dict[str, int]
    state: dict[str, Any]
    waiting: int
    """Records in its outbox."""
    due_day: int
    """The first day on which time alone may change an account; NEVER if none."""
    told: dict[str, int]
    """Partition of an output topic (`place_name`) -> offset after the last record that the shard published there."""

    @property
    def clock_us(self) -> int:
        """The instant its clock shows; 0 before the first tick."""
        return int(self.state.get("clock_us", 0))

    @property
    def has_due_work(self) -> bool:
        """Whether accounts are due. Before the first tick none are."""
        return self.state.get("mode") is not None and self.due_day <= self.clock_us // MICROSECONDS_PER_DAY


class ShardsNow(NamedTuple):
    """All shards, as one moment saw them: else something could slip from one to the other."""

    accounts: list[ShardNow]
    ranking: list[ShardNow]
    missing: str | None
    """A shard that is not there (yet); None: all are."""
    is_one_moment: bool = True
    """False: on a cluster some were written while others were read, so together they say nothing."""

    @property
    def mode(self) -> str | None:
        """Of the time that the shards live in; None before the first tick."""
        return next((mode for shard in self.accounts if (mode := shard.state.get("mode"))), None)

    @property
    def clock_us(self) -> int:
        """The latest instant that a shard's clock shows; 0 before the first tick."""
        return max((shard.clock_us for shard in self.accounts), default=0)

    @property
    def next_due_day(self) -> int:
        """The first day on which time alone may change an account; NEVER if none."""
        return min((shard.due_day for shard in self.accounts), default=NEVER)

    @property
    def unplaced(self) -> int:
        """Accounts that wait for their places on the worklists, which everything that is announced comes before."""
        return sum(shard.state.get("unplaced", 0) for shard in self.ranking)

    def not_in_place(self) -> str | None:
        """That some accounts are not, in words; None: all are."""
        return f"{self.unplaced} accounts are not in their places yet" if self.unplaced else None

    def unreached(self, ends: Ends, firsts: Ends, topics: tuple[Topic, ...] = ACCOUNT_INPUTS) -> str | None:
        """An input that is not applied up to its end, in words; None: all are. `firsts`: where the inputs begin."""
        for number, shard in enumerate(self.accounts):
            for topic in topics:
                end = ends.get((topic, number), 0)
                reached = shard.progress.get(topic, firsts.get((topic, number), 0))
                if reached < end:
                    return f"account shard {number} has applied {topic} up to {reached} of {end}"
        return None

    def switching(self) -> str | None:
        """A shard that is on its way to another policy, in words; None: none is. The way needs no more than time."""
        for number, shard in enumerate(self.accounts):
            if left := shard.state.get("not_anew"):
                return f"account shard {number} has {left} accounts to work out by another policy"
        for number, shard in enumerate(self.ranking):
            if shard.state.get("next_policy"):
                sources = ", ".join(shard.state.get("awaited", ()))
                return f"ranking shard {number} waits for all accounts by another policy, of account shards {sources}"
        return None

    def unjudged(self, founding: Founding) -> str | None:
        """A shard that works by other rules than a worker began with last, in words; None: there is none."""
        asked = "by the policy that a worker began with last"
        for number, shard in enumerate(self.accounts):
            if (shard.state.get("policy") or [0])[0] < founding.number:  # a ranking shard hears of it from these
                return f"account shard {number} has not taken the policy that was applied last"
            if _differ(shard.state.get("classification_hash"), founding.classification_hash):
                return f"account shard {number} has not told what attributes say {asked}"
        for number, shard in enumerate(self.ranking):
            if _differ(shard.state.get("risk_hash"), founding.risk_hash):
                return f"ranking shard {number} has not judged all risks {asked}"
        return None

    def unrest(self, ends: Ends, firsts: Ends) -> str | None:
        """What keeps the shards from having done everything up to the ends, in words; None: nothing does."""
        moved = None if self.is_one_moment else "the shards changed while they were looked at"
        return self.missing or self.unreached(ends, firsts) or self._unfinished() or moved

    def _unfinished(self) -> str | None:
        if reason := self.switching():
            return reason
        told_days = [shard.state.get("told_days", {}) for shard in self.ranking]
        for number, shard in enumerate(self.ranking):
            if shard.waiting:
                return f"ranking shard {number} has {shard.waiting} records to publish"
            if shard.state.get("muted_until"):
                return f"ranking shard {number} reads on silently, up to where it was before its state was lost"
            if shard.state.get("watched_day", 0) < min(shard.state.get("told_days", {}).values(), default=0):
                return f"ranking shard {number} has not looked at all accounts whose risk may be another one now"
            if shard.state.get("announcing"):
                return f"ranking shard {number} has not announced all that it found after its silence"
            if under_way := shard.state.get("under_way"):
                return f"ranking shard {number} waits for what other populations hand over of {under_way} accounts"
            for source in shard.state.get("backfill_until", ()):
                if self.accounts[int(source)].state.get("mode"):
                    return f"ranking shard {number} has not heard that account shard {source} has told its history"
        for number, shard in enumerate(self.accounts):
            if shard.state.get("mode") and shard.state.get("backfill_until") is not None:
                return f"account shard {number} has not told all that the log held in the beginning"
            if shard.state.get("mode"):
                told_day = shard.state.get("told_day", 0)
                if told_day < shard.clock_us // MICROSECONDS_PER_DAY:
                    return f"account shard {number} has not told all that its day brings about"
                if told_day > min((days.get(str(number), 0) for days in told_days), default=0):
                    return f"not all have heard that account shard {number} has told all that its day brings about"
            if shard.has_due_work:
                return f"account shard {number} has accounts that are due since day {shard.due_day}"
            if shard.waiting:
                return f"account shard {number} has {shard.waiting} records to publish"
            for receiver, end in shard.state.get("described", {}).items():
                if end > self.ranking[int(receiver)].state.get("described", {}).get(str(number), 0):
                    return f"nobody has heard what attributes say of accounts of shard {number}"
            for receiver, sent in shard.state.get("sent", {}).items():
                taken = self.ranking[int(receiver)].state.get("sources", {}).get(str(number))
                # not: equal, as after the store went back in time the ranking stage may know more than was sent again
                if Reached.of(sent).is_ahead_of(Reached.of(taken) if taken else None):
                    return f"the newest standings of account shard {number} have not been taken"
        return None


def _differ(hash_of_shard: str | None, noted: str | None) -> bool:
    return hash_of_shard is not None and noted is not None and hash_of_shard != noted


async def look(redis: Redis, prefix: str, partitions: int) -> ShardsNow:
    """All shards at one moment, in one round trip; on a cluster in two, or more for many. Raises RedisError.

    The nodes of a cluster share no moment. So there each shard is read twice, the second time when all have been read
    once: where none has changed, all were like this at every moment in between.
    """
    stages = [(stage, number) for stage in StageName for number in range(partitions)]
    if isinstance(redis, ClusterRedis):
        first = await _read_each(redis, prefix, stages)
        answers = await _read_each(redis, prefix, stages)
        return _shards_now(stages, answers, is_one_moment=answers == first)
    return _shards_now(stages, await _read(redis, prefix, stages))


async def _read(redis: Redis, prefix: str, stages: Sequence[tuple[StageName, int]]) -> list[Any]:
    """Three answers a shard, all of one moment; on a cluster only one shard's are to be had so."""
    async with redis.pipeline(transaction=True) as pipeline:
        for stage, number in stages:
            keys = shard_keys(prefix, stage, number)
            # the commits: what was written and taken back looks the same without them
            pipeline.hmget(keys.meta, ["progress", "state", "told", "commits"])
            pipeline.llen(keys.outbox)
            pipeline.zrange(keys.due, 0, 0, withscores=True)
        return await pipeline.execute()


async def _read_each(redis: Redis, prefix: str, stages: Sequence[tuple[StageName, int]]) -> list[Any]:
    answers = []
    for at in range(0, len(stages), SHARDS_AT_ONCE):
        for found in await asyncio.gather(
            *(_read(redis, prefix, [shard]) for shard in stages[at : at + SHARDS_AT_ONCE])
        ):
            answers += found
    return answers


def _shards_now(
    stages: Sequence[tuple[StageName, int]], answers: Sequence[Any], *, is_one_moment: bool = True
) -> ShardsNow:
    shards: dict[StageName, list[ShardNow]] = {stage: [] for stage in StageName}
    missing = None
    for (stage, number), at in zip(stages, range(0, len(answers), 3), strict=True):
        (progress, state, told, _), waiting, due = answers[at : at + 3]
        if progress is None:
            missing = f"{stage} shard {number} is not there (yet)"
        shards[stage].append(
            ShardNow(
                orjson.loads(progress) if progress else {},
                orjson.loads(state) if state else {},
                cast(int, waiting),
                int(due[0][1]) if due else NEVER,
                orjson.loads(told) if told else {},
            )
        )
    return ShardsNow(shards[StageName.ACCOUNTS], shards[StageName.RANKING], missing, is_one_moment)


async def unrest(redis: Redis, reader: LogReader, settings: Settings, *, until_placed: bool = False) -> str | None:
    """What keeps the installation from having done all that is in its inputs now, in words; None: it is at rest.

    until_placed: places on the worklists count, too. Raises NoInstallation, RedisError, KafkaError.
    """
    founding = await require_founding(redis, settings.redis_prefix)
    numbers = range(founding.partitions)
    bounds = await reader.bounds([(topic, number) for topic in ACCOUNT_INPUTS for number in numbers])
    ends = {key: bound.end for key, bound in bounds.items()}
    firsts = {key: bound.first for key, bound in bounds.items()}
    now = await look(redis, settings.redis_prefix, founding.partitions)
    reason = now.unrest(ends, firsts) or now.unjudged(founding) or await _invisible(reader, now)
    return reason or (now.not_in_place() if until_placed else None)


async def _invisible(reader: LogReader, now: ShardsNow) -> str | None:
    """A partition whose newest records cannot be read yet: a transaction's markers come a moment after its end, in one
    partition before the other."""
    told: dict[tuple[Topic, int], int] = {}
    for shard in (*now.accounts, *now.ranking):
        for name, end in shard.told.items():
            place = place_of(name)
            told[place] = max(end, told.get(place, 0))
    if told:
        for (topic, number), bound in (await reader.bounds(list(told))).items():
            if bound.end < told[topic, number]:
                return f"the newest records of {topic} in partition {number} are not visible yet"
    return None


async def wait_at_rest(
    redis: Redis, reader: LogReader, settings: Settings, *, timeout_seconds: float, until_placed: bool = False
) -> None:
    """Return once the installation is at rest. Raises what `unrest` raises, and TimeoutError, saying why.

    until_placed: and every account is in its place on the worklists.
    """
    until = asyncio.get_running_loop().time() + timeout_seconds
    while (reason := await unrest(redis, reader, settings, until_placed=until_placed)) is not None:
        if asyncio.get_running_loop().time() >= until:
            raise TimeoutError(f"not at rest after {timeout_seconds:g} s: {reason}")
        await asyncio.sleep(4 * POLL_SECONDS)


class ShardsAtWork:
    """The shards of an installation, seen by somebody who feeds them and knows what they have to reach."""

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        partitions: int,
        *,
        check_worker: Callable[[], None] = lambda: None,
        no_progress_seconds: float = NO_PROGRESS_SECONDS,
    ) -> None:
        """`check_worker` is called now and then while waiting, and raises where there is nothing to wait for."""
        self._redis = redis
        self._prefix = prefix
        self._partitions = partitions
        self._check_worker = check_worker
        self._no_progress_seconds = no_progress_seconds

    async def look(self) -> ShardsNow:
        """All shards. Raises RedisError."""
        return await look(self._redis, self._prefix, self._partitions)

    async def until_at_rest(self, ends: Ends) -> int:
        """Return when everything up to the ends is applied, and everything that follows from it is done and published.

        Returns the first day on which time alone may change an account. Raises NoProgress, RedisError.
        """
        return (await self._until(lambda now: now.unrest(ends, {}))).next_due_day

    async def until_placed(self) -> None:
        """Return when every account is in its place on the worklists. Raises NoProgress, RedisError."""
        await self._until(lambda now: now.not_in_place())

    async def until_ticked(self, ends: Ends) -> None:
        """Return when the account stage has taken the ticks up to the ends. Raises NoProgress, RedisError."""
        await self._until(lambda now: now.unreached(ends, {}, (Topic.TICKS,)))

    async def _until(self, unrest: Callable[[ShardsNow], str | None]) -> ShardsNow:
        clock = asyncio.get_running_loop().time
        now, since = await self.look(), clock()
        while (reason := unrest(now)) is not None:
            self._check_worker()
            await asyncio.sleep(POLL_SECONDS)
            last, now = now, await self.look()
            if now != last:
                since = clock()
            elif clock() - since > self._no_progress_seconds:
                raise NoProgress(
                    f"no worker has made progress for {self._no_progress_seconds:g} s ({reason}): is one running, with "
                    "the same settings? Start it with `resegment worker --clock replay`."
                )
        return now
