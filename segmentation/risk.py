"""Churn risk: how likely an account is to buy nothing for a while, and the level of alarm that follows.

The score is a probability in percent, with a meaning of its own: with 73, of 100 accounts like this one about 73 buy
nothing in the horizon. While an account is silent it only rises, so the day on which the level will change is worked
out ahead, and nothing has to look at every account to find out.

A level has hysteresis: an account rises to it where its score reaches the boundary, and falls back only once the score
is lower by more than the band.
"""

from enum import StrEnum
from math import log
from typing import NamedTuple

from segmentation.account import NEVER
from segmentation.buying import BuyingHistory
from segmentation.policy import Policy
from segmentation.purchase_model import BuyingModel, log_odds_no_purchase, probability
from segmentation.segments import Segment


class Level(StrEnum):
    """How alarming the risk is."""

    LOW = "low"
    WATCH = "watch"
    HIGH = "high"


LEVELS = tuple(Level)
"""The calmest first."""

UNCALIBRATED = BuyingModel(r=0.6, alpha_days=56.0, a=0.64, b=1.18)
"""Where the policy has no model: about what `fit` finds in the CDNOW log. It rests on how often and how recently an
account bought, as any of these models does, but its probabilities are those of others' customers."""


class Trigger(StrEnum):
    """What made a level change."""

    SILENCE = "silence"
    """Nothing was bought, until it was too long."""
    PURCHASE = "purchase"
    """The account's rhythm is another one now."""
    RECOVERED = "recovered"
    """Found to differ from what was last told, after the store had lost its newest writes, or a history was read."""


class RiskRules(NamedTuple):
    """What the policy says of risk."""

    model: BuyingModel
    is_calibrated: bool
    """Whether the model was estimated from this installation's own accounts."""
    horizon_days: int
    """Buys nothing in how many days."""
    boundaries: tuple[float, float]
    """Log-odds of the scores from which an account is watched, and alarming."""
    lower_boundaries: tuple[float, float]
    """Log-odds of the scores below which it no longer is: each boundary less the band."""
    window_days: int
    """Of rolling revenue."""

    @classmethod
    def of(cls, policy: Policy) -> "RiskRules":
        """From a policy."""
        risk, model = policy.risk, policy.model
        return cls(
            model.buying if model else UNCALIBRATED,
            model is not None,
            risk.horizon_days,
            (_log_odds(risk.watch), _log_odds(risk.high)),
            (_log_odds(risk.watch - risk.band), _log_odds(risk.high - risk.band)),
            policy.window_days,
        )

    def log_odds(self, history: BuyingHistory) -> float:
        """Of buying nothing in the horizon. O(1)."""
        return log_odds_no_purchase(self.model, history, self.horizon_days)

    def level(self, log_odds: float, before: Level) -> Level:
        """The level at these log-odds of an account that was at the level before."""
        held = LEVELS.index(before)
        level = sum(log_odds >= boundary for boundary in self.boundaries)
        if level < held:
            level = max(level, sum(log_odds >= boundary for boundary in self.lower_boundaries[:held]))
        return LEVELS[level]

    def revenue_at_risk_minor(self, history: BuyingHistory, revenue_minor: int, log_odds: float) -> int:
        """What the account brings in a horizon, as far as rolling revenue says, times the probability that it does not.

        The window's revenue is brought down to the horizon; of an account that is younger than the window, from its
        age, but never up. Below 0 nothing is at risk. Halves to even. O(1).
        """
        days = max(self.horizon_days, min(self.window_days, history.age_days + 1))
        return round(max(0, revenue_minor) * self.horizon_days / days * probability(log_odds))


