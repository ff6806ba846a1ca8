"""Forecasts against what came: on CDNOW as good as was asked for, and with nothing from after the day."""

import random
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from segmentation.events import MICROSECONDS_PER_DAY, Purchase
from segmentation.policy import Policy
from segmentation.potential import COVERED_SHARE
from segmentation.risk import Risk, RiskRules
from streams.cdnow import data_file, read_lines
from streams.model.backtest import (
    EXPECTED,
    LAST_HORIZON,
    MODEL,
    PLANNED,
    POTENTIAL,
    RISK,
    Backtest,
    CannotBacktest,
    backtest,
)
from streams.model.purchases import PurchaseLog, read_file

EPOCH = date(1970, 1, 1)
PAGE = Path(__file__).parents[2] / "docs" / "model.md"
RISK_PAGE = PAGE.with_name("risk.md").read_text(encoding="utf-8")


def day_of(text: str) -> int:
    """Days since 1970-01-01."""
    return (date.fromisoformat(text) - EPOCH).days


@pytest.fixture(scope="module")
def cdnow() -> PurchaseLog:
    """All of it, as the command reads it."""
    return read_file((line.payload for line in read_lines(data_file())), Policy.default())


def run(log: PurchaseLog, at: str, *, horizon_days: int = 90, revenue_horizon_days: int = 180) -> Backtest:
    """With the default policy."""
    return backtest(
        log,
        Policy.default(),
        day=day_of(at),
        horizon_days=horizon_days,
        revenue_horizon_days=revenue_horizon_days,
    )


@pytest.mark.parametrize(
    ("at", "overdue", "quiet", "recency", "frequency", "model", "error_minor", "rank"),
    [
        ("1997-07-01", 0.655, 0.690, 0.726, 0.730, 0.741, 2_600, 0.376),
        ("1997-10-01", 0.694, 0.716, 0.764, 0.760, 0.769, 2_360, 0.474),
        ("1998-01-01", 0.712, 0.738, 0.793, 0.794, 0.796, 2_040, 0.494),
    ],
)
def test_cdnow_is_forecast_as_well_as_was_asked_for(
    cdnow: PurchaseLog,
    at: str,
    overdue: float,
    quiet: float,
    recency: float,
    frequency: float,
    model: float,
    error_minor: int,
    rank: float,
) -> None:
    """Who buys nothing: each score's AUC as it was found before this was written; docs/model.md says the same.

    What accounts bring: better than the model alone and than the last days again by error and by order, and within
    15 % of what came.
    """
    found = run(cdnow, at)
    wanted = {"overdue": overdue, "quiet": quiet, "recency": recency, "frequency": frequency, "model": model}
    assert {name: round(found.score(name).auc, 3) for name in wanted} == wanted
    assert round(found.score(RISK).auc, 3) == model  # falls of tier are all the evidence that there is
    assert f"{found.score(RISK).auc:.4f}"[1:] in RISK_PAGE and f"{found.score(MODEL).auc:.4f}"[1:] in RISK_PAGE
    assert found.accounts == 23_570
    assert all(abs(decile.predicted - decile.actual) < 0.0725 for decile in found.calibration)
    assert found.score("model").at_risk_minor == pytest.approx(found.lost_minor, rel=0.11)
    revenue = found.revenue
    assert revenue is not None
    forecasts = {forecast.name: forecast for forecast in revenue.forecasts}
    assert forecasts[PLANNED].mean_absolute_error_minor < error_minor
    for best in (forecasts[PLANNED], forecasts[POTENTIAL]):
        assert best.rank_correlation > rank
        for other in (forecasts[EXPECTED], forecasts[LAST_HORIZON]):
            assert best.mean_absolute_error_minor < other.mean_absolute_error_minor
            assert best.rank_correlation > other.rank_correlation
        assert best.total_minor == pytest.approx(revenue.came_minor, rel=0.15)
    assert revenue.covered >= COVERED_SHARE
    assert f"{revenue.covered:.3f}"[1:] in PAGE.read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8").replace("**", "")
    assert f"| {at} | " + " | ".join(f"{value:.3f}"[1:] for value in wanted.values()) + " |" in page
    cells = [
        f"{forecast.mean_absolute_error_minor / 100:.2f}, {_ratio(forecast.total_minor / revenue.came_minor)}, "
        f"{forecast.rank_correlation:.3f}".replace(" 0.", " .")
        for forecast in revenue.forecasts
    ]
    assert f"| {at} | {' | '.join(cells)} |" in page
    assert sum(part.accounts for part in revenue.segments) == found.accounts
    assert sum(part.came_minor for part in revenue.segments) == revenue.came_minor


