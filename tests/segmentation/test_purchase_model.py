"""The model's formulas: within their bounds, and equal to what a population does that is as the model says."""

import random
from itertools import pairwise
from math import exp, inf, isclose, log, nan
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import hyp2f1

from segmentation.buying import BuyingHistory
from segmentation.purchase_model import (
    BuyingModel,
    SpendModel,
    bg_nbd_log_likelihood,
    expected_purchases,
    expected_revenue_minor,
    expected_spend_minor,
    log_likelihood,
    planned_revenue_minor,
    probability_alive,
    probability_no_purchase,
)

CDNOW = BuyingModel(r=0.605, alpha_days=56.4, a=0.639, b=1.176)
POPULATION = BuyingModel(r=0.6, alpha_days=20_000, a=0.9, b=1.5)
SPEND = SpendModel(p=5.39, q=3.77, gamma_minor=1_874)

positive = st.floats(0.05, 50)
models = st.builds(BuyingModel, positive, st.floats(0.5, 2_000), positive, positive)
horizons = st.integers(0, 3_650)


@st.composite
def histories(draw: st.DrawFn) -> BuyingHistory:
    """Any that an account may have."""
    repeats = draw(st.integers(0, 500))
    recency = draw(st.integers(repeats, 3_650)) if repeats else 0
    revenue = draw(st.integers(-1_000, 10**9)) if repeats else 0
    return BuyingHistory(repeats, recency, recency + draw(st.integers(0, 3_650)), revenue)


@given(models, histories(), horizons, st.integers(1, 400))
def test_the_probability_only_rises_while_an_account_is_silent(
    model: BuyingModel, history: BuyingHistory, horizon: int, days: int
) -> None:
    """And lies in [0, 1], as the one of being alive does, which only falls."""
    later = history._replace(age_days=history.age_days + days)
    now, then = (probability_no_purchase(model, at, horizon) for at in (history, later))
    assert 0 <= now <= then + 1e-12 <= 1 + 1e-12
    alive, alive_then = (probability_alive(model, at) for at in (history, later))
    assert 0 <= alive_then <= alive + 1e-12 <= 1 + 1e-12


@given(models, histories(), horizons, st.integers(1, 400))
def test_a_longer_horizon_makes_a_purchase_likelier(
    model: BuyingModel, history: BuyingHistory, horizon: int, days: int
) -> None:
    """Fewer are silent through it, and more is expected; over no time at all nothing is."""
    near, far = horizon, horizon + days
    assert probability_no_purchase(model, history, far) <= probability_no_purchase(model, history, near) + 1e-12
    assert expected_purchases(model, history, far) >= expected_purchases(model, history, near) * (1 - 1e-9)
    assert probability_no_purchase(model, history, 0) == pytest.approx(1)
    assert expected_purchases(model, history, 0) == 0


@given(models, histories(), horizons)
def test_as_many_purchases_are_expected_as_there_are_buyers_at_least(
    model: BuyingModel, history: BuyingHistory, horizon: int
) -> None:
    """And never more than if nobody left, which is simple to work out."""
    expected = expected_purchases(model, history, horizon)
    assert expected >= (1 - probability_no_purchase(model, history, horizon)) * (1 - 1e-9) - 1e-12
    rate = (model.r + history.repeats) / (model.alpha_days + history.age_days)
    assert expected <= probability_alive(model, history) * rate * horizon * (1 + 1e-9)


@given(models, histories(), st.integers(1, 730))
def test_the_series_is_the_closed_form(model: BuyingModel, history: BuyingHistory, horizon: int) -> None:
    """Batislam, Denizel & Filiztekin's, away from a = 1 where it divides by zero, and as exact as floats let it be."""
    r, alpha, a, b = model
    x, time = history.repeats, alpha + history.age_days
    gauss = hyp2f1(r + x, b + x + 1, a + b + x, horizon / (time + horizon))
    part = gauss * exp((r + x) * log(time / (time + horizon)))
    closed = (a + b + x) / (a - 1) * (1 - part) * probability_alive(model, history) if a != 1 else nan
    # the closed form is the small difference of two numbers near 1: what is lost there is its own
    lost = (a + b + x) / abs(a - 1) * 1e-9 if a != 1 else inf
    assert isclose(expected_purchases(model, history, horizon), closed, rel_tol=1e-6, abs_tol=lost) or lost > 1e-3


