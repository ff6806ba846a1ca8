"""Estimates: equal to what was published, and to the parameters of a population that is as the model says."""

import random
from collections.abc import Iterator
from datetime import date
from math import exp, log

import numpy as np
import pytest

from segmentation.buying import BuyingHistory
from segmentation.events import MICROSECONDS_PER_DAY, Purchase
from segmentation.policy import Policy
from segmentation.purchase_model import BuyingModel, bg_nbd_log_likelihood, log_likelihood
from streams.cdnow import data_file, read_lines
from streams.model.fitting import MEAN_SPEND_MAX, CannotFit, fit, fit_buying, fit_spend, maximise
from streams.model.purchases import histories_at, read_file

EPOCH = date(1970, 1, 1)
WEEK_39 = (date(1997, 9, 30) - EPOCH).days
"""The last day of the published tables."""


def sample() -> Iterator[Purchase]:
    """The tenth of CDNOW that the tables are of: 2,357 customers, by their second number."""
    lines = (data_file().parent / "CDNOW_sample.txt").read_text().splitlines()
    for number, line in enumerate(lines):
        _, customer, day, _, dollars = line.split()
        on = (date(int(day[:4]), int(day[4:6]), int(day[6:])) - EPOCH).days
        yield Purchase(customer, str(number), on * MICROSECONDS_PER_DAY, on, round(float(dollars) * 100), False)


@pytest.fixture(scope="module")
def published() -> list[BuyingHistory]:
    """Their first 39 weeks, day by day."""
    accounts: dict[str, list[Purchase]] = {}
    for purchase in sample():
        accounts.setdefault(purchase.account_id, []).append(purchase)
    return list(histories_at(accounts, WEEK_39).values())


def in_weeks(log_likelihood_days: float, histories: list[BuyingHistory]) -> float:
    """Densities of repeats depend on the unit of time."""
    return log_likelihood_days + log(7) * sum(history.repeats for history in histories)


def test_days_add_up_to_the_published_summary(published: list[BuyingHistory]) -> None:
    """Frequency, recency and age of each customer are those of Fader, Hardie & Lee's file, which counts in weeks."""
    rows = (data_file().parent / "cdnow_customers_summary.csv").read_text().splitlines()[1:]
    theirs = []
    for row in rows:
        _, repeats, recency, age = row.split(",")
        theirs.append((int(repeats), round(float(recency) * 7), round(float(age) * 7)))
    assert [history[:3] for history in published] == theirs
    assert len(theirs) == 2_357


def test_mbg_nbd_is_estimated_as_published(published: list[BuyingHistory]) -> None:
    """.525, 6.183 weeks, .891, 1.614 at -9582.1, by the function that the command uses."""
    (r, alpha_days, a, b), best = fit_buying(published)
    assert [r, a, b] == pytest.approx([0.525, 0.891, 1.614], abs=1e-3)
    assert alpha_days / 7 == pytest.approx(6.183, abs=1e-3)
    assert in_weeks(best, published) == pytest.approx(-9582.1, abs=0.1)


def test_bg_nbd_is_estimated_as_published(published: list[BuyingHistory]) -> None:
    """.243, 4.414 weeks, .793, 2.426 at -9582.4: the search and the sums are right for that model, too."""
    kinds, counts = np.unique([history[:3] for history in published], axis=0, return_counts=True)
    some = [(BuyingHistory(*map(int, kind)), int(count)) for kind, count in zip(kinds, counts, strict=True)]

    def of_all(parameters: np.ndarray) -> float:
        model = BuyingModel(*parameters)
        return sum(count * bg_nbd_log_likelihood(model, history) for history, count in some)

    (r, alpha_days, a, b), best = maximise(of_all, [0.5, 30.0, 1.0, 2.0])
    assert [r, a, b] == pytest.approx([0.243, 0.793, 2.426], abs=1e-3)
    assert alpha_days / 7 == pytest.approx(4.414, abs=1e-3)
    assert in_weeks(best, published) == pytest.approx(-9582.4, abs=0.1)


def test_gamma_gamma_is_estimated_as_published(published: list[BuyingHistory]) -> None:
    """6.25, 3.74, 15.44 dollars, of 946 repeat buyers."""
    buyers = [history for history in published if history.repeat_revenue_minor > 0]
    (p, q, gamma_minor), _ = fit_spend(buyers)
    assert len(buyers) == 946
    assert [p, q, gamma_minor / 100] == pytest.approx([6.25, 3.74, 15.44], abs=0.01)


def test_amounts_that_vary_too_much_do_not_make_the_mean_spend_boundless() -> None:
    """Log-normal amounts of accounts that differ a lot: who has not bought again is not expected to bring millions."""
    chance, histories = random.Random(4), list[BuyingHistory]()
    for _ in range(2_000):
        typical, repeats = chance.gauss(9, 1.6), chance.randint(0, 4)
        revenue = sum(int(exp(chance.gauss(typical, 1.2))) + 1 for _ in range(repeats))
        histories.append(BuyingHistory(repeats, 60 * repeats, 365, revenue))
    found = fit(histories)
    spent = np.mean([history.repeat_revenue_minor / history.repeats for history in histories if history.repeats])
    p, q, gamma_minor = found.spend
    assert found.is_mean_spend_at_the_edge and "the mean spend" in found.at_the_edge
    assert p * gamma_minor / (q - 1) == pytest.approx(MEAN_SPEND_MAX * spent, rel=0.01)


