"""Holding the model against what came: fitted on what was known when a day ended, and judged by the days after it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segmentation.buying import BuyingHistory
from segmentation.events import Purchase
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.potential import Buyer, ClassEstimates, ClassFigures, Potential, PotentialRules
from segmentation.purchase_model import (
    expected_revenue_minor,
    planned_revenue_minor,
    probability_alive,
    probability_no_purchase,
    probability_of,
)
from segmentation.risk import LEVELS, Level, Risk, RiskRules
from segmentation.segments import TIERS, Segment, Stage
from segmentation.tiers import Tiers
from streams.instants import format_day
from streams.model.fitting import Fit, fit
from streams.model.measures import (
    TOP_SHARE,
    Decile,
    Numbers,
    Truths,
    auc,
    average_precision,
    brier,
    deciles,
    rank_correlation,
    rank_shares,
    share_in_top,
)
from streams.model.purchases import PurchaseLog, histories_at
from streams.model.risks import risks_at

RISK, MODEL, QUIET, RECENCY, FREQUENCY, OVERDUE = "risk", "model", "quiet", "recency", "frequency", "overdue"
"""Scores; greater is likelier to buy nothing. `risk` is what a worker would have had: the model's probability, its odds
multiplied by the evidence. `quiet` is the chance that the account has left for good."""
PROBABILITIES = (RISK, MODEL, QUIET)
"""Of the scores, those that are one."""

PLANNED, POTENTIAL, EXPECTED, LAST_HORIZON = "planned", "potential", "expected", "last_horizon"
"""Forecasts of revenue. `potential` is what a worker knows live: `planned`, of an account's rolling revenue."""


class CannotBacktest(Exception):
    """The log does not reach as far as the question; the message says how far it does."""


class ScoreQuality(NamedTuple):
    """How well a score told who would buy nothing."""

    name: str
    auc: float
    average_precision: float
    precision_in_top: float
    """Of the tenth of the accounts with the greatest scores, the share that bought nothing."""
    lost_in_top: float
    """Of the revenue that was lost, the share that the tenth with most at stake had: revenue of the last horizon times
    the score, or the score's rank where it is no probability."""
    brier: float | None
    """None: the score is no probability."""
    at_risk_minor: int | None
    """Revenue of the last horizon times the probability, of all accounts."""


class ForecastQuality(NamedTuple):
    """How well a forecast told what accounts would bring."""

    name: str
    total_minor: int
    mean_absolute_error_minor: float
    rank_correlation: float


class SegmentForecast(NamedTuple):
    """What the accounts of a segment, by what was known then, brought and were to bring."""

    segment: str
    accounts: int
    came_minor: int
    forecasts: list[ForecastQuality]


class RevenueBacktest(NamedTuple):
    """Forecasts of revenue against what came."""

    horizon_days: int
    came_minor: int
    forecasts: list[ForecastQuality]
    covered: float
    """The share of accounts that brought something within the bounds of their potential; COVERED_SHARE is meant."""
    segments: list[SegmentForecast]


class Warned(NamedTuple):
    """How early, and how rightly, a level of risk warned: the policy's levels, with the model that was fitted."""

    level: Level
    accounts: int
    """At the level or a higher one when the day of the question ended."""
    right: float
    """Share of these that bought nothing in the horizon; not a number if there are none."""
    found: float
    """Share of those that bought nothing which had come to the level before the horizon was over."""
    lead_days: float
    """Of these, the median time from that day to the horizon's end, when it was plain that they had bought nothing."""


class Backtest(NamedTuple):
    """How it turned out."""

    fit: Fit
    accounts: int
    """With a purchase by then."""
    churned: int
    """Of these, how many bought nothing in the horizon."""
    scores: list[ScoreQuality]
    calibration: list[Decile]
    """Of RISK."""
    warned: list[Warned]
    """By level: how long before the end silence alone told that an account was about to be lost."""
    lost_minor: int
    """Revenue of the last horizon of the accounts that bought nothing in the next one."""
    revenue: RevenueBacktest | None
    """None: the log does not reach as far as its horizon."""

    def score(self, name: str) -> ScoreQuality:
        """One of them."""
        return next(score for score in self.scores if score.name == name)


