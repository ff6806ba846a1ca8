"""Records that break their topic's contract, and why: what the decoder, and the whole program, must refuse.

They are bad under the default policy, whenever they are written. Each goes to the partition of its key, or
`partition_offset` partitions after it: `partition_of` says which that is.
"""

import json
from typing import NamedTuple

from aiokafka.partitioner import murmur2

from streams.wire import RECORD_BYTES_MAX, EventKind, Reason

ACCOUNT = "acme-1"
KEY = ACCOUNT.encode()


class BadRecord(NamedTuple):
    """One record, as it is on the topic of its kind."""

    name: str
    kind: EventKind
    key: bytes | None
    value: bytes | None
    reason: Reason
    partition_offset: int = 0


def partition_of(record: BadRecord, partitions: int) -> int:
    """The partition to send it to."""
    own = (murmur2(record.key) & 0x7FFFFFFF) % partitions if record.key is not None else 0
    return (own + record.partition_offset) % partitions


GOOD: dict[EventKind, dict[str, object]] = {
    "purchase": {
        "event_id": "bad-1",
        "account_id": ACCOUNT,
        "occurred_at": "2026-01-05T10:00:00Z",
        "amount_minor": 12_345,
        "currency": "USD",
    },
    "signup": {"event_id": "bad-2", "account_id": ACCOUNT, "occurred_at": "2026-01-05T10:00:00Z"},
    "engagement": {
        "event_id": "bad-3",
        "account_id": ACCOUNT,
        "occurred_at": "2026-01-05T10:00:00Z",
        "kind": "login",
    },
}
"""A good document of each kind, which every bad one spoils in one place."""

MISSING = object()


def spoiled(kind: EventKind, /, **fields: object) -> bytes:
    """The good document with these fields replaced, or taken away where MISSING."""
    document = {name: value for name, value in {**GOOD[kind], **fields}.items() if value is not MISSING}
    return json.dumps(document, ensure_ascii=False).encode()


def _purchase(name: str, reason: Reason, /, **fields: object) -> BadRecord:
    return BadRecord(name, "purchase", KEY, spoiled("purchase", **fields), reason)


def _signup(name: str, reason: Reason, /, **fields: object) -> BadRecord:
    return BadRecord(name, "signup", KEY, spoiled("signup", **fields), reason)


def _engagement(name: str, reason: Reason, /, **fields: object) -> BadRecord:
    return BadRecord(name, "engagement", KEY, spoiled("engagement", **fields), reason)


def _amount(name: str, reason: Reason, literal: bytes) -> BadRecord:
    """A purchase whose amount is written just so."""
    return BadRecord(name, "purchase", KEY, spoiled("purchase").replace(b"12345", literal), reason)


def _raw(name: str, reason: Reason, value: bytes | None) -> BadRecord:
    return BadRecord(name, "purchase", KEY, value, reason)


def _account(name: str, reason: Reason, account_id: str) -> BadRecord:
    """A purchase of an account by this name, with the key that fits."""
    return BadRecord(name, "purchase", account_id.encode(), spoiled("purchase", account_id=account_id), reason)


def _with_note(note: bytes) -> bytes:
    """A good purchase with an unknown field of this JSON."""
    return spoiled("purchase")[:-1] + b', "note": ' + note + b"}"


