"""A segment change as the world reads it: a CloudEvent in binary mode, keyed by account."""

from collections.abc import Iterable
from typing import Any

from jiter import from_json
from pydantic import BaseModel, ConfigDict

from segmentation.buying import BuyingHistory
from segmentation.order_index import Share
from segmentation.policy import Policy
from segmentation.population import Change
from segmentation.purchase_model import probability
from segmentation.risk import RiskChange, RiskRules
from segmentation.segments import Segment
from streams.instants import format_instant
from streams.messages import Headers, Mode, Outgoing, header, json_bytes
from streams.topics import Topic

CHANGE_TYPE = "resegment.segment.changed.v1"
RISK_TYPE = "resegment.risk.changed.v1"
SOURCE = "resegment"
RISK_SOURCE = "resegment/churn-risk"
"""Another one, for an id is account:sequence in both, and ids of one source are unique."""
INPUT_OFFSET = "ce_inputoffset"
"""Header: the offset in `standings` after which the change was made."""


class CauseData(BaseModel):
    """Why the account changed."""

    model_config = ConfigDict(strict=True)

    kind: str
    event_id: str | None
    own_change_minor: int
    cutoff_change_minor: int | None


class CutoffsData(BaseModel):
    """Lowest rolling revenue of the tiers; null where no account has the tier."""

    model_config = ConfigDict(strict=True)

    key: int | None
    enterprise: int | None


class PlaybookData(BaseModel):
    """What is done for an account of the segment, and by whom: the policy's `[segments.…]` when it was announced."""

    model_config = ConfigDict(strict=True)

    role: str
    team: str
    channels: list[str]
    motion: str
    touches_a_quarter: int
    minutes_a_touch: int
    offers: list[str]
    next_step: str


class ChangeData(BaseModel):
    """The data of a segment change."""

    model_config = ConfigDict(strict=True)

    account_id: str
    population: str
    sequence: int
    previous_segment: str | None
    current_segment: str
    direction: str
    cause: CauseData
    lapsed: bool
    rolling_revenue_minor: int
    position_revenue: float | None
    position_accounts: float | None
    cutoffs_minor: CutoffsData
    to_next_tier_up_minor: int | None
    to_next_tier_down_minor: int | None
    policy_version: str
    mode: str
    effective_at: str
    recorded_at: str
    playbook: PlaybookData | None = None
    """None: announced before changes had one."""


class RhythmData(BaseModel):
    """How an account has bought, and how that is told."""

    model_config = ConfigDict(strict=True)

    days_bought: int
    """Days with a purchase, of all time."""
    silent_days: int
    """Since the last of them."""
    usual_gap_days: int | None
    """Mean of the days between them, rounded; None where there was only one."""
    age_days: int
    """Since the first of them."""


class RiskData(BaseModel):
    """The data of a change of churn risk."""

    model_config = ConfigDict(strict=True)

    account_id: str
    population: str
    sequence: int
    previous_level: str
    current_level: str
    trigger: str
    event_id: str | None
    score: float
    """The probability in percent."""
    probability: float
    """That the account buys nothing in the horizon."""
    is_calibrated: bool
    """Whether the policy has a model of this installation's accounts; else the probability is of others' accounts."""
    horizon_days: int
    rhythm: RhythmData
    reasons: list[str]
    rolling_revenue_minor: int
    revenue_at_risk_minor: int
    """What the account brings in a horizon, times the probability."""
    segment: str
    policy_version: str
    mode: str
    effective_at: str
    recorded_at: str
    playbook: PlaybookData


