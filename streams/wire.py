"""The contracts of the input topics: one Kafka record in, one domain event out, or the reason why not.

A record is taken as it is or not at all: no value is coerced, nothing is repaired. Every refusal is a
`BadRecord`, whose reason the dead letter carries. Top-level fields that no contract names are allowed, and
counted.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Annotated, Any, Literal, NotRequired

from jiter import from_json
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from segmentation.events import (
    MICROSECONDS_PER_DAY,
    Engagement,
    Event,
    Purchase,
    Signup,
)
from segmentation.money import MINOR_DIGITS, UnknownCurrency
from segmentation.policy import ENGAGEMENT_KIND_PATTERN, ENGAGEMENT_WEIGHT_MAX, Policy
from streams.instants import parse_instant
from streams.partitions import partition_of

EventKind = Literal["purchase", "signup", "engagement"]

RECORD_BYTES_MAX = 256 * 1024
AMOUNT_MINOR_MAX = 2**53 - 1
"""The largest integer that every JSON parser reads exactly."""
BASE_AMOUNT_MINOR_MAX = 2**63 - 1
"""What a signed 64-bit field of the state holds."""
ATTRIBUTES_MAX = 64
ATTRIBUTE_CHARACTERS_MAX = 256
ATTRIBUTE_VALUES_MAX = 32
"""Of a list."""
ATTRIBUTE_INTEGER_MAX = 2**53
FIRST_INSTANT_US = MICROSECONDS_PER_DAY
LAST_INSTANT_US = 65_535 * MICROSECONDS_PER_DAY - 1
"""From the first microsecond of 1970-01-02 to the last of 2149-06-05: days that fit 16 bits, as do the days
next to them."""
EXCERPT_CHARACTERS_MAX = 100


class Reason(StrEnum):
    """Why a record is a dead letter."""

    TOMBSTONE = "tombstone"
    """It has no value."""
    TOO_LARGE = "too_large"
    """Its value is larger than RECORD_BYTES_MAX."""
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    """Also NaN, Infinity, a byte order mark, half of a surrogate pair, and more after the document's end."""
    DUPLICATE_KEY = "duplicate_key"
    """An object, at any depth, names a field twice: nobody can know which one was meant."""
    TOO_DEEP = "too_deep"
    """Nested more than 200 levels deep, the limit of the parser."""
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    """A value of another type than the contract's: a number in quotes, a fraction for an integer, null."""
    OUT_OF_RANGE = "out_of_range"
    """A number, date or count beyond its limits."""
    BAD_FORMAT = "bad_format"
    """A string of a wrong length, with characters that have no place in it, or not one of the choices."""
    CONTROL_CHARACTERS = "control_characters"
    """A string with characters that change what people see: C0, C1, DEL, embeddings of text direction."""
    WRONG_TOPIC = "wrong_topic"
    """Its `type` is not what this topic holds."""
    MISSING_KEY = "missing_key"
    WRONG_KEY = "wrong_key"
    """The record's key is not the account id."""
    WRONG_PARTITION = "wrong_partition"
    """The record is not in the partition that Kafka's default partitioner gives the account."""
    BAD_TIME = "bad_time"
    """Not an RFC 3339 date-time with an offset."""
    FUTURE = "future"
    """Dated further ahead of the moment it was written than the policy's `future_days`."""
    UNKNOWN_CURRENCY = "unknown_currency"
    """Not a currency of ISO 4217."""
    NO_RATE = "no_rate"
    """A currency that the policy has no rate for."""


