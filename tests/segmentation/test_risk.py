"""Churn risk: its levels, and the day on which silence changes them."""

from math import exp, log1p

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.account import EVIDENCE_TOLD, NEVER
from segmentation.buying import BuyingHistory
from segmentation.policy import Policy, PolicyError
from segmentation.population import Member
from segmentation.purchase_model import (
    BuyingModel,
    odds_no_purchase,
    probability_alive,
    probability_no_purchase,
    probability_of,
)
from segmentation.risk import EVIDENCE, LEVELS, TIER_FALL, UNCALIBRATED, Level, Risk, RiskRules, Trigger, score_of
from segmentation.risk_watch import RiskWatch
from segmentation.segments import Segment
from streams.changes import part_documents, reasons

MODEL = {
    **{"r": "0.605217", "alpha_days": "56.4097", "a": "0.638518", "b": "1.17643"},
    **{"p": "5.3947", "q": "3.77446", "gamma_minor": "1874.09", "fitted_at": "1998-01-01", "accounts": 23_570},
}
POLICY = Policy.default().with_changes(model=MODEL, risk={"horizon_days": 90, "watch": 50, "high": 80, "band": 10})
RULES = RiskRules.of(POLICY)
REGULAR = BuyingHistory(repeats=4, recency_days=84, age_days=84)
"""Five purchases, 21 days apart, the last one today."""

models = st.builds(BuyingModel, *[st.floats(0.05, 20)] * 4)
histories = st.tuples(st.integers(0, 300), st.integers(0, 2_000), st.integers(0, 2_000)).map(
    lambda n: BuyingHistory(n[0], n[1] if n[0] else 0, (n[1] if n[0] else 0) + n[2])
)


def score(silent_days: int) -> float:
    """Of the regular account after so many days without a purchase, in percent."""
    history = REGULAR._replace(age_days=REGULAR.age_days + silent_days)
    return 100 * probability_no_purchase(RULES.model, history, 90)


def happened(risk: Risk, name: str, day: int) -> bool:
    """This happened on a day. Returns whether that is news."""
    if name == TIER_FALL:
        return risk.note_change(day)
    return risk.note(tuple(day if name == other else 0 for other in EVIDENCE_TOLD)) is not None


def regular() -> Risk:
    """The risk of the regular account, whose last purchase is on day 1,084."""
    risk = Risk()
    risk.know(1_000, 1_084, 5, 1)
    return risk


@given(models, histories, st.integers(1, 3_650))
def test_odds_are_those_of_the_probability(model: BuyingModel, history: BuyingHistory, horizon: int) -> None:
    """And the probability is that it has left, or stays and does not buy. It only rises while an account is silent."""
    silent = exp(-(model.r + history.repeats) * log1p(horizon / (model.alpha_days + history.age_days)))
    expected = 1 - probability_alive(model, history) * (1 - silent)
    assert probability_no_purchase(model, history, horizon) == pytest.approx(expected, rel=1e-9)
    odds = odds_no_purchase(model, *history[:2], horizon)
    assert probability_of(odds(history.age_days)) == pytest.approx(expected, rel=1e-9)
    assert odds(history.age_days + 1) >= odds(history.age_days) * (1 - 1e-9)


def test_an_account_rises_at_the_boundary_and_falls_below_the_band() -> None:
    """Watched from 50 on, and no longer below 40; in danger from 80 on, and no longer below 70."""

    def level(points: float, before: Level) -> Level:
        return RULES.level(points / (100 - points), before)

    assert [level(points, Level.LOW) for points in (49.9, 50.1, 79.9, 80.1)] == ["low", "watch", "watch", "high"]
    assert [level(points, Level.HIGH) for points in (70.1, 69.9, 40.1, 39.9)] == ["high", "watch", "watch", "low"]
    assert [level(points, Level.WATCH) for points in (40.1, 39.9, 80.1)] == ["watch", "low", "high"]


