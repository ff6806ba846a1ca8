"""What there is to see of a worker: lag, clock, outboxes and commits of its shards, and what it has counted anyway."""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TypeVar

from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from state.keys import StageName
from streams.accounts import AccountShard
from streams.messages import decode_outgoing
from streams.monitoring import Figure, Look, Sample, Unready
from streams.ranking import RankingShard
from streams.shard import LogPosition, Shard
from streams.topics import Topic
from streams.worker import Worker, wall_clock_us

T = TypeVar("T")

LOOK_SECONDS_MAX = 3.0
"""How long broker and store may take to answer, each."""
OUTBOX_AGE_SECONDS_MAX = 30.0
CLOCK_DELAY_SECONDS_MAX = 30.0
"""And three ticks."""
COMMIT_SECONDS_MAX = 30.0
"""How long a shard that has something to do may go without a commit."""

_SHARD = ("stage", "partition")

PARTITIONS = Figure("resegment_partitions", "Partitions of the installation: it has twice as many shards")
BROKER_UP = Figure("resegment_broker_up", "1 if the broker answered")
STORE_UP = Figure("resegment_store_up", "1 if the store answered")
OWNED = Figure(
    "resegment_shard_owned", "Of each shard that this worker was given: 1 if it has it, 0 on the way", _SHARD
)
LAG = Figure("resegment_input_lag_records", "Offsets of the input that are not applied yet", (*_SHARD, "topic"))
CLOCK_DELAY = Figure("resegment_clock_delay_seconds", "How far the clock of live time is behind", ("partition",))
OUTBOX = Figure("resegment_outbox_records", "Outgoing records that the broker has not taken yet", _SHARD)
OUTBOX_AGE = Figure("resegment_outbox_age_seconds", "Since when the oldest of them waits; 0: none does", _SHARD)
LAST_COMMIT = Figure(
    "resegment_last_commit_timestamp_seconds", "When the shard was written last, by this worker; 0: not yet", _SHARD
)
COMMITS = Figure("resegment_commits_total", "Commits of the shard, by all its owners", _SHARD)
RECORDS = Figure(
    "resegment_records_total",
    "Records of an input, by what became of them: applied, duplicates or dead_letters",
    (*_SHARD, "topic", "outcome"),
)
CHANGES = Figure("resegment_segment_changes_total", "Changes of segment that the shard has announced", ("partition",))
ACCOUNTS = Figure("resegment_accounts", "Accounts that the ranking shard has, in all its populations", ("partition",))
SILENT = Figure(
    "resegment_silent", "1 while the ranking shard announces nothing: history, policy, loss", ("partition",)
)
NOT_ANEW = Figure(
    "resegment_accounts_to_work_out", "Accounts that are not worked out by an applied policy yet", ("partition",)
)
UNPLACED = Figure("resegment_accounts_unplaced", "Accounts that wait for their places on the worklists", ("partition",))


