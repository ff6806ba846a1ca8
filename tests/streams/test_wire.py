import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import example, given
from hypothesis import strategies as st

from segmentation.events import MICROSECONDS_PER_DAY, AttributeValue, Engagement, Event, Purchase, Signup
from segmentation.policy import Policy
from streams import wire
from streams.wire import Decoder, EventKind, Reason
from tests.streams.bad_records import (
    ACCOUNT,
    BAD_RECORDS,
    GOOD,
    KEY,
    MISSING,
    BadRecord,
    partition_of,
    spoiled,
)

PARTITIONS = 8
POLICY = Policy.default().with_changes(rates={"EUR": "1.08", "JPY": "0.0067"})
WRITTEN = datetime(2026, 1, 6, tzinfo=UTC)
WRITTEN_MS = int(WRITTEN.timestamp()) * 1000
KINDS: tuple[EventKind, ...] = get_args(EventKind)


def partition(key: bytes | None) -> int:
    """Where Kafka's default partitioner puts a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % PARTITIONS if key is not None else 0


def decode(kind: EventKind, value: bytes | None, key: bytes | None = KEY) -> Event:
    """Decode by a new decoder, from the key's own partition."""
    return Decoder(POLICY, PARTITIONS).decode(kind, partition(key), WRITTEN_MS, key, value)


def refusal(kind: EventKind, value: bytes | None, key: bytes | None = KEY) -> wire.BadRecord:
    """Why a record is refused."""
    with pytest.raises(wire.BadRecord) as refused:
        decode(kind, value, key)
    return refused.value


