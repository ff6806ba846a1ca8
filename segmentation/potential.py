"""Spend potential: what an account may bring in a horizon, in money, within which bounds, and what that rests on.

Of an established account its own purchases say it. Of a new start and a prospect, of which too little is known, the
accounts of its class do: what they bring is drawn to what the classes above bring, the more so the less is known.

Estimates are floats within the formulas and integers, in minor units, where they leave them.

Sources:
- Bühlmann & Gisler (2005), A Course in Credibility Theory and its Applications, chapters 4 (Bühlmann-Straub) and 6
  (hierarchical): how much a class's own mean counts.
- Wilson & Hilferty (1931), The Distribution of Chi-Square, PNAS 17(12): quantiles of a gamma distribution.
"""

from collections.abc import Mapping
from math import inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

from segmentation.buying import BuyingHistory
from segmentation.policy import Policy
from segmentation.purchase_model import (
    BuyingModel,
    SpendModel,
    expected_purchases,
    planned_revenue_minor,
    probability_no_purchase,
)
from segmentation.risk import UNCALIBRATED
from segmentation.segments import Stage

ClassPath = tuple[str, ...]
"""The values of an account's class, the coarsest first; a shorter one is a class above it, the empty one holds all."""

COVERED_SHARE = 0.8
"""Of the accounts, so many are to bring something within their bounds."""
_OUTSIDE = (1 - COVERED_SHARE) / 2
SERIES_ERROR = 1e-6
"""Relative, of the purchases to expect: far below what a model is worth."""


class Potential(NamedTuple):
    """What an account may bring in a horizon, in minor units."""

    expected_minor: int
    """0 or more."""
    low_minor: int
    high_minor: int
    """About COVERED_SHARE of accounts like this one bring something between these; of a prospect, if it buys."""
    conversion: float | None
    """The share of accounts of its class that have bought; None: it has bought itself."""
    class_path: ClassPath | None
    """The class that it rests on; None: it rests on the account's own purchases."""
    accounts: int
    """So many established accounts of that class; 1 where it rests on the account's own purchases."""


class Buyer(NamedTuple):
    """What is known of an account that has purchased."""

    history: BuyingHistory
    """As of the day of the question; without revenue."""
    revenue_minor: int
    """Rolling revenue."""
    bought_in_window: int
    """Days of the window that had a purchase."""


class PotentialRules(NamedTuple):
    """What the policy says of potential."""

    buying: BuyingModel
    spend: SpendModel | None
    """None: nothing was estimated of this installation's accounts."""
    horizon_days: int
    window_days: int
    """Of rolling revenue."""
    new_start_days: int

    @classmethod
    def of(cls, policy: Policy) -> "PotentialRules":
        """From a policy."""
        model = policy.model
        return cls(
            model.buying if model else UNCALIBRATED,
            model.spend if model else None,
            policy.potential.horizon_days,
            policy.window_days,
            policy.new_start_days,
        )

    def of_buyer(self, buyer: Buyer) -> Potential:
        """Of an account whose own purchases say it. Complexity: `expected_purchases`."""
        history, horizon = buyer.history, self.horizon_days
        revenue_minor = max(0, buyer.revenue_minor)
        days = self.window_days
        if history.age_days < days:
            days = max(horizon, history.age_days + 1)  # what a young account brought is not taken for more
        # the first purchase brought something, too, but nobody knows of it that it is ever repeated
        is_first_in_window = history.age_days < self.window_days
        repeats = buyer.bought_in_window - is_first_in_window
        recent_minor = revenue_minor * horizon // days * repeats // max(1, buyer.bought_in_window)
        spend = self._spend_minor(revenue_minor, buyer.bought_in_window)
        expected = expected_purchases(self.buying, history, horizon, SERIES_ERROR) * spend
        planned = planned_revenue_minor(
            round(expected), history, recent_minor, horizon_days=horizon, new_start_days=self.new_start_days
        )
        none_share = probability_no_purchase(self.buying, history, horizon)
        low, high = _bounds(planned, none_share, self._spread(history, planned / spend if spend else 0.0, none_share))
        return Potential(planned, low, high, None, None, 1)

    def _spend_minor(self, revenue_minor: int, bought: int) -> float:
        """To expect of a day with a purchase: `purchase_model.expected_spend_minor` of what the window holds."""
        if self.spend is None:
            return revenue_minor / bought if bought else 0.0
        p, q, gamma_minor = self.spend
        return p * (gamma_minor + revenue_minor) / (p * bought + q - 1)

    def _spread(self, history: BuyingHistory, purchases: float, none_share: float) -> float:
        """The squared coefficient of variation of what an account brings that brings anything.

        Of a sum of N amounts: 1 / E(N), for N and once more, by p, for the amounts; and 1 / (r + x), as the account's
        rate itself is only known so well.
        """
        count = max(1.0, purchases / (1 - none_share) if none_share < 1 else 1.0)
        of_amounts = 1 / self.spend.p if self.spend else 1.0
        return (1 + of_amounts) / count + 1 / (self.buying.r + history.repeats)