class WorkerFigures:
    """A worker, as monitoring looks at it."""

    role = "worker"
    figures = (
        *(PARTITIONS, BROKER_UP, STORE_UP, OWNED, LAG, CLOCK_DELAY, OUTBOX, OUTBOX_AGE, LAST_COMMIT, COMMITS),
        *(RECORDS, CHANGES, ACCOUNTS, SILENT, NOT_ANEW, UNPLACED),
    )

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._behind: dict[Shard, tuple[int, float]] = {}
        """Of each shard that has something to do: its commits, and when it was first seen with no more than these."""

    @property
    def failure(self) -> str | None:
        """What the worker will end of: its kind alone, as an error may name an account."""
        error = self._worker.failure
        return None if error is None else type(error).__name__

    async def look(self) -> Look:
        """O(populations), a question to the broker, and one to the store for each shard whose outbox is not empty."""
        worker = self._worker
        if not worker.partitions:
            return Look([], [Unready("starting", "", "it looks whether topics, store and policy fit together")])
        owned = [shard for shard in worker.shards.values() if shard.owned]
        bounds, oldest = await asyncio.gather(self._bounds(owned), self._oldest(owned))
        owned = [shard for shard in owned if shard.owned]  # meanwhile one may have been lost
        samples: list[Sample] = [(PARTITIONS, (), worker.partitions)]
        samples += [(BROKER_UP, (), bounds is not None), (STORE_UP, (), oldest is not None)]
        unready = [*self._missing()]
        if bounds is None:
            unready.append(Unready("broker_unreachable", "", "the broker does not say where the log ends"))
        if oldest is None:
            unready.append(Unready("store_unreachable", "", "the store does not answer"))
        samples += [
            (OWNED, _labels(key), key in worker.shards and worker.shards[key].owned) for key in worker.assigned or ()
        ]
        for shard in owned:
            samples += _of_any(shard)
            samples += _of_accounts(shard) if isinstance(shard, AccountShard) else ()
            samples += _of_ranking(shard) if isinstance(shard, RankingShard) else ()
            for found, reasons in (
                self._clock(shard),
                self._outbox(shard, oldest),
                self._lag(shard, bounds),
            ):
                samples += found
                unready += reasons
        self._behind = {shard: since for shard, since in self._behind.items() if shard in owned}
        return Look(samples, unready)

    # -- asking broker and store -------------------------------------------------------------------------------------

    async def _bounds(self, shards: Sequence[Shard]) -> Mapping[tuple[Topic, int], LogPosition] | None:
        """Where the inputs of these shards begin and end; None where the broker does not say."""
        places = [(topic, shard.partition) for shard in shards for topic in shard.inputs]
        return await answer_of(self._worker.reader.bounds(places or [(Topic.TICKS, 0)]))

    async def _oldest(self, shards: Sequence[Shard]) -> Mapping[Shard, int] | None:
        """When the oldest outgoing record of each shard that has one was made, in milliseconds; None: no answer."""
        waiting = [shard for shard in shards if shard.relay.waiting > 0]
        pong, records = await asyncio.gather(
            answer_of(self._worker.redis.ping()),
            answer_of(asyncio.gather(*(shard.store.oldest_outgoing() for shard in waiting))),
        )
        if pong is None or records is None:
            return None
        found = zip(waiting, records, strict=True)
        return {shard: decode_outgoing(record).timestamp_ms for shard, record in found if record is not None}

    # -- what is found -----------------------------------------------------------------------------------------------

    def _missing(self) -> Iterator[Unready]:
        assigned = self._worker.assigned
        if assigned is None:
            yield Unready("starting", "", "the group has not given it any partitions yet")
        for key in sorted(assigned or ()):
            shard = self._worker.shards.get(key)
            if shard is None or not shard.owned:
                is_lost = shard is not None and shard.is_going_back
                text = "it goes back to what is stored" if is_lost else "it is not claimed yet"
                yield Unready("shard_missing", _name(key), text)

    def _clock(self, shard: Shard) -> tuple[list[Sample], list[Unready]]:
        if self._worker.settings.clock != "wall" or not isinstance(shard, AccountShard):
            return [], []
        if shard.mode is None:
            return [], [Unready("clock_late", str(shard), "it has applied no tick yet")]
        delay_seconds = (wall_clock_us() - shard.clock_us) / 1e6
        late = [Unready("clock_late", str(shard), f"its clock is {delay_seconds:.0f} s behind")]
        limit = CLOCK_DELAY_SECONDS_MAX + 3 * self._worker.settings.tick_seconds
        return [(CLOCK_DELAY, (str(shard.partition),), delay_seconds)], late if delay_seconds > limit else []

    def _outbox(self, shard: Shard, oldest: Mapping[Shard, int] | None) -> tuple[list[Sample], list[Unready]]:
        if oldest is None:
            return [], []
        made_ms = oldest.get(shard)
        age_seconds = 0.0 if made_ms is None else max(0.0, wall_clock_us() / 1e6 - made_ms / 1e3)
        old = [Unready("outbox_old", str(shard), f"its oldest outgoing record has waited for {age_seconds:.0f} s")]
        return [(OUTBOX_AGE, _of(shard), age_seconds)], old if age_seconds > OUTBOX_AGE_SECONDS_MAX else []

    def _lag(
        self, shard: Shard, bounds: Mapping[tuple[Topic, int], LogPosition] | None
    ) -> tuple[list[Sample], list[Unready]]:
        if bounds is None:
            return [], []
        lags = {
            topic: max(0, bounds[topic, shard.partition].end - shard.progress.get(topic, 0)) for topic in shard.inputs
        }
        samples: list[Sample] = [(LAG, (*_of(shard), topic), lag) for topic, lag in lags.items()]
        now, commits = asyncio.get_running_loop().time(), shard.store.commits
        known = self._behind.get(shard)
        if not any(lags.values()):
            self._behind.pop(shard, None)
            return samples, []
        if known is None or known[0] != commits:
            self._behind[shard] = commits, now
            return samples, []
        seconds = now - known[1]
        behind = ", ".join(f"{lag} of {topic}" for topic, lag in lags.items() if lag)
        stuck = [
            Unready("not_committing", str(shard), f"nothing was committed for {seconds:.0f} s, before it: {behind}")
        ]
        return samples, stuck if seconds > COMMIT_SECONDS_MAX else []


async def answer_of(asked: Awaitable[T]) -> T | None:
    """What broker or store answer; None: they cannot be reached, or need too long."""
    try:
        async with asyncio.timeout(LOOK_SECONDS_MAX):
            return await asked
    except (KafkaError, RedisError, OSError):
        return None


def _of_any(shard: Shard) -> Iterator[Sample]:
    labels = _of(shard)
    yield OUTBOX, labels, max(0, shard.relay.waiting)
    yield LAST_COMMIT, labels, (shard.committed_at_us or 0) / 1e6
    yield COMMITS, labels, shard.store.commits


def _of_accounts(shard: AccountShard) -> Iterator[Sample]:
    for topic, counts in shard.counts.items():
        for outcome, count in counts.items():
            yield RECORDS, (*_of(shard), topic, outcome), count
    yield NOT_ANEW, (str(shard.partition),), shard.not_anew


def _of_ranking(shard: RankingShard) -> Iterator[Sample]:
    for outcome, count in shard.counts.items():
        yield RECORDS, (*_of(shard), Topic.STANDINGS, outcome), count
    labels = (str(shard.partition),)
    yield CHANGES, labels, shard.changes
    yield ACCOUNTS, labels, shard.account_count
    yield SILENT, labels, shard.is_silent
    yield UNPLACED, labels, shard.unplaced


def _labels(key: tuple[StageName, int]) -> tuple[str, str]:
    return key[0], str(key[1])


def _of(shard: Shard) -> tuple[str, str]:
    return shard.store.stage, str(shard.partition)


def _name(key: tuple[StageName, int]) -> str:
    return f"{key[0]} shard {key[1]}"