def test_nothing_happens_where_the_closed_form_divides_by_zero() -> None:
    """a = 1 lies between its neighbours."""
    history = BuyingHistory(3, 60, 100)
    below, at, above = (expected_purchases(CDNOW._replace(a=a), history, 180) for a in (0.999, 1.0, 1.001))
    assert below > at > above
    assert at == pytest.approx((below + above) / 2, rel=1e-5)


class Life(NamedTuple):
    """What became of a simulated account."""

    history: BuyingHistory
    alive: bool
    bought: int
    """In the horizon."""
    spent_minor: float
    """Mean of a transaction in the horizon, if there was one."""


DAYS, HORIZON = 100_000, 40_000
"""Of a simulated life: so many that cutting time into days changes nothing."""


def lives(model: BuyingModel, spend: SpendModel, count: int) -> list[Life]:
    """Accounts that do what the model says, told from its assumptions alone; the same ones each time."""
    chance = random.Random(2007)
    return [_life(chance, model, spend) for _ in range(count)]


def _life(chance: random.Random, model: BuyingModel, spend: SpendModel) -> Life:
    rate = chance.gammavariate(model.r, 1 / model.alpha_days)
    leaves = chance.betavariate(model.a, model.b)
    scale = chance.gammavariate(spend.q, 1 / spend.gamma_minor)
    times, now, stays = [], 0.0, chance.random() >= leaves
    alive = stays
    while stays:
        now += chance.expovariate(rate)
        if now > DAYS + HORIZON:
            break
        times.append(now)
        stays = chance.random() >= leaves
        if now <= DAYS:
            alive = stays
    spent = [chance.gammavariate(spend.p, 1 / scale) for _ in times]
    known = [time for time in times if time <= DAYS]
    later = spent[len(known) :]
    history = BuyingHistory(len(known), round(known[-1]) if known else 0, DAYS, round(sum(spent[: len(known)])))
    return Life(history, alive, len(later), sum(later) / len(later) if later else 0.0)


@pytest.fixture(scope="module")
def population() -> list[Life]:
    """40,000 accounts whose rates, chances to leave and spending are as different as CDNOW's."""
    return lives(POPULATION, SPEND, 40_000)


def test_a_simulated_population_does_what_is_predicted(population: list[Life]) -> None:
    """In each fifth of the accounts, by their probability: alive, silent, and how many purchases there are."""
    by_chance = sorted(population, key=lambda life: probability_no_purchase(POPULATION, life.history, HORIZON))
    size = len(by_chance) // 5
    for fifth in (by_chance[begin : begin + size] for begin in range(0, len(by_chance), size)):
        silent = sum(probability_no_purchase(POPULATION, life.history, HORIZON) for life in fifth) / size
        assert silent == pytest.approx(sum(not life.bought for life in fifth) / size, abs=0.015)
        alive = sum(probability_alive(POPULATION, life.history) for life in fifth) / size
        assert alive == pytest.approx(sum(life.alive for life in fifth) / size, abs=0.015)
        expected = sum(expected_purchases(POPULATION, life.history, HORIZON) for life in fifth) / size
        assert expected == pytest.approx(sum(life.bought for life in fifth) / size, rel=0.08)


