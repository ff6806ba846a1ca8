"""What is in the outbox is published until the broker has it: the same bytes, by the owner, in order."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError
from redis.asyncio import Redis

from state.shard_store import Claim, Commit, Refused, ShardStore
from streams.messages import Outgoing, encode_outgoing
from streams.relay import Relay, Told
from streams.topics import Topic
from tests.state.conftest import PREFIX


class MemoryLog:
    """A publisher into memory. It may break after it took records and before it says so, as a broker may."""

    is_atomic = False

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.breaks_after: int | None = None
        self.claims = 0

    async def claim(self) -> None:
        """Count the claims."""
        self.claims += 1

    async def publish(self, records: list[Outgoing]) -> Told:
        """Keep the records, then answer, unless it is time to break."""
        for record in records:
            if self.breaks_after == 0:
                self.breaks_after = None
                raise KafkaConnectionError("broken in the middle")
            if self.breaks_after is not None:
                self.breaks_after -= 1
            self.records.append(encode_outgoing(record))
        if self.breaks_after == 0:
            self.breaks_after = None
            raise KafkaConnectionError("broken before the answer")
        return {"0": len(self.records)}

    async def close(self) -> None:
        """Nothing is open."""


def outgoing(number: int) -> Outgoing:
    """A record with every part that there can be."""
    return Outgoing(
        [Topic.SEGMENT_CHANGES, Topic.SEGMENTS],
        f"account-{number}".encode(),
        b'{"n": %d, "\xff": "\xe2\x98\x83"}' % number if number % 3 else None,
        [("ce_id", b"account:%d" % number), ("empty", b"")],
        1_000 + number,
    )


def commit_of(*numbers: int) -> Commit:
    """A commit that sends records."""
    commit = Commit({"purchases": max(numbers)}, {})
    commit.outbox = [encode_outgoing(outgoing(number)) for number in numbers]
    return commit


async def relay_of(store: ShardStore, log: MemoryLog, lost: list[str] | None = None) -> Relay:
    """A relay for a shard, with what waits in its outbox; it notes when the shard is lost."""

    async def note(why: str) -> None:
        (lost if lost is not None else []).append(why)

    relay = Relay(store, log, interval_ms=0, lost=note)
    await relay.restart(waiting=await store.outbox_size(), told={})
    return relay


async def send(store: ShardStore, relay: Relay, *numbers: int) -> None:
    """Commit records, and tell the relay as a shard does."""
    commit = commit_of(*numbers)
    await store.commit(commit)
    relay.add([outgoing(number) for number in numbers], [len(entry) for entry in commit.outbox])


def another(redis: Redis, store: ShardStore) -> ShardStore:
    """The same shard, as the next worker has it."""
    return ShardStore(redis, PREFIX, store.stage, store.partition)


@pytest.mark.parametrize("breaks_after", [0, 1, 2, 3])
async def test_a_crash_between_commit_and_trim_publishes_the_same_bytes_again(
    redis: Redis, store: ShardStore, breaks_after: int
) -> None:
    """Whatever the crash left out comes, whatever it had published comes once more, and none of it differs."""
    log = MemoryLog()
    await store.claim("one")
    await store.commit(commit_of(1, 2))
    await store.commit(commit_of(3))
    log.breaks_after = breaks_after
    with pytest.raises(KafkaConnectionError):
        await (await relay_of(store, log)).publish_some()
    later = another(redis, store)
    await later.claim("two")
    relay = await relay_of(later, log)
    assert relay.waiting == 3
    assert await relay.publish_some() == 3
    assert await relay.publish_some() == 0
    committed = [encode_outgoing(outgoing(number)) for number in (1, 2, 3)]
    assert log.records == committed[:breaks_after] + committed
    assert relay.waiting == await later.outbox_size() == 0
    assert (await later.peek() or Claim({}, {}, {})).told == {"0": breaks_after + 3}


async def test_a_relay_tries_until_the_broker_has_everything(store: ShardStore) -> None:
    """After an error it claims the broker again and goes on; who waits for it is let through when all is out."""
    log, lost = MemoryLog(), list[str]()
    await store.claim("one")
    relay = await relay_of(store, log, lost)
    await send(store, relay, *range(1, 6))
    log.breaks_after = 2
    running = asyncio.create_task(relay.run())
    await asyncio.wait_for(relay.drained_to(0), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    committed = [encode_outgoing(outgoing(number)) for number in range(1, 6)]
    assert log.records == committed[:2] + committed
    assert log.claims == 1
    assert (lost, await store.outbox_size()) == ([], 0)


async def test_what_is_committed_here_is_published_from_memory(
    store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier owner left is read from the store, and comes first; the rest need not be read again."""
    log, reads = MemoryLog(), list[int]()
    read = store.outbox

    async def counted() -> list[bytes]:
        entries = await read()
        reads.append(len(entries))
        return entries

    monkeypatch.setattr(store, "outbox", counted)
    await store.claim("one")
    await store.commit(commit_of(1, 2))
    relay = await relay_of(store, log)
    await send(store, relay, 3)
    assert [await relay.publish_some() for _ in range(2)] == [3, 0]
    await send(store, relay, 4, 5)
    assert await relay.publish_some() == 2
    assert log.records == [encode_outgoing(outgoing(number)) for number in (1, 2, 3, 4, 5)]
    assert reads == [3]
    assert (relay.waiting, await store.outbox_size()) == (0, 0)


