"""The record of a change: the playbook of the segment that the account has now, the same bytes each time."""

import json

import pytest

from segmentation.policy import Policy
from segmentation.population import CauseKind, Change, ChangeCause, Direction
from segmentation.segments import Segment
from streams.changes import ChangeData, ChangeWriter
from streams.messages import Outgoing, decode_outgoing, encode_outgoing

POLICY = Policy.default().with_changes(
    segments={"key": {"next_step": 'Say "hello" \\ Grüß Gott, 你好', "offers": []}},
)


def change_to(segment: Segment, revenue_minor: int = 512_000) -> Change:
    """A change that has all that one can have."""
    return Change(
        "acme",
        "all",
        3,
        Segment.COMMERCIAL,
        segment,
        Direction.UP,
        ChangeCause(CauseKind.PURCHASE, "e-1", 5, None),
        False,
        revenue_minor,
        None,
        None,
        (514_300, None),
        None,
        400_120,
        1_700_000_000_000_000,
    )


def record_of(change: Change, policy: Policy = POLICY) -> Outgoing:
    """The record, through the outbox."""
    (record,) = ChangeWriter(policy).records([change], "live", input_offset=7, recorded_at_us=1_700_000_000_000_001)
    return decode_outgoing(encode_outgoing(record))


@pytest.mark.parametrize("segment", Segment)
@pytest.mark.parametrize("revenue_minor", [512_000, 2**63 + 1])
def test_a_change_says_what_is_to_be_done(segment: Segment, revenue_minor: int) -> None:
    """By the policy's strategy for the segment, also where a number is beyond 64 bits."""
    value = record_of(change_to(segment, revenue_minor)).value or b""

    data = json.loads(value)
    assert data["playbook"] == POLICY.segments.of(segment).document() | {"needs": []}
    assert list(data["playbook"]) == [
        *("role", "team", "channels", "motion"),
        *("touches_a_quarter", "minutes_a_touch", "offers", "next_step", "needs"),
    ]
    assert (data["current_segment"], data["rolling_revenue_minor"]) == (segment, revenue_minor)
    read = ChangeData.model_validate_json(value)
    assert read.model_dump() == data


def test_the_same_change_is_the_same_bytes() -> None:
    """Whichever worker with this policy writes it; with another strategy the rest is still the same."""
    change = change_to(Segment.KEY)
    data = json.loads(record_of(change).value or b"")
    other = json.loads(record_of(change, Policy.default()).value or b"")

    assert record_of(change) == record_of(change)
    assert data.pop("playbook") != other.pop("playbook")
    assert data == other


def test_a_change_from_before_there_were_playbooks_is_read() -> None:
    """The log holds them: at each claim the ranking stage reads what the world was told."""
    data = json.loads(record_of(change_to(Segment.KEY)).value or b"")
    del data["playbook"]

    assert ChangeData.model_validate_json(json.dumps(data)).playbook is None