def instant_us(moment: datetime) -> int:
    """Microseconds since 1970, by the standard library."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize("record", BAD_RECORDS, ids=lambda record: record.name)
def test_a_bad_record_is_refused_for_its_reason(record: BadRecord) -> None:
    """Each record of the catalogue is refused, for the reason that the catalogue gives, quickly."""
    decoder = Decoder(POLICY, PARTITIONS)

    with pytest.raises(wire.BadRecord) as refused:
        decoder.decode(record.kind, partition_of(record, PARTITIONS), WRITTEN_MS, record.key, record.value)

    assert refused.value.reason is record.reason
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 300


def test_the_catalogue_has_every_reason_and_each_name_once() -> None:
    """A reason that nothing provokes is either dead code or a gap in the catalogue."""
    assert {record.reason for record in BAD_RECORDS} == set(Reason)
    assert len({record.name for record in BAD_RECORDS}) == len(BAD_RECORDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_documents_that_the_catalogue_spoils_are_good(kind: EventKind) -> None:
    """Else the catalogue would prove nothing."""
    assert decode(kind, spoiled(kind)).event_id == GOOD[kind]["event_id"]


# Good records


BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

identifiers = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=BIDI),
    min_size=1,
    max_size=128,
)
accounts = st.from_regex(r"[A-Za-z0-9._:@-]{1,128}", fullmatch=True)
moments = st.datetimes(
    datetime(1970, 1, 3), datetime(2027, 1, 5), timezones=st.just(timezone(timedelta(hours=5, minutes=30)))
)
attributes = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True),
    identifiers | st.just("") | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    max_size=64,
)
unknown = st.dictionaries(identifiers.map(lambda name: f"x-{name}"), st.none() | st.text() | st.integers(), max_size=3)


def written(document: dict[str, object], *, escaped: bool) -> bytes:
    return json.dumps(document, ensure_ascii=escaped).encode()


@given(
    account=accounts,
    event_id=identifiers,
    moment=moments,
    purchased=st.none() | moments,
    amount=st.integers(0, 2**53 - 1),
    kind=st.sampled_from([None, "purchase", "refund"]),
    extra=unknown,
    escaped=st.booleans(),
)
def test_a_purchase_is_taken_as_it_is(
    account: str,
    event_id: str,
    moment: datetime,
    purchased: datetime | None,
    amount: int,
    kind: str | None,
    extra: dict[str, object],
    escaped: bool,
) -> None:
    """Every good purchase becomes the event that an independent reading of it gives."""
    document: dict[str, object] = {
        "event_id": event_id,
        "account_id": account,
        "occurred_at": moment.isoformat(),
        "amount_minor": amount,
        "currency": "USD",
        **extra,
    }
    document |= {"kind": kind} if kind else {}
    document |= {"purchased_at": purchased.isoformat()} if purchased else {}
    decoder, key = Decoder(POLICY, PARTITIONS), account.encode()

    event = decoder.decode("purchase", partition(key), WRITTEN_MS, key, written(document, escaped=escaped))

    is_refund = kind == "refund"
    dated = (purchased if is_refund and purchased else moment).astimezone(UTC)
    assert event == Purchase(
        account_id=account,
        event_id=event_id,
        occurred_at_us=instant_us(moment),
        day=dated.date().toordinal() - datetime(1970, 1, 1).toordinal(),
        amount_minor=-amount if is_refund else amount,
        is_refund=is_refund,
    )
    assert decoder.unknown_fields == len(extra)


@given(
    event_id=identifiers,
    name=st.none() | identifiers,
    given_attributes=st.none() | attributes,
    escaped=st.booleans(),
)
def test_a_signup_is_taken_as_it_is(
    event_id: str, name: str | None, given_attributes: dict[str, AttributeValue] | None, escaped: bool
) -> None:
    """Strings stay strings and numbers stay the numbers they were, integers and fractions apart."""
    document = {**GOOD["signup"], "event_id": event_id}
    document |= {"name": name} if name is not None else {}
    document |= {"attributes": given_attributes} if given_attributes is not None else {}

    event = decode("signup", written(document, escaped=escaped))

    assert isinstance(event, Signup)
    assert (event.event_id, event.name, event.attributes) == (event_id, name, given_attributes or {})
    assert list(map(type, event.attributes.values())) == list(map(type, (given_attributes or {}).values()))


@given(
    kind=st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True),
    weight=st.none() | st.integers(0, 1_000_000),
)
def test_an_engagement_is_taken_as_it_is(kind: str, weight: int | None) -> None:
    """Without a weight of its own it says so: the policy's is not the decoder's business."""
    value = spoiled("engagement", kind=kind, weight=MISSING if weight is None else weight)

    event = decode("engagement", value)

    assert isinstance(event, Engagement)
    assert (event.kind, event.weight) == (kind, weight)


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_that_fits_the_topic_is_no_unknown_field(kind: EventKind) -> None:
    """A line of a replay file can be published as it is."""
    decoder = Decoder(POLICY, PARTITIONS)

    decoder.decode(kind, partition(KEY), WRITTEN_MS, KEY, spoiled(kind, type=kind))

    assert decoder.unknown_fields == 0


@pytest.mark.parametrize("note", [b"null", b'"line\\nbreak"', b"1E+1000000", b'{"a": [1, {"b": true}]}'])
def test_unknown_fields_are_counted_and_otherwise_nobodys_business(note: bytes) -> None:
    """A sender may add fields before this program knows them, whatever is in them."""
    decoder = Decoder(POLICY, PARTITIONS)
    value = spoiled("purchase")[:-1] + b', "note": ' + note + b', "more": 1}'

    for _ in range(2):
        decoder.decode("purchase", partition(KEY), WRITTEN_MS, KEY, value)

    assert decoder.unknown_fields == 4


@pytest.mark.parametrize("name", ["عميل", "לקוח", "Zoë 🦊", "a\u200db", "\u00a0", 'quo"te', "back\\slash"])
@pytest.mark.parametrize("escaped", [True, False])
def test_letters_of_every_script_are_welcome(name: str, escaped: bool) -> None:
    """Right-to-left letters are letters, and an escape by itself is no crime."""
    event = decode("signup", written({**GOOD["signup"], "name": name}, escaped=escaped))

    assert isinstance(event, Signup)
    assert event.name == name


@pytest.mark.parametrize(("currency", "amount", "cents"), [("USD", 100, 100), ("EUR", 100, 108), ("JPY", 1_500, 1_005)])
def test_amounts_are_converted_into_the_base_currency(currency: str, amount: int, cents: int) -> None:
    """A refund takes away what the purchase brought."""
    bought = decode("purchase", spoiled("purchase", currency=currency, amount_minor=amount))
    back = decode("purchase", spoiled("purchase", currency=currency, amount_minor=amount, kind="refund"))

    assert isinstance(bought, Purchase)
    assert isinstance(back, Purchase)
    assert (bought.amount_minor, back.amount_minor) == (cents, -cents)


def test_an_amount_that_outgrows_63_bits_in_the_base_currency_is_refused() -> None:
    """The state could not hold it."""
    policy = POLICY.with_changes(base_currency="JPY", rates={"KWD": "1024000"})
    decoder = Decoder(policy, PARTITIONS)
    large = spoiled("purchase", currency="KWD", amount_minor=2**53 - 1)

    assert isinstance(decoder.decode("purchase", partition(KEY), WRITTEN_MS, KEY, large), Purchase)
    decoder = Decoder(policy.with_changes(rates={"KWD": "1024001"}), PARTITIONS)
    with pytest.raises(wire.BadRecord) as refused:
        decoder.decode("purchase", partition(KEY), WRITTEN_MS, KEY, large)
    assert refused.value.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("occurred_at", ["1970-01-02T00:00:00Z", "2149-06-05T23:59:59.999999Z"])
def test_the_first_and_the_last_instant_are_good(occurred_at: str) -> None:
    """Without a timestamp of the record, nothing is too far in the future."""
    decoder = Decoder(POLICY, PARTITIONS)

    event = decoder.decode("purchase", partition(KEY), -1, KEY, spoiled("purchase", occurred_at=occurred_at))

    assert isinstance(event, Purchase)
    assert event.day in (1, 65_534)


def test_the_future_begins_after_the_policys_days() -> None:
    """At the limit an event is good, a microsecond later it is not."""
    limit = WRITTEN + timedelta(days=POLICY.future_days)

    assert decode("purchase", spoiled("purchase", occurred_at=limit.isoformat()))
    after = limit + timedelta(microseconds=1)
    assert refusal("purchase", spoiled("purchase", occurred_at=after.isoformat())).reason is Reason.FUTURE


@pytest.mark.parametrize("amount", [0, 2**53 - 1])
def test_the_smallest_and_the_largest_amount_are_good(amount: int) -> None:
    """A purchase of nothing is a purchase: the account is no prospect any more."""
    event = decode("purchase", spoiled("purchase", amount_minor=amount))

    assert isinstance(event, Purchase)
    assert event.amount_minor == amount


def test_a_record_of_the_largest_size_is_good() -> None:
    """The limit is on the record's value, blanks included."""
    assert decode("purchase", spoiled("purchase").ljust(wire.RECORD_BYTES_MAX))


