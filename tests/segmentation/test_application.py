"""Which policies can be applied to accounts that go on."""

import pytest

from segmentation.application import refusals, touches_accounts
from segmentation.policy import Policy

POLICY = Policy.default()
ARRIVAL = "this is decided when a record arrives, and is not decided again"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_currency": "EUR", "rates": {}}, "base_currency: USD -> EUR: " + ARRIVAL),
        ({"rates": {"EUR": "2"}}, "rates.EUR: 1.08 -> 2: " + ARRIVAL),
        ({"future_days": 7}, "future_days: 366 -> 7: " + ARRIVAL),
        ({"engagement_weights": {"login": 9}}, "engagement_weights.login: 1 -> 9: " + ARRIVAL),
        ({"window_days": 366}, "window_days: 365 -> 366: what is older than 365 days is forgotten"),
        ({"engagement_days": 91}, "engagement_days: 90 -> 91: what is older than 90 days is forgotten"),
    ],
)
def test_what_was_decided_or_forgotten_is_not_there_any_more(changes: dict[str, object], why: str) -> None:
    """Nobody can say what would have come of it, so it is refused, with the reason."""
    assert why in refusals(POLICY, POLICY.with_changes(**changes))


@pytest.mark.parametrize(
    ("changes", "are_touched"),
    [
        ({"version": "2"}, False),
        ({"basis": "accounts"}, False),
        ({"band": 0}, False),
        ({"tiers": {"key": 20, "enterprise": 50, "commercial": 30}}, False),
        ({"risk": {"watch": 50}}, False),
        ({"new_start_days": 0}, True),
        ({"new_start_days": 900}, True),
        ({"window_days": 30}, True),
        ({"engagement_days": 1}, True),
    ],
)
def test_all_else_can_be_applied(changes: dict[str, object], are_touched: bool) -> None:
    """And only where revenue, stage or engagement may differ has every account to be worked out anew."""
    other = POLICY.with_changes(**changes)
    assert refusals(POLICY, other) == []
    assert touches_accounts(POLICY, other) is are_touched


def test_rules_of_one_policy_go_with_the_rest_of_another() -> None:
    """As they are stored: keys in order of their names, which is not that of bands."""
    rules = POLICY.with_changes(window_days=30, tiers={"key": 20, "enterprise": 50, "commercial": 30})
    rest = POLICY.with_changes(
        bands={"seats": {"zero": 0, "many": 10, "all": 99}},
        icp=[{"attribute": "seats", "at_least": 0.5, "points": 5}],
        segments={"key": {"next_step": "Call"}},
    )
    both = Policy.of(rules.canonical(), rest.canonical_rest())
    assert both.canonical() == rules.canonical()
    assert both.canonical_rest() == rest.canonical_rest()
    assert list(both.bands["seats"]) == ["zero", "many", "all"]
