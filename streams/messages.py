"""What the stages write for each other: ticks, standings, and outgoing records as they wait in the outbox."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgpack
import orjson
from jiter import from_json
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from segmentation.account import NEVER, Reason, Standing
from segmentation.classification import Traits
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.order_index import UNREACHABLE_MINOR
from segmentation.policy import Policy
from segmentation.transfers import Departure, HandOver
from state.documents import told_of
from state.founding import AppliedPolicy
from streams.instants import format_instant, parse_instant
from streams.partitions import partition_of

Mode = Literal["live", "backfill", "replay"]
"""live: as it happens. backfill: what a log held before the first tick. replay: a log read again by event time."""

ChangeMode = Literal[Mode, "silent"]
"""silent: made by a policy that was applied silently. The change is in the log, and nobody is to act upon it."""

Headers = Sequence[tuple[str, bytes]]


class TickMessage(BaseModel):
    """What time it is, once everything before `ends` is applied."""

    model_config = ConfigDict(strict=True, extra="ignore")

    at: str
    mode: Literal["live", "replay"]
    ends: dict[str, int] = Field(max_length=16)


class Tick(NamedTuple):
    """What time it is, once everything before `ends` is applied."""

    at_us: int
    mode: Literal["live", "replay"]
    ends: dict[str, int]
    """Topic (without prefix) -> end offset of this partition when the tick was made."""


class PolicySwitch(NamedTuple):
    """By which policy the accounts go, once everything before `ends` is applied. It comes among the ticks."""

    applied: AppliedPolicy
    """Without its hash, which follows from the rest."""
    ends: dict[str, int]
    """As of a tick."""


class SwitchMessage(BaseModel):
    """By which policy the accounts go, once everything before `ends` is applied."""

    model_config = ConfigDict(strict=True, extra="ignore")

    policy: dict[str, Any]
    number: int = Field(ge=1, lt=2**32)
    silent: bool
    risk_hash: str = Field(default="", max_length=64)
    ends: dict[str, int] = Field(max_length=16)


def encode_switch(switch: PolicySwitch) -> bytes:
    """JSON, so that a person can read in the log what was applied."""
    applied, ends = switch
    rules = json.loads(applied.policy)
    fields = {"number": applied.number, "silent": applied.is_silent, "risk_hash": applied.risk_hash}
    return json_bytes({"policy": rules, **fields, "ends": ends})


def encode_tick(tick: Tick) -> bytes:
    """JSON, so that anybody can tick."""
    return orjson.dumps({"at": format_instant(tick.at_us), "mode": tick.mode, "ends": tick.ends})


def decode_tick_or_switch(value: bytes | None) -> Tick | PolicySwitch:
    """A record of `ticks`. Raises ValueError for anything else, and for a policy that cannot be used."""
    return _decode_switch(value) if value is not None and b'"policy"' in value else decode_tick(value)


def decode_tick(value: bytes | None) -> Tick:
    """Raises ValueError for anything that is not a tick."""
    if value is None:
        raise ValueError("a tick without a value")
    try:
        message = TickMessage.model_validate_json(value)
    except ValidationError as error:
        raise ValueError(f"not a tick: {error.errors(include_input=False, include_url=False)[0]['msg']}") from None
    at_us = parse_instant(message.at)
    if not 0 < at_us // MICROSECONDS_PER_DAY < NEVER:
        raise ValueError("a tick outside the days that can be counted")
    return Tick(at_us, message.mode, message.ends)


def _require_rules(canonical: str) -> Policy:
    """Raises ValueError for rules that no shard could go by."""
    return Policy.of(canonical, Policy.default().canonical_rest())


def _decode_switch(value: bytes) -> PolicySwitch:
    try:
        message = SwitchMessage.model_validate_json(value)
        policy = _require_rules(json.dumps(message.policy))
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"not a policy to apply: {wrong['loc']!s:.200}: {wrong['msg']:.100}") from None
    applied = AppliedPolicy(message.number, policy.canonical(), policy.hash, message.silent, message.risk_hash)
    return PolicySwitch(applied, message.ends)


class Standings(NamedTuple):
    """One batch of standings for one ranking shard, and how far it brings its account shard.

    One without standings and departures says that the shard has nothing left to tell of what it has read and of the
    clock's day.
    """

    source: int
    """Partition of the account shard."""
    progress: dict[str, int]
    """The shard's next input offsets."""
    cursor: tuple[int, str] | None
    """Every account due up to this (due day, account) is done."""
    clock_us: int
    mode: Mode
    standings: list[Standing]
    departures: Sequence[Departure] = ()
    """From populations of that ranking shard."""

    @property
    def says_nothing(self) -> bool:
        """Whether there is nothing left to tell."""
        return not self.standings and not self.departures


class HandedOver(NamedTuple):
    """A hand-over from one population to another one, between ranking shards."""

    clock_us: int
    """Of the one that it is from."""
    mode: Mode
    hand_over: HandOver