def backtest(log: PurchaseLog, policy: Policy, *, day: int, horizon_days: int, revenue_horizon_days: int) -> Backtest:
    """Fit at a day's end, score everyone who had purchased by then, and compare with the days after it.

    Known are the events with an `occurred_at` before that day's end. Raises CannotBacktest where the log ends before
    the horizon does, and CannotFit. Some 8 seconds for 25,000 accounts.
    """
    if log.last_day is None or log.last_day < day + horizon_days:
        ends = "is empty" if log.last_day is None else f"ends on {format_day(log.last_day)}"
        raise CannotBacktest(
            f"the log {ends}, so nobody knows what came in the {horizon_days} days after {format_day(day)}: "
            "choose an earlier --at or a shorter --horizon"
        )
    known = log.known_at(day)
    histories = histories_at(known, day)
    fitted = fit(histories.values())
    past = [_revenue(known[account_id], day - horizon_days, day) for account_id in histories]
    churned = np.array([bought_nothing(log.accounts[name], day, horizon_days) for name in histories])
    rules = risk_rules(policy, fitted, horizon_days)
    risks = risks_at(log, policy, day)
    scores = {
        RISK: _numbers(probability_of(risks[name].odds(rules, day)) for name in histories),
        **_scores(list(histories.values()), fitted, horizon_days),
    }
    last_minor = np.array(past, dtype=np.float64).clip(min=0)
    revenue = None
    if log.last_day >= day + revenue_horizon_days:
        revenue = _revenue_backtest(log, known, histories, policy, fitted, day, revenue_horizon_days)
    return Backtest(
        fit=fitted,
        accounts=len(histories),
        churned=int(churned.sum()),
        scores=[_quality(name, values, churned, last_minor) for name, values in scores.items()],
        calibration=deciles(scores[RISK], churned),
        warned=[_warned(level, histories.values(), churned, rules, day) for level in LEVELS[1:]],
        lost_minor=int(last_minor[churned].sum()),
        revenue=revenue,
    )


def risk_rules(policy: Policy, fitted: Fit, horizon_days: int) -> RiskRules:
    """Those of a policy that has the model that was fitted."""
    return RiskRules.of(policy)._replace(model=fitted.buying, horizon_days=horizon_days)


def _scores(histories: Sequence[BuyingHistory], fitted: Fit, horizon_days: int) -> dict[str, Numbers]:
    """Of each account, in order: how sure each rule is that it buys nothing."""
    gaps = [history.recency_days / history.repeats for history in histories if history.repeats]
    # who has not come back yet has no rhythm: that of the others has to do
    usual = sum(gaps) / len(gaps)
    model = fitted.buying
    return {
        MODEL: _numbers(probability_no_purchase(model, history, horizon_days) for history in histories),
        QUIET: _numbers(1 - probability_alive(model, history) for history in histories),
        RECENCY: _numbers(history.silent_days for history in histories),
        FREQUENCY: _numbers(-history.repeats for history in histories),
        OVERDUE: _numbers(
            history.silent_days / (history.recency_days / history.repeats if history.repeats else usual)
            for history in histories
        ),
    }


def _quality(name: str, scores: Numbers, churned: Truths, last_minor: Numbers) -> ScoreQuality:
    is_probability = name in PROBABILITIES
    chance = scores if is_probability else rank_shares(scores)
    lost = np.where(churned, last_minor, 0.0)
    all_lost = float(lost.sum())
    top = share_in_top(last_minor * chance, lost) * max(1.0, len(scores) * TOP_SHARE)
    return ScoreQuality(
        name=name,
        auc=auc(scores, churned),
        average_precision=average_precision(scores, churned),
        precision_in_top=share_in_top(scores, churned.astype(np.float64)),
        lost_in_top=top / all_lost if all_lost else float("nan"),
        brier=brier(scores, churned) if is_probability else None,
        at_risk_minor=round(float(last_minor @ scores)) if is_probability else None,
    )


def _warned(level: Level, histories: Iterable[BuyingHistory], churned: Truths, rules: RiskRules, day: int) -> Warned:
    warned_on = _numbers(_reached_on(rules, level, history, day) for history in histories)
    by_now, end = warned_on <= day, day + rules.horizon_days
    lead = end - warned_on[churned & (warned_on <= end)]
    return Warned(
        level=level,
        accounts=int(by_now.sum()),
        right=float(churned[by_now].mean()) if by_now.any() else float("nan"),
        found=len(lead) / int(churned.sum()) if churned.any() else float("nan"),
        lead_days=float(np.median(lead)) if len(lead) else float("nan"),
    )


def _reached_on(rules: RiskRules, level: Level, history: BuyingHistory, day: int) -> int:
    """The day on which silence after the last purchase brings an account to a level."""
    risk = Risk(
        first_day=day - history.age_days,
        last_day=day - history.silent_days,
        days_bought=history.repeats + 1,
        level=LEVELS[LEVELS.index(level) - 1],
    )
    return risk.rises_on(rules, risk.last_day - 1)


