"""Churn risk: how likely an account is to buy nothing for a while, and the level of alarm that follows.

The score is a probability in percent: with 73, of 100 accounts like this one about 73 buy nothing in the horizon. It
comes from how the account has bought; what that cannot show, a request to cancel for example, multiplies its odds for
some days. While nothing happens to an account its score only rises, or falls where such days are over. So the next day
on which its level can change is worked out ahead, and nothing has to look at every account to find out.

A level has hysteresis: an account rises to it where its score reaches the boundary, and falls back only once the score
is lower by more than the band.
"""

from bisect import bisect_left
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from segmentation.account import EVIDENCE_TOLD, NEVER
from segmentation.buying import BuyingHistory
from segmentation.policy import Policy
from segmentation.purchase_model import BuyingModel, odds_no_purchase, probability_of
from segmentation.segments import Segment

DAYS = tuple(range(NEVER + 1))
"""One integer for each day: a million members with four days of their own each would take 100 MB more."""


class Level(StrEnum):
    """How alarming the risk is."""

    LOW = "low"
    WATCH = "watch"
    HIGH = "high"


LEVELS = tuple(Level)
"""The calmest first."""
_LOW, _WATCH, _HIGH = LEVELS
"""A name costs a tenth of what a member of an enumeration does to be looked up, and here that counts."""

TIER_FALL = "tier_fall"
EVIDENCE = (*EVIDENCE_TOLD, TIER_FALL)
"""What multiplies the odds for some days. The last one is known to the ranking stage alone, and ends sooner where the
account has another change of segment: it is no longer where it fell to."""

ENGAGEMENT_FALL = "engagement_fall"
"""The one piece of evidence that is no event: it counts while it lasts."""

EvidenceDays = tuple[int, ...]
"""The latest day of each of EVIDENCE; 0: there was none."""

NO_EVIDENCE: EvidenceDays = (0,) * len(EVIDENCE)
"""One for all: most accounts have none."""

LOOK_AHEAD_DAYS = 32

UNCALIBRATED = BuyingModel(r=0.6, alpha_days=56.0, a=0.64, b=1.18)
"""Where the policy has no model: about what `fit` finds in the CDNOW log. It rests on how often and how recently an
account bought, as any of these models does, but its probabilities are those of others' customers."""


class Trigger(StrEnum):
    """What made a level change."""

    SILENCE = "silence"
    """Nothing was bought, until it was too long."""
    PURCHASE = "purchase"
    """The account's rhythm is another one now."""
    CANCEL_REQUEST = "cancel_request"
    SUPPORT_TICKET = "support_ticket"
    REFUND = "refund"
    TIER_FALL = "tier_fall"
    """It fell to a lower tier."""
    ENGAGEMENT_FALL = "engagement_fall"
    """It engages less than half as often as in its own past."""
    EVIDENCE_OVER = "evidence_over"
    """What had multiplied the odds is long enough ago."""
    POLICY_CHANGED = "policy_changed"
    """The policy's `[risk]` or `[model]` is another one now."""
    RECOVERED = "recovered"
    """Found to differ from what was last told, after the store had lost its newest writes, or a history was read."""


class Part(NamedTuple):
    """What one thing adds to a score."""

    name: str
    """`rhythm`, ENGAGEMENT_FALL, or one of EVIDENCE."""
    points: float
    """Of the score, in percent; all parts together are the score."""
    days_ago: int | None
    """Of evidence that was an event: since when; None: it was none."""


class RiskRules(NamedTuple):
    """What the policy says of risk."""

    model: BuyingModel
    is_calibrated: bool
    """Whether the model was estimated from this installation's own accounts."""
    horizon_days: int
    """Buys nothing in how many days."""
    boundaries: tuple[float, float]
    """Odds of the scores from which an account is watched, and alarming."""
    lower_boundaries: tuple[float, float]
    """Odds of the scores below which it no longer is: each boundary less the band."""
    evidence_days: int
    """For how many days evidence multiplies the odds."""
    factors: tuple[float, ...]
    """By how much each of EVIDENCE does."""
    engagement_factor: float
    """By how much fallen engagement does, for as long as it is."""
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
            (_odds(risk.watch), _odds(risk.high)),
            (_odds(risk.watch - risk.band), _odds(risk.high - risk.band)),
            risk.evidence.days,
            tuple(getattr(risk.evidence, name) for name in EVIDENCE),
            risk.evidence.engagement_fall,
            policy.window_days,
        )

    def level(self, odds: float, before: Level) -> Level:
        """The level at these odds of an account that was at the level before."""
        watch, high = self.boundaries
        if odds >= high:
            return _HIGH
        if before is _HIGH and odds >= self.lower_boundaries[1]:
            return _HIGH
        if odds >= watch or (before is not _LOW and odds >= self.lower_boundaries[0]):
            return _WATCH
        return _LOW

    def revenue_at_risk_minor(self, history: BuyingHistory, revenue_minor: int, odds: float) -> int:
        """What the account brings in a horizon, as far as rolling revenue says, times the probability that it does not.

        The window's revenue is brought down to the horizon; of an account that is younger than the window, from its
        age, but never up. Below 0 nothing is at risk. Halves to even. O(1).
        """
        days = max(self.horizon_days, min(self.window_days, history.age_days + 1))
        return round(max(0, revenue_minor) * self.horizon_days / days * probability_of(odds))


