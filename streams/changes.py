"""A segment change as the world reads it: a CloudEvent in binary mode, keyed by account."""

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from segmentation.population import Change, Share
from streams.messages import Headers, Mode, Outgoing, header
from streams.topics import Topic
from streams.instants import format_instant

CHANGE_TYPE = "resegment.segment.changed.v1"
SOURCE = "resegment"
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


def change_data(change: Change, policy_version: str, mode: Mode, recorded_at_us: int) -> ChangeData:
    """The wire form of a change."""
    key, enterprise = change.cutoffs_minor
    return ChangeData(
        account_id=change.account_id,
        population=change.population,
        sequence=change.sequence,
        previous_segment=change.previous_segment,
        current_segment=change.current_segment,
        direction=change.direction,
        cause=CauseData(
            kind=change.cause.kind,
            event_id=change.cause.event_id,
            own_change_minor=change.cause.own_change_minor,
            cutoff_change_minor=change.cause.cutoff_change_minor,
        ),
        lapsed=change.lapsed,
        rolling_revenue_minor=change.rolling_revenue_minor,
        position_revenue=_fraction(change.position_revenue),
        position_accounts=_fraction(change.position_accounts),
        cutoffs_minor=CutoffsData(key=key, enterprise=enterprise),
        to_next_tier_up_minor=change.to_next_tier_up_minor,
        to_next_tier_down_minor=change.to_next_tier_down_minor,
        policy_version=policy_version,
        mode=mode,
        effective_at=format_instant(change.effective_at_us),
        recorded_at=format_instant(recorded_at_us),
    )


def _fraction(share: Share | None) -> float | None:
    """For people and charts; tiers are decided on the exact fraction."""
    return None if share is None else round(share.above / share.total, 9) if share.total else 0.0


def change_record(data: ChangeData, input_offset: int, recorded_at_us: int) -> Outgoing:
    """The record, for the topic of changes and for the compacted one of each account's latest."""
    headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", f"{data.account_id}:{data.sequence}"),
        ("ce_source", SOURCE),
        ("ce_type", CHANGE_TYPE),
        ("ce_subject", data.account_id),
        ("ce_time", data.effective_at),
        (INPUT_OFFSET, str(input_offset)),
        ("content-type", "application/json"),
    ]
    return Outgoing(
        topics=[Topic.SEGMENT_CHANGES, Topic.SEGMENTS],
        key=data.account_id.encode(),
        value=data.model_dump_json().encode(),
        headers=[(name, text.encode()) for name, text in headers],
        timestamp_ms=recorded_at_us // 1000,
    )


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
        "data": orjson.loads(value or b"null"),
    }
