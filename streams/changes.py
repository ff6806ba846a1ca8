"""A segment change as the world reads it: a CloudEvent in binary mode, keyed by account."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, get_args

from jiter import from_json
from pydantic import BaseModel, ConfigDict, Field

from segmentation.buying import BuyingHistory
from segmentation.order_index import Share
from segmentation.policy import Policy
from segmentation.population import CauseKind, Change, Direction
from segmentation.risk import ENGAGEMENT_FALL, EVIDENCE, LEVELS, Part, RiskChange, RiskRules, Trigger, score_of
from segmentation.segments import SEGMENTS, Segment
from streams.instants import format_instant
from streams.messages import ChangeMode, Headers, Mode, Outgoing, header, json_bytes
from streams.topics import Topic

CHANGE_TYPE = "resegment.segment.changed.v1"
RISK_TYPE = "resegment.risk.changed.v1"
SOURCE = "resegment"
RISK_SOURCE = "resegment/churn-risk"
"""Another one, for an id is account:sequence in both, and ids of one source are unique."""
PLAYBOOKS_MAX = 10_000
"""Kept as they are sent: one for each segment and each list of needs."""
INPUT_OFFSET = "ce_inputoffset"
"""Header: the offset in `standings` after which the change was made."""
TRANSFER = "ce_transfer"
"""Header: `Standing.transfer` of the account; not there where it is 0."""


_WRITTEN = ConfigDict(strict=True, use_attribute_docstrings=True)
"""Of the models of what is written: their docstrings are the descriptions in docs/contracts."""


def _one_of(known: Iterable[str]) -> Any:
    """A text that is one of these, or of those that a later version adds: whoever reads it must expect others."""
    return Field(json_schema_extra={"x-extensible-enum": [str(value) for value in known]})


_Segment = Annotated[str, _one_of(SEGMENTS)]
_Level = Annotated[str, _one_of(LEVELS)]
_Mode = Annotated[str, _one_of([*get_args(Mode), "silent"])]
_Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class CauseData(BaseModel):
    """Why the account changed."""

    model_config = _WRITTEN

    kind: Annotated[str, _one_of(CauseKind)]
    event_id: str | None
    """The account's event that did it, where there is one."""
    own_change_minor: int
    """By how much its rolling revenue changed."""
    cutoff_change_minor: int | None
    """By how much the cutoff that it crossed moved; null where it crossed none, or the cutoff is new."""


class CutoffsData(BaseModel):
    """Lowest rolling revenue of the tiers; null where no account has the tier."""

    model_config = _WRITTEN

    key: int | None
    enterprise: int | None


class PlaybookData(BaseModel):
    """What is done for an account of the segment, and by whom: the policy's `[segments.…]` when it was announced."""

    model_config = _WRITTEN

    role: str
    team: str
    channels: list[str]
    motion: str
    touches_a_quarter: int
    minutes_a_touch: int
    offers: list[str]
    next_step: str
    needs: list[str]
    """What the account states that it needs, as far as the policy knows what to do about it."""


class ChangeData(BaseModel):
    """The data of a segment change."""

    model_config = _WRITTEN

    account_id: str
    population: str
    """The accounts that it is ranked against."""
    previous_population: str | None = None
    """The one that the account was ranked in before; null where it is the same."""
    sequence: int
    """Of the account's segment changes: 1, 2, 3, ... without gaps. One that was seen before is a repetition."""
    previous_segment: _Segment | None
    """Null for the account's first."""
    current_segment: _Segment
    direction: Annotated[str, _one_of(Direction)]
    cause: CauseData
    lapsed: bool
    """Established, and with no revenue left in the window."""
    rolling_revenue_minor: int
    """In minor units of the policy's base currency, as all amounts here; it may need more than 64 bits."""
    position_revenue: float | None
    """Share of the population's revenue above the account, in [0, 1); null where it is not ranked."""
    position_accounts: float | None
    """Share of the population's accounts above it, in [0, 1)."""
    cutoffs_minor: CutoffsData
    to_next_tier_up_minor: int | None
    """Gain of revenue that changes the tier, with the cutoffs as they are; null where there is no such tier."""
    to_next_tier_down_minor: int | None
    """As before, loss."""
    policy_version: str
    mode: _Mode
    """Whoever acts upon changes leaves out what is `silent`, and takes over the segment."""
    effective_at: _Time
    """When the causing event of the account happened, else the clock; never goes back within an account."""
    recorded_at: _Time
    """When it was decided, by the worker's clock."""
    playbook: PlaybookData | None = None
    """None: announced before changes had one."""


class RhythmData(BaseModel):
    """How an account has bought, and how that is told."""

    model_config = _WRITTEN

    days_bought: int
    """Days with a purchase, of all time."""
    silent_days: int
    """Since the last of them."""
    usual_gap_days: int | None
    """Mean of the days between them, rounded; None where there was only one."""
    age_days: int
    """Since the first of them."""


