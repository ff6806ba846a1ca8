"""100,000 mutated records (`make fuzz`; fewer in `make test`): each is taken or refused, in bounded time."""

import gc
import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation.account import Standing
from segmentation.policy import Policy
from state.founding import AppliedPolicy
from streams.embedded import Embedded
from streams.messages import (
    NewPolicy,
    PolicySwitch,
    Standings,
    Tick,
    decode_tick_or_switch,
    decode_told,
    encode_new_policy,
    encode_standings,
    encode_switch,
    encode_tick,
)
from streams.oracle import verify
from streams.partitions import partition_of
from streams.topics import Topic
from streams.wire import AMOUNT_MINOR_MAX, RECORD_BYTES_MAX, BadRecord, Decoder
from streams.worker import _few_garbage_collections
from tests.pipeline import CommandProcess, Installation, Sent, moment, purchase, until
from tests.streams.bad_records import BAD_RECORDS, GOOD, KEY
from tests.streams.fuzzed import Fuzzed, large, recipes, spoiled, variants
from tests.streams.installation import TOPICS

RECORDS = int(os.environ.get("RESEGMENT_FUZZ_RECORDS", "10000"))
VARIANTS = 25
"""Records for each one that Hypothesis draws."""
RECORD_SECONDS_MAX = 0.25
"""Of CPU, for one record of at most RECORD_BYTES_MAX. The worst that was seen took 0.01 s; of the records that are not
made large, 2 ms."""
RECORD_MEMORY_MAX = 32 * 2**20
"""Bytes that one record may need while it is looked at. The worst that was seen took 6 MiB."""

PARTITIONS = 4
PARTITION = partition_of(KEY, PARTITIONS)

