"""What the shards rely on of a log: the simulated one and Apache Kafka pass the same tests.

Whoever inherits `LogContract` has a fixture `log`: two partitions a topic, and nothing in them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pytest
from aiokafka.errors import ProducerFenced

from streams.messages import Outgoing
from streams.partitions import partition_of
from streams.relay import Publisher
from streams.shard import LogPosition
from streams.topics import Topic, place_name

PARTITIONS = 2
PATIENCE_SECONDS = 30.0
BOTH: list[str] = [Topic.SEGMENT_CHANGES, Topic.SEGMENTS]
KEY = b"acme"
HOME = partition_of(KEY, PARTITIONS)


class Reader(Protocol):
    """What reads the log: streams.log.LogReader, or what stands for it."""

    async def bounds(self, partitions: Sequence[tuple[Topic, int]]) -> Mapping[tuple[Topic, int], LogPosition]:
        """Where the log begins and ends."""

    def read(self, starts: Mapping[tuple[Topic, int], int]) -> AsyncIterator[tuple[Topic, Any]]:
        """Every record from these offsets to the end."""


class LogUnderTest(Protocol):
    """A log with its clients."""

    reader: Reader
    now_ms: int
    """A time stamp that retention leaves alone."""

    def publisher(self, transactional_id: str | None = None) -> Publisher:
        """A publisher that is not claimed yet."""

    async def leave_open(self, transactional_id: str, records: list[Outgoing]) -> Callable[[], Awaitable[None]]:
        """Claim the id, send the records, do not commit. Returns what would commit them."""

    async def cut(self, place: tuple[Topic, int], first: int) -> None:
        """Let all records before an offset go, as retention does."""


class LogContract:
    """One test for each thing that is relied on."""

    async def test_records_come_back_as_they_were_sent(self, log: LogUnderTest) -> None:
        """Key, value and headers, in order, in the partition of their key, to each of their topics."""
        publisher = await _claimed(log, "a")
        records = [
            Outgoing(BOTH, KEY, b"\x00\xff", [("n", b"1"), ("n", b""), ("m", b"\xff")], log.now_ms),
            Outgoing(BOTH, KEY, None, [], log.now_ms + 1),
            Outgoing([Topic.SEGMENTS], KEY, b"", [("n", b"2")], log.now_ms + 2),
        ]
        await publisher.publish(records)
        for topic, expected in ((Topic.SEGMENT_CHANGES, records[:2]), (Topic.SEGMENTS, records)):
            await _until(partial(_count, log, topic), len(expected))
            found = await _records(log, topic)
            assert [(r.key, r.value, list(r.headers)) for r in found] == [(r.key, r.value, r.headers) for r in expected]
            assert {record.partition for record in found} == {HOME}
        await publisher.close()

    async def test_a_publisher_says_how_far_each_topic_reaches(self, log: LogUnderTest) -> None:
        """The offset after the last record, not after what follows it: a marker of the transaction takes the next."""
        publisher = await _claimed(log, "a")
        assert await publisher.publish(_some(log, b"0", b"1")) == {place_name(topic, HOME): 2 for topic in BOTH}
        await _until(lambda: _end(log, Topic.SEGMENTS), 3)
        assert await publisher.publish(_some(log, b"2")) == {place_name(topic, HOME): 4 for topic in BOTH}
        await _until(lambda: _end(log, Topic.SEGMENTS), 5)
        assert [record.offset for record in await _records(log, Topic.SEGMENTS)] == [0, 1, 3]
        await publisher.close()

    async def test_a_later_claim_fences_an_earlier_publisher(self, log: LogUnderTest) -> None:
        """What an owner of yesterday still sends is refused, and nobody sees it."""
        earlier, later = await _claimed(log, "a"), log.publisher("a")
        await earlier.publish(_some(log, b"0"))
        await later.claim()
        with pytest.raises(ProducerFenced):
            await earlier.publish(_some(log, b"1"))
        await later.publish(_some(log, b"2"))
        await _until(lambda: _values(log), [b"0", b"2"])
        await earlier.close()
        await later.close()

    async def test_other_ids_are_not_fenced(self, log: LogUnderTest) -> None:
        """A claim is one shard's; a publisher without an id is nobody's."""
        first, plain, second = await _claimed(log, "a"), await _claimed(log, None), await _claimed(log, "b")
        await first.publish(_some(log, b"0"))
        await plain.publish(_some(log, b"1"))
        await second.publish(_some(log, b"2"))
        await _until(lambda: _values(log), [b"0", b"1", b"2"])
        for publisher in (first, plain, second):
            await publisher.close()

    async def test_an_open_transaction_holds_back_what_comes_after_it(self, log: LogUnderTest) -> None:
        """Not even where the log ends may tell of it: else a shard would take for read what it has not seen."""
        plain = await _claimed(log, None)
        await plain.publish(_some(log, b"0"))
        commit = await log.leave_open("a", _some(log, b"1"))
        await plain.publish(_some(log, b"2"))
        assert await _values(log) == [b"0"]
        assert await _end(log, Topic.SEGMENTS) == 1
        await commit()
        await _until(lambda: _values(log), [b"0", b"1", b"2"])
        assert await _end(log, Topic.SEGMENTS) == 4
        await plain.close()

    async def test_a_claim_aborts_what_an_earlier_owner_left_open(self, log: LogUnderTest) -> None:
        """When it returns, all that was ever published can be read, and its late commit is refused."""
        plain = await _claimed(log, None)
        commit = await log.leave_open("a", _some(log, b"0", b"1"))
        await plain.publish(_some(log, b"2"))
        publisher = await _claimed(log, "a")
        assert await _values(log) == [b"2"]
        with pytest.raises(ProducerFenced):
            await commit()
        await publisher.publish(_some(log, b"3"))
        await _until(lambda: _values(log), [b"2", b"3"])
        assert [record.offset for record in await _records(log, Topic.SEGMENTS)] == [2, 4]
        await publisher.close()
        await plain.close()

    async def test_reading_begins_anywhere_and_skips_what_is_no_record(self, log: LogUnderTest) -> None:
        """At a record, at a marker, at the end."""
        publisher = await _claimed(log, "a")
        await publisher.publish(_some(log, b"0"))
        await publisher.publish(_some(log, b"1"))
        await _until(lambda: _end(log, Topic.SEGMENTS), 4)
        for start, expected in ((0, [0, 2]), (1, [2]), (2, [2]), (3, []), (4, [])):
            assert [record.offset for record in await _records(log, Topic.SEGMENTS, start)] == expected
        await publisher.close()

    async def test_where_retention_cut_the_log_it_begins_later(self, log: LogUnderTest) -> None:
        """Who reads from before begins there."""
        plain = await _claimed(log, None)
        await plain.publish(_some(log, b"0", b"1", b"2"))
        await log.cut((Topic.SEGMENT_CHANGES, HOME), 2)
        await _until(lambda: _first(log, Topic.SEGMENT_CHANGES), 2)
        assert await _end(log, Topic.SEGMENT_CHANGES) == 3
        assert [record.value for record in await _records(log, Topic.SEGMENT_CHANGES)] == [b"2"]
        await plain.close()


def _some(log: LogUnderTest, *values: bytes) -> list[Outgoing]:
    return [Outgoing(BOTH, KEY, value, [], log.now_ms) for value in values]


async def _claimed(log: LogUnderTest, transactional_id: str | None) -> Publisher:
    publisher = log.publisher(transactional_id)
    await publisher.claim()
    return publisher


async def _records(log: LogUnderTest, topic: Topic, start: int = 0) -> list[Any]:
    starts = {(topic, number): start if number == HOME else 0 for number in range(PARTITIONS)}
    return [record async for _, record in log.reader.read(starts)]


async def _values(log: LogUnderTest) -> list[bytes]:
    """What both topics hold; a moment may lie between the two."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        changes, segments = [
            [record.value for record in await _records(log, topic)] for topic in (Topic.SEGMENT_CHANGES, Topic.SEGMENTS)
        ]
        if changes == segments:
            return changes
        assert asyncio.get_running_loop().time() < deadline, f"{changes} in one, {segments} in the other"


async def _count(log: LogUnderTest, topic: Topic) -> int:
    return len(await _records(log, topic))


async def _first(log: LogUnderTest, topic: Topic) -> int:
    return (await log.reader.bounds([(topic, HOME)]))[topic, HOME].first


async def _end(log: LogUnderTest, topic: Topic) -> int:
    return (await log.reader.bounds([(topic, HOME)]))[topic, HOME].end


async def _until(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Wait for an answer: the end of a transaction is decided a moment before it can be seen."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while (found := await ask()) != expected:
        assert asyncio.get_running_loop().time() < deadline, f"expected {expected}, found {found}"
        await asyncio.sleep(0.01)