def test_silence_raises_the_level_on_the_day_that_was_worked_out() -> None:
    """The regular account: low on the 60th day, watched from the 61st on; and it is looked at on few others."""
    assert score(60) < 50 <= score(61)
    risk = regular()
    assert risk.rises_on(RULES, 1_084) == 1_084 + 61
    looks, day = [], 1_084
    while day < NEVER:
        risk.settle(RULES, day, risk.level)
        looks.append((day - 1_084, str(risk.level)))
        assert day < risk.due_day <= (risk.rises_on(RULES, day) if risk.level is not Level.HIGH else NEVER)
        day = risk.due_day
    changes = [(days, level) for (days, level), (_, before) in zip(looks[1:], looks, strict=False) if level != before]
    assert changes == [(61, "watch"), (133, "high")]
    assert score(132) < 80 <= score(133)
    assert len(looks) <= 7


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["buys", *EVIDENCE]), st.integers(-3, 40)), max_size=25),
    st.sampled_from([RULES, RiskRules.of(Policy.default()), RULES._replace(horizon_days=7, evidence_days=9)]),
)
def test_the_watch_that_looks_only_when_somebody_is_due_misses_nothing(
    steps: list[tuple[int, str, int]], rules: RiskRules
) -> None:
    """Every day the level is what it would be if the account were looked at each day. Evidence may be dated ahead."""
    member = Member("acme", risk=Risk())
    watch = RiskWatch(rules, [member])
    daily, day, days = Risk(), 1_000, [1_000]
    assert member.risk is not None
    for risk in (member.risk, daily):
        risk.know(1_000, 1_000, 1, 1)
    watch.look(member, day)
    daily.settle(rules, day, daily.level)
    for wait, happens, ahead_days in steps:
        for _ in range(wait):
            day += 1
            for due in watch.due(day, 1):
                assert due is member
                watch.look(member, day)
            daily.settle(rules, day, daily.level)
            assert member.risk.level is daily.level, f"on day {day}"
            assert member.risk.due_day > day
        for risk in (member.risk, daily):
            if happens == "buys":
                days.append(day)
                risk.know(days[0], day, len(set(days)), 1)
            else:
                happened(risk, happens, day + ahead_days)
        watch.look(member, day)
        daily.settle(rules, day, daily.level)
        assert member.risk.level is daily.level


def test_evidence_multiplies_the_odds_while_it_is_fresh() -> None:
    """A request to cancel on the day of the last purchase: four times the odds for 30 days, and no longer."""
    calm, asked = regular(), regular()
    assert happened(asked, "cancel_request", 1_084)
    assert not happened(asked, "cancel_request", 1_080), "an older one is no news"
    for day, factor in ((1_084, 4), (1_113, 4), (1_114, 1)):
        assert asked.odds(RULES, day) == pytest.approx(factor * calm.odds(RULES, day))
    levels = []
    for day in (1_084, 1_113, 1_114):
        asked.settle(RULES, day, asked.level)
        levels.append(asked.level)
    assert levels == ["watch", "watch", "low"]


def test_the_parts_of_a_score_add_up() -> None:
    """The rhythm first, then each piece of evidence on top of it, with its age."""
    risk = regular()
    happened(risk, "refund", 1_090)
    happened(risk, "tier_fall", 1_099)
    happened(risk, "cancel_request", 1_000)
    parts = risk.parts(RULES, 1_100, risk.odds(RULES, 1_100))
    assert [(part.name, part.days_ago) for part in parts] == [("rhythm", None), ("refund", 10), ("tier_fall", 1)]
    assert parts[0].points == pytest.approx(score(16))
    assert all(part.points > 0 for part in parts)
    assert sum(part.points for part in parts) == pytest.approx(score_of(risk.odds(RULES, 1_100)))
    score_told = round(score_of(risk.odds(RULES, 1_100)), 4)
    assert sum(document["points"] for document in part_documents(parts)) == pytest.approx(score_told)
    assert reasons(risk.history(1_100), parts) == [
        "fell to a lower tier 1 day ago",
        "refund 10 days ago",
        "last purchase 16 days ago, usually every 21 days",
        "bought on 5 days",
    ]


