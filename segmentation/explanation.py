"""Why an account is where it is, how far it is from the next tier, and where time alone will take it."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from segmentation.segments import TIERS, Segment, Stage

GatesOf = Callable[[int | None], tuple[int | None, ...]]
"""The revenue that an account from a tier (None: from outside the ranking) needs at each boundary: `Tiers.gates`."""


class Step(NamedTuple):
    """Where an account is from a day on."""

    day: int
    rolling_revenue_minor: int
    segment: Segment
    lapsed: bool


def forecast(
    entries: Iterable[tuple[int, int]],
    *,
    day: int,
    window_days: int,
    new_start_days: int,
    first_purchase_day: int,
    tier: int | None,
    gates_of: GatesOf,
) -> list[Step]:
    """Where revenue that leaves the window, or comes due, will take an account while the cutoffs stay as they are.

    entries: (day, amount in minor units) of every purchase and refund that is in the window on `day` or lies ahead.
    tier: where the account is on `day`; None where it is not ranked. Returns the days after it on which the account's
    segment changes or it lapses, in order. O(n log n) for n entries.
    """
    amounts: dict[int, int] = {}
    for entry_day, amount in entries:
        for change_day, change in ((entry_day, amount), (entry_day + window_days, -amount)):
            amounts[change_day] = amounts.get(change_day, 0) + change
    revenue = sum(amount for change_day, amount in amounts.items() if change_day <= day)
    stage_days = (first_purchase_day, first_purchase_day + new_start_days)
    steps = [_step(day, revenue, _stage(day, stage_days), tier)]
    for step_day in sorted(later for later in {*amounts, *stage_days} if later > day):
        revenue += amounts.get(step_day, 0)
        stage = _stage(step_day, stage_days)
        ranked = stage is Stage.ESTABLISHED and revenue > 0
        tier = sum(gate is None or revenue < gate for gate in gates_of(tier)) if ranked else None
        step = _step(step_day, revenue, stage, tier)
        if (step.segment, step.lapsed) != (steps[-1].segment, steps[-1].lapsed):
            steps.append(step)
    return steps[1:]


def _stage(day: int, stage_days: tuple[int, int]) -> Stage:
    bought, graduates = stage_days
    return Stage.PROSPECT if day < bought else Stage.NEW_START if day < graduates else Stage.ESTABLISHED


def _step(day: int, revenue: int, stage: Stage, tier: int | None) -> Step:
    if stage is not Stage.ESTABLISHED:
        return Step(day, revenue, Segment(stage), False)
    return Step(day, revenue, Segment.COMMERCIAL if tier is None else TIERS[tier], tier is None)