_RECORD = [
    _raw("tombstone", Reason.TOMBSTONE, None),
    _raw("empty", Reason.NOT_JSON, b""),
    _raw("words", Reason.NOT_JSON, b"hello"),
    _raw("cut off", Reason.NOT_JSON, spoiled("purchase")[:-10]),
    _raw("two documents", Reason.NOT_JSON, spoiled("purchase") * 2),
    _raw("byte order mark", Reason.NOT_JSON, b"\xef\xbb\xbf" + spoiled("purchase")),
    _raw("single quotes", Reason.NOT_JSON, spoiled("purchase").replace(b'"', b"'")),
    _raw("trailing comma", Reason.NOT_JSON, spoiled("purchase")[:-1] + b",}"),
    _raw("comment", Reason.NOT_JSON, spoiled("purchase") + b" // paid"),
    _raw("not UTF-8", Reason.NOT_UTF8, spoiled("purchase", order_id="Zo\xeb").replace(b"\xc3\xab", b"\xeb")),
    _raw("UTF-16", Reason.NOT_UTF8, spoiled("purchase").decode().encode("utf-16")),
    _raw("avro", Reason.NOT_JSON, b"\x00\x00\x00\x00\x07\x0cacme-1"),
    _raw("array", Reason.NOT_AN_OBJECT, b"[" + spoiled("purchase") + b"]"),
    _raw("null", Reason.NOT_AN_OBJECT, b"null"),
    _raw("string of JSON", Reason.NOT_AN_OBJECT, json.dumps(spoiled("purchase").decode()).encode()),
    _raw("number", Reason.NOT_AN_OBJECT, b"1"),
    _raw("duplicate key", Reason.DUPLICATE_KEY, spoiled("purchase")[:-1] + b', "amount_minor": 1}'),
    _raw("duplicate key, escaped", Reason.DUPLICATE_KEY, spoiled("purchase")[:-1] + b', "\\u0063urrency": 1}'),
    _raw("duplicate key, inside", Reason.DUPLICATE_KEY, _with_note(b'{"a": 1, "a": 2}')),
    _raw("deep arrays", Reason.TOO_DEEP, _with_note(b"[" * 1_000 + b"]" * 1_000)),
    _raw("deep objects", Reason.TOO_DEEP, _with_note(b'{"a":' * 1_000 + b"1" + b"}" * 1_000)),
    _raw("deep and unclosed", Reason.TOO_DEEP, b"[" * 100_000),
    _raw("a little too large", Reason.TOO_LARGE, spoiled("purchase").ljust(RECORD_BYTES_MAX + 1)),
    _raw("2 MB", Reason.TOO_LARGE, _with_note(b'"' + b"x" * 2_000_000 + b'"')),
]

_NUMBERS = [
    _amount("NaN", Reason.NOT_JSON, b"NaN"),
    _amount("infinity", Reason.NOT_JSON, b"Infinity"),
    _amount("minus infinity", Reason.NOT_JSON, b"-Infinity"),
    _amount("leading zero", Reason.NOT_JSON, b"012"),
    _amount("hexadecimal", Reason.NOT_JSON, b"0x10"),
    _amount("plus sign", Reason.NOT_JSON, b"+1"),
    _amount("1E+1000000", Reason.WRONG_TYPE, b"1E+1000000"),
    _amount("exponent", Reason.WRONG_TYPE, b"1e2"),
    _amount("fraction", Reason.WRONG_TYPE, b"123.45"),
    _amount("whole fraction", Reason.WRONG_TYPE, b"123.0"),
    _amount("amount in quotes", Reason.WRONG_TYPE, b'"12345"'),
    _amount("amount true", Reason.WRONG_TYPE, b"true"),
    _amount("amount null", Reason.WRONG_TYPE, b"null"),
    _amount("amount an object", Reason.WRONG_TYPE, b'{"value": 12345}'),
    _amount("negative", Reason.OUT_OF_RANGE, b"-1"),
    _amount("2^53", Reason.OUT_OF_RANGE, b"9007199254740992"),
    _amount("2^64", Reason.OUT_OF_RANGE, b"18446744073709551616"),
    _amount("4,000 digits", Reason.OUT_OF_RANGE, b"9" * 4_000),
    _amount("100,000 digits", Reason.OUT_OF_RANGE, b"9" * 100_000),
]