class Description(NamedTuple):
    """What the attributes of an account say of it."""

    account_id: str
    population: str
    transfer: int
    """See `Standing.transfer`."""
    traits: Traits


class Descriptions(NamedTuple):
    """What the attributes of some accounts of one ranking shard say of them.

    An account shard sends them when attributes change, and of all its accounts when the policy classifies them in
    another way. They announce nothing, and have an order of their own: that of the signups.
    """

    source: int
    """Partition of the account shard."""
    signups_end: int
    """The shard's next offset of its signups: all before it are taken into account."""
    descriptions: list[Description]


class NewPolicy(NamedTuple):
    """From here on an account shard tells its standings by another policy.

    Once it has told all of them it says so, with a message of standings that is empty and not from before the switch.
    """

    source: int
    """Partition of the account shard."""
    ticks_end: int
    """The shard's offset of its ticks after the switch: with a smaller one it tells by an older policy."""
    is_retold: bool
    """Whether each account is told again, because its revenue or stage may be another one."""
    applied: AppliedPolicy


class Reached(NamedTuple):
    """How far an account shard was when it sent what was taken last."""

    progress: dict[str, int]
    cursor: tuple[int, str] | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Reached":
        """From its JSON form, as it is stored."""
        cursor = document["cursor"]
        return cls(document["progress"], (cursor[0], cursor[1]) if cursor else None)

    def is_ahead_of(self, known: "Reached | None") -> bool:
        """Whether this is further in anything. After the store went back in time two may be ahead of each other.

        What is not ahead may bring news all the same: on the way there again, an account may meet an event and a day in
        another order, and say on the way what it had not said before the way was lost.
        """
        if known is None or any(offset > known.progress.get(topic, 0) for topic, offset in self.progress.items()):
            return True
        return (self.cursor or _NO_CURSOR) > (known.cursor or _NO_CURSOR)


_NO_CURSOR = (0, "")
_LARGE_INTEGER = 1
_LARGE_INTEGER_BYTES = 16


def _pack_large(value: object) -> msgpack.ExtType:
    """An integer beyond 64 bits: the revenue of thousands of the largest purchases."""
    if not isinstance(value, int):
        raise TypeError(f"{type(value).__name__} has no place in a message")
    return msgpack.ExtType(_LARGE_INTEGER, value.to_bytes(_LARGE_INTEGER_BYTES, "little", signed=True))


def _unpack_large(code: int, data: bytes) -> int:
    if code != _LARGE_INTEGER or len(data) != _LARGE_INTEGER_BYTES:
        raise ValueError("an unknown extension")
    return int.from_bytes(data, "little", signed=True)


_pack = msgpack.Packer(default=_pack_large).pack
"""One packer for all: making one takes as long as what it packs."""
_STANDINGS_FORMAT = 4
_DESCRIPTIONS_FORMAT = "descriptions 2"
_HAND_OVER_FORMAT = "hand-over 1"
_POLICY_FORMAT = "policy 2"
_FORMATS = (_STANDINGS_FORMAT, _DESCRIPTIONS_FORMAT, _HAND_OVER_FORMAT, _POLICY_FORMAT)


def encode_standings(message: Standings) -> bytes:
    """msgpack: this topic is the stages' own."""
    packed: bytes = _pack([_STANDINGS_FORMAT, *message])
    return packed


def encode_descriptions(message: Descriptions) -> bytes:
    """As encode_standings."""
    packed: bytes = _pack([_DESCRIPTIONS_FORMAT, *message])
    return packed


def encode_hand_over(message: HandedOver) -> bytes:
    """As encode_standings."""
    packed: bytes = _pack([_HAND_OVER_FORMAT, *message])
    return packed


def encode_new_policy(message: NewPolicy) -> bytes:
    """As encode_standings."""
    packed: bytes = _pack([_POLICY_FORMAT, *message])
    return packed


def decode_told(value: bytes | None) -> Standings | Descriptions | HandedOver | NewPolicy:
    """Raises ValueError for anything that none of the functions above could have written.

    Checked to the last number: what is let in here and cannot be stored would end every worker that reads it.
    """
    try:
        form, *rest = msgpack.unpackb(value or b"", use_list=False, ext_hook=_unpack_large)
        if form == _STANDINGS_FORMAT:
            source, progress, cursor, clock_us, mode, standings, departures = _validate_standings(tuple(rest))
            told = list(map(Standing._make, standings)), list(map(Departure._make, departures))
            return Standings(source, progress, cursor, clock_us, mode, *told)
        if form == _DESCRIPTIONS_FORMAT:
            source, signups_end, described = _validate_descriptions(tuple(rest))
            descriptions = [Description(*fields[:3], Traits._make(fields[3])) for fields in described]
            return Descriptions(source, signups_end, descriptions)
        if form == _HAND_OVER_FORMAT:
            clock_us, mode, fields = _validate_hand_over(tuple(rest))
            return HandedOver(clock_us, mode, HandOver(*fields[:4], told_of(fields[4])))
        if form == _POLICY_FORMAT:
            source, ticks_end, is_retold, applied = _validate_new_policy(tuple(rest))
            _require_rules(applied[1])
            return NewPolicy(source, ticks_end, is_retold, AppliedPolicy(*applied))
        raise ValueError(f"format {form!r:.20}, this program reads {', '.join(map(str, _FORMATS))}")
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"not a message of standings: {wrong['loc']!s:.200}: {wrong['msg']:.100}") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"not a message of standings: {error}") from None