def test_an_account_in_the_cache_is_still_checked() -> None:
    """The second record of an account is refused for the same things as the first."""
    decoder = Decoder(POLICY, PARTITIONS)
    own, value = partition(KEY), spoiled("purchase")
    decoder.decode("purchase", own, WRITTEN_MS, KEY, value)

    def reason(partition: int, key: bytes | None, value: bytes) -> Reason:
        with pytest.raises(wire.BadRecord) as refused:
            decoder.decode("purchase", partition, WRITTEN_MS, key, value)
        return refused.value.reason

    assert reason(own, b"other", value) is Reason.WRONG_KEY
    assert reason(own, KEY, spoiled("purchase", account_id="other")) is Reason.WRONG_KEY
    assert reason(own, None, value) is Reason.MISSING_KEY
    assert reason((own + 1) % PARTITIONS, KEY, value) is Reason.WRONG_PARTITION
    assert reason(PARTITIONS, KEY, value) is Reason.WRONG_PARTITION
    assert decoder.decode("purchase", own, WRITTEN_MS, KEY, value).account_id == ACCOUNT


def test_an_accounts_id_is_one_object_while_it_is_cached() -> None:
    """A hundred thousand purchases of one account do not keep as many copies of its name."""
    decoder = Decoder(POLICY, PARTITIONS)

    first, second = (
        decoder.decode("purchase", partition(KEY), WRITTEN_MS, KEY, spoiled("purchase", event_id=event_id))
        for event_id in ("e-1", "e-2")
    )

    assert first.account_id is second.account_id


