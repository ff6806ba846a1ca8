"""From purchases to the few numbers that the model looks at."""

import random

from hypothesis import given
from hypothesis import strategies as st

from segmentation.buying import KEPT_DAYS, BuyingHistory, PurchaseDays, buying_history
from segmentation.events import MICROSECONDS_PER_DAY, Purchase


def bought(day: int, amount_minor: int = 1_000, *, refund: bool = False) -> Purchase:
    """A purchase, or a refund that belongs to that day."""
    amount = -amount_minor if refund else amount_minor
    return Purchase("acme", f"e-{day}-{amount}", day * MICROSECONDS_PER_DAY, day, amount, refund)


def test_all_purchases_of_a_day_are_one_transaction() -> None:
    """Three days of purchases are two repeats, whatever was bought on each."""
    events = [bought(100), bought(100, 5), bought(110, 300), bought(110, 200), bought(130, 700)]
    assert buying_history(events, 150) == BuyingHistory(
        repeats=2, recency_days=30, age_days=50, repeat_revenue_minor=1_200
    )


def test_later_purchases_are_not_known_yet() -> None:
    """The day itself is."""
    events = [bought(100), bought(110), bought(120)]
    assert buying_history(events, 110) == BuyingHistory(1, 10, 10, 1_000)
    assert buying_history(events, 100) == BuyingHistory(0, 0, 0, 0)
    assert buying_history(events, 99) is None


def test_a_refund_takes_money_and_is_no_transaction() -> None:
    """Neither a day with nothing but a refund, nor one whose purchase was given back in full, changes the rhythm."""
    events = [bought(100, 50), bought(110, 300), bought(110, 300, refund=True), bought(115, 20, refund=True)]
    history = buying_history(events, 120)
    assert history == BuyingHistory(1, 10, 20, -20)
    assert history.silent_days == 10
    assert buying_history([bought(100, 5, refund=True)], 120) is None


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 500), st.booleans()), max_size=30))
def test_order_does_not_matter_and_the_numbers_agree(entries: list[tuple[int, int, bool]]) -> None:
    """The history is of the set of events, and says what a look at the calendar says."""
    events = [bought(day, amount, refund=refund) for day, amount, refund in entries]
    history = buying_history(events, 40)
    assert buying_history(events[::-1], 40) == history
    days = sorted({day for day, _, refund in entries if day <= 40 and not refund})
    if not days:
        assert history is None
        return
    assert history is not None
    assert (history.repeats, history.recency_days, history.age_days) == (
        len(days) - 1,
        days[-1] - days[0],
        40 - days[0],
    )
    signed = [(day, -amount if refund else amount) for day, amount, refund in entries]
    assert history.repeat_revenue_minor == sum(amount for day, amount in signed if days[0] < day <= 40)


@given(
    st.lists(st.integers(0, 65_534) | st.integers(20_000, 20_100), max_size=40), st.integers(0, 65_534), st.randoms()
)
def test_purchase_days_are_the_set_of_them(days: list[int], on: int, rng: random.Random) -> None:
    """In any order, with repetitions; but for what lies ten years before the newest of all."""
    kept = sorted({day for day in days if day > max(days) - KEPT_DAYS})
    held = PurchaseDays()
    for day in rng.sample([*days, *days[:5]], len(days) + len(days[:5])):
        held.add(day)
    known = [day for day in kept if day <= on]
    expected = BuyingHistory(len(known) - 1, known[-1] - known[0], on - known[0]) if known else None
    assert held.history(on) == expected
    assert held.next_after(on) == next((day for day in kept if day > on), None)
