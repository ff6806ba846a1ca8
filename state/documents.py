"""How accounts and members are written in Redis: compact, and with nothing that has to be decoded to be skipped."""

import json
from collections.abc import Sequence
from struct import Struct
from typing import Any

import orjson

from segmentation.account import Account, Profile, Standing
from segmentation.buying import PurchaseDays
from segmentation.classification import NO_TRAITS, Traits
from segmentation.engagement import EngagedDays
from segmentation.ledger import Ledger
from segmentation.population import Member
from segmentation.risk import DAYS, LEVELS, NO_EVIDENCE, Risk
from segmentation.segments import Segment, Stage
from segmentation.transfers import Departure, HandOver, Told, Transfer

_INTEGER_SIZE = 16
"""Sums of money: 64 bits could overflow, and integers of any size cost more."""

_ACCOUNT = Struct(f"<BHHHI{_INTEGER_SIZE}sHHHHHHHHI")
"""Flags, day, day of the first purchase, due day, version, revenue, the days of evidence; the first of the purchase
days, and how many bytes of them follow; the same of the days with engagement; how many bytes of the population's name
follow, and the number of transfers. Then the open block of the history."""
_ANNOUNCED = 1
_ENGAGEMENT_FELL = 2
_POLICY_IS_ODD = 4

_MEMBER = Struct("<BBBHIQqQqI HHHHHBBBIQHHHH")
"""Stage, tier, segment, day, sequence, version, effective at, the lower and the upper half of the revenue, transfer.
Then the risk: how many days had a purchase, how many of them in the window, the first and the last of them, due day,
whether engagement fell, level, level told, sequence, effective at, the days of evidence. Then the population's name,
and if there is one, that of the population that was told. In one piece, as a claim reads a million of them."""
_BETWEEN_NAMES = "\0"
_NAME_AT = _MEMBER.size
_unpack_member = _MEMBER.unpack_from
_NO_RISK = Risk()
_HALF = 64
_LOWER_HALF = (1 << _HALF) - 1
_LEVEL_CODES: dict[str, int] = {level: code for code, level in enumerate(LEVELS)}
_STAGES = tuple(Stage)
_STAGE_CODES: dict[str, int] = {stage: code for code, stage in enumerate(_STAGES)}
_SEGMENTS = tuple(Segment)
_SEGMENT_CODES: dict[str, int] = {segment: code for code, segment in enumerate(_SEGMENTS)}
_NONE = 255


def encode_account(account: Account) -> bytes:
    """The account without its closed blocks, engagements and profile. Under 640 bytes in its first two years."""
    days, engaged = _bytes_of(account.purchase_days.bits), _bytes_of(account.engaged_days.bits)
    population = account.population.encode() if account.population else b""
    return b"".join(
        (
            _ACCOUNT.pack(
                account.announced * _ANNOUNCED
                | account.engagement_fell * _ENGAGEMENT_FELL
                | account.policy_parity * _POLICY_IS_ODD,
                account.day,
                account.first_purchase_day,
                account.due_day,
                account.version,
                account.revenue_minor.to_bytes(_INTEGER_SIZE, "little", signed=True),
                *account.evidence_days,
                account.purchase_days.first_day,
                len(days),
                account.engaged_days.first_day,
                len(engaged),
                len(population),
                account.transfers,
            ),
            days,
            engaged,
            population,
            account.history.open,
        )
    )