def test_the_cache_of_accounts_is_bounded_and_changes_nothing() -> None:
    """Many more accounts than it holds are decoded as if it were not there."""
    decoder = Decoder(POLICY, PARTITIONS, cached_accounts=10)

    for number in [*range(100), *range(100)]:
        account = f"account-{number}"
        key = account.encode()
        value = spoiled("purchase", account_id=account)
        assert decoder.decode("purchase", partition(key), WRITTEN_MS, key, value).account_id == account
        assert sum(map(len, decoder._accounts.values())) <= 10


# Refusals


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: spoiled("purchase", event_id=text),
        lambda text: spoiled("purchase", account_id=text),
        lambda text: spoiled("purchase", account_id=text + "/"),
        lambda text: spoiled("purchase", occurred_at=text),
        lambda text: spoiled("purchase", amount_minor=text),
        lambda text: spoiled("purchase", amount_minor={text: text}),
        lambda text: spoiled("purchase", currency=text),
        lambda text: spoiled("purchase", kind=text),
        lambda text: spoiled("purchase", type=text),
        lambda text: json.dumps(text).encode(),
        lambda text: spoiled("purchase")[:-1] + f', "{text}": 1, "{text}": 1}}'.encode(),
    ],
)
@pytest.mark.parametrize("character", ["x", "é", "\\x85", "\u200b"])
def test_a_message_repeats_little_of_the_payload(spoil: Callable[[str], bytes], character: str) -> None:
    """A log is no place for whatever somebody put into a record, nor is a terminal."""
    message = refusal("purchase", spoil(character * 5_000)).message

    assert message.isprintable()
    assert len(message) <= wire.EXCERPT_CHARACTERS_MAX + 110


def test_a_message_says_what_would_be_right() -> None:
    """The sender's developer reads it, and should not have to look anything up."""
    bad = refusal("purchase", spoiled("purchase", amount_minor="12"))

    assert bad.message == "amount_minor: expected an integer from 0 to 9007199254740991, found '12'"
    assert str(bad) == f"wrong_type: {bad.message}"


def nested(opening: bytes, levels: int, closing: bytes) -> bytes:
    return opening * levels + b"1" + closing * levels


@pytest.mark.parametrize(
    "fields",
    [
        b'"note": [' + b",".join([b"9" * 4_299] * 60) + b"]",
        b'"note": ' + b"9" * 262_000,
        b'"note": 0.' + b"1" * 261_000 + b"e99999999",
        b'"note": "' + b"\\u202e" * 43_000 + b'"',
        b'"note": "' + b"\\" * 261_000 + b'"',
        b'"note": [' + b",".join([nested(b"[", 190, b"]")] * 680) + b"]",
        b'"note": ' + b"[" * 261_000,
        b'"note": ' + b'{"a":' * 52_000,
        b'"attributes": {' + b",".join(b'"%d":{}' % number for number in range(20_000)) + b"}",
        b'"attributes": {' + b",".join(b'"%d":"\\u00e9"' % number for number in range(15_000)) + b"}",
        b'"attributes": {"a": ' + nested(b'{"a":', 180, b"}") + b"}",
        b'"weight": ' + b"9" * 4_299,
        b'"name": "' + b"\xc3\xa9" * 130_000 + b'"',
        b'"name": "' + b"\\u0000" * 43_000 + b'"',
        b",".join(b'"%d":1' % number for number in range(25_000)),
    ],
    ids=range(15),
)
@pytest.mark.parametrize("kind", KINDS)
def test_no_record_takes_long(kind: EventKind, fields: bytes) -> None:
    """The worst that fits into a record costs a fraction of a second, good or bad."""
    value = spoiled(kind)[:-1] + b", " + fields + b"}"
    assert len(value) <= wire.RECORD_BYTES_MAX
    decoder = Decoder(POLICY, PARTITIONS)

    # What 40 files of tests have left is not what is measured.
    gc.disable()
    try:
        before = time.process_time()
        holds(decoder, kind, partition(KEY), KEY, value)
        assert time.process_time() - before < 0.5
    finally:
        gc.enable()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = sorted(
    {field for document in GOOD.values() for field in document}
    | {"type", "kind", "order_id", "purchased_at", "name", "attributes", "weight"}
)


