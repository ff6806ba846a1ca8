"""Priority: whom to work on, as the money that is at stake.

An account's score is a sum of money: what it may bring, what may be lost of what it brings, what fits, and what a tier
that is near would be worth, each as often as the policy's `[priority]` says. So each part can be told to who works on
the list, the parts add up, and all sellers' lists come from the same rules.
"""

from typing import NamedTuple

from segmentation.policy import Policy
from segmentation.potential import Potential


class PriorityRules(NamedTuple):
    """How much each part counts."""

    potential: float
    revenue_at_risk: float
    fit: float
    closeness: float

    @classmethod
    def of(cls, policy: Policy) -> "PriorityRules":
        """From a policy."""
        priority = policy.priority
        return cls(priority.potential, priority.revenue_at_risk, priority.fit, priority.closeness)


class Priority(NamedTuple):
    """The parts of a score, in minor units, each 0 or more."""

    potential_minor: int
    """What the account may bring."""
    revenue_at_risk_minor: int
    """What it brings and may not bring any more."""
    fit_minor: int
    """Of its potential, as much as it fits to the ideal customer."""
    closeness_minor: int
    """Of its rolling revenue, the more the less is missing to the next tier."""

    @property
    def score_minor(self) -> int:
        """All parts together."""
        return sum(self)


def priority(
    rules: PriorityRules,
    potential: Potential | None,
    *,
    revenue_at_risk_minor: int,
    fit: int,
    revenue_minor: int,
    to_next_tier_minor: int | None,
) -> Priority:
    """Of one account. O(1).

    fit: 0 to 100. to_next_tier_minor: the revenue that is missing to the next tier up; None where there is none above.
    An account that must more than double is not close to it: closeness is 1 - missing / revenue, 0 at least.
    """
    expected_minor = potential.expected_minor if potential else 0
    reach_minor = max(0, revenue_minor - to_next_tier_minor) if to_next_tier_minor is not None else 0
    return Priority(
        round(rules.potential * expected_minor),
        round(rules.revenue_at_risk * revenue_at_risk_minor),
        round(rules.fit * expected_minor * fit / 100),
        round(rules.closeness * reach_minor),
    )