class PartData(BaseModel):
    """What one thing adds to a score."""

    model_config = _WRITTEN

    name: Annotated[str, _one_of(["rhythm", *EVIDENCE, ENGAGEMENT_FALL])]
    points: float
    days_ago: int | None
    """Null for the rhythm."""


class RiskData(BaseModel):
    """The data of a change of churn risk."""

    model_config = _WRITTEN

    account_id: str
    population: str
    sequence: int
    """Of the account's changes of risk: 1, 2, 3, ... without gaps. One that was seen before is a repetition."""
    previous_level: _Level
    current_level: _Level
    trigger: Annotated[str, _one_of(Trigger)]
    event_id: str | None
    score: float
    """The probability in percent."""
    probability: float
    """That the account buys nothing in the horizon."""
    parts: list[PartData]
    """What the score is made of: together they are it."""
    is_calibrated: bool
    """Whether the policy has a model of this installation's accounts; else the probability is of others' accounts."""
    horizon_days: int
    rhythm: RhythmData
    reasons: list[str]
    rolling_revenue_minor: int
    revenue_at_risk_minor: int
    """What the account brings in a horizon, times the probability."""
    segment: _Segment
    policy_version: str
    mode: _Mode
    """Whoever acts upon changes leaves out what is `silent`, and takes over the level."""
    effective_at: _Time
    recorded_at: _Time
    playbook: PlaybookData


