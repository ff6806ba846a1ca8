"""From a record of `segment-changes` or `churn-risk` to what alerts go by, and to what messages show."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from segmentation.account import Profile
from segmentation.alerts import News
from segmentation.classification import attributes_of
from segmentation.events import AttributeValue
from streams.changes import ChangeData, RiskData
from streams.instants import parse_instant
from streams.topics import Topic


class Facts(NamedTuple):
    """What the account says of itself: it is not in a change."""

    name: str
    attributes: dict[str, AttributeValue]

    @classmethod
    def of(cls, profile: Profile) -> "Facts":
        """From a profile."""
        name = profile.fields.get("name")
        return cls("" if name is None else str(name[0]), attributes_of(profile))


NO_FACTS = Facts("", {})


def read_change(topic: Topic, value: bytes | None) -> tuple[News, dict[str, Any]]:
    """A change as alerts go by it, and its data. Raises ValueError."""
    if topic is Topic.SEGMENT_CHANGES:
        change = ChangeData.model_validate_json(value or b"")
        return _move(change), change.model_dump()
    risk = RiskData.model_validate_json(value or b"")
    return _risk(risk), risk.model_dump()


def _move(change: ChangeData) -> News:
    before = change.previous_population or change.population
    return News(
        "move",
        change.account_id,
        change.sequence,
        change.mode,
        parse_instant(change.recorded_at),
        f"{before}/{change.previous_segment}",
        f"{change.population}/{change.current_segment}",
        change.previous_segment,
        change.current_segment,
        change.current_segment,
        change.population,
        change.direction,
        change.cause.kind,
        max(change.rolling_revenue_minor, change.rolling_revenue_minor - change.cause.own_change_minor),
        0,
        change.playbook.team if change.playbook else "",
    )


def _risk(change: RiskData) -> News:
    return News(
        "risk",
        change.account_id,
        change.sequence,
        change.mode,
        parse_instant(change.recorded_at),
        change.previous_level,
        change.current_level,
        change.previous_level,
        change.current_level,
        change.segment,
        change.population,
        "",
        change.trigger,
        change.rolling_revenue_minor,
        change.revenue_at_risk_minor,
        change.playbook.team,
    )


def shown_attributes(attributes: Mapping[str, AttributeValue]) -> dict[str, str]:
    """As texts: lists with commas."""
    return {name: ", ".join(value) if isinstance(value, list) else str(value) for name, value in attributes.items()}
