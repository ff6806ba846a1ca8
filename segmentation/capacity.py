"""Capacity: how many hours a quarter the playbooks ask of each role, of each owner, and what moves did to it.

The touch model: accounts x touches a quarter x minutes a touch. Minutes are integers here and nothing is rounded; what
people see is made of them where it is printed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from segmentation.policy import Policy
from segmentation.segments import SEGMENTS, Segment

MINUTES_AN_HOUR = 60


class Move(NamedTuple):
    """From one segment to another."""

    previous: Segment | None
    """None: the account's first segment."""
    current: Segment


class SegmentLoad(NamedTuple):
    """What the accounts of a segment ask for."""

    segment: Segment
    role: str
    accounts: int
    minutes_a_quarter: int
    accounts_change: int
    """By how many the moves made them more (or fewer: below 0)."""
    minutes_change: int


class RoleLoad(NamedTuple):
    """What is asked of a role, and the people there are for it."""

    role: str
    accounts: int
    minutes_a_quarter: int
    accounts_change: int
    minutes_change: int
    people: int
    hours_a_quarter_each: int

    @property
    def people_needed(self) -> Fraction:
        """Exactly; 0 or more."""
        return Fraction(self.minutes_a_quarter, MINUTES_AN_HOUR * self.hours_a_quarter_each)

    @property
    def is_short(self) -> bool:
        """Whether there are fewer people than needed."""
        return self.people_needed > self.people


class OwnerLoad(NamedTuple):
    """What the accounts of an owner ask for, whichever roles they ask."""

    owner: str | None
    """None: the accounts that have none, which nobody can carry too many of."""
    accounts: int
    minutes_a_quarter: int
    is_over: bool
    """Whether it is more than the policy lets an owner carry, by accounts or by hours."""


class Capacity(NamedTuple):
    """The load of everyone. Segments, roles, and owners with the unowned add up to the same accounts and minutes."""

    segments: list[SegmentLoad]
    """All, from the best tier down, then the stages."""
    roles: list[RoleLoad]
    """Those that a segment has, in the order of the segments."""
    owners: list[OwnerLoad]
    """The heaviest load first."""
    unowned: OwnerLoad


def capacity(policy: Policy, accounts: Iterable[tuple[Segment, str | None]], moves: Mapping[Move, int]) -> Capacity:
    """The load now, and by how much the moves changed it.

    accounts: the segment that each account has now, and its owner.
    moves: how often each move happened in a period. The chain of an account's moves ends in the segment it has now, so
    what they add up to is the load now less the load when the period began.
    O(accounts + moves + owners log owners).
    """
    held: Counter[Segment] = Counter()
    owned: dict[str | None, Counter[Segment]] = {None: Counter()}
    minutes = {segment: policy.segments.of(segment).minutes_a_quarter for segment in Segment}
    for segment, owner in accounts:
        held[segment] += 1
        if owner not in owned:
            owned[owner] = Counter()
        owned[owner][segment] += 1
    gained: Counter[Segment] = Counter()
    for (previous, current), count in moves.items():
        gained[current] += count
        if previous is not None:
            gained[previous] -= count
    segments = [
        SegmentLoad(
            segment,
            policy.segments.of(segment).role,
            held[segment],
            held[segment] * minutes[segment],
            gained[segment],
            gained[segment] * minutes[segment],
        )
        for segment in SEGMENTS
    ]
    owners = [_owner_load(policy, owner, minutes, theirs) for owner, theirs in owned.items() if owner is not None]
    owners.sort(key=lambda load: (-load.minutes_a_quarter, -load.accounts, load.owner))
    unowned = _owner_load(policy, None, minutes, owned[None])
    return Capacity(segments, _roles(policy, segments), owners, unowned)


def _roles(policy: Policy, segments: Iterable[SegmentLoad]) -> list[RoleLoad]:
    by_role: dict[str, list[SegmentLoad]] = {}
    for load in segments:
        by_role.setdefault(load.role, []).append(load)
    return [
        RoleLoad(
            role,
            sum(load.accounts for load in loads),
            sum(load.minutes_a_quarter for load in loads),
            sum(load.accounts_change for load in loads),
            sum(load.minutes_change for load in loads),
            policy.team[role].people,
            policy.team[role].hours_a_quarter,
        )
        for role, loads in by_role.items()
    ]


def _owner_load(
    policy: Policy, owner: str | None, minutes: Mapping[Segment, int], owned: Mapping[Segment, int]
) -> OwnerLoad:
    """The load of who owns so many accounts of each segment, each of which takes so many minutes a quarter."""
    accounts = sum(owned.values())
    total = sum(count * minutes[segment] for segment, count in owned.items())
    limits = policy.owners
    is_over = accounts > limits.accounts_max or total > limits.hours_a_quarter_max * MINUTES_AN_HOUR
    return OwnerLoad(owner, accounts, total, is_over and owner is not None)