class ChangeWriter:
    """Makes the records of changes. Plain dicts: a model of pydantic for each would cost as much as all the rest."""

    def __init__(self, policy: Policy) -> None:
        self.policy_version = policy.version
        self.rules = RiskRules.of(policy)
        self._policy = policy
        self._ends: dict[tuple[Segment, tuple[str, ...]], bytes] = {}
        """By segment and needs: encoded once, a playbook costs a change a copy."""

    def records(
        self,
        changes: Iterable[Change | RiskChange],
        mode: ChangeMode,
        *,
        input_offset: int,
        recorded_at_us: int,
        needs: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> list[Outgoing]:
        """One record for each change, for the topic of such changes and for the compacted one of each account's latest.

        input_offset: the position in `standings` after what caused the changes. needs: by account, of those that have
        any.
        """
        recorded_at, recorded_at_ms = format_instant(recorded_at_us), recorded_at_us // 1000
        offset_header = (INPUT_OFFSET, str(input_offset).encode())
        records = []
        for change in changes:
            effective_at = format_instant(change.effective_at_us)
            account_id = change.account_id.encode()
            if isinstance(change, Change):
                topics, same_headers = _CHANGE_TOPICS, _CHANGE_HEADERS
                data = json_bytes(self._data(change, mode, effective_at, recorded_at))
            else:
                topics, same_headers = _RISK_TOPICS, _RISK_HEADERS
                data = json_bytes(self._risk_data(change, mode, effective_at, recorded_at))
            headers = [
                *same_headers,
                ("ce_id", b"%b:%d" % (account_id, change.sequence)),
                ("ce_subject", account_id),
                ("ce_time", effective_at.encode()),
                offset_header,
            ]
            if change.transfer:
                headers.append((TRANSFER, str(change.transfer).encode()))
            value = data[:-1] + self._end(change.current_segment, needs.get(change.account_id, ()))
            records.append(Outgoing(topics, account_id, value, headers, recorded_at_ms))
        return records

    def _end(self, segment: Segment, needs: tuple[str, ...]) -> bytes:
        end = self._ends.get((segment, needs))
        if end is None:
            if len(self._ends) == PLAYBOOKS_MAX:
                self._ends.clear()
            document = {**self._policy.playbook(segment, needs).document(), "needs": needs}
            end = self._ends[segment, needs] = b',"playbook":%b}' % json_bytes(document)
        return end

    def _risk_data(self, change: RiskChange, mode: ChangeMode, effective_at: str, recorded_at: str) -> dict[str, Any]:
        """The fields of RiskData but the playbook."""
        score = round(score_of(change.odds), 4)
        return {
            "account_id": change.account_id,
            "population": change.population,
            "sequence": change.sequence,
            "previous_level": change.previous_level,
            "current_level": change.current_level,
            "trigger": change.trigger,
            "event_id": change.event_id,
            "score": score,
            "probability": round(score * 10_000) / 1_000_000,  # round(score / 100, 6), at a third of its cost
            "parts": part_documents(change.parts),
            "is_calibrated": self.rules.is_calibrated,
            "horizon_days": self.rules.horizon_days,
            "rhythm": rhythm_document(change.history),
            "reasons": reasons(change.history, change.parts),
            "rolling_revenue_minor": change.rolling_revenue_minor,
            "revenue_at_risk_minor": change.revenue_at_risk_minor,
            "segment": change.current_segment,
            "policy_version": self.policy_version,
            "mode": mode,
            "effective_at": effective_at,
            "recorded_at": recorded_at,
        }

    def _data(self, change: Change, mode: ChangeMode, effective_at: str, recorded_at: str) -> dict[str, Any]:
        """The fields of ChangeData but the playbook."""
        key, enterprise = change.cutoffs_minor
        kind, event_id, own_change_minor, cutoff_change_minor = change.cause
        return {
            "account_id": change.account_id,
            "population": change.population,
            "previous_population": change.previous_population,
            "sequence": change.sequence,
            "previous_segment": change.previous_segment,
            "current_segment": change.current_segment,
            "direction": change.direction,
            "cause": {
                "kind": kind,
                "event_id": event_id,
                "own_change_minor": own_change_minor,
                "cutoff_change_minor": cutoff_change_minor,
            },
            "lapsed": change.lapsed,
            "rolling_revenue_minor": change.rolling_revenue_minor,
            "position_revenue": _fraction(change.position_revenue),
            "position_accounts": _fraction(change.position_accounts),
            "cutoffs_minor": {"key": key, "enterprise": enterprise},
            "to_next_tier_up_minor": change.to_next_tier_up_minor,
            "to_next_tier_down_minor": change.to_next_tier_down_minor,
            "policy_version": self.policy_version,
            "mode": mode,
            "effective_at": effective_at,
            "recorded_at": recorded_at,
        }


def rhythm_document(history: BuyingHistory) -> dict[str, int | None]:
    """RhythmData of how an account has bought."""
    repeats, recency_days, age_days, _ = history
    return {
        "days_bought": repeats + 1,
        "silent_days": age_days - recency_days,
        "usual_gap_days": round(recency_days / repeats) if repeats else None,
        "age_days": age_days,
    }


def part_documents(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """PartData of the parts of a score, rounded so that they still add up to it."""
    found: list[dict[str, Any]] = []
    score = told = 0.0
    for name, points, days_ago in parts:
        score += points
        before, told = told, round(score, 4)
        points_told = round(told - before, 4) if found else told
        found.append({"name": name, "points": points_told, "days_ago": days_ago})
    return found


def reasons(history: BuyingHistory, parts: Sequence[Part]) -> list[str]:
    """Why the risk is what it is, in words, what is worst first."""
    evidence = sorted(parts[1:], key=lambda part: -part.points) if len(parts) > 2 else parts[1:]
    words = [
        _EVIDENCE[part.name] if part.days_ago is None else f"{_EVIDENCE[part.name]} {_ago(part.days_ago)}"
        for part in evidence
    ]
    last = f"last purchase {_ago(history.silent_days)}"
    if not history.repeats:
        return [*words, last, "bought on one day only"]
    gap_days = round(history.recency_days / history.repeats)
    return [*words, f"{last}, usually every {_days(gap_days)}", f"bought on {history.repeats + 1} days"]


_EVIDENCE = {
    "cancel_request": "asked to cancel",
    "support_ticket": "support ticket",
    "refund": "refund",
    "tier_fall": "fell to a lower tier",
    "engagement_fall": "engages less than half as often as before",
}


@lru_cache(maxsize=4_096)
def _ago(days: int) -> str:
    return f"{_days(days)} ago" if days else "today"


@lru_cache(maxsize=4_096)
def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _same_headers(change_type: str, source: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", change_type.encode()),
        ("content-type", b"application/json"),
    ]


_CHANGE_TOPICS: list[str] = [Topic.SEGMENT_CHANGES, Topic.SEGMENTS]
_RISK_TOPICS: list[str] = [Topic.CHURN_RISK, Topic.RISKS]
_CHANGE_HEADERS = _same_headers(CHANGE_TYPE, SOURCE)
_RISK_HEADERS = _same_headers(RISK_TYPE, RISK_SOURCE)


def _fraction(share: Share | None) -> float | None:
    """For people and charts; tiers are decided on the exact fraction. Cut off, so that it never reaches a boundary."""
    return None if share is None else share.above * 10**9 // share.total / 10**9


def cloud_event(headers: Headers, value: bytes | None) -> dict[str, Any]:
    """A change as a CloudEvent in JSON form. Raises ValueError for a value that is not JSON."""
    return {
        "specversion": header(headers, "ce_specversion"),
        "id": header(headers, "ce_id"),
        "source": header(headers, "ce_source"),
        "type": header(headers, "ce_type"),
        "subject": header(headers, "ce_subject"),
        "time": header(headers, "ce_time"),
        "datacontenttype": header(headers, "content-type"),
        "data": from_json(value or b"null"),
    }
