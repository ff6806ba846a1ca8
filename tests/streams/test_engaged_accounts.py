"""The accounts whose truth is known: the same each time, sound, and scored as docs/risk.md says."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from benchmarks.engaged_accounts import DAYS, FIRST_DAY, Truth, engaged_accounts, lines_of
from benchmarks.engagement import DATES, Measured, measure, row_of
from segmentation.events import MICROSECONDS_PER_DAY, Engagement, Purchase, Signup
from segmentation.policy import Policy
from streams.model.backtest import RISK, backtest
from streams.model.purchases import PurchaseLog, read_file
from streams.replay import TOPIC_OF_TYPE, read_line
from streams.wire import Decoder, EventKind

PAGE = (Path(__file__).parents[2] / "docs" / "risk.md").read_text(encoding="utf-8")
FIRST = (FIRST_DAY - date(1970, 1, 1)).days
KINDS: dict[str, EventKind] = {"purchase": "purchase", "signup": "signup", "engagement": "engagement"}


def test_the_same_seed_gives_the_same_accounts_however_many() -> None:
    """And another seed gives others."""
    few, more = list(engaged_accounts(5, seed=3)), list(engaged_accounts(9, seed=3))
    assert few == more[:5]
    assert few != list(engaged_accounts(5, seed=4))
    assert lines_of(few) == sorted(lines_of(few), key=lambda line: line.occurred_at)


def test_a_worker_takes_every_line() -> None:
    """All keep the contract, each has an id of its own, and nothing lies after the last day."""
    decoder = Decoder(Policy.default(), partitions=1)
    ids: set[str] = set()
    found = set()
    for line in lines_of(list(engaged_accounts(60))):
        where, kind = read_line(line.payload), KINDS[json.loads(line.payload)["type"]]
        assert where.topic is TOPIC_OF_TYPE[kind]
        event = decoder.decode(kind, 0, -1, where.key, line.payload)
        assert event.event_id not in ids
        ids.add(event.event_id)
        assert FIRST <= event.occurred_at_us // MICROSECONDS_PER_DAY < FIRST + DAYS
        found.add(event.kind if isinstance(event, Engagement) else type(event))
        if isinstance(event, Purchase) and event.is_refund:
            assert event.amount_minor < 0
            found.add("refund")
    assert found == {Purchase, Signup, "refund", "login", "feature_use", "support_ticket", "cancel_request"}
    assert decoder.unknown_fields == 0


def test_the_truth_is_the_truth() -> None:
    """Who has left buys nothing, who is there buys about as often as its rate says; the backtest is not told of it."""
    expected = bought = 0.0
    for account in engaged_accounts(300):
        truth = account.truth
        events = [json.loads(line.payload) for line in account.lines]
        assert not any("left" in field or "truth" in field for event in events for field in event)
        days = [
            (line.occurred_at.date() - FIRST_DAY).days
            for line, event in zip(account.lines, events, strict=True)
            if event["type"] == "purchase" and event.get("kind") != "refund"
        ]
        assert days[0] == int(truth.first_at) and days[-1] <= truth.left_at
        assert not any(truth.has_left(day - 1) for day in days)
        if not truth.is_seasonal:
            bought += len(days) - 1
            expected += truth.buys_per_day * (min(truth.left_at, DAYS) - truth.first_at)
        left_on = FIRST_DAY + timedelta(days=int(truth.left_at))
        assert truth.document()["left_on"] == left_on.isoformat()
    assert bought == pytest.approx(expected, rel=0.05)


def test_what_nobody_can_do_better_than() -> None:
    """The chance of silence is that of a Poisson process up to the moment of leaving, less in the off season."""
    truth = Truth("a", 0.0, 100.5, 0.1, False, 0.0, 100.5)
    assert truth.silence_chance(99, 90) == pytest.approx(2.718281828 ** -(0.1 * 0.5))
    assert truth.silence_chance(100, 90) == 1 and truth.has_left(100) and not truth.has_left(99)
    there = truth._replace(left_at=10_000.0)
    assert there.silence_chance(0, 90) == pytest.approx(2.718281828**-9)
    in_july = (date(2023, 6, 30) - FIRST_DAY).days
    assert there._replace(is_seasonal=True).silence_chance(in_july, 31) == pytest.approx(2.718281828 ** -(3.1 * 0.3))


@pytest.fixture(scope="module")
def first_lot() -> tuple[PurchaseLog, dict[str, Truth]]:
    """The one of seed 1, in full."""
    lot = list(engaged_accounts())
    log = read_file((line.payload for line in lines_of(lot)), Policy.default(), with_engagements=True)
    return log, {account.truth.account_id: account.truth for account in lot}


def test_the_page_says_what_came_out(first_lot: tuple[PurchaseLog, dict[str, Truth]]) -> None:
    """The first row is worked out again, better or worse than the model as it may be."""
    log, truths = first_lot
    measured = [measure(log, truths, at, Policy.default()) for at in DATES]
    assert row_of(1, measured) in PAGE
    assert all(_in_order(found) for found in measured)


def _in_order(found: Measured) -> bool:
    """No score beats the truth, and none of ours is worse than days since the last purchase."""
    aucs = found.aucs
    return aucs["truth"] > max(aucs["risk"], aucs["model"]) and aucs["recency"] < min(aucs["risk"], aucs["model"])


def test_it_is_what_the_backtest_says(first_lot: tuple[PurchaseLog, dict[str, Truth]]) -> None:
    """On one of the days."""
    log, truths = first_lot
    day = (date.fromisoformat(DATES[1]) - date(1970, 1, 1)).days
    found = backtest(log, Policy.default(), day=day, horizon_days=90, revenue_horizon_days=3650)
    measured = measure(log, truths, DATES[1], Policy.default())
    assert {name: found.score(name).auc for name in ("recency", "model", RISK)} == {
        name: pytest.approx(measured.aucs[name]) for name in ("recency", "model", "risk")
    }