def _revenue_backtest(
    log: PurchaseLog,
    known: Mapping[str, Sequence[Purchase]],
    histories: Mapping[str, BuyingHistory],
    policy: Policy,
    fitted: Fit,
    day: int,
    horizon_days: int,
) -> RevenueBacktest:
    came, last, expected, planned = [], [], [], []
    for account_id, history in histories.items():
        came.append(_revenue(log.accounts[account_id], day, day + horizon_days))
        last.append(_revenue(known[account_id], day - horizon_days, day))
        expected.append(expected_revenue_minor(fitted.buying, fitted.spend, history, horizon_days))
        first_day = day - history.age_days
        repeats = _revenue(known[account_id], max(first_day, day - horizon_days), day)
        planned.append(
            planned_revenue_minor(
                expected[-1], history, repeats, horizon_days=horizon_days, new_start_days=policy.new_start_days
            )
        )
    outcome = _numbers(came)
    potentials = _potentials(known, histories, policy, fitted, day, horizon_days)
    low, high = (_numbers(getattr(found, bound) for found in potentials) for bound in ("low_minor", "high_minor"))
    forecasts = {
        PLANNED: _numbers(planned),
        POTENTIAL: _numbers(found.expected_minor for found in potentials),
        EXPECTED: _numbers(expected),
        LAST_HORIZON: _numbers(last),
    }
    segments = _segments(known, histories, policy, day)
    return RevenueBacktest(
        horizon_days=horizon_days,
        came_minor=sum(came),
        forecasts=[_forecast_quality(name, values, outcome) for name, values in forecasts.items()],
        covered=float(((low <= outcome) & (outcome <= high)).mean()),
        segments=[
            SegmentForecast(
                segment=segment,
                accounts=int(members.sum()),
                came_minor=int(outcome[members].sum()),
                forecasts=[
                    _forecast_quality(name, values[members], outcome[members]) for name, values in forecasts.items()
                ],
            )
            for segment in (*TIERS, Segment.NEW_START)
            if (members := np.array([found == segment for found in segments])).any()
        ],
    )


def _potentials(
    known: Mapping[str, Sequence[Purchase]],
    histories: Mapping[str, BuyingHistory],
    policy: Policy,
    fitted: Fit,
    day: int,
    horizon_days: int,
) -> list[Potential]:
    """Of each account, in order: its potential as a worker would have had it; a log of purchases has one class."""
    window_days, new_start_days = policy.window_days, policy.new_start_days
    rules = PotentialRules(fitted.buying, fitted.spend, horizon_days, window_days, new_start_days)
    figures = ClassFigures()
    buyers: list[tuple[Stage, Buyer]] = []
    for account_id, history in histories.items():
        recent = [event for event in known[account_id] if day - window_days < event.day <= day]
        revenue_minor = sum(event.amount_minor for event in recent)
        stage = Stage.NEW_START if history.age_days < new_start_days else Stage.ESTABLISHED
        figures.count(stage, revenue_minor)
        buyers.append((stage, Buyer(history, revenue_minor, len({e.day for e in recent if not e.is_refund}))))
    of_class = ClassEstimates({(): figures}).potential((), rules, is_prospect=False)
    return [
        of_class if of_class is not None and stage is Stage.NEW_START else rules.of_buyer(buyer)
        for stage, buyer in buyers
    ]


def _forecast_quality(name: str, forecast: Numbers, came: Numbers) -> ForecastQuality:
    return ForecastQuality(
        name=name,
        total_minor=int(forecast.sum()),
        mean_absolute_error_minor=float(np.abs(forecast - came).mean()),
        rank_correlation=rank_correlation(forecast, came),
    )


def _segments(
    known: Mapping[str, Sequence[Purchase]], histories: Mapping[str, BuyingHistory], policy: Policy, day: int
) -> list[Segment]:
    """Of each account, in order: its segment at the day's end, as if all had entered the ranking then."""
    tiers = Tiers(basis=Basis(policy.basis), boundaries=policy.boundaries, band=0)
    revenues = {
        account_id: _revenue(known[account_id], day - policy.window_days, day)
        for account_id, history in histories.items()
        if history.age_days >= policy.new_start_days
    }
    tiers.apply([(account_id, revenue) for account_id, revenue in revenues.items() if revenue > 0])
    return [
        Segment.NEW_START
        if account_id not in revenues
        else TIERS[tiers.tier(account_id)]
        if revenues[account_id] > 0
        else Segment.COMMERCIAL
        for account_id in histories
    ]


def bought_nothing(events: Iterable[Purchase], day: int, horizon_days: int) -> bool:
    """Whether these have no purchase in the days that follow a day. O(n)."""
    return not any(day < event.day <= day + horizon_days and not event.is_refund for event in events)


def _revenue(events: Iterable[Purchase], after_day: int, last_day: int) -> int:
    return sum(event.amount_minor for event in events if after_day < event.day <= last_day)


def _numbers(values: Iterable[float]) -> Numbers:
    return np.array(list(values), dtype=np.float64)
