"""How an account has bought, in the few numbers that the purchase model looks at.

All purchases of one UTC day are one transaction. Days are counted from the first transaction, which tells nothing of a
rhythm: only those after it, the repeats, are counted.
"""

from collections.abc import Iterable
from typing import NamedTuple

from segmentation.days import DaySet
from segmentation.events import Purchase

KEPT_DAYS = 3_650
"""How far back from its newest purchase an account's days are kept: ten years say enough of a rhythm."""


class BuyingHistory(NamedTuple):
    """What the model knows of an account that has purchased. `buying_history` makes one that is consistent."""

    repeats: int
    """Days with a purchase after the first such day (x in the literature), 0 or more."""
    recency_days: int
    """From the first to the last day with a purchase (t_x); 0 exactly where there are no repeats."""
    age_days: int
    """From the first day with a purchase to the day of the question (T), at least `recency_days`."""
    repeat_revenue_minor: int = 0
    """Net revenue of the days after the first, refunds taken off; below zero where they outweigh it."""

    @property
    def silent_days(self) -> int:
        """Since the last purchase."""
        return self.age_days - self.recency_days


class PurchaseDays(DaySet):
    """The days on which an account has bought, dated ahead or late. What lies KEPT_DAYS before the newest is let go."""

    __slots__ = ()

    def add(self, day: int) -> bool:
        """As `DaySet.add`."""
        is_new = super().add(day)
        if self.bits.bit_length() > KEPT_DAYS:
            self.let_go(self.first_day + self.bits.bit_length() - 1 - KEPT_DAYS)
        return is_new

    def history(self, day: int) -> BuyingHistory | None:
        """As of the end of a day, without revenue; None if there is no purchase up to then. O(days / 64)."""
        age = day - self.first_day
        if age < 0 or not self.bits:
            return None
        known = self.bits & ((2 << age) - 1)
        return BuyingHistory(known.bit_count() - 1, known.bit_length() - 1, age)

    def next_after(self, day: int) -> int | None:
        """The first of the days that lies after a day; None if none does. O(days / 64)."""
        ahead = self.bits >> max(0, day + 1 - self.first_day)
        return max(self.first_day, day + 1) + (ahead & -ahead).bit_length() - 1 if ahead else None


def buying_history(purchases: Iterable[Purchase], day: int) -> BuyingHistory | None:
    """An account's history as of the end of a day; None if there is no purchase up to then.

    In any order, each event once. Later purchases are left out; a refund takes from the day it belongs to, and makes no
    transaction undone or done. O(n).
    """
    days: set[int] = set()
    revenue_minor: dict[int, int] = {}
    for purchase in purchases:
        if purchase.day > day:
            continue
        revenue_minor[purchase.day] = revenue_minor.get(purchase.day, 0) + purchase.amount_minor
        if not purchase.is_refund:
            days.add(purchase.day)
    if not days:
        return None
    first, last = min(days), max(days)
    return BuyingHistory(
        repeats=len(days) - 1,
        recency_days=last - first,
        age_days=day - first,
        repeat_revenue_minor=sum(amount for on, amount in revenue_minor.items() if on > first),
    )