def test_all_at_once_is_the_sum_of_each(published: list[BuyingHistory]) -> None:
    """What is maximised in arrays is what `segmentation` says of one account."""
    found = fit(published)
    one_by_one = sum(log_likelihood(found.buying, history) for history in published)
    assert found.log_likelihood == pytest.approx(one_by_one, abs=1e-3)
    assert (found.accounts, found.repeat_buyers, found.spend_accounts) == (2_357, 946, 946)
    assert found.transactions == sum(history.repeats for history in published)
    assert found.at_the_edge == []


def test_a_known_truth_is_found_again() -> None:
    """10,000 accounts that behave as the model says: each parameter within its uncertainty."""
    chance, truth = random.Random(2013), BuyingModel(r=1.2, alpha_days=60, a=1.5, b=3.0)
    found, _ = fit_buying([_history(chance, truth, age_days=365) for _ in range(10_000)])
    for name, value in truth._asdict().items():
        assert getattr(found, name) == pytest.approx(value, rel=0.2), name
    assert found.a / (found.a + found.b) == pytest.approx(1 / 3, abs=0.02)
    assert found.r / found.alpha_days == pytest.approx(1.2 / 60, rel=0.05)


def _history(chance: random.Random, model: BuyingModel, age_days: int) -> BuyingHistory:
    rate, leaves = chance.gammavariate(model.r, 1 / model.alpha_days), chance.betavariate(model.a, model.b)
    now, days = 0.0, [0]
    while chance.random() >= leaves:
        now += chance.expovariate(rate)
        if now > age_days:
            break
        days.append(round(now))
    return BuyingHistory(len(days) - 1, days[-1], age_days)


def test_too_little_is_not_estimated_from() -> None:
    """Nobody is to trust seven parameters of a handful of accounts."""
    few = [BuyingHistory(1, 10, 50, 1_000)] * 49
    silent = [BuyingHistory(0, 0, 50, 0)] * 1_000
    refunded = [BuyingHistory(1, 10, 50, 0)] * 1_000
    for histories in ([], few, silent, refunded):
        with pytest.raises(CannotFit, match="too few to estimate from"):
            fit(histories)


def test_accounts_that_never_leave_are_said_to_be_beyond_the_model() -> None:
    """A parameter that wants to be zero stops at the edge, and that is told."""
    chance = random.Random(1)
    steady = [BuyingHistory(12, 360, 365, 12_000 + chance.randrange(1_000)) for _ in range(200)]
    assert fit(steady).at_the_edge


def test_the_file_is_read_as_a_worker_reads_the_topic() -> None:
    """Duplicates count once, bad records are left out and counted, other events only say how far the log reaches."""
    good = b'{"event_id":"%s","account_id":"acme","occurred_at":"%s","amount_minor":100,"currency":"EUR"}'
    lines = [
        good % (b"1", b"2026-01-05T10:00:00+01:00"),
        good % (b"1", b"2026-01-05T10:00:00+01:00"),
        good % (b"2", b"2026-01-07T00:30:00+01:00"),
        good % (b"3", b"yesterday"),
        good.replace(b"EUR", b"CHF") % (b"4", b"2026-01-08T00:00:00Z"),
        b"not json",
        b"",
        b'{"type":"engagement","event_id":"5","account_id":"acme","occurred_at":"2026-02-01T00:00:00Z","kind":"login"}',
    ]
    log = read_file(lines, Policy.default())
    assert {name: [event.amount_minor for event in events] for name, events in log.accounts.items()} == {
        "acme": [108] * 2
    }
    assert log.duplicates == 1
    assert log.refused == {"bad_time": 1, "no_rate": 1, "not_json": 1}
    epoch_day = (date(2026, 2, 1) - EPOCH).days
    assert (log.last_day, log.last_purchase_day()) == (epoch_day, (date(2026, 1, 6) - EPOCH).days)


def test_what_is_known_at_a_day_goes_by_when_it_occurred() -> None:
    """A refund that came later is not known yet, whatever day its money belongs to."""
    log = read_file([line.payload for line in read_lines(data_file())][:1_000], Policy.default())
    day = (date(1997, 1, 2) - EPOCH).days
    account_id, events = next((name, events) for name, events in log.known_at(day).items())
    late = Purchase(account_id, "late", (day + 1) * MICROSECONDS_PER_DAY, events[0].day, -events[0].amount_minor, True)
    log.add(late)
    assert late not in log.known_at(day)[account_id]
    assert late in log.known_at(day + 1)[account_id]
    assert all(event.day <= day for known in log.known_at(day).values() for event in known)