class BadRecord(ValueError):
    """The record breaks its contract and becomes a dead letter. Mend sender or policy and send it again.

    `message` is for people; of the payload it repeats at most EXCERPT_CHARACTERS_MAX characters, escaped.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


# A field's description is what a refusal says it must be.
_IDENTIFIER = "a string of 1 to 128 characters"
_ACCOUNT_ID_FORM = "a string of 1 to 128 characters of A-Z a-z 0-9 . _ : @ -"
_TIME = "a string with an RFC 3339 date-time and its offset"

_Identifier = Annotated[str, Field(min_length=1, max_length=128, description=_IDENTIFIER)]
_Time = Annotated[str, Field(description=_TIME, json_schema_extra={"format": "date-time"})]

# What is checked by hand, after the model, as JSON Schema: for the contracts, which nothing here validates by.
_ACCOUNT_ID_PATTERN = "[A-Za-z0-9._:@-]{1,128}"
_ATTRIBUTE_NAME_PATTERN = "[a-z][a-z0-9_]{0,63}"
_ACCOUNT_ID_SCHEMA: dict[str, Any] = {"pattern": f"^{_ACCOUNT_ID_PATTERN}$"}
_CURRENCY_SCHEMA: dict[str, Any] = {"pattern": "^[A-Z]{3}$"}
_ATTRIBUTE_TEXT: dict[str, Any] = {"type": "string", "maxLength": ATTRIBUTE_CHARACTERS_MAX}
_ATTRIBUTES_SCHEMA: dict[str, Any] = {
    "maxProperties": ATTRIBUTES_MAX,
    "propertyNames": {"pattern": f"^{_ATTRIBUTE_NAME_PATTERN}$"},
    "additionalProperties": {
        "anyOf": [
            _ATTRIBUTE_TEXT,
            {"type": "number"},
            {"type": "array", "items": _ATTRIBUTE_TEXT, "maxItems": ATTRIBUTE_VALUES_MAX},
        ]
    },
}

_contract = with_config(ConfigDict(strict=True, extra="ignore"))


class _CommonFields(TypedDict):
    event_id: _Identifier
    account_id: Annotated[str, Field(description=_ACCOUNT_ID_FORM, json_schema_extra=_ACCOUNT_ID_SCHEMA)]
    occurred_at: _Time


@_contract
class _PurchaseFields(_CommonFields):
    type: NotRequired[Annotated[Literal["purchase"], Field(description='"purchase" on this topic')]]
    amount_minor: Annotated[
        int, Field(ge=0, le=AMOUNT_MINOR_MAX, description=f"an integer from 0 to {AMOUNT_MINOR_MAX}")
    ]
    currency: Annotated[
        str, Field(description="a string with a currency code of ISO 4217", json_schema_extra=_CURRENCY_SCHEMA)
    ]
    kind: NotRequired[Annotated[Literal["purchase", "refund"], Field(description='"purchase" or "refund"')]]
    order_id: NotRequired[_Identifier]
    purchased_at: NotRequired[_Time]


@_contract
class _SignupFields(_CommonFields):
    type: NotRequired[Annotated[Literal["signup"], Field(description='"signup" on this topic')]]
    name: NotRequired[
        Annotated[str, Field(min_length=1, max_length=256, description="a string of 1 to 256 characters")]
    ]
    # What is in it is checked by hand: pydantic would report each member of a large object by itself.
    attributes: NotRequired[
        Annotated[
            dict[str, Any],
            Field(
                description="an object of names with strings, numbers or lists of strings",
                json_schema_extra=_ATTRIBUTES_SCHEMA,
            ),
        ]
    ]


@_contract
class _EngagementFields(_CommonFields):
    type: NotRequired[Annotated[Literal["engagement"], Field(description='"engagement" on this topic')]]
    kind: Annotated[
        str,
        Field(
            pattern=ENGAGEMENT_KIND_PATTERN,
            description="a string of a small letter and up to 63 small letters, digits or _",
        ),
    ]
    weight: NotRequired[
        Annotated[
            int,
            Field(ge=0, le=ENGAGEMENT_WEIGHT_MAX, description=f"an integer from 0 to {ENGAGEMENT_WEIGHT_MAX}"),
        ]
    ]


CONTRACTS: Mapping[EventKind, TypeAdapter[Any]] = {
    "purchase": TypeAdapter(_PurchaseFields),
    "signup": TypeAdapter(_SignupFields),
    "engagement": TypeAdapter(_EngagementFields),
}
"""What the value of a record must be like, by what is on its topic."""

_ACCOUNT_ID = re.compile(_ACCOUNT_ID_PATTERN).fullmatch
_ATTRIBUTE_NAME = re.compile(_ATTRIBUTE_NAME_PATTERN).fullmatch
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]").search


class Decoder:
    """Decodes records of the input topics under one policy. For one thread at a time."""

    def __init__(self, policy: Policy, partitions: int, *, cached_accounts: int = 131_072) -> None:
        """`partitions`: how many each input topic has, at least 1.

        `cached_accounts`: how many accounts' keys are remembered as checked, at about 250 bytes each; the key
        of any other account is hashed again, which costs about as much as all the rest of a purchase.
        """
        self.unknown_fields = 0
        """How many top-level fields the decoded records had that their contract does not name."""
        self._partitions = partitions
        self._converter = policy.converter()
        self._future_us = policy.future_days * MICROSECONDS_PER_DAY
        self._contracts: dict[EventKind, tuple[Callable[[object], Any], Callable[..., Event]]] = {
            "purchase": (CONTRACTS["purchase"].validator.validate_python, self._purchase),
            "signup": (CONTRACTS["signup"].validator.validate_python, self._signup),
            "engagement": (CONTRACTS["engagement"].validator.validate_python, self._engagement),
        }
        self._cached_accounts = cached_accounts
        self._cached = 0
        self._accounts: defaultdict[int, dict[bytes, str]] = defaultdict(dict)
        """Of each partition, the keys that were found to be right, with their account ids."""

    def decode(
        self, kind: EventKind, partition: int, timestamp_ms: int, key: bytes | None, value: bytes | None
    ) -> Event:
        """The event in a record of the topic of this kind. O(bytes), at most RECORD_BYTES_MAX of them.

        `partition` and `timestamp_ms` are the record's. A negative timestamp says that it has none: then no
        event is too far in the future. Raises BadRecord, and nothing else, whatever key and value are.
        """
        if value is None:
            raise BadRecord(Reason.TOMBSTONE, "the record has no value")
        document = _parse(value)
        validate, event_of = self._contracts[kind]
        try:
            fields = validate(document)
        except ValidationError as error:
            raise _broken_contract(kind, error) from None
        # ASCII without escapes cannot hold what is looked for: the parser refuses C0 as it stands.
        if not value.isascii() or b"\\" in value or b"\x7f" in value:
            _refuse_control_characters(fields)
        account_id = self._accounts[partition].get(key) if key is not None else None
        if account_id != fields["account_id"]:
            account_id = self._checked_account_id(fields["account_id"], key, partition)
        latest_us = timestamp_ms * 1000 + self._future_us if timestamp_ms >= 0 else LAST_INSTANT_US
        occurred_at_us = _instant("occurred_at", fields["occurred_at"], latest_us)
        event = event_of(fields, account_id, occurred_at_us, latest_us)
        self.unknown_fields += len(document) - len(fields)
        return event

    def _purchase(self, fields: _PurchaseFields, account_id: str, occurred_at_us: int, latest_us: int) -> Purchase:
        currency = fields["currency"]
        try:
            amount_minor = self._converter.to_base_minor(fields["amount_minor"], currency)
        except UnknownCurrency:
            if currency in MINOR_DIGITS:
                raise BadRecord(Reason.NO_RATE, f"currency: the policy has no rate for {currency}") from None
            raise BadRecord(
                Reason.UNKNOWN_CURRENCY, f"currency: {_excerpt(currency)} is no currency code of ISO 4217"
            ) from None
        if amount_minor > BASE_AMOUNT_MINOR_MAX:
            raise BadRecord(Reason.OUT_OF_RANGE, "amount_minor: does not fit 63 bits in the base currency")
        revenue_at_us = occurred_at_us
        is_refund = fields.get("kind") == "refund"
        if "purchased_at" in fields:
            purchased_at_us = _instant("purchased_at", fields["purchased_at"], latest_us)
            if is_refund:
                revenue_at_us = purchased_at_us
        return Purchase(
            account_id,
            fields["event_id"],
            occurred_at_us,
            revenue_at_us // MICROSECONDS_PER_DAY,
            -amount_minor if is_refund else amount_minor,
            is_refund,
        )

    def _signup(self, fields: _SignupFields, account_id: str, occurred_at_us: int, latest_us: int) -> Signup:
        attributes = fields.get("attributes", {})
        _check_attributes(attributes)
        return Signup(account_id, fields["event_id"], occurred_at_us, fields.get("name"), attributes)

    def _engagement(
        self, fields: _EngagementFields, account_id: str, occurred_at_us: int, latest_us: int
    ) -> Engagement:
        return Engagement(account_id, fields["event_id"], occurred_at_us, fields["kind"], fields.get("weight"))

    def _checked_account_id(self, account_id: str, key: bytes | None, partition: int) -> str:
        """The account id, checked against key and partition; from now on the same object while it is cached."""
        if not _ACCOUNT_ID(account_id):
            raise BadRecord(
                Reason.BAD_FORMAT,
                f"account_id: expected {_ACCOUNT_ID_FORM}, found {_excerpt(account_id)}",
            )
        if key is None:
            raise BadRecord(Reason.MISSING_KEY, "the record has no key: it must be the account id")
        if key != account_id.encode():
            raise BadRecord(Reason.WRONG_KEY, f"the key {_excerpt(key)} is not the account id")
        right = partition_of(key, self._partitions)
        if partition != right:
            raise BadRecord(
                Reason.WRONG_PARTITION,
                f"the account belongs to partition {right}, the record is in {partition}",
            )
        self._remember(account_id, key, partition)
        return account_id

    def _remember(self, account_id: str, key: bytes, partition: int) -> None:
        if self._cached >= self._cached_accounts:
            # All at once: keeping an order of use would cost each hit, and the cache fills again in a second.
            self._accounts.clear()
            self._cached = 0
        self._accounts[partition][key] = account_id
        self._cached += 1


def _parse(value: bytes) -> dict[str, Any]:
    if len(value) > RECORD_BYTES_MAX:
        raise BadRecord(Reason.TOO_LARGE, f"{len(value)} bytes; at most {RECORD_BYTES_MAX} are taken")
    try:
        # Only keys are worth a cache of strings: event ids are all different.
        document = from_json(value, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as error:
        raise _unparsable(value, str(error)) from None
    if type(document) is not dict:
        raise BadRecord(Reason.NOT_AN_OBJECT, f"expected a JSON object, found {_excerpt(document)}")
    return document


_PARSER_REASONS = {
    "Detected duplicate key": Reason.DUPLICATE_KEY,
    "recursion limit exceeded": Reason.TOO_DEEP,
    "number out of range": Reason.OUT_OF_RANGE,
    "control character": Reason.CONTROL_CHARACTERS,
}
"""How the parser's messages begin, where it is not the form of the JSON that is wrong."""