def test_due_accounts_are_named_once_and_in_portions() -> None:
    """Also where a whole installation is due on one day."""
    members = [Member(f"a{n}", risk=Risk(days_bought=1, due_day=50 + n % 2)) for n in range(10)]
    watch = RiskWatch(RULES, members)
    assert watch.due(49, 10) == []
    named = [watch.due(51, 4) for _ in range(4)]
    assert [len(part) for part in named] == [4, 4, 2, 0]
    assert sorted(member.account_id for part in named for member in part) == sorted(
        member.account_id for member in members
    )


def test_changes_of_one_account_are_a_chain() -> None:
    """Numbered from 1, each from what was told last, with what is at stake."""
    member = Member("acme", stage="established", tier=1, revenue_minor=36_500_00, risk=regular())
    watch = RiskWatch(RULES)
    changes = []
    for silent_days, trigger in ((65, Trigger.SILENCE), (200, Trigger.SILENCE)):
        day = 1_084 + silent_days
        odds = watch.look(member, day)
        changes.append(watch.change(member, "all", day, odds, trigger=trigger, event_id=None, effective_at_us=day))
    assert [(c.sequence, c.previous_level, c.current_level) for c in changes] == [
        (1, "low", "watch"),
        (2, "watch", "high"),
    ]
    assert [c.history.silent_days for c in changes] == [65, 200]
    assert changes[0].current_segment is Segment.ENTERPRISE
    # 150 days old: 36,500.00 in these are 21,900.00 in 90 days, and as much of it is at risk as is probable
    assert changes[0].revenue_at_risk_minor == round(36_500_00 * 90 / 150 * score(65) / 100)
    assert not member.is_risk_untold


@pytest.mark.parametrize(
    ("age_days", "revenue_minor", "days"), [(0, 100, 90), (89, 100, 90), (200, 100, 201), (2_000, 100, 365)]
)
def test_revenue_at_risk_is_brought_down_to_the_horizon(age_days: int, revenue_minor: int, days: int) -> None:
    """Never up: a young account has not brought more than it has."""
    history = BuyingHistory(0, 0, age_days)
    expected = round(revenue_minor * 90 / days * 0.75)
    assert RULES.revenue_at_risk_minor(history, revenue_minor, 3.0) == expected
    assert RULES.revenue_at_risk_minor(history, -revenue_minor, 3.0) == 0


def test_without_a_model_the_score_is_not_calibrated() -> None:
    """It says so, and rests on how often and how recently an account bought."""
    rules = RiskRules.of(Policy.default())
    assert not rules.is_calibrated
    assert rules.model == UNCALIBRATED
    assert RULES.is_calibrated
    regular_, silent = regular(), regular()
    assert silent.odds(rules, 1_300) > regular_.odds(rules, 1_100)
    often = Risk(first_day=1_000, last_day=1_084, days_bought=9)
    assert often.odds(rules, 1_090) < regular_.odds(rules, 1_090)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"watch": 80, "high": 80}, "risk.high"),
        ({"watch": 20, "high": 80, "band": 20}, "risk.band"),
        ({"watch": 0}, "risk.watch"),
        ({"horizon_days": "90"}, "risk.horizon_days"),
        ({"hihg": 80}, "risk.hihg"),
        ({"evidence": {"cancel_request": 0}}, "risk.evidence.cancel_request"),
        ({"evidence": {"refnud": 2}}, "risk.evidence.refnud"),
    ],
)
def test_a_policy_says_what_is_wrong_with_its_risk(table: dict[str, object], field: str) -> None:
    """With the path of the field."""
    with pytest.raises(PolicyError) as caught:
        Policy.default().with_changes(risk=table)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_levels_are_in_order() -> None:
    """The calmest first."""
    assert LEVELS == ("low", "watch", "high")