class ChangeWriter:
    """Makes the records of changes. Plain dicts: a model of pydantic for each would cost as much as all the rest."""

    def __init__(self, policy: Policy) -> None:
        self.policy_version = policy.version
        self.rules = RiskRules.of(policy)
        # Of each segment the same bytes each time: encoded once, they cost a change a copy.
        self._ends = {
            segment: b',"playbook":%b}' % json_bytes(policy.segments.of(segment).document()) for segment in Segment
        }

    def records(
        self, changes: Iterable[Change], mode: Mode, *, input_offset: int, recorded_at_us: int
    ) -> list[Outgoing]:
        """One record for each change, for the topic of changes and for the compacted one of each account's latest.

        input_offset: the position in `standings` after what caused the changes.
        """
        recorded_at, recorded_at_ms = format_instant(recorded_at_us), recorded_at_us // 1000
        offset_header = (INPUT_OFFSET, str(input_offset).encode())
        topics: list[str] = [Topic.SEGMENT_CHANGES, Topic.SEGMENTS]
        records = []
        for change in changes:
            effective_at = format_instant(change.effective_at_us)
            account_id = change.account_id.encode()
            headers = [
                *_CHANGE_HEADERS,
                ("ce_id", b"%b:%d" % (account_id, change.sequence)),
                ("ce_subject", account_id),
                ("ce_time", effective_at.encode()),
                offset_header,
            ]
            data = json_bytes(self._data(change, mode, effective_at, recorded_at))
            value = data[:-1] + self._ends[change.current_segment]
            records.append(Outgoing(topics, account_id, value, headers, recorded_at_ms))
        return records

    def risk_records(
        self, changes: Iterable[RiskChange], mode: Mode, *, input_offset: int, recorded_at_us: int
    ) -> list[Outgoing]:
        """As `records`, for changes of risk."""
        recorded_at, recorded_at_ms = format_instant(recorded_at_us), recorded_at_us // 1000
        topics: list[str] = [Topic.CHURN_RISK, Topic.RISKS]
        records = []
        for change in changes:
            effective_at = format_instant(change.effective_at_us)
            account_id = change.account_id.encode()
            headers = [
                *_RISK_HEADERS,
                ("ce_id", b"%b:%d" % (account_id, change.sequence)),
                ("ce_subject", account_id),
                ("ce_time", effective_at.encode()),
                (INPUT_OFFSET, str(input_offset).encode()),
            ]
            data = json_bytes(self._risk_data(change, mode, effective_at, recorded_at))
            records.append(
                Outgoing(topics, account_id, data[:-1] + self._ends[change.segment], headers, recorded_at_ms)
            )
        return records

    def _risk_data(self, change: RiskChange, mode: Mode, effective_at: str, recorded_at: str) -> dict[str, Any]:
        """The fields of RiskData but the playbook."""
        chance = int(probability(change.log_odds) * 10**6) / 10**6
        rhythm = rhythm_data(change.history)
        return {
            "account_id": change.account_id,
            "population": change.population,
            "sequence": change.sequence,
            "previous_level": change.previous_level,
            "current_level": change.current_level,
            "trigger": change.trigger,
            "event_id": change.event_id,
            "score": round(100 * chance, 4),
            "probability": chance,
            "is_calibrated": self.rules.is_calibrated,
            "horizon_days": self.rules.horizon_days,
            "rhythm": rhythm.model_dump(),
            "reasons": reasons(rhythm),
            "rolling_revenue_minor": change.rolling_revenue_minor,
            "revenue_at_risk_minor": change.revenue_at_risk_minor,
            "segment": change.segment,
            "policy_version": self.policy_version,
            "mode": mode,
            "effective_at": effective_at,
            "recorded_at": recorded_at,
        }

    def _data(self, change: Change, mode: Mode, effective_at: str, recorded_at: str) -> dict[str, Any]:
        """The fields of ChangeData but the playbook."""
        key, enterprise = change.cutoffs_minor
        kind, event_id, own_change_minor, cutoff_change_minor = change.cause
        return {
            "account_id": change.account_id,
            "population": change.population,
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


def rhythm_data(history: BuyingHistory) -> RhythmData:
    """How an account has bought, as it is told."""
    return RhythmData(
        days_bought=history.repeats + 1,
        silent_days=history.silent_days,
        usual_gap_days=round(history.recency_days / history.repeats) if history.repeats else None,
        age_days=history.age_days,
    )


def reasons(rhythm: RhythmData) -> list[str]:
    """Why the risk is what it is, in words."""
    last = "bought today" if not rhythm.silent_days else f"last purchase {_days(rhythm.silent_days)} ago"
    if rhythm.usual_gap_days is None:
        return [last, "bought on one day only"]
    return [f"{last}, usually every {_days(rhythm.usual_gap_days)}", f"bought on {rhythm.days_bought} days"]


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _same_headers(change_type: str, source: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", change_type.encode()),
        ("content-type", b"application/json"),
    ]


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