class ClassFigures:
    """What the accounts of one class add up to, kept by adding and taking away."""

    __slots__ = ("accounts", "buyers", "established", "revenue_minor", "revenue_squared")

    def __init__(
        self,
        accounts: int = 0,
        buyers: int = 0,
        established: int = 0,
        revenue_minor: int = 0,
        revenue_squared: int = 0,
    ) -> None:
        self.accounts = accounts
        self.buyers = buyers
        """Have purchased, at whatever stage they are."""
        self.established = established
        self.revenue_minor = revenue_minor
        """Rolling revenue of the established accounts, where it is above 0; lapsed ones count as nothing."""
        self.revenue_squared = revenue_squared
        """The sum of its squares."""

    def count(self, stage: str, revenue_minor: int, times: int = 1) -> None:
        """Add an account as it is (times 1), or take it away as it was (times -1). O(1)."""
        self.accounts += times
        if stage == Stage.PROSPECT:
            return
        self.buyers += times
        if stage == Stage.ESTABLISHED:
            revenue_minor = max(0, revenue_minor)
            self.established += times
            self.revenue_minor += times * revenue_minor
            self.revenue_squared += times * revenue_minor * revenue_minor

    def add(self, other: "ClassFigures") -> None:
        """Add all accounts of another class. O(1)."""
        self.accounts += other.accounts
        self.buyers += other.buyers
        self.established += other.established
        self.revenue_minor += other.revenue_minor
        self.revenue_squared += other.revenue_squared

    def numbers(self) -> tuple[int, int, int, int, int]:
        """All of it, in the order in which `ClassFigures` takes it."""
        return self.accounts, self.buyers, self.established, self.revenue_minor, self.revenue_squared

    @property
    def prospects(self) -> int:
        """Accounts that have not purchased."""
        return self.accounts - self.buyers


class ClassEstimate(NamedTuple):
    """What is to be expected of an account of a class."""

    path: ClassPath
    """The class, or the one above it of which there is any established account."""
    established: int
    revenue_minor: float
    """Mean rolling revenue of an established account, drawn to that of the classes above."""
    spread: float
    """The squared coefficient of variation of it between such accounts."""
    conversion: float
    """The share of accounts that have bought, drawn to that of the classes above."""


class ClassEstimates:
    """Of all classes of a population, from the figures of the finest ones. O(classes) to make."""

    def __init__(self, figures: Mapping[ClassPath, ClassFigures]) -> None:
        levels = _levels(figures)
        self._estimates: dict[ClassPath, ClassEstimate] = {}
        for depth, level in enumerate(levels):
            revenue = {path: _Sample(f.established, f.revenue_minor, f.revenue_squared) for path, f in level.items()}
            bought = {path: _Sample(f.accounts, f.buyers, f.buyers) for path, f in level.items()}
            revenue_credit, bought_credit = _credibility(revenue), _credibility(bought)
            for path, of_class in level.items():
                above = self._estimates.get(path[:-1]) if depth else None
                self._estimates[path] = ClassEstimate(
                    path if of_class.established or above is None else above.path,
                    of_class.established if of_class.established or above is None else above.established,
                    _drawn(revenue[path], revenue_credit, above.revenue_minor if above else None),
                    above.spread if above and of_class.established < _OWN_SPREAD_MIN else _spread_of(revenue[path]),
                    _drawn(bought[path], bought_credit, above.conversion if above else None),
                )

    def of(self, path: ClassPath) -> ClassEstimate | None:
        """Of a class; of one that has no account yet, of the next above it. None where no account has purchased."""
        while path and path not in self._estimates:
            path = path[:-1]
        found = self._estimates.get(path)
        return found if found is not None and found.established else None

    def potential(self, path: ClassPath, rules: PotentialRules, *, is_prospect: bool) -> Potential | None:
        """Of an account of this class that says too little itself. None where no account is established."""
        found = self.of(path)
        if found is None:
            return None
        revenue = found.revenue_minor * rules.horizon_days / rules.window_days
        low, high = _bounds(round(revenue), 0.0, found.spread)
        expected = revenue * found.conversion if is_prospect else revenue
        conversion = found.conversion if is_prospect else None
        return Potential(round(expected), low, high, conversion, found.path, found.established)


