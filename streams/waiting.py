"""Waiting until the shards have done what was published, by looking at their state: no worker needs to be asked."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from segmentation.account import NEVER
from segmentation.events import MICROSECONDS_PER_DAY
from state.keys import StageName, shard_keys
from streams.messages import Reached
from streams.topics import ACCOUNT_INPUTS, Topic

POLL_SECONDS = 0.005
NO_PROGRESS_SECONDS = 60.0

Ends = Mapping[tuple[Topic, int], int]
"""For a topic and partition, the offset up to which it has to be applied."""


class NoProgress(Exception):
    """Nothing was applied for a minute although there is something to do. The message says what to look at."""


class ShardsNow(NamedTuple):
    """What all shards were at one moment."""

    mode: str | None
    """Of the time they live in; None before the first tick, also where there are no shards yet."""
    clock_us: int
    """The latest of their clocks; 0 before the first tick."""
    next_due_day: int
    """The first day on which time alone may change an account."""
    applied: dict[tuple[str, int], int]
    """For a topic and partition, the offset up to which it is applied."""
    is_settled: bool
    """Whether the shards have done everything that follows from what they applied."""
    fingerprint: int
    """Differs where anything was done in between."""

    def reached(self, ends: Ends, topics: tuple[Topic, ...] = ACCOUNT_INPUTS) -> bool:
        """Whether these topics are applied up to the ends."""
        return all(
            self.applied.get((topic, partition), 0) >= end
            for (topic, partition), end in ends.items()
            if topic in topics
        )


class ShardsAtWork:
    """The shards of an installation, seen from outside."""

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
        self._accounts = [shard_keys(prefix, StageName.ACCOUNTS, number) for number in range(partitions)]
        self._ranking = [shard_keys(prefix, StageName.RANKING, number) for number in range(partitions)]
        self._check_worker = check_worker
        self._no_progress_seconds = no_progress_seconds

    async def look(self) -> ShardsNow:
        """One round trip. Raises RedisError."""
        pipeline = self._redis.pipeline(transaction=False)
        # the account stage first: what it has sent by then is what the ranking stage must have taken
        for keys in self._accounts:
            pipeline.hmget(keys.meta, ["progress", "state"])
            pipeline.zrange(keys.due, 0, 0, withscores=True)
            pipeline.llen(keys.outbox)
        for keys in self._ranking:
            pipeline.hget(keys.meta, "state")
            pipeline.llen(keys.outbox)
        found = await pipeline.execute()
        count = 3 * len(self._accounts)
        return _read(found[:count], found[count:])

    async def until_at_rest(self, ends: Ends) -> int:
        """Return when everything up to the ends is applied, and everything that follows from it is done and published.

        Returns the first day on which time alone may change an account. Raises NoProgress, RedisError.
        """
        return (await self._until(lambda now: now.is_settled and now.reached(ends))).next_due_day

    async def until_ticked(self, ends: Ends) -> None:
        """Return when the account stage has taken the ticks up to the ends. Raises NoProgress, RedisError."""
        await self._until(lambda now: now.reached(ends, (Topic.TICKS,)))

    async def _until(self, condition: Callable[[ShardsNow], bool]) -> ShardsNow:
        clock = asyncio.get_running_loop().time
        now, since = await self.look(), clock()
        while not condition(now):
            self._check_worker()
            await asyncio.sleep(POLL_SECONDS)
            last, now = now, await self.look()
            if now.fingerprint != last.fingerprint:
                since = clock()
            elif clock() - since > self._no_progress_seconds:
                raise NoProgress(
                    f"no worker has made progress for {self._no_progress_seconds:g} s: is one running, with the same "
                    "settings? Start it with `resegment worker --clock replay`."
                )
        return now


def _read(accounts: list[Any], ranking: list[Any]) -> ShardsNow:
    mode: str | None = None
    clock_us, next_due_day = 0, NEVER
    applied: dict[tuple[str, int], int] = {}
    sent: dict[str, Any] = {}
    is_settled = True
    for partition, ((progress, state), due, outbox) in enumerate(
        zip(accounts[0::3], accounts[1::3], accounts[2::3], strict=True)
    ):
        known = orjson.loads(state) if state else {}
        shard_mode, shard_clock_us = known.get("mode"), known.get("clock_us", 0)
        due_day = int(due[0][1]) if due else NEVER
        mode, clock_us = mode or shard_mode, max(clock_us, shard_clock_us)
        next_due_day = min(next_due_day, due_day)
        for topic, offset in (orjson.loads(progress) if progress else {}).items():
            applied[topic, partition] = offset
        if outbox or (shard_mode is not None and due_day <= shard_clock_us // MICROSECONDS_PER_DAY):
            is_settled = False
        if known.get("sent"):
            sent[str(partition)] = known["sent"]
    taken: dict[str, Any] = {}
    for state, outbox in zip(ranking[0::2], ranking[1::2], strict=True):
        known = orjson.loads(state) if state else {}
        taken.update(known.get("sources", {}))
        if outbox or known.get("muted_until"):
            is_settled = False
    # not: equal, as after the store went back in time the ranking stage may know more than was sent again
    if any(
        source not in taken or Reached.of(reached).is_ahead_of(Reached.of(taken[source])) for source, reached in sent.items()
    ):
        is_settled = False
    fingerprint = hash(repr((accounts, ranking)))
    return ShardsNow(mode, clock_us, next_due_day, applied, is_settled, fingerprint)