async def test_more_than_memory_is_for_is_read_from_the_store(
    store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is behind costs no memory without bound, and nothing is lost or published out of order."""
    monkeypatch.setattr("streams.relay.KEPT_BYTES_MAX", 2 * len(encode_outgoing(outgoing(1))))
    log = MemoryLog()
    await store.claim("one")
    relay = await relay_of(store, log)
    for number in range(1, 6):
        await send(store, relay, number)
    while await relay.publish_some():
        pass
    assert log.records == [encode_outgoing(outgoing(number)) for number in range(1, 6)]
    assert (relay.waiting, await store.outbox_size()) == (0, 0)


async def test_who_waits_is_let_through_though_a_record_was_published_before_it_was_counted(store: ShardStore) -> None:
    """The relay may be quicker than the answer to the commit: no record is waited for, or sent again."""
    log = MemoryLog()
    await store.claim("one")
    await store.commit(commit_of(1))
    relay = await relay_of(store, log)
    under_way = commit_of(2)
    await store.commit(under_way)
    assert [await relay.publish_some() for _ in range(2)] == [2, 0]
    relay.add([outgoing(2)], [len(under_way.outbox[0])])
    assert await relay.publish_some() == 0
    assert log.records == [encode_outgoing(outgoing(number)) for number in (1, 2)]
    await asyncio.wait_for(relay.drained_to(0), 5)


async def test_a_relay_whose_shard_was_taken_publishes_nothing_and_says_so(redis: Redis, store: ShardStore) -> None:
    """The outbox is the new owner's: the old relay is refused before it reads a single record."""
    log, lost = MemoryLog(), list[str]()
    await store.claim("one")
    await store.commit(commit_of(1))
    relay = await relay_of(store, log, lost)
    later = another(redis, store)
    await later.claim("two")
    await asyncio.wait_for(relay.run(), 20)
    assert log.records == []
    assert len(lost) == 1
    assert "Refused" in lost[0]
    assert await later.outbox_size() == 1


async def test_a_relay_that_published_too_late_trims_nothing(redis: Redis, store: ShardStore) -> None:
    """It lost the shard while it was publishing: the new owner publishes the same records and then more."""
    log, later = MemoryLog(), another(redis, store)

    class SlowLog(MemoryLog):
        async def publish(self, records: list[Outgoing]) -> Told:
            await later.claim("two")
            return await log.publish(records)

    await store.claim("one")
    await store.commit(commit_of(1, 2))
    with pytest.raises(Refused):
        await (await relay_of(store, SlowLog())).publish_some()
    await later.commit(commit_of(3))
    await (await relay_of(later, log)).publish_some()
    committed = [encode_outgoing(outgoing(number)) for number in (1, 2, 3)]
    assert log.records == committed[:2] + committed