def _bytes_of(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def decode_account(account_id: str, document: bytes, index: bytes | None) -> Account:
    """What encode_account wrote, with the index of its closed blocks where there is one."""
    flags, day, first_purchase_day, due_day, version, revenue, *more = _ACCOUNT.unpack_from(document)
    *evidence_days, first_day, days, first_engaged_day, engaged, population, transfers = more
    engaged_at = _ACCOUNT.size + days
    population_at = engaged_at + engaged
    history_at = population_at + population
    return Account(
        account_id,
        day=day,
        first_purchase_day=first_purchase_day,
        due_day=due_day,
        version=version,
        revenue_minor=int.from_bytes(revenue, "little", signed=True),
        announced=bool(flags & _ANNOUNCED),
        evidence_days=(evidence_days[0], evidence_days[1], evidence_days[2]),
        purchase_days=PurchaseDays(first_day, int.from_bytes(document[_ACCOUNT.size : engaged_at], "little")),
        engaged_days=EngagedDays(first_engaged_day, int.from_bytes(document[engaged_at:population_at], "little")),
        engagement_fell=bool(flags & _ENGAGEMENT_FELL),
        policy_parity=policy_parity(document),
        history=Ledger(document[history_at:], index or b""),
        population=document[population_at:history_at].decode(),
        transfers=transfers,
    )


def policy_parity(document: bytes) -> int:
    """`Account.policy_parity` of a document that encode_account wrote."""
    return int(document[0] & _POLICY_IS_ODD > 0)


def encode_profile(profile: Profile) -> bytes:
    """A profile as JSON."""
    return orjson.dumps(profile.fields, option=orjson.OPT_SORT_KEYS)


def decode_profile(document: bytes | None) -> Profile:
    """What encode_profile wrote; an empty profile for None."""
    fields = orjson.loads(document) if document else {}
    return Profile({field: (value, at) for field, (value, at) in fields.items()})


def encode_traits(traits: Traits, transfer: int) -> bytes:
    """Traits as JSON, with the number of the transfer in whose stay they were told."""
    return orjson.dumps((*traits, transfer))


def decode_traits(document: bytes | None) -> Traits:
    """The traits that encode_traits wrote; those of who has stated nothing for None."""
    if document is None:
        return NO_TRAITS
    class_path, fit, owner, region, needs, _ = orjson.loads(document)
    return Traits(tuple(class_path), fit, owner, region, tuple(needs))


def transfer_of_traits(document: bytes) -> int:
    """The transfer that encode_traits wrote."""
    return int(orjson.loads(document)[-1])


def encode_transfer(transfer: Transfer) -> bytes:
    """What a population remembers of an account that comes or has gone, as JSON: it is rare."""
    document: bytes = json.dumps(transfer, separators=(",", ":")).encode()  # not orjson: revenue may need more bits
    return document


def decode_transfer(document: bytes) -> Transfer:
    """What encode_transfer wrote."""
    left, given, held, waiting, pending, told = json.loads(document)
    return Transfer(
        left,
        _hand_over(given),
        _hand_over(held),
        _standing(waiting),
        tuple(Departure(*departure) for departure in pending),
        told_of(told),
    )


def _hand_over(fields: Sequence[Any] | None) -> HandOver | None:
    if fields is None:
        return None
    account_id, transfer, population, to, told = fields
    return HandOver(account_id, transfer, population, to, told_of(told))


def told_of(fields: Sequence[Any]) -> Told:
    """From its fields, as JSON or msgpack give them."""
    population, sequence, segment, effective_at_us, fall_day, risk_sequence, risk_level, risk_effective_at_us = fields
    known = Segment(segment) if segment is not None else None
    level = LEVELS[LEVELS.index(risk_level)]
    return Told(population, sequence, known, effective_at_us, fall_day, risk_sequence, level, risk_effective_at_us)


def _standing(fields: Sequence[Any] | None) -> Standing | None:
    if fields is None:
        return None
    standing = Standing._make(fields)
    first, second, third = standing.evidence_days
    return standing._replace(evidence_days=(first, second, third))


def encode_member(member: Member, population: str) -> bytes:
    """A member of a population. 76 bytes and the population's name."""
    revenue_minor, risk = member.revenue_minor, member.risk or _NO_RISK
    cancel_request, support_ticket, refund, tier_fall = risk.evidence_days
    packed = _MEMBER.pack(
        _STAGE_CODES[member.stage],
        _NONE if member.tier is None else member.tier,
        _NONE if member.segment is None else _SEGMENT_CODES[member.segment],
        member.day,
        member.sequence,
        member.version,
        member.effective_at_us,
        revenue_minor & _LOWER_HALF,
        revenue_minor >> _HALF,
        member.transfer,
        risk.days_bought,
        risk.bought_in_window,
        risk.first_day,
        risk.last_day,
        risk.due_day,
        risk.engagement_fell,
        _LEVEL_CODES[risk.level],
        _LEVEL_CODES[risk.told_level],
        risk.sequence,
        risk.effective_at_us,
        cancel_request,
        support_ticket,
        refund,
        tier_fall,
    )
    names = population + _BETWEEN_NAMES + member.told_in if member.told_in else population
    return packed + names.encode()


def decode_member(account_id: str, document: bytes) -> tuple[Member, str]:
    """What encode_member wrote: the member and its population."""
    (
        stage, tier, segment, day, sequence, version, effective_at_us, lower, upper, transfer,
        bought, in_window, first, last, due, fell, level, told_level, risk_sequence, told_at_us,
        cancel_request, support_ticket, refund, tier_fall,
    ) = _unpack_member(document)  # fmt: skip  # as the lines of _MEMBER
    evidence_days = NO_EVIDENCE
    if cancel_request or support_ticket or refund or tier_fall:
        evidence_days = cancel_request, support_ticket, refund, tier_fall
    risk = None
    if bought or risk_sequence or evidence_days is not NO_EVIDENCE:
        risk = Risk(  # by position, as below: by name it takes twice as long
            DAYS[first],
            DAYS[last],
            bought,
            LEVELS[level],
            LEVELS[told_level],
            risk_sequence,
            told_at_us,
            DAYS[due],
            evidence_days,
            in_window,
            fell == 1,
        )
    member = Member(
        account_id,
        _STAGES[stage],
        upper << _HALF | lower,
        None if tier == _NONE else tier,
        None if segment == _NONE else _SEGMENTS[segment],
        sequence,
        effective_at_us,
        version,
        DAYS[day],
        risk,
        transfer,
    )
    name = document[_NAME_AT:].decode()
    if _BETWEEN_NAMES in name:
        name, _, member.told_in = name.partition(_BETWEEN_NAMES)
    return member, name