_FIELDS = [
    _purchase("no event id", Reason.MISSING_FIELD, event_id=MISSING),
    _purchase("no account id", Reason.MISSING_FIELD, account_id=MISSING),
    _purchase("no time", Reason.MISSING_FIELD, occurred_at=MISSING),
    _purchase("no amount", Reason.MISSING_FIELD, amount_minor=MISSING),
    _purchase("no currency", Reason.MISSING_FIELD, currency=MISSING),
    _purchase("a name in capitals", Reason.MISSING_FIELD, amount_minor=MISSING, AMOUNT_MINOR=1),
    _engagement("no kind", Reason.MISSING_FIELD, kind=MISSING),
    _purchase("event id a number", Reason.WRONG_TYPE, event_id=17),
    _purchase("event id empty", Reason.BAD_FORMAT, event_id=""),
    _purchase("event id of 129", Reason.BAD_FORMAT, event_id="e" * 129),
    _purchase("order id empty", Reason.BAD_FORMAT, order_id=""),
    _purchase("order id null", Reason.WRONG_TYPE, order_id=None),
    _purchase("unknown purchase kind", Reason.BAD_FORMAT, kind="gift"),
    _purchase("purchase kind a number", Reason.WRONG_TYPE, kind=1),
    _purchase("signup among purchases", Reason.WRONG_TOPIC, type="signup"),
    _signup("purchase among signups", Reason.WRONG_TOPIC, type="purchase"),
    _purchase("currency in small letters", Reason.UNKNOWN_CURRENCY, currency="usd"),
    _purchase("currency unknown", Reason.UNKNOWN_CURRENCY, currency="ZZZ"),
    _purchase("gold", Reason.UNKNOWN_CURRENCY, currency="XAU"),
    _purchase("no rate", Reason.NO_RATE, currency="GBP"),
    _signup("name empty", Reason.BAD_FORMAT, name=""),
    _signup("name of 257", Reason.BAD_FORMAT, name="n" * 257),
    _signup("attributes an array", Reason.WRONG_TYPE, attributes=["region"]),
    _signup("attribute an object", Reason.WRONG_TYPE, attributes={"region": {"name": "emea"}}),
    _signup("attribute a list of numbers", Reason.WRONG_TYPE, attributes={"needs": ["training", 7]}),
    _signup("attribute a list of lists", Reason.WRONG_TYPE, attributes={"needs": [["training"]]}),
    _signup("attribute a list of 33", Reason.OUT_OF_RANGE, attributes={"needs": ["training"] * 33}),
    _signup("attribute with 257 in its list", Reason.BAD_FORMAT, attributes={"needs": ["e" * 257]}),
    _signup("override in a list", Reason.CONTROL_CHARACTERS, attributes={"needs": ["\u202dtraining"]}),
    _signup("attribute true", Reason.WRONG_TYPE, attributes={"active": True}),
    _signup("attribute null", Reason.WRONG_TYPE, attributes={"region": None}),
    _signup("attribute name in capitals", Reason.BAD_FORMAT, attributes={"Region": "emea"}),
    _signup("attribute name of 65", Reason.BAD_FORMAT, attributes={"r" * 65: "emea"}),
    _signup("attribute of 257", Reason.BAD_FORMAT, attributes={"region": "e" * 257}),
    _signup("attribute beyond 2^53", Reason.OUT_OF_RANGE, attributes={"employees": -(2**53) - 1}),
    _signup("65 attributes", Reason.OUT_OF_RANGE, attributes={f"a{number}": number for number in range(65)}),
    BadRecord(
        "attribute 1E+1000000",
        "signup",
        KEY,
        spoiled("signup")[:-1] + b', "attributes": {"employees": 1E+1000000}}',
        Reason.OUT_OF_RANGE,
    ),
    _engagement("engagement kind in capitals", Reason.BAD_FORMAT, kind="Login"),
    _engagement("engagement kind with a line break", Reason.BAD_FORMAT, kind="login\n"),
    _engagement("weight negative", Reason.OUT_OF_RANGE, weight=-1),
    _engagement("weight over a million", Reason.OUT_OF_RANGE, weight=1_000_001),
    _engagement("weight a fraction", Reason.WRONG_TYPE, weight=0.5),
]

_CHARACTERS = [
    _purchase("NUL", Reason.CONTROL_CHARACTERS, event_id="e\x00"),
    _raw("NUL as it stands", Reason.CONTROL_CHARACTERS, spoiled("purchase").replace(b"bad-1", b"bad\x00")),
    _purchase("line break", Reason.CONTROL_CHARACTERS, order_id="o\n1"),
    _purchase("DEL", Reason.CONTROL_CHARACTERS, event_id="e\x7f"),
    _purchase("C1", Reason.CONTROL_CHARACTERS, event_id="e\x85"),
    _purchase("right-to-left override", Reason.CONTROL_CHARACTERS, event_id="e\u202e1"),
    _signup("right-to-left isolate", Reason.CONTROL_CHARACTERS, name="Acme \u2067Ltd\u2069"),
    _signup("override in an attribute", Reason.CONTROL_CHARACTERS, attributes={"owner": "\u202dAnn"}),
    _raw("lone surrogate", Reason.NOT_JSON, spoiled("purchase").replace(b"bad-1", b"\\ud800")),
    _raw("lone surrogate, letters after", Reason.NOT_JSON, spoiled("purchase").replace(b"bad-1", b"\\udc00a")),
    _raw("surrogate in UTF-8", Reason.NOT_UTF8, spoiled("purchase").replace(b"bad-1", b"\xed\xa0\x80")),
]