class _Sample(NamedTuple):
    """Of the accounts of a class: how many, and the sums of a number and of its squares."""

    size: int
    total: int
    squares: int

    @property
    def mean(self) -> float:
        return self.total / self.size if self.size else 0.0

    @property
    def squared_errors(self) -> float:
        """The sum of the squared distances from the mean; worked out in integers, of which floats would lose most."""
        return (self.squares * self.size - self.total * self.total) / self.size if self.size else 0.0


_OWN_SPREAD_MIN = 30
"""Accounts from which on a class's own spread is known well enough."""


def _levels(figures: Mapping[ClassPath, ClassFigures]) -> list[dict[ClassPath, ClassFigures]]:
    """The classes by how fine they are, from the one of all accounts down."""
    depth_max = max(map(len, figures), default=0)
    levels: list[dict[ClassPath, ClassFigures]] = []
    for depth in range(depth_max + 1):
        level: dict[ClassPath, ClassFigures] = {}
        for path, finest in figures.items():
            if depth <= len(path):
                level.setdefault(path[:depth], ClassFigures()).add(finest)
        levels.append(level)
    return levels


def _credibility(level: Mapping[ClassPath, _Sample]) -> float:
    """Bühlmann's k of the classes of a level: one of n accounts counts n / (n + k), its parent the rest.

    k = s² / τ²: the variance between accounts of a class over that between the classes of one parent, both estimated
    from the samples (Bühlmann & Gisler 2005, 4.8). Infinite where the classes do not differ more than chance lets them.
    """
    within, spare = 0.0, 0
    for sample in level.values():
        if sample.size:
            within += sample.squared_errors
            spare += sample.size - 1
    if spare <= 0:
        return inf
    variance = within / spare
    siblings: dict[ClassPath, list[_Sample]] = {}
    for path, sample in level.items():
        if path and sample.size:
            siblings.setdefault(path[:-1], []).append(sample)
    between = weight = 0.0
    for samples in siblings.values():
        count = sum(sample.size for sample in samples)
        mean = sum(sample.total for sample in samples) / count
        between += sum(sample.size * (sample.mean - mean) ** 2 for sample in samples)
        between -= (len(samples) - 1) * variance
        weight += count - sum(sample.size**2 for sample in samples) / count
    return variance * weight / between if between > 0 and weight > 0 else inf


def _drawn(sample: _Sample, k: float, to: float | None) -> float:
    if to is None:
        return sample.mean
    share = sample.size / (sample.size + k) if sample.size else 0.0
    return share * sample.mean + (1 - share) * to


def _spread_of(sample: _Sample) -> float:
    """The squared coefficient of variation; 1 where too little is known for one."""
    if sample.size < 2 or not sample.total:
        return 1.0
    return sample.squared_errors / (sample.size - 1) / sample.mean**2


def _bounds(expected_minor: int, none_share: float, spread: float) -> tuple[int, int]:
    """Between which COVERED_SHARE of the accounts lie: none_share bring nothing, the rest a gamma distribution.

    spread: the squared coefficient of variation of the rest.
    """
    if not expected_minor or none_share >= 1 - _OUTSIDE:
        return 0, expected_minor
    mean = expected_minor / (1 - none_share)

    def quantile(share: float) -> int:
        within = (share - none_share) / (1 - none_share)
        if within <= 0:
            return 0
        # Wilson & Hilferty (1931): the cube root of a gamma variable is nearly normal
        cube_root = 1 - spread / 9 + NormalDist().inv_cdf(within) * sqrt(spread) / 3
        return round(mean * max(0.0, cube_root) ** 3)

    # Of few that bring much the expectation lies above what 90 % bring: bounds that leave it out would look wrong.
    return min(expected_minor, quantile(_OUTSIDE)), max(expected_minor, quantile(1 - _OUTSIDE))