def holds(decoder: Decoder, kind: EventKind, where: int, key: bytes | None, value: bytes | None) -> None:
    """Either a bad record with a short message, or an event within all limits; nothing else comes out."""
    try:
        event = decoder.decode(kind, where, WRITTEN_MS, key, value)
    except wire.BadRecord as bad:
        assert bad.message.isprintable()
        assert len(bad.message) < 300
        return
    assert key is not None
    assert event.account_id.encode() == key
    assert 1 <= len(event.account_id) <= 128
    assert 1 <= len(event.event_id) <= 128
    assert 1 <= event.occurred_at_us // MICROSECONDS_PER_DAY <= 65_534
    if isinstance(event, Purchase):
        assert 1 <= event.day <= 65_534
        assert abs(event.amount_minor) < 2**63
        assert (event.amount_minor <= 0) if event.is_refund else (event.amount_minor >= 0)


@given(kind=st.sampled_from(KINDS), key=st.none() | st.binary(), value=st.none() | st.binary())
@example(kind="purchase", key=b"", value=b'"\\ud800"')
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(
    kind: EventKind, key: bytes | None, value: bytes | None
) -> None:
    """No bytes make anything but a bad record of them."""
    holds(Decoder(POLICY, PARTITIONS), kind, partition(key), key, value)


@given(
    kind=st.sampled_from(KINDS),
    at=st.floats(0, 1, exclude_max=True),
    cut=st.integers(0, 5),
    paste=st.binary(max_size=5) | st.sampled_from([b"\\u0000", b"\\ud800", b"\xe2\x80\xae", b"1e999", b'","', b"}"]),
)
def test_a_good_record_with_other_bytes_in_it_breaks_nothing(
    kind: EventKind, at: float, cut: int, paste: bytes
) -> None:
    """Wherever a good record is cut and pasted, the outcome is an event within its limits, or a refusal."""
    good = spoiled(kind, attributes={"region": "emea", "employees": 7.5}, purchased_at="2026-01-01T00:00:00Z")
    start = int(at * len(good))
    value = good[:start] + paste + good[start + cut :]

    holds(Decoder(POLICY, PARTITIONS), kind, partition(KEY), KEY, value)


@given(
    kind=st.sampled_from(KINDS),
    fields=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3),
    attributes=st.none() | st.dictionaries(st.text(), json_values, max_size=3),
)
def test_any_json_in_any_field_breaks_nothing(
    kind: EventKind, fields: dict[str, Any], attributes: dict[str, Any] | None
) -> None:
    """Well-formed documents with anything in the wrong place are refused in words, never by a traceback."""
    document = {**GOOD[kind], **fields, **({"attributes": attributes} if attributes is not None else {})}
    account = document["account_id"]
    key = account.encode(errors="replace") if isinstance(account, str) else KEY

    holds(Decoder(POLICY, PARTITIONS), kind, partition(key), key, json.dumps(document).encode())