_TIMES = [
    _purchase("no offset", Reason.BAD_TIME, occurred_at="2026-01-05T10:00:00"),
    _purchase("space for T", Reason.BAD_TIME, occurred_at="2026-01-05 10:00:00Z"),
    _purchase("day only", Reason.BAD_TIME, occurred_at="2026-01-05"),
    _purchase("no seconds", Reason.BAD_TIME, occurred_at="2026-01-05T10:00Z"),
    _purchase("offset without colon", Reason.BAD_TIME, occurred_at="2026-01-05T10:00:00+0100"),
    _purchase("leap second", Reason.BAD_TIME, occurred_at="2016-12-31T23:59:60Z"),
    _purchase("hour 24", Reason.BAD_TIME, occurred_at="2026-01-05T24:00:00Z"),
    _purchase("29 February", Reason.BAD_TIME, occurred_at="2026-02-29T10:00:00Z"),
    _purchase("Arabic digits", Reason.BAD_TIME, occurred_at="٢٠٢٦-01-05T10:00:00Z"),
    _purchase("time empty", Reason.BAD_TIME, occurred_at=""),
    _purchase("Unix time", Reason.WRONG_TYPE, occurred_at=1_767_607_200),
    _purchase("1969", Reason.OUT_OF_RANGE, occurred_at="1969-12-31T23:59:59Z"),
    _purchase("the first day", Reason.OUT_OF_RANGE, occurred_at="1970-01-01T23:59:59Z"),
    _purchase("after the last day", Reason.OUT_OF_RANGE, occurred_at="2149-06-06T00:00:00Z"),
    _purchase("future", Reason.FUTURE, occurred_at="2149-06-05T00:00:00Z"),
    _purchase("purchased without offset", Reason.BAD_TIME, kind="refund", purchased_at="2026-01-04T10:00:00"),
    _purchase("purchased in future", Reason.FUTURE, kind="refund", purchased_at="2149-06-05T00:00:00Z"),
]

_KEYS = [
    BadRecord("no key", "purchase", None, spoiled("purchase"), Reason.MISSING_KEY),
    BadRecord("empty key", "purchase", b"", spoiled("purchase"), Reason.WRONG_KEY),
    BadRecord("another account's key", "purchase", b"acme-2", spoiled("purchase"), Reason.WRONG_KEY),
    BadRecord("key in quotes", "purchase", b'"acme-1"', spoiled("purchase"), Reason.WRONG_KEY),
    BadRecord("key not UTF-8", "purchase", b"\xff\xfe", spoiled("purchase"), Reason.WRONG_KEY),
    BadRecord("wrong partition", "purchase", KEY, spoiled("purchase"), Reason.WRONG_PARTITION, 1),
    _account("account id empty", Reason.BAD_FORMAT, ""),
    _account("account id with a space", Reason.BAD_FORMAT, "acme 1"),
    _account("account id with a slash", Reason.BAD_FORMAT, "acme/1"),
    _account("account id with a brace", Reason.BAD_FORMAT, "{acme}"),
    _account("account id with a letter beyond ASCII", Reason.BAD_FORMAT, "acmé"),
    _account("account id of 129", Reason.BAD_FORMAT, "a" * 129),
    _account("account id with a line break", Reason.CONTROL_CHARACTERS, "acme\n"),
    _purchase("account id a number", Reason.WRONG_TYPE, account_id=1),
]

BAD_RECORDS: list[BadRecord] = [*_RECORD, *_NUMBERS, *_FIELDS, *_CHARACTERS, *_TIMES, *_KEYS]