def _ratio(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def log_of(purchases: list[Purchase]) -> PurchaseLog:
    """These."""
    log = PurchaseLog()
    for purchase in purchases:
        log.add(purchase)
    return log


def bought(account_id: str, number: int, day: int, amount_minor: int = 1_000) -> Purchase:
    """One purchase."""
    return Purchase(account_id, f"e-{number}", day * MICROSECONDS_PER_DAY, day, amount_minor, False)


AT = "2026-06-30"


def random_log(seed: int, last_day: int) -> list[Purchase]:
    """400 accounts of different rhythms, in the year before and the half-year after."""
    chance, day = random.Random(seed), day_of(AT)
    purchases = []
    for account in range(400):
        at, number = day - chance.randrange(1, 365), 0
        gap = chance.choice([7, 20, 60, 400])
        while at <= last_day:
            purchases.append(bought(f"a-{account}", number, at, chance.randrange(100, 5_000)))
            at, number = at + 1 + round(chance.expovariate(1 / gap)), number + 1
            if chance.random() < 0.1:
                break
    return purchases


def test_nothing_after_the_day_is_used() -> None:
    """Another future gives the same fit and the same predictions, and is judged by what it was."""
    day = day_of(AT)
    history = [purchase for purchase in random_log(1, day + 200) if purchase.day <= day]
    real = [purchase for purchase in random_log(1, day + 200) if purchase.day > day]
    end = bought("late", 0, day + 200)
    first, other = (run(log_of([*history, *future, end]), AT) for future in (real, []))
    assert first.fit == other.fit
    assert [decile.predicted for decile in first.calibration] == [decile.predicted for decile in other.calibration]
    assert first.churned < other.churned == other.accounts
    assert first.revenue is not None and other.revenue is not None
    for name in (0, 1, 2):
        assert first.revenue.forecasts[name].total_minor == other.revenue.forecasts[name].total_minor
    assert other.revenue.came_minor == 0


def test_a_refund_that_came_later_is_not_known() -> None:
    """Although its money belongs to a day before: neither estimates nor forecasts know of it."""
    day = day_of(AT)
    events = [*random_log(1, day + 200), bought("late", 0, day + 200)]
    back = [
        event._replace(
            event_id=f"r-{event.event_id}",
            occurred_at_us=(day + 1) * MICROSECONDS_PER_DAY,
            amount_minor=-event.amount_minor,
            is_refund=True,
        )
        for event in events
        if day - 60 < event.day <= day
    ]
    before, after = run(log_of(events), AT), run(log_of([*events, *back]), AT)
    assert len(back) > 100
    assert repr(after) == repr(before)  # what is not a number is not equal to itself


def test_a_purchase_of_the_day_is_known_and_the_horizon_ends_with_its_last_day() -> None:
    """The day belongs to what is known, the next one to what came, the one after the horizon to neither."""
    day = day_of(AT)
    base = [purchase for purchase in random_log(2, day) if purchase.account_id != "a-0"]
    end = bought("late", 0, day + 200)

    def churned(last: int) -> tuple[int, int]:
        log = log_of([*base, bought("a-0", 1, day - 50), bought("a-0", 2, last), end])
        found = run(log, AT)
        return found.fit.transactions, found.churned

    today, tomorrow, in_time, too_late = (churned(day + later) for later in (0, 1, 90, 91))
    assert today[0] == tomorrow[0] + 1 and today[1] == too_late[1]
    assert tomorrow == in_time
    assert in_time[1] == too_late[1] - 1


def test_baselines_are_what_they_say() -> None:
    """Of a log in which only who bought lately buys again, recency is the best score there can be."""
    day = day_of(AT)
    purchases = []
    for account in range(200):
        silent = account
        purchases += [bought(f"a-{account}", number, day - silent - 30 * number) for number in range(1 + account % 3)]
        if silent < 100:
            purchases.append(bought(f"a-{account}", 9, day + 1 + silent % 80))
    found = run(log_of([*purchases, bought("late", 0, day + 200)]), AT)
    assert found.score("recency").auc == 1
    assert found.score("recency").precision_in_top == 1
    assert (found.accounts, found.churned) == (200, 100)
    assert found.score("frequency").brier is None and found.score("model").brier is not None
    assert found.lost_minor == 0  # who was lost had brought nothing in the 90 days before
    assert np.isnan(found.score("model").lost_in_top)


def test_how_early_a_level_warned_is_what_looking_at_each_day_says() -> None:
    """From each account's last purchase on, day by day, up to the horizon's end."""
    day = day_of(AT)
    purchases = random_log(5, day + 200)
    found = run(log_of([*purchases, bought("late", 0, day + 200)]), AT)
    rules = RiskRules.of(Policy.default())._replace(model=found.fit.buying, horizon_days=90)
    days: dict[str, set[int]] = {}
    for purchase in purchases:
        if not purchase.is_refund:
            days.setdefault(purchase.account_id, set()).add(purchase.day)
    known = [{on for on in bought_on if on <= day} for bought_on in days.values()]
    lost = [not any(day < on <= day + 90 for on in bought_on) for bought_on in days.values()]
    for warned, boundary in zip(found.warned, rules.boundaries, strict=True):
        leads, at_level, right = [], 0, 0
        for before, is_lost in zip(known, lost, strict=True):
            if not before:
                continue
            risk = Risk(first_day=min(before), last_day=max(before), days_bought=len(before))
            warned_on = next((d for d in range(max(before), day + 91) if risk.odds(rules, d) >= boundary), day + 91)
            at_level += warned_on <= day
            right += is_lost and warned_on <= day
            if is_lost and warned_on <= day + 90:
                leads.append(day + 90 - warned_on)
        assert warned.accounts == at_level
        assert warned.right == pytest.approx(right / at_level)
        assert warned.found == pytest.approx(len(leads) / found.churned)
        assert warned.lead_days == np.median(leads)


def test_segments_are_those_of_the_day() -> None:
    """New starts by age, the others by their share of the revenue, lapsed ones with the lowest."""
    day = day_of(AT)
    purchases = random_log(3, day + 200)
    found = run(log_of([*purchases, bought("late", 0, day + 200)]), AT)
    assert found.revenue is not None
    counts = {part.segment: part.accounts for part in found.revenue.segments}
    assert set(counts) == {"key", "enterprise", "commercial", "new_start"}
    assert counts["key"] < counts["enterprise"]
    first_days: dict[str, int] = {}
    for purchase in purchases:
        first_days.setdefault(purchase.account_id, purchase.day)
    assert counts["new_start"] == sum(0 <= day - first < 90 for first in first_days.values())
    lapsed = run(log_of([bought("old", 0, day - 500, 10**9), *purchases, bought("late", 0, day + 200)]), AT)
    assert lapsed.revenue is not None
    with_lapsed = {part.segment: part.accounts for part in lapsed.revenue.segments}
    assert with_lapsed == {**counts, "commercial": counts["commercial"] + 1}


def test_without_an_outcome_nothing_is_said(cdnow: PurchaseLog) -> None:
    """A log that ends too early cannot be judged by; where only the longer horizon is missing, that part is."""
    with pytest.raises(CannotBacktest, match="the log ends on 1998-06-30"):
        run(cdnow, "1998-05-01")
    with pytest.raises(CannotBacktest, match="the log is empty"):
        run(PurchaseLog(), AT)
    assert run(cdnow, "1998-04-01").revenue is None