fuzz = settings(
    max_examples=max(1, RECORDS // VARIANTS),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _garbage_as_in_a_worker() -> Iterator[None]:
    """Otherwise the largest records would be measured by what else lives in this process."""
    with _few_garbage_collections():
        gc.collect()
        gc.freeze()
        yield


class Worst:
    """The longest time that one record took."""

    seconds = 0.0
    value: bytes | None = None

    def measure(self, value: bytes | None, look: Callable[[], object]) -> None:
        """Look at one record."""
        began = time.thread_time()
        look()
        if (took := time.thread_time() - began) > self.seconds:
            self.seconds, self.value = took, value
        assert took <= RECORD_SECONDS_MAX, f"{took:.3f} s for {(value or b'')[:200]!r}"


def decode(decoder: Decoder, record: Fuzzed) -> None:
    """Taken, or refused with a message that is short and harmless."""
    try:
        event = decoder.decode(record.kind, PARTITION, record.timestamp_ms, record.key, record.value)
    except BadRecord as bad:
        assert bad.reason and 0 < len(bad.message) <= 400, bad.message
        assert bad.message.isprintable(), bad.message
    else:
        assert event.account_id.encode() == record.key


def test_events(record_property: Callable[[str, object], None]) -> None:
    """Payloads, keys and timestamps, drawn and then spoiled: an event or a BadRecord, and nothing else."""
    decoder = Decoder(Policy.default(), PARTITIONS)
    worst, seen = Worst(), 0

    @fuzz
    @given(recipes(), st.integers(0, 2**32))
    def look(recipe: Fuzzed, seed: int) -> None:
        nonlocal seen
        for record in variants(recipe, seed, VARIANTS):
            worst.measure(record.value, lambda record=record: decode(decoder, record))  # type: ignore[misc]
            seen += 1

    look()
    record_property("worst_ms", round(worst.seconds * 1000, 3))
    print(f"{seen} records, the worst took {worst.seconds * 1000:.2f} ms: {(worst.value or b'')[:80]!r}")
    assert seen >= RECORDS * 9 // 10


def test_the_largest_records() -> None:
    """What costs a parser most, as large as it may be: bounded time, and bounded memory."""
    decoder = Decoder(Policy.default(), PARTITIONS)
    worst, most = Worst(), 0

    @settings(fuzz, max_examples=min(150, RECORDS // 100))
    @given(large())
    def look(record: Fuzzed) -> None:
        nonlocal most
        assert record.value is not None and len(record.value) <= RECORD_BYTES_MAX
        worst.measure(record.value, lambda: decode(decoder, record))
        tracemalloc.start()
        try:
            decode(decoder, record)
            most = max(most, tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert most <= RECORD_MEMORY_MAX, record.value[:200]

    look()
    print(
        f"the worst took {worst.seconds * 1000:.2f} ms: {(worst.value or b'')[:120]!r}; at most {most / 2**20:.1f} MiB"
    )


TICK = Tick(1_770_000_000_000_000, "live", {"purchases": 5, "signups": 0})
SWITCH = PolicySwitch(
    AppliedPolicy(1, Policy.default().canonical(), Policy.default().hash, False), {"purchases": 5, "signups": 0}
)
STANDINGS = Standings(
    1,
    {"purchases": 5, "ticks": 1},
    (20_000, "acme"),
    TICK.at_us,
    "live",
    [
        Standing("acme", "established", 5_000, 3, 20_000, "purchase", "e-1", TICK.at_us),
        Standing("umbrella", "new_start", -5, 1, 20_000, "window_expiry", None, None),
    ],
)


@pytest.mark.parametrize(
    ("encoded", "decode"),
    [
        (encode_tick(TICK), decode_tick_or_switch),
        (encode_switch(SWITCH), decode_tick_or_switch),
        (encode_standings(STANDINGS), decode_told),
        (encode_new_policy(NewPolicy(1, 5, True, SWITCH.applied)), decode_told),
    ],
)
def test_what_the_stages_write_for_each_other(encoded: bytes, decode: Callable[[bytes | None], object]) -> None:
    """Spoiled: it is what it should be, or a ValueError, which is a dead letter."""
    worst, taken = Worst(), 0
    chance = random.Random(7)

    def look(value: bytes | None) -> None:
        nonlocal taken
        try:
            decode(value)
            taken += 1
        except ValueError as error:
            assert len(str(error)) <= 400 and str(error).isprintable(), str(error)

    for value in (None, b"", b"\xc1", b"\x91" * 100_000, b"[" * 100_000, b"\xdd\xff\xff\xff\xff", encoded):
        worst.measure(value, lambda value=value: look(value))  # type: ignore[misc]
    assert taken == 1
    for _ in range(RECORDS // 4):
        value = spoiled(encoded, chance)
        worst.measure(value, lambda value=value: look(value))  # type: ignore[misc]


FUZZED_FOR_WORKER = max(1_000, RECORDS // 5)
BAD_FOR_THE_STAGES = 200
GOOD_ACCOUNTS = 50


async def test_a_worker(embedded: Embedded, tmp_path: Path) -> None:
    """Through a real worker, ticks and standings too, with good records between: all are accounted for, and the good
    ones unharmed."""
    chance = random.Random(11)
    base = [Fuzzed(bad.kind, bad.key, bad.value) for bad in BAD_RECORDS if len(bad.value or b"") < 10_000]
    base += [Fuzzed("purchase", KEY, good_document(number)) for number in range(40)]
    fuzzed = [next(iter(spoilt(chance.choice(base), chance))) for _ in range(FUZZED_FOR_WORKER)]
    revenues: dict[str, int] = {}
    async with Installation(embedded, policy=Policy.default(), kafka_session_timeout_seconds=6.0) as installation:
        with CommandProcess(installation, tmp_path, "worker", "worker") as process:
            await process.until_said("claimed 4 shards")
            for at in range(0, len(fuzzed), 100):
                amount, account = 100 + at, f"good-{at // 100 % GOOD_ACCOUNTS}"
                revenues[account] = revenues.get(account, 0) + amount
                await installation.send(
                    *(
                        Sent(TOPICS[record.kind], record.key, record.value, chance.choice([None, None, None, 0]))
                        for record in fuzzed[at : at + 100]
                    ),
                    purchase(account, f"g-{at}", moment(760), amount),
                )
            await send_spoiled(installation, chance)
            await installation.tick(moment(900))
            await installation.rest(seconds=120)
            report = await verify(installation.settings, installation.policy, installation.redis, installation.reader)
            process.check()
            members = await installation.members()
            counts = {topic: await installation.counts(topic) for topic in (*TOPICS.values(), Topic.TICKS)}
    assert report.is_right, report.mismatches[:5]
    assert {account: members[account].revenue_minor for account in revenues} == revenues
    events = sum(sum(counts[topic].values()) for topic in TOPICS.values())
    assert events == FUZZED_FOR_WORKER + len(range(0, len(fuzzed), 100))
    assert all(counts[topic]["dead_letters"] and counts[topic]["applied"] for topic in (Topic.PURCHASES, Topic.TICKS))


async def test_revenue_beyond_64_bits(embedded: Embedded, tmp_path: Path) -> None:
    """2,100 purchases, each as large as the contract lets it be, are no way to end a worker."""
    async with Installation(embedded, policy=Policy.default(), kafka_session_timeout_seconds=6.0) as installation:
        with CommandProcess(installation, tmp_path, "worker", "worker") as process:
            await process.until_said("claimed 4 shards")
            await installation.send(
                *(purchase("acme", f"{number}", moment(1), AMOUNT_MINOR_MAX) for number in range(2_100))
            )
            await installation.tick(moment(120))

            async def told_or_ended() -> bool:
                return bool(await installation.changes()) or process.status() is not None

            await until(told_or_ended, "a change")
            process.check()
            assert (await installation.members())["acme"].revenue_minor == 2_100 * AMOUNT_MINOR_MAX


def good_document(number: int) -> bytes:
    """A good purchase of the account that the fuzzer spoils."""
    return json.dumps({**GOOD["purchase"], "event_id": f"f-{number}"}).encode()


def spoilt(record: Fuzzed, chance: random.Random) -> Iterator[Fuzzed]:
    """The record, or one with its key or its value spoiled, for any topic."""
    kind = record.kind if chance.random() < 0.9 else chance.choice(tuple(TOPICS))
    value = spoiled(record.value, chance) if record.value is not None and chance.random() < 0.9 else record.value
    key = spoiled(record.key, chance) if record.key and chance.random() < 0.1 else record.key
    yield Fuzzed(kind, key, value)  # type: ignore[arg-type]


async def send_spoiled(installation: Installation, chance: random.Random) -> None:
    """Ticks and standings that are none: those that are would be the time, and true."""
    for topic, encoded, decode in (
        (Topic.TICKS, encode_tick(TICK), decode_tick_or_switch),
        (Topic.TICKS, encode_switch(SWITCH), decode_tick_or_switch),
        (Topic.STANDINGS, encode_standings(STANDINGS), decode_told),
    ):
        sent = 0
        while sent < BAD_FOR_THE_STAGES:
            value = spoiled(encoded, chance)
            try:
                decode(value)
            except ValueError:
                partition = chance.randrange(installation.partitions)
                await installation.send(Sent(topic, chance.choice([None, b"all", b"\xff"]), value, partition))
                sent += 1
