"""Replaying a log: its events in the file's order, and the time in which they happened.

Time comes as ticks, one for each midnight (UTC) that the events pass. Before each of them the shards finish what was
published so far, and after it they take the tick in before the day's events follow. So each event is applied on its own
day, and all that time alone changes happens between the days, as it did when the log was written.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.policy import Policy
from streams.instants import parse_instant
from streams.messages import Tick, encode_tick
from streams.rest import Ends, ShardsAtWork
from streams.sending import EventWriter
from streams.topics import EVENT_TOPICS, Topic

TOPIC_OF_TYPE = {"purchase": Topic.PURCHASES, "signup": Topic.SIGNUPS, "engagement": Topic.ENGAGEMENTS}

PROGRESS_LINES = 1_000
"""Lines between two calls of the progress, where no midnight is passed."""


class ReplayRefused(Exception):
    """The replay cannot be done on this installation; the message says why. Nothing was published."""


class ReplayLine(NamedTuple):
    """What a line is published as."""

    topic: Topic
    key: bytes | None
    occurred_at_us: int | None
    """None: the line does not say when, or not in a way that counts."""


def read_line(line: bytes) -> ReplayLine:
    """Where a line goes. Whatever it is, it goes somewhere: the stages say what is wrong with it. O(bytes)."""
    try:
        fields = orjson.loads(line)
    except ValueError:
        return ReplayLine(Topic.PURCHASES, None, None)
    if not isinstance(fields, dict):
        return ReplayLine(Topic.PURCHASES, None, None)
    kind, account_id, occurred_at = fields.get("type"), fields.get("account_id"), fields.get("occurred_at")
    topic = TOPIC_OF_TYPE.get(kind, Topic.PURCHASES) if isinstance(kind, str) else Topic.PURCHASES
    key = account_id.encode() if isinstance(account_id, str) else None
    try:
        return ReplayLine(topic, key, parse_instant(occurred_at) if isinstance(occurred_at, str) else None)
    except ValueError:
        return ReplayLine(topic, key, None)


class Progress(NamedTuple):
    """How far a replay is."""

    lines: int
    """Lines read."""
    bytes: int
    """Of the lines read, with their ends."""
    clock_us: int | None
    """What time it is in the log; None before the first event."""


class Replayed(NamedTuple):
    """What a replay did."""

    events: int
    """Records published to the topics of events."""
    left_out: int
    """Lines that lie after `until`, and were not published."""
    ticks: int
    """Instants that were ticked."""
    clock_us: int | None
    """The last tick's instant; None: no line said when, and nothing was ticked."""


class Replayer:
    """Publishes one log."""

    def __init__(
        self,
        policy: Policy,
        writer: EventWriter,
        shards: ShardsAtWork,
        log_ends: Ends,
        *,
        until_us: int | None = None,
        begin_us: int | None = None,
        as_fast_as_possible: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
        wall_clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`until_us`: later events are left out, and time goes on to there. `begin_us`: earlier events are history,
        which counts at once when time begins to pass. `as_fast_as_possible`: all is history, with one tick at the end.
        """
        self._writer = writer
        self._shards = shards
        self._log_ends = log_ends
        self._until_us = until_us
        self._begin_us = begin_us
        self._at_once = as_fast_as_possible
        self._progress = progress
        self._future_us = policy.future_days * MICROSECONDS_PER_DAY
        self._wall_clock = wall_clock
        self._clock_us: int | None = None
        self._ticked_us: int | None = None
        self._ticks = 0
        self._lines = 0
        self._bytes = 0

    async def run(self, lines: Iterable[bytes]) -> Replayed:
        """Publish the lines, with the time they happened in, and return when the shards are done with all of it.

        Lines of nothing but white space are no events. Raises ReplayRefused, NoProgress, KafkaError, RedisError.
        """
        await self._begin()
        events = left_out = 0
        for line in lines:
            payload = line.rstrip(b"\n")
            if payload.strip():
                known = read_line(payload)
                if await self._pass_time(known.occurred_at_us):
                    await self._writer.write(known.topic, known.key, payload)
                    events += 1
                else:
                    left_out += 1
            self._lines += 1
            self._bytes += len(line)
            if self._lines % PROGRESS_LINES == 0:
                self._show_progress()
        await self._end()
        return Replayed(events, left_out, self._ticks, self._ticked_us)

    def _show_progress(self) -> None:
        clock_us = max(self._clock_us or 0, self._ticked_us or 0) or None
        self._progress(Progress(self._lines, self._bytes, clock_us))

    async def _begin(self) -> None:
        found = await self._shards.look()
        if found.mode == "live":
            raise ReplayRefused(
                "this installation lives in real time: a replay would mix past and present. Replay into a fresh one: "
                "other topics (RESEGMENT_TOPIC_PREFIX) and keys (RESEGMENT_REDIS_PREFIX), or --embedded."
            )
        self._ticked_us = found.clock_us or None

    async def _pass_time(self, at_us: int | None) -> bool:
        """Let the midnights up to an event pass. Returns whether the event belongs to the replay."""
        if at_us is None or at_us > self._wall_clock() + self._future_us or at_us < MICROSECONDS_PER_DAY:
            return True
        if self._until_us is not None and at_us > self._until_us:
            return False
        if self._clock_us is None or at_us > self._clock_us:
            if self._is_new_day(at_us):
                await self._tick_midnights(at_us)
                # the day's events come when every shard has reached the day
                await self._shards.until_ticked(self._ends())
            self._clock_us = at_us
        return True

    def _is_new_day(self, at_us: int) -> bool:
        if self._at_once or (self._begin_us is not None and at_us < self._begin_us):
            return False
        return self._ticked_us is None or _midnight(at_us) > self._ticked_us

    async def _tick_midnights(self, until_us: int) -> None:
        """Tick every midnight after the last tick up to and with this instant, each when all before it is done."""
        last_us = self._ticked_us if self._ticked_us is not None else _midnight(until_us) - 1
        at_us = _midnight(last_us) + MICROSECONDS_PER_DAY
        while at_us <= until_us:
            await self._writer.flush()
            next_due_day = await self._shards.until_at_rest(self._ends())
            day = 0
            # a midnight on which nothing is due changes nothing: the next one need not wait for it
            while at_us <= until_us and day < next_due_day:
                await self._tick(at_us)
                day, at_us = at_us // MICROSECONDS_PER_DAY, at_us + MICROSECONDS_PER_DAY

    async def _end(self) -> None:
        last_us = max(self._clock_us or 0, self._until_us or 0)
        if last_us:
            if not self._at_once:
                await self._tick_midnights(last_us)
            await self._writer.flush()
            if self._ticked_us is None or last_us > self._ticked_us:
                await self._shards.until_at_rest(self._ends())
                await self._tick(last_us)
        await self._writer.flush()
        await self._shards.until_at_rest(self._ends())
        self._show_progress()

    async def _tick(self, at_us: int) -> None:
        ends = self._ends()
        for partition in range(await self._writer.partition_count(Topic.TICKS)):
            of_partition = {str(topic): ends[topic, partition] for topic in EVENT_TOPICS}
            value = encode_tick(Tick(at_us, "replay", of_partition))
            await self._writer.write(Topic.TICKS, None, value, partition=partition)
        await self._writer.flush()
        self._ticked_us = at_us
        self._ticks += 1
        self._show_progress()

    def _ends(self) -> Ends:
        """Where the log ends in each input: where it ended before, and what was published since."""
        return {**self._log_ends, **self._writer.ends}


def _midnight(instant_us: int) -> int:
    return instant_us - instant_us % MICROSECONDS_PER_DAY