def test_a_simulated_population_spends_what_is_predicted(population: list[Life]) -> None:
    """Among accounts with one repeat, with few and with many, for the thrifty and the lavish."""
    buyers = [life for life in population if life.bought and life.history.repeats]
    for low, high in ((1, 1), (2, 4), (5, 10**6)):
        group = [life for life in buyers if low <= life.history.repeats <= high]
        group.sort(key=lambda life: expected_spend_minor(SPEND, life.history))
        for half in (group[: len(group) // 2], group[len(group) // 2 :]):
            predicted = sum(expected_spend_minor(SPEND, life.history) for life in half) / len(half)
            assert predicted == pytest.approx(sum(life.spent_minor for life in half) / len(half), rel=0.05)


def test_the_simulated_population_is_likeliest_under_its_own_parameters(population: list[Life]) -> None:
    """MBG/NBD fits what it made better than with other parameters, and better than BG/NBD does."""
    told = [life.history for life in population[:5_000]]

    def fits(model: BuyingModel) -> float:
        return sum(log_likelihood(model, history) for history in told)

    best = fits(POPULATION)
    for name, value in POPULATION._asdict().items():
        assert all(fits(POPULATION._replace(**{name: value * factor})) < best for factor in (0.7, 1.4)), name
    assert sum(bg_nbd_log_likelihood(POPULATION, history) for history in told) < best


@given(histories())
def test_spend_lies_between_the_accounts_own_mean_and_that_of_all(history: BuyingHistory) -> None:
    """The more repeats there are, the nearer to the account's own."""
    of_all = SPEND.p * SPEND.gamma_minor / (SPEND.q - 1)
    spend = expected_spend_minor(SPEND, history)
    own = max(0, history.repeat_revenue_minor) / history.repeats if history.repeats else of_all
    assert min(own, of_all) * (1 - 1e-9) <= spend <= max(own, of_all) * (1 + 1e-9)


def test_the_more_repeats_the_more_an_accounts_own_mean_counts() -> None:
    """At 100 dollars each."""
    spends = [expected_spend_minor(SPEND, BuyingHistory(x, x, 400, 10_000 * x)) for x in (0, 1, 3, 10, 100, 1_000)]
    assert all(fewer < more for fewer, more in pairwise(spends))
    assert spends[0] == pytest.approx(3_646, abs=1)
    assert spends[-1] == pytest.approx(10_000, rel=0.01)


def test_revenue_is_purchases_times_spend_in_whole_minor_units() -> None:
    """An integer, since it is money."""
    history = BuyingHistory(4, 84, 158, 16_000)
    revenue = expected_revenue_minor(CDNOW, SPEND, history, 180)
    assert type(revenue) is int
    product = expected_purchases(CDNOW, history, 180) * expected_spend_minor(SPEND, history)
    assert revenue == pytest.approx(product, abs=0.5)


@pytest.mark.parametrize(
    ("history", "recent_repeats_minor", "planned_minor"),
    [
        (BuyingHistory(0, 0, 30), 0, 1_000),  # a new start: as the model expects
        (BuyingHistory(2, 60, 89, 9_000), 9_000, 1_000),
        (BuyingHistory(2, 60, 90, 9_000), 9_000, 5_000),  # halfway
        (BuyingHistory(0, 0, 90), 0, 0),  # established, and never came back
        (BuyingHistory(2, 60, 239, 9_000), 4_000, 2_500),
        (BuyingHistory(2, 60, 240, 9_000), 0, 0),  # the last purchase left the last horizon
        (BuyingHistory(2, 60, 200, -9_000), -9_000, 0),
    ],
)
def test_what_to_plan_with(history: BuyingHistory, recent_repeats_minor: int, planned_minor: int) -> None:
    """Halfway between expectation and the last horizon; a new start has none, and who was silent through it is out."""
    planned = planned_revenue_minor(1_000, history, recent_repeats_minor, horizon_days=180, new_start_days=90)
    assert planned == planned_minor


@pytest.mark.parametrize("horizon", [-1, inf, nan])
def test_a_horizon_is_a_number_of_days(horizon: float) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="a horizon is 0 or more days"):
        probability_no_purchase(CDNOW, BuyingHistory(0, 0, 0), horizon)
    with pytest.raises(ValueError, match="a horizon is 0 or more days"):
        expected_purchases(CDNOW, BuyingHistory(0, 0, 0), horizon)


def test_extreme_histories_have_finite_answers() -> None:
    """Where powers would overflow: a purchase a day for ten years, then ten years of silence."""
    busy = BuyingHistory(3_650, 3_650, 3_650, 10**12)
    gone = busy._replace(age_days=7_300)
    assert probability_alive(CDNOW, busy) > 0.999
    assert 0 <= probability_alive(CDNOW, gone) < 1e-100
    assert probability_no_purchase(CDNOW, gone, 3_650) == 1
    assert 0 < probability_no_purchase(CDNOW, busy, 30) < 1e-3
    assert expected_purchases(CDNOW, busy, 3_650) > 300
    assert expected_purchases(CDNOW, gone, 3_650) < 1e-90