def _unparsable(value: bytes, message: str) -> BadRecord:
    # A duplicate key is in the message, whatever it is.
    said = message[:EXCERPT_CHARACTERS_MAX]
    if not said.isprintable():
        said = repr(said)[:EXCERPT_CHARACTERS_MAX]
    for beginning, reason in _PARSER_REASONS.items():
        if message.startswith(beginning):
            return BadRecord(reason, said)
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return BadRecord(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8")
    return BadRecord(Reason.NOT_JSON, said)


_CONTRACT_REASONS = {
    "missing": Reason.MISSING_FIELD,
    "greater_than_equal": Reason.OUT_OF_RANGE,
    "less_than_equal": Reason.OUT_OF_RANGE,
    "string_too_short": Reason.BAD_FORMAT,
    "string_too_long": Reason.BAD_FORMAT,
    "string_pattern_mismatch": Reason.BAD_FORMAT,
    "literal_error": Reason.BAD_FORMAT,
}
"""Types of pydantic's errors; each other one is a wrong type."""


def _broken_contract(kind: EventKind, error: ValidationError) -> BadRecord:
    """The first of the broken rules, in the order of the contract's fields."""
    details = error.errors(include_url=False, include_context=False)[0]
    field = str(details["loc"][0])
    reason = _CONTRACT_REASONS.get(details["type"], Reason.WRONG_TYPE)
    if details["type"] == "literal_error":
        if not isinstance(details["input"], str):
            reason = Reason.WRONG_TYPE
        elif field == "type":
            reason = Reason.WRONG_TOPIC
    found = "nothing" if reason is Reason.MISSING_FIELD else _excerpt(details["input"])
    return BadRecord(reason, f"{field}: expected {_expected(kind)[field]}, found {found}")


@cache
def _expected(kind: EventKind) -> dict[str, str]:
    """Of each field of the contract, what it must be, in words."""
    properties = CONTRACTS[kind].json_schema()["properties"]
    return {field: schema["description"] for field, schema in properties.items()}


def _refuse_control_characters(fields: Mapping[str, Any]) -> None:
    for field, value in fields.items():
        if isinstance(value, dict):
            _refuse_control_characters(value)
        elif isinstance(value, list):
            _refuse_control_characters({f"{field}.{place}": found for place, found in enumerate(value)})
        elif isinstance(value, str) and (found := _CONTROL_CHARACTER(value)):
            raise BadRecord(
                Reason.CONTROL_CHARACTERS,
                f"{_excerpt(field)}: has U+{ord(found.group()):04X} at character {found.start()}",
            )


def _instant(field: str, text: str, latest_us: int) -> int:
    try:
        instant_us = parse_instant(text)
    except ValueError as error:
        raise BadRecord(Reason.BAD_TIME, f"{field}: {error}, found {_excerpt(text)}") from None
    if not FIRST_INSTANT_US <= instant_us <= LAST_INSTANT_US:
        raise BadRecord(
            Reason.OUT_OF_RANGE,
            f"{field}: expected a day from 1970-01-02 to 2149-06-05, found {_excerpt(text)}",
        )
    if instant_us > latest_us:
        raise BadRecord(Reason.FUTURE, f"{field}: {_excerpt(text)} is too far ahead of when the record was written")
    return instant_us


def _check_attributes(attributes: dict[str, Any]) -> None:
    if len(attributes) > ATTRIBUTES_MAX:
        raise BadRecord(
            Reason.OUT_OF_RANGE, f"attributes: {len(attributes)} of them; at most {ATTRIBUTES_MAX} are taken"
        )
    for name, value in attributes.items():
        if not _ATTRIBUTE_NAME(name):
            raise BadRecord(
                Reason.BAD_FORMAT,
                f"attributes: {_excerpt(name)} is not a small letter and up to 63 small letters, digits or _",
            )
        if type(value) is str:
            if len(value) > ATTRIBUTE_CHARACTERS_MAX:
                found = f"{len(value)} characters; at most {ATTRIBUTE_CHARACTERS_MAX} are taken"
                raise BadRecord(Reason.BAD_FORMAT, f"attributes.{name}: {found}")
        elif type(value) is int:
            if abs(value) > ATTRIBUTE_INTEGER_MAX:
                raise BadRecord(Reason.OUT_OF_RANGE, f"attributes.{name}: an integer beyond 2^53")
        elif type(value) is float:
            if not isfinite(value):
                raise BadRecord(Reason.OUT_OF_RANGE, f"attributes.{name}: a number beyond all limits")
        elif type(value) is list:
            _check_list(name, value)
        else:
            found = _excerpt(value)
            expected = "a string, a number or a list of strings"
            raise BadRecord(Reason.WRONG_TYPE, f"attributes.{name}: expected {expected}, found {found}")


def _check_list(name: str, values: list[Any]) -> None:
    if len(values) > ATTRIBUTE_VALUES_MAX:
        found = f"{len(values)} values; at most {ATTRIBUTE_VALUES_MAX} are taken"
        raise BadRecord(Reason.OUT_OF_RANGE, f"attributes.{name}: {found}")
    for value in values:
        if type(value) is not str:
            raise BadRecord(
                Reason.WRONG_TYPE, f"attributes.{name}: expected strings in the list, found {_excerpt(value)}"
            )
        if len(value) > ATTRIBUTE_CHARACTERS_MAX:
            found = f"{len(value)} characters; at most {ATTRIBUTE_CHARACTERS_MAX} are taken"
            raise BadRecord(Reason.BAD_FORMAT, f"attributes.{name}: {found}")


def _excerpt(value: object) -> str:
    """A value of the payload for a message: short, escaped, and cheap however large the value is."""
    if isinstance(value, str | bytes):
        shown = repr(value[:EXCERPT_CHARACTERS_MAX])
        return shown if len(shown) <= EXCERPT_CHARACTERS_MAX else shown[: EXCERPT_CHARACTERS_MAX - 3] + "..."
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    return "null" if value is None else str(value)
