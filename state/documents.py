"""How accounts and members are written in Redis: compact, and with nothing that has to be decoded to be skipped."""

from struct import Struct

import orjson

from segmentation.account import Account, Profile
from segmentation.ledger import Ledger
from segmentation.population import Member
from segmentation.segments import Segment, Stage

_INTEGER_SIZE = 16
"""Sums of money: 64 bits could overflow, and integers of any size cost more."""

_ACCOUNT = Struct(f"<BHHHI{_INTEGER_SIZE}s")
"""Flags, day, day of the first purchase, due day, version, revenue. The open block of the history follows."""
_ANNOUNCED = 1

_MEMBER = Struct(f"<BBBHIQq{_INTEGER_SIZE}s")
"""Stage, tier, segment, day, sequence, version, effective at, revenue. The population's name follows."""
_STAGES = tuple(Stage)
_STAGE_CODES: dict[str, int] = {stage: code for code, stage in enumerate(_STAGES)}
_SEGMENTS = tuple(Segment)
_SEGMENT_CODES: dict[str, int] = {segment: code for code, segment in enumerate(_SEGMENTS)}
_NONE = 255


def encode_account(account: Account) -> bytes:
    """The account without its closed blocks, engagements and profile. At most 585 bytes."""
    return (
        _ACCOUNT.pack(
            _ANNOUNCED if account.announced else 0,
            account.day,
            account.first_purchase_day,
            account.due_day,
            account.version,
            account.revenue_minor.to_bytes(_INTEGER_SIZE, "little", signed=True),
        )
        + account.history.open
    )


def decode_account(account_id: str, document: bytes, index: bytes | None) -> Account:
    """What encode_account wrote, with the index of its closed blocks where there is one."""
    flags, day, first_purchase_day, due_day, version, revenue = _ACCOUNT.unpack_from(document)
    return Account(
        account_id,
        day=day,
        first_purchase_day=first_purchase_day,
        due_day=due_day,
        version=version,
        revenue_minor=int.from_bytes(revenue, "little", signed=True),
        announced=bool(flags & _ANNOUNCED),
        history=Ledger(document[_ACCOUNT.size :], index or b""),
    )


def encode_profile(profile: Profile) -> bytes:
    """A profile as JSON."""
    return orjson.dumps(profile.fields, option=orjson.OPT_SORT_KEYS)


def decode_profile(document: bytes | None) -> Profile:
    """What encode_profile wrote; an empty profile for None."""
    fields = orjson.loads(document) if document else {}
    return Profile({field: (value, at) for field, (value, at) in fields.items()})


def encode_member(member: Member, population: str) -> bytes:
    """A member of a population. 39 bytes and the population's name."""
    return (
        _MEMBER.pack(
            _STAGE_CODES[member.stage],
            _NONE if member.tier is None else member.tier,
            _NONE if member.segment is None else _SEGMENT_CODES[member.segment],
            member.day,
            member.sequence,
            member.version,
            member.effective_at_us,
            member.revenue_minor.to_bytes(_INTEGER_SIZE, "little", signed=True),
        )
        + population.encode()
    )


def decode_member(account_id: str, document: bytes) -> tuple[Member, str]:
    """What encode_member wrote: the member and its population."""
    stage, tier, segment, day, sequence, version, effective_at_us, revenue = _MEMBER.unpack_from(document)
    member = Member(
        account_id,
        stage=_STAGES[stage],
        tier=None if tier == _NONE else tier,
        segment=None if segment == _NONE else _SEGMENTS[segment],
        day=day,
        sequence=sequence,
        version=version,
        effective_at_us=effective_at_us,
        revenue_minor=int.from_bytes(revenue, "little", signed=True),
    )
    return member, document[_MEMBER.size :].decode()