_Unsigned32 = Annotated[int, Field(ge=0, lt=2**32)]
_Unsigned63 = Annotated[int, Field(ge=0, lt=2**63)]
_Money = Annotated[int, Field(gt=-UNREACHABLE_MINOR, lt=UNREACHABLE_MINOR)]
_Day = Annotated[int, Field(ge=0, le=NEVER)]
_Identifier = Annotated[str, Field(min_length=1, max_length=128)]
_Name = Annotated[str, Field(min_length=1, max_length=128)]
"""Of a population."""
_Stage = Literal["prospect", "new_start", "established"]
_Reason = Annotated[str, Field(pattern=f"^({'|'.join(Reason)})$")]
_Standing = tuple[
    _Identifier,
    _Stage,
    _Money,
    _Unsigned32,
    _Day,
    _Reason,
    _Identifier | None,
    _Unsigned63 | None,
    _Day,
    _Day,
    _Day,
    tuple[_Day, _Day, _Day],
    _Day,
    bool,
    _Name,
    _Unsigned32,
]
_Departure = tuple[_Identifier, _Unsigned32, _Name, _Name]
_Told = tuple[
    Annotated[str, Field(max_length=128)],
    _Unsigned32,
    Literal["prospect", "new_start", "key", "enterprise", "commercial"] | None,
    _Unsigned63,
    _Day,
    _Unsigned32,
    Literal["low", "watch", "high"],
    _Unsigned63,
]
_validate_standings = TypeAdapter(
    tuple[
        _Unsigned32,
        dict[str, _Unsigned63],
        tuple[_Day, str] | None,
        _Unsigned63,
        Mode,
        tuple[_Standing, ...],
        tuple[_Departure, ...],
    ],
    config=ConfigDict(strict=True),
).validate_python
"""The fields of Standings, in order: 0.5 us a standing."""
_Word = Annotated[str, Field(max_length=128)]
_Words = Annotated[tuple[_Word, ...], Field(max_length=64)]
_Traits = tuple[_Words, Annotated[int, Field(ge=0, le=100)], _Word, _Word, _Words]
_validate_descriptions = TypeAdapter(
    tuple[_Unsigned32, _Unsigned63, tuple[tuple[_Identifier, _Name, _Unsigned32, _Traits], ...]],
    config=ConfigDict(strict=True),
).validate_python
"""The fields of Descriptions, in order."""
_validate_hand_over = TypeAdapter(
    tuple[_Unsigned63, Mode, tuple[_Identifier, _Unsigned32, _Name, _Name, _Told]], config=ConfigDict(strict=True)
).validate_python
"""The fields of HandedOver, in order."""
_validate_new_policy = TypeAdapter(
    tuple[_Unsigned32, _Unsigned63, bool, tuple[_Unsigned32, str, str, bool, str]], config=ConfigDict(strict=True)
).validate_python
"""The fields of NewPolicy, in order."""


class Outgoing(NamedTuple):
    """A record as it will be published, to one topic or to several, the same bytes each time."""

    topics: Sequence[str]
    """Without prefix."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp_ms: int
    partition: int | None = None
    """None: the key's."""

    def place(self, partitions: int) -> int:
        """The partition that it belongs to, of so many."""
        return partition_of(self.key or b"", partitions) if self.partition is None else self.partition % partitions


def encode_outgoing(record: Outgoing) -> bytes:
    """For the outbox."""
    packed: bytes = _pack(record)
    return packed


def decode_outgoing(data: bytes) -> Outgoing:
    """What encode_outgoing wrote."""
    topics, key, value, headers, timestamp_ms, partition = msgpack.unpackb(data, use_list=False)
    return Outgoing(topics, key, value, list(headers), timestamp_ms, partition)


def header(headers: Headers, name: str) -> str | None:
    """The text of a record's header; None where there is none."""
    for known, value in headers:
        if known == name:
            return value.decode("utf-8", "replace")
    return None


def json_bytes(document: Any) -> bytes:
    """JSON, whatever the size of its integers."""
    try:
        return orjson.dumps(document)
    except TypeError:  # it stops at 64 bits
        return json.dumps(document, separators=(",", ":")).encode()


def json_object(value: bytes | None) -> Mapping[str, Any]:
    """A record's JSON. Raises ValueError where it is not an object."""
    found = from_json(value or b"null")
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found
