"""How accounts and members are written in Redis: compact, and with nothing that has to be decoded to be skipped."""

from struct import Struct

import orjson

from segmentation.account import NEVER, Account, Profile
from segmentation.buying import PurchaseDays
from segmentation.classification import NO_TRAITS, Traits
from segmentation.engagement import EngagedDays
from segmentation.ledger import Ledger
from segmentation.population import Member
from segmentation.risk import DAYS, LEVELS, NO_EVIDENCE, Risk
from segmentation.segments import Segment, Stage

_INTEGER_SIZE = 16
"""Sums of money: 64 bits could overflow, and integers of any size cost more."""

_ACCOUNT = Struct(f"<BHHHI{_INTEGER_SIZE}sHHHHHHH")
"""Flags, day, day of the first purchase, due day, version, revenue, the days of evidence; the first of the purchase
days, and how many bytes of them follow; the same of the days with engagement. Then the open block of the history."""
_ANNOUNCED = 1
_ENGAGEMENT_FELL = 2
_POLICY_IS_ODD = 4

_MEMBER = Struct(f"<BBBHIQq{_INTEGER_SIZE}s")
"""Stage, tier, segment, day, sequence, version, effective at, revenue. Then the risk, and the population's name."""
_RISK = Struct("<HHHHHBBBIQ")
"""How many days had a purchase, how many of them in the window, the first and the last of them, due day, whether
engagement fell, level, level told, sequence, effective at."""
_EVIDENCE = Struct("<HHHH")
"""The days of evidence, after the risk."""
_NO_EVIDENCE = _EVIDENCE.pack(*NO_EVIDENCE)
_NO_RISK = _RISK.pack(0, 0, 0, 0, NEVER, 0, 0, 0, 0, 0) + _NO_EVIDENCE
_RISK_AT = _MEMBER.size
_EVIDENCE_AT = _RISK_AT + _RISK.size
_NAME_AT = _EVIDENCE_AT + _EVIDENCE.size
_LEVEL_CODES: dict[str, int] = {level: code for code, level in enumerate(LEVELS)}
_STAGES = tuple(Stage)
_STAGE_CODES: dict[str, int] = {stage: code for code, stage in enumerate(_STAGES)}
_SEGMENTS = tuple(Segment)
_SEGMENT_CODES: dict[str, int] = {segment: code for code, segment in enumerate(_SEGMENTS)}
_NONE = 255


def encode_account(account: Account) -> bytes:
    """The account without its closed blocks, engagements and profile. Under 640 bytes in its first two years."""
    days, engaged = _bytes_of(account.purchase_days.bits), _bytes_of(account.engaged_days.bits)
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
            ),
            days,
            engaged,
            account.history.open,
        )
    )


def _bytes_of(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def decode_account(account_id: str, document: bytes, index: bytes | None) -> Account:
    """What encode_account wrote, with the index of its closed blocks where there is one."""
    flags, day, first_purchase_day, due_day, version, revenue, *more = _ACCOUNT.unpack_from(document)
    *evidence_days, first_day, days, first_engaged_day, engaged = more
    engaged_at = _ACCOUNT.size + days
    history_at = engaged_at + engaged
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
        engaged_days=EngagedDays(first_engaged_day, int.from_bytes(document[engaged_at:history_at], "little")),
        engagement_fell=bool(flags & _ENGAGEMENT_FELL),
        policy_parity=policy_parity(document),
        history=Ledger(document[history_at:], index or b""),
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


def encode_traits(traits: Traits) -> bytes:
    """Traits as JSON."""
    return orjson.dumps(tuple(traits))


def decode_traits(document: bytes | None) -> Traits:
    """What encode_traits wrote; those of who has stated nothing for None."""
    if document is None:
        return NO_TRAITS
    class_path, fit, owner, region, needs = orjson.loads(document)
    return Traits(tuple(class_path), fit, owner, region, tuple(needs))


def encode_member(member: Member, population: str) -> bytes:
    """A member of a population. 72 bytes and the population's name."""
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
        + (_NO_RISK if member.risk is None else _encode_risk(member.risk))
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
        day=DAYS[day],
        sequence=sequence,
        version=version,
        effective_at_us=effective_at_us,
        revenue_minor=int.from_bytes(revenue, "little", signed=True),
        risk=_decode_risk(document),
    )
    return member, document[_NAME_AT:].decode()


def _encode_risk(risk: Risk) -> bytes:
    return _RISK.pack(
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
    ) + (_NO_EVIDENCE if risk.evidence_days is NO_EVIDENCE else _EVIDENCE.pack(*risk.evidence_days))


def _decode_risk(document: bytes) -> Risk | None:
    if document[_RISK_AT:_NAME_AT] == _NO_RISK:
        return None
    # by position, and nothing unpacked that is mostly not there: a claim does this for each of a million members
    days_bought, in_window, first_day, last_day, due_day, fell, level, told_level, sequence, at_us = _RISK.unpack_from(
        document, _RISK_AT
    )
    evidence = document[_EVIDENCE_AT:_NAME_AT]
    if not (days_bought or sequence) and evidence == _NO_EVIDENCE:
        return None
    return Risk(
        DAYS[first_day],
        DAYS[last_day],
        days_bought,
        LEVELS[level],
        LEVELS[told_level],
        sequence,
        at_us,
        DAYS[due_day],
        NO_EVIDENCE if evidence == _NO_EVIDENCE else _EVIDENCE.unpack(evidence),
        in_window,
        fell == 1,
    )