class Risk:
    """What is known of one account that has purchased, how alarming that is, and what the world was told."""

    __slots__ = (
        "days_bought",
        "due_day",
        "effective_at_us",
        "first_day",
        "last_day",
        "level",
        "sequence",
        "told_level",
    )

    def __init__(
        self,
        *,
        first_day: int = 0,
        last_day: int = 0,
        days_bought: int = 0,
        level: Level = Level.LOW,
        told_level: Level = Level.LOW,
        sequence: int = 0,
        effective_at_us: int = 0,
        due_day: int = NEVER,
    ) -> None:
        self.first_day = first_day
        """Of a purchase."""
        self.last_day = last_day
        """Of a purchase."""
        self.days_bought = days_bought
        """How many days had one; 0: none is known yet."""
        self.level = level
        self.told_level = told_level
        """The world takes an account of which it was told nothing for `low`."""
        self.sequence = sequence
        """Of the last change of level told; 0: none."""
        self.effective_at_us = effective_at_us
        """Of the last change of level told."""
        self.due_day = due_day
        """The next day on which silence may change the level: not after the day on which it does. NEVER: none."""

    def history(self, day: int) -> BuyingHistory:
        """As of a day, which is not before the last purchase's."""
        return BuyingHistory(self.days_bought - 1, self.last_day - self.first_day, day - self.first_day)

    def know(self, first_day: int, last_day: int, days_bought: int) -> None:
        """Take over how the account has bought."""
        self.first_day, self.last_day, self.days_bought = first_day, last_day, days_bought

    def was_told(self, sequence: int, level: Level, effective_at_us: int, *, instead: bool = False) -> bool:
        """Learn from the log what the world was told. Returns whether that was news.

        instead: of what is taken for told from that sequence on, and nobody was.
        """
        if sequence <= self.sequence and not instead:
            return False
        self.sequence, self.told_level, self.effective_at_us = sequence, level, effective_at_us
        return True

    @property
    def is_untold(self) -> bool:
        """Whether the world takes the account for another level than it has. Never while no purchase is known."""
        return self.level is not self.told_level and self.days_bought > 0

    def settle(self, rules: RiskRules, day: int, before: Level) -> float:
        """Bring the level, which was `before`, to a day. Returns the log-odds.

        O(1), but where the day on which silence would change the level is not known to lie ahead: then O(log of the
        days until then).
        """
        log_odds = rules.log_odds(self.history(day))
        self.level = rules.level(log_odds, before)
        held = LEVELS.index(self.level)
        if held == len(rules.boundaries):
            self.due_day = NEVER
            return log_odds
        boundary = rules.boundaries[held]
        # A day that was worked out before still does where the level is not reached on it either.
        if self.due_day <= day or rules.log_odds(self.history(self.due_day)) >= boundary:
            self.due_day = self.rises_on(rules, day)
        return log_odds

    def rises_on(self, rules: RiskRules, day: int) -> int:
        """The first day after this one on which silence alone raises the level, which is not the highest.

        NEVER if none does. O(log of the days until then).
        """
        boundary = rules.boundaries[LEVELS.index(self.level)]
        step, low = 1, day
        while (high := low + step) < NEVER and rules.log_odds(self.history(high)) < boundary:
            low, step = high, 2 * step
        high = min(high, NEVER)
        while high - low > 1:
            middle = (low + high) // 2
            if rules.log_odds(self.history(middle)) < boundary:
                low = middle
            else:
                high = middle
        return high


class RiskChange(NamedTuple):
    """One account's risk rose to another level, or fell to one."""

    account_id: str
    population: str
    sequence: int
    """1, 2, 3, ... for each account, without gaps; not that of its changes of segment."""
    previous_level: Level
    current_level: Level
    trigger: Trigger
    event_id: str | None
    """Of the event that was the trigger."""
    log_odds: float
    """Of buying nothing in the horizon."""
    history: BuyingHistory
    """What they rest on, as of the day of the change."""
    rolling_revenue_minor: int
    revenue_at_risk_minor: int
    segment: Segment
    effective_at_us: int


def _log_odds(score: float) -> float:
    return log(score / (100 - score))
