"""Records that somebody got wrong, or made to do harm: good ones, mutated. Strategies for Hypothesis, and plain chance.

Hypothesis draws what is wrong with the document (and makes a failure small); chance spoils its bytes in many ways more,
a hundred times as fast.
"""

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from streams.wire import RECORD_BYTES_MAX, EventKind
from tests.streams.bad_records import ACCOUNT, BAD_RECORDS, GOOD, KEY

KINDS: tuple[EventKind, ...] = ("purchase", "signup", "engagement")
FIELDS = (
    *("event_id", "account_id", "occurred_at", "amount_minor", "currency", "kind", "order_id", "purchased_at", "type"),
    *("name", "attributes", "weight", "note"),
)
FRAGMENTS = (
    *(
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x80\xae",
        b"\\u0000",
        b"\\ud800",
        b'"',
        b"\\",
        b"{",
    ),
    *(
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"NaN",
        b"-0",
        b"1e999",
        b"1E400",
        b"9" * 400,
        b"0.1",
        b"true",
        b"{}",
        b"[]",
    ),
    *(b'"account_id":', b'"amount_minor":-1', b"\xef\xbb\xbf", b"\x1b[2J", b"\n", b"e", b"Z", b"+14:00", b"0000-00-00"),
)
"""What mutations put in."""


class Fuzzed(NamedTuple):
    """One record of an event topic."""

    kind: EventKind
    key: bytes | None
    value: bytes | None
    timestamp_ms: int = 1_770_000_000_000


_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 10**300, 0.5, -0.0, 1e308, 2.0]),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.sampled_from(
        [
            *(
                "",
                " ",
                "a" * 128,
                "a" * 129,
                "USD",
                "EUR",
                "JPY",
                "XXX",
                "usd",
                "purchase",
                "refund",
                "signup",
                "login",
            ),
            *("2026-01-05T10:00:00Z", "2026-01-05T10:00:00.123456789Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            *(
                "9999-12-31T23:59:59+23:59",
                "2149-06-05T23:59:59.999999Z",
                "2026-02-30T00:00:00Z",
                "2026-01-05t10:00:00z",
            ),
            *(ACCOUNT, "{x}", "acme-1\n", "\u202e", "\x00", "\ud800", "١٢٣"),
        ]
    ),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
_KEYS = st.sampled_from([KEY, KEY, KEY, None, b"", b"acme-2", b'"acme-1"', b"\xff", KEY + b"\n"]) | st.binary(
    max_size=140
)
_TIMESTAMPS = st.sampled_from([1_770_000_000_000, 0, -1, 1, 2**62, -(2**62)])


@st.composite
def recipes(draw: st.DrawFn) -> Fuzzed:
    """A document with some of its fields replaced, taken away or added; or no document at all."""
    kind = draw(st.sampled_from(KINDS))
    if draw(st.integers(0, 9)) == 0:
        document: Any = draw(_VALUES)
    else:
        document = dict(GOOD[kind]) | draw(st.dictionaries(st.sampled_from(FIELDS), _VALUES, max_size=3))
        for field in draw(st.lists(st.sampled_from(FIELDS), max_size=1)):
            document.pop(field, None)
    value = json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return Fuzzed(kind, draw(_KEYS), value, draw(_TIMESTAMPS))


def variants(recipe: Fuzzed, seed: int, count: int) -> Iterator[Fuzzed]:
    """The record itself, and it with its bytes spoiled in all ways."""
    chance = random.Random(seed)
    yield recipe
    for _ in range(count - 1):
        base = recipe
        if chance.random() < 0.2:
            bad = chance.choice(BAD_RECORDS)
            base = Fuzzed(bad.kind, bad.key, bad.value)
        value = spoiled(base.value, chance) if base.value is not None else None
        key = spoiled(base.key, chance) if base.key and chance.random() < 0.1 else base.key
        yield base._replace(kind=chance.choice(KINDS) if chance.random() < 0.1 else base.kind, key=key, value=value)


def spoiled(data: bytes, chance: random.Random) -> bytes:
    """Bytes with a few things done to them."""
    spoiling = bytearray(data[: 2 * RECORD_BYTES_MAX])
    for _ in range(chance.randint(1, 4)):
        at, end = sorted(chance.randrange(len(spoiling) + 1) for _ in range(2))
        match chance.randrange(7):
            case 0 if at < len(spoiling):
                spoiling[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(spoiling):
                spoiling[at] = chance.randrange(256)
            case 2:
                del spoiling[at : min(end, at + 12)]
            case 3:
                spoiling[at:at] = chance.choice(FRAGMENTS)
            case 4:
                spoiling[at:at] = spoiling[at:end]
            case 5:
                spoiling[at:end] = chance.choice(FRAGMENTS)
            case 6 if chance.random() < 0.2:
                del spoiling[at:]
    return bytes(spoiling)


@st.composite
def large(draw: st.DrawFn) -> Fuzzed:
    """As large as a record may be, of one thing repeated: what costs a parser most."""
    kind = draw(st.sampled_from(KINDS))
    good = json.dumps(GOOD[kind]).encode()
    fragment = draw(
        st.sampled_from(
            [b"[", b"[],", b"{},", b'{"a":', b"1,", b"0.1,", b'"",', b'"a":1,', b"\\u0041", b"\\\\", b"9", b" "]
        )
    )
    opening, closing = draw(
        st.sampled_from(
            [
                (b"", b""),
                (good[:-1] + b', "note": [', b"1]}"),
                (good[:-1] + b', "note": {', b'"z":1}}'),
                (good[:-1] + b', "attributes": {', b'"z":1}}'),
                (good[:-1] + b', "note": "', b'"}'),
                (good[:-1] + b', "order_id": "', b'"}'),
                (good[:-1] + b', "note": ', b"}"),
                (good[:-1] + b",", b'"note": 1}'),
            ]
        )
    )
    numbered = fragment == b'"a":1,' and draw(st.booleans())
    room = RECORD_BYTES_MAX - len(opening) - len(closing)
    if numbered:
        middle = b"".join(b'"a%d":1,' % number for number in range(room // 12))
    else:
        middle = fragment * (room // len(fragment))
    return Fuzzed(kind, KEY, opening + middle + closing)
