"""Priority: each part of a score, and what switches it off."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from segmentation.policy import Policy
from segmentation.potential import Potential
from segmentation.priority import Priority, PriorityRules, priority

ONCE = PriorityRules(1.0, 1.0, 1.0, 1.0)
"""Every part counts once."""

amounts = st.integers(0, 10**12)
weights = st.floats(0, 100)
rules_ = st.builds(PriorityRules, weights, weights, weights, weights)


def expecting(expected_minor: int) -> Potential:
    """The potential of an account of which so much is expected."""
    return Potential(expected_minor, 0, 2 * expected_minor, None, None, 1)


def of(
    rules: PriorityRules,
    *,
    expected_minor: int | None = 0,
    at_risk_minor: int = 0,
    fit: int = 0,
    revenue_minor: int = 0,
    missing_minor: int | None = None,
) -> Priority:
    """The priority of an account of which nothing else is said."""
    return priority(
        rules,
        None if expected_minor is None else expecting(expected_minor),
        revenue_at_risk_minor=at_risk_minor,
        fit=fit,
        revenue_minor=revenue_minor,
        to_next_tier_minor=missing_minor,
    )


facts = st.fixed_dictionaries(
    {
        "expected_minor": st.none() | amounts,
        "at_risk_minor": amounts,
        "fit": st.integers(0, 100),
        "revenue_minor": st.integers(-(10**6), 10**12),
        "missing_minor": st.none() | amounts,
    }
)


@given(rules_, facts)
def test_the_parts_add_up_to_the_score(rules: PriorityRules, its: dict[str, Any]) -> None:
    """Each of them is 0 or more, and whole minor units."""
    found = of(rules, **its)
    potential_minor, revenue_at_risk_minor, fit_minor, closeness_minor = found
    assert found.score_minor == potential_minor + revenue_at_risk_minor + fit_minor + closeness_minor
    assert all(part >= 0 and type(part) is int for part in found)


@given(rules_, facts)
def test_a_weight_of_nothing_switches_its_part_off(rules: PriorityRules, its: dict[str, Any]) -> None:
    """And touches no other part."""
    all_parts = of(rules, **its)
    for place, name in enumerate(PriorityRules._fields):
        without = of(rules._replace(**{name: 0.0}), **its)
        assert without == all_parts._replace(**{Priority._fields[place]: 0})


def test_each_part_by_hand() -> None:
    """1,000.00 expected, 200.00 at risk, fit 60 of 100; 500.00 of revenue, of which 100.00 more are missing."""
    facts = {"expected_minor": 100_000, "at_risk_minor": 20_000, "fit": 60, "revenue_minor": 50_000}
    assert of(ONCE, **facts, missing_minor=10_000) == Priority(100_000, 20_000, 60_000, 40_000)
    by_policy = PriorityRules.of(Policy.default())
    assert by_policy == (1.0, 2.0, 0.5, 0.5)
    assert of(by_policy, **facts, missing_minor=10_000) == Priority(100_000, 40_000, 30_000, 20_000)
    assert of(by_policy, **facts, missing_minor=10_000).score_minor == 190_000


def test_a_policy_says_what_each_part_counts() -> None:
    """Each weight by its own name."""
    table = {"potential": "0.5", "revenue_at_risk": 3, "fit": 0, "closeness": "1.25"}
    assert PriorityRules.of(Policy.default().with_changes(priority=table)) == (0.5, 3.0, 0.0, 1.25)


@given(amounts, st.integers(0, 3 * 10**12))
def test_closeness_is_the_revenue_less_what_is_missing(revenue_minor: int, missing_minor: int) -> None:
    """So of two accounts that miss as much the greater one is closer; nothing of one that must more than double."""
    closeness_minor = of(ONCE, revenue_minor=revenue_minor, missing_minor=missing_minor).closeness_minor
    assert closeness_minor == (0 if missing_minor >= revenue_minor else revenue_minor - missing_minor)


def test_closeness_at_its_ends() -> None:
    """All of the revenue on the threshold, nothing for who must double, or has no tier above it, or no revenue."""
    missing = (0, 1, 99, 100, 101, 10**9, None)
    found = [of(ONCE, revenue_minor=100, missing_minor=missing_minor).closeness_minor for missing_minor in missing]
    assert found == [100, 99, 1, 0, 0, 0, 0]
    assert [of(ONCE, revenue_minor=revenue_minor, missing_minor=0).closeness_minor for revenue_minor in (0, -5)] == [
        0,
        0,
    ]


@given(rules_, amounts, st.integers(0, 100))
def test_a_prospect_has_potential_and_fit_only(rules: PriorityRules, expected_minor: int, fit: int) -> None:
    """It brings nothing yet that may be lost, and is in no tier."""
    found = of(rules, expected_minor=expected_minor, fit=fit)
    assert found[1:2] + found[3:] == (0, 0)
    assert found.score_minor == found.potential_minor + found.fit_minor


@given(rules_, facts)
def test_where_nobody_knows_the_potential_it_counts_as_nothing(rules: PriorityRules, its: dict[str, Any]) -> None:
    """And so does the fit to it; the other parts are as ever."""
    without = of(rules, **{**its, "expected_minor": None})
    assert without == of(rules, **{**its, "expected_minor": 0})
    assert without.potential_minor == without.fit_minor == 0
    assert without[1::2] == of(rules, **its)[1::2]


@given(rules_, facts, st.sampled_from(["expected_minor", "at_risk_minor", "fit", "revenue_minor"]), amounts)
def test_more_of_anything_never_lowers_a_score(
    rules: PriorityRules, its: dict[str, Any], name: str, more_minor: int
) -> None:
    """Except of what is missing to the next tier, of which less does."""
    more = {**its, name: (its[name] or 0) + more_minor}
    more["fit"] = min(100, more["fit"])
    assert of(rules, **more).score_minor >= of(rules, **its).score_minor
    if its["missing_minor"] is not None:
        nearer = {**its, "missing_minor": its["missing_minor"] // 2}
        assert of(rules, **nearer).score_minor >= of(rules, **its).score_minor