class Risk:
    """What is known of one account that has purchased, how alarming that is, and what the world was told."""

    __slots__ = (
        "bought_in_window",
        "days_bought",
        "due_day",
        "effective_at_us",
        "engagement_fell",
        "evidence_days",
        "first_day",
        "last_day",
        "level",
        "queued_day",
        "sequence",
        "told_level",
    )

    def __init__(
        self,
        first_day: int = 0,
        last_day: int = 0,
        days_bought: int = 0,
        level: Level = Level.LOW,
        told_level: Level = Level.LOW,
        sequence: int = 0,
        effective_at_us: int = 0,
        due_day: int = NEVER,
        evidence_days: EvidenceDays = NO_EVIDENCE,
        bought_in_window: int = 0,
        engagement_fell: bool = False,
    ) -> None:
        self.first_day = first_day
        """Of a purchase."""
        self.last_day = last_day
        """Of a purchase."""
        self.days_bought = days_bought
        """How many days had one; 0: none is known yet."""
        self.bought_in_window = bought_in_window
        """Of these, how many are in the window of rolling revenue."""
        self.engagement_fell = engagement_fell
        """Whether the account engages less than half as often as in its own past."""
        self.evidence_days = evidence_days
        self.level = level
        self.told_level = told_level
        """The world takes an account of which it was told nothing for `low`."""
        self.sequence = sequence
        """Of the last change of level told; 0: none."""
        self.effective_at_us = effective_at_us
        """Of the last change of level told."""
        self.due_day = due_day
        """The next day to look at the account: not after the one on which its level changes if nothing happens to it.
        NEVER: it does not change."""

        self.queued_day = NEVER
        """The day on which the watch will look at the account, of which there is but one at a time; NEVER: none."""

    def know(self, first_day: int, last_day: int, days_bought: int, bought_in_window: int) -> None:
        """Take over how the account has bought."""
        self.first_day, self.last_day, self.days_bought = DAYS[first_day], DAYS[last_day], days_bought
        self.bought_in_window = bought_in_window

    def note_engagement(self, *, fell: bool) -> bool:
        """Take over whether engagement has fallen. Returns whether that is news."""
        is_news, self.engagement_fell = fell is not self.engagement_fell, fell
        return is_news

    def note(self, told_days: EvidenceDays) -> str | None:
        """Take over when what is told of an account happened last: days of EVIDENCE_TOLD, of which the latest count.

        Returns the name of what is news, of several the first; None: nothing is.
        """
        held = self.evidence_days
        told = tuple(map(max, held, told_days))
        if told == held[:-1]:
            return None
        self.evidence_days = (*told, held[-1])
        return next(name for name, old, new in zip(EVIDENCE_TOLD, held, told, strict=False) if new != old)

    def note_change(self, fall_day: int) -> bool:
        """Take over whether the account's last change of segment was a fall of tier: on which day, else 0.

        Returns whether that is news.
        """
        if fall_day == self.evidence_days[-1]:
            return False
        evidence_days = (*self.evidence_days[:-1], fall_day)
        self.evidence_days = evidence_days if any(evidence_days) else NO_EVIDENCE
        return True

    def was_told(self, sequence: int, level: Level, effective_at_us: int, *, instead: bool = False) -> bool:
        """Learn from the log what the world was told. Returns whether that was news.

        instead: of what is taken for told from that sequence on, and nobody was.
        """
        if sequence <= self.sequence and not instead:
            return False
        self.sequence, self.told_level, self.effective_at_us = sequence, level, effective_at_us
        return True

    @property
    def fall_day(self) -> int:
        """The day of the account's last change of segment, if that was a fall of tier; else 0."""
        return self.evidence_days[-1]

    @property
    def is_untold(self) -> bool:
        """Whether the world takes the account for another level than it has. Never while no purchase is known."""
        return self.level is not self.told_level and self.days_bought > 0

    def history(self, day: int) -> BuyingHistory:
        """As of a day, which is not before the last purchase's."""
        return BuyingHistory(self.days_bought - 1, self.last_day - self.first_day, day - self.first_day)

    def odds(self, rules: RiskRules, day: int) -> float:
        """That nothing is bought in the horizon, as of a day that is not before the last purchase's. O(1)."""
        return self._odds_by_age(rules, self._factor(rules, day))(day - self.first_day)

    def _odds_by_age(self, rules: RiskRules, factor: float = 1.0) -> Callable[[int], float]:
        """On days on which what counts besides the rhythm multiplies the odds by this."""
        recency_days = self.last_day - self.first_day
        return odds_no_purchase(rules.model, self.days_bought - 1, recency_days, rules.horizon_days, factor)

    def _factor(self, rules: RiskRules, day: int) -> float:
        """What evidence multiplies the odds by on a day."""
        factor = rules.engagement_factor if self.engagement_fell else 1.0
        if self.evidence_days is not NO_EVIDENCE:
            for times, since in zip(rules.factors, self.evidence_days, strict=True):
                if since and 0 <= day - since < rules.evidence_days:
                    factor *= times
        return factor

    def parts(self, rules: RiskRules, day: int, odds: float) -> list[Part]:
        """What the score is made of: the rhythm, then each piece of evidence on top of what is before it.

        odds: all of them, as of the day.
        """
        if self.evidence_days is NO_EVIDENCE and not self.engagement_fell:
            return [Part("rhythm", score_of(odds), None)]
        odds = self._odds_by_age(rules)(day - self.first_day)
        score = score_of(odds)
        parts = [Part("rhythm", score, None)]
        counting: list[tuple[str, float, int | None]] = []
        if self.engagement_fell:
            counting.append((ENGAGEMENT_FALL, rules.engagement_factor, None))
        for name, factor, since in zip(EVIDENCE, rules.factors, self.evidence_days, strict=True):
            if since and 0 <= day - since < rules.evidence_days:
                counting.append((name, factor, day - since))
        for name, factor, days_ago in counting:
            odds *= factor
            before, score = score, score_of(odds)
            parts.append(Part(name, score - before, days_ago))
        return parts

    def settle(self, rules: RiskRules, day: int, before: Level) -> float:
        """Bring the level, which was `before`, to a day. Returns the odds. O(1).

        To search for a day that is far off costs as much as all else, and mostly a purchase comes before it. So a
        silent account is looked at after a month, and each time that its silence has doubled, until the day is near.
        """
        first_day, odds_by_age = self.first_day, self._odds_by_age(rules, self._factor(rules, day))
        odds = odds_by_age(day - first_day)
        self.level = level = rules.level(odds, before)
        turn = self._next_turn(rules, day)
        if level is _HIGH:
            self.due_day = DAYS[turn]
            return odds
        boundary, due_day = rules.boundaries[level is _WATCH], self.due_day
        # A day that was worked out before still does where the level is not reached before it.
        if not day < due_day <= turn or odds_by_age(due_day - 1 - first_day) >= boundary:
            until = min(turn, day + max(LOOK_AHEAD_DAYS, day - self.last_day))
            is_near = odds_by_age(until - 1 - first_day) >= boundary
            self.due_day = DAYS[_rise(odds_by_age, boundary, first_day, day, until) if is_near else until]
        return odds

    def rises_on(self, rules: RiskRules, day: int) -> int:
        """The first day after this one on which the level, which is not the highest, rises if nothing happens.

        NEVER if it does not. O(log of the days until then).
        """
        boundary = rules.boundaries[self.level is _WATCH]
        while day < NEVER:
            turn = self._next_turn(rules, day)
            rise = _rise(self._odds_by_age(rules, self._factor(rules, day)), boundary, self.first_day, day, turn)
            if rise < turn or (turn < NEVER and self.odds(rules, turn) >= boundary):
                return rise
            day = turn
        return NEVER

    def _next_turn(self, rules: RiskRules, day: int) -> int:
        """The first day after this one on which evidence begins to count, or no longer does; NEVER if none."""
        if self.evidence_days is NO_EVIDENCE:
            return NEVER
        turns = [turn for since in self.evidence_days if since for turn in (since, since + rules.evidence_days)]
        return min([turn for turn in turns if turn > day], default=NEVER)


def _rise(odds_by_age: Callable[[int], float], boundary: float, first_day: int, day: int, until: int) -> int:
    """The first day after this one on which silence alone raises the level; `until` if none before that does."""
    ages = range(day + 1 - first_day, until - first_day)
    return day + 1 + bisect_left(ages, boundary, key=odds_by_age)


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
    """Of the purchase or refund that was the trigger."""
    odds: float
    """That nothing is bought in the horizon."""
    parts: list[Part]
    history: BuyingHistory
    """As of the day of the change."""
    rolling_revenue_minor: int
    revenue_at_risk_minor: int
    current_segment: Segment
    """What the account is."""
    effective_at_us: int
    transfer: int
    """See `Standing.transfer`."""


def score_of(odds: float) -> float:
    """The probability in percent."""
    return 100 * probability_of(odds)


def _odds(score: float) -> float:
    return score / (100 - score)
