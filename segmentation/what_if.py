"""What another policy would make of the accounts as they are: who would move, with how much revenue.

It begins with the tiers that are stored, as an installation that goes on under the other policy would: with a band, an
account moves only where the new rules do not allow it to stay. Without a band, tiers are a function of the revenues, so
the answer is what a new installation would say that took in the same log.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeVar

from segmentation.order_index import Basis
from segmentation.policy import Difference, Policy
from segmentation.population import Member
from segmentation.segments import Segment, Stage
from segmentation.tiers import Tiers

Key = TypeVar("Key")


class Effect(StrEnum):
    """What can be said of a field that differs."""

    ANSWERED = "answered"
    """The answer is in the numbers."""
    NONE = "none"
    """It moves no account between segments."""
    UNKNOWN = "unknown"
    """The state does not know enough; the numbers are without it."""


class FieldEffect(NamedTuple):
    """One field of the policy that differs, and what that means for the answer."""

    difference: Difference
    effect: Effect
    why: str
    """Why the answer is without it; empty where it is in it."""


_CONVERTED = "amounts are converted as they come, and only what came of that is kept"
_STRATEGIES = "what is done for the accounts of a segment moves none to another"
_RISK = "an account's risk moves it to no other segment"
_DESCRIBED = "attributes describe an account, and decide nothing about its tier"
_WORTH = "what an account may bring moves it to no other segment"
_TELLING = "whom changes are told to moves no account"
_ENGAGEMENTS = "what engagements count moves no account between segments"
EFFECTS: dict[str, tuple[Effect, str]] = {
    "basis": (Effect.ANSWERED, ""),
    "band": (Effect.ANSWERED, ""),
    "tiers": (Effect.ANSWERED, ""),
    "new_start_days": (Effect.ANSWERED, ""),
    "version": (Effect.NONE, "it is only a name"),
    "risk": (Effect.NONE, _RISK),
    "model": (Effect.NONE, _RISK),
    "bands": (Effect.NONE, _DESCRIBED),
    "classes": (Effect.NONE, _DESCRIBED),
    "icp": (Effect.NONE, _DESCRIBED),
    "needs": (Effect.NONE, _STRATEGIES),
    "potential": (Effect.NONE, _WORTH),
    "priority": (Effect.NONE, _WORTH),
    "segments": (Effect.NONE, _STRATEGIES),
    "team": (Effect.NONE, _STRATEGIES),
    "owners": (Effect.NONE, _STRATEGIES),
    "alerts": (Effect.NONE, _TELLING),
    "people": (Effect.NONE, _TELLING),
    "calm": (Effect.NONE, _TELLING),
    "engagement_days": (Effect.NONE, _ENGAGEMENTS),
    "engagement_weights": (Effect.NONE, _ENGAGEMENTS),
    "base_currency": (Effect.UNKNOWN, _CONVERTED),
    "rates": (Effect.UNKNOWN, _CONVERTED),
    "window_days": (Effect.UNKNOWN, "the state has each account's revenue of the present window, not of another one"),
    "population": (Effect.UNKNOWN, "the state has each account ranked against those of its present population"),
    "future_days": (Effect.UNKNOWN, "what it refused became dead letters, which the state does not hold"),
}
"""Field, or table, of a policy -> what can be said of it, and why not more."""
_NOT_KNOWN = (Effect.UNKNOWN, "this version of the program does not know it")


def field_effects(present: Policy, other: Policy) -> list[FieldEffect]:
    """Every field in which the other policy differs from the present one, and whether the answer holds it."""
    return [
        FieldEffect(difference, *EFFECTS.get(difference.field.split(".")[0], _NOT_KNOWN))
        for difference in other.field_differences(present.canonical())
    ]


class Shift(NamedTuple):
    """One account that would be in another segment."""

    account_id: str
    previous: Segment
    current: Segment
    revenue_minor: int
    """Its rolling revenue."""


class Held(NamedTuple):
    """What a segment holds."""

    accounts: int
    revenue_minor: int


class Cutoffs(NamedTuple):
    """The least revenue of each tier but the last, band aside; None where no account has the tier."""

    before_minor: Sequence[int | None]
    after_minor: Sequence[int | None]


class WhatIf(NamedTuple):
    """What would be, beside what is."""

    shifts: list[Shift]
    """Whoever would move: the largest revenue first, equal ones by account."""
    before: Mapping[Segment, Held]
    """Segment -> what it holds now."""
    after: Mapping[Segment, Held]
    """Segment -> what it would hold."""
    cutoffs: Mapping[str, "Cutoffs"]
    """By population."""

    @property
    def accounts(self) -> int:
        """All accounts."""
        return sum(held.accounts for held in self.before.values())

    @property
    def revenue_minor(self) -> int:
        """Their rolling revenue."""
        return sum(held.revenue_minor for held in self.before.values())

    @property
    def moved_revenue_minor(self) -> int:
        """The rolling revenue of whoever would move."""
        return sum(shift.revenue_minor for shift in self.shifts)

    def matrix(self) -> dict[tuple[Segment, Segment], Held]:
        """(From, to) -> who would move. O(shifts)."""
        return _held(((shift.previous, shift.current), shift.revenue_minor) for shift in self.shifts)


def what_if(
    populations: Mapping[str, Iterable[Member]],
    present: Policy,
    other: Policy,
    *,
    stages: Mapping[str, str] | None = None,
) -> WhatIf:
    """Put the members of each population under the other policy's shares, basis and band; they are left as they are.

    `stages`: of each account, its stage under the other policy's `new_start_days`; whoever is not named keeps theirs.
    An account that enters the ranking by that takes the tier that its position says.
    O(n log n). Raises ValueError for members that no population holds (see `Tiers`).
    """
    found = [_of_population(name, list(members), present, other, stages or {}) for name, members in populations.items()]
    shifts = sorted(
        (shift for one in found for shift in one.shifts), key=lambda shift: (-shift.revenue_minor, shift.account_id)
    )
    before, after = _sum(one.before for one in found), _sum(one.after for one in found)
    return WhatIf(shifts, before, after, {name: its for one in found for name, its in one.cutoffs.items()})


def _sum(parts: Iterable[Mapping[Segment, Held]]) -> dict[Segment, Held]:
    together: dict[Segment, Held] = {}
    for part in parts:
        for segment, held in part.items():
            known = together.get(segment, Held(0, 0))
            together[segment] = Held(known.accounts + held.accounts, known.revenue_minor + held.revenue_minor)
    return together


def _of_population(
    name: str, listed: Sequence[Member], present: Policy, other: Policy, new_stages: Mapping[str, str]
) -> WhatIf:
    ranked = [(m.account_id, m.revenue_minor, m.tier) for m in listed if m.tier is not None]
    cutoffs_before = _tiers(present, ranked).cutoffs()
    tiers = _tiers(other, ranked)
    tiers.apply(
        (member.account_id, member.revenue_minor if _is_ranked(stage, member.revenue_minor) else None)
        for member in listed
        if (stage := new_stages.get(member.account_id, member.stage)) != member.stage
    )
    shifts, before, after = [], [], []
    for member in listed:
        tier = tiers.tier(member.account_id) if member.account_id in tiers else None
        stage = new_stages.get(member.account_id, member.stage)
        current = Member(member.account_id, stage=stage, tier=tier).current_segment
        previous = member.current_segment
        before.append((previous, member.revenue_minor))
        after.append((current, member.revenue_minor))
        if current is not previous:
            shifts.append(Shift(member.account_id, previous, current, member.revenue_minor))
    return WhatIf(shifts, _held(before), _held(after), {name: Cutoffs(cutoffs_before, tiers.cutoffs())})


def _tiers(policy: Policy, ranked: Iterable[tuple[str, int, int]]) -> Tiers:
    return Tiers(basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp, members=ranked)


def _is_ranked(stage: str, revenue_minor: int) -> bool:
    return stage == Stage.ESTABLISHED and revenue_minor > 0


def _held(revenues: Iterable[tuple[Key, int]]) -> dict[Key, Held]:
    """How many of each key there are, and their revenue together."""
    accounts: Counter[Key] = Counter()
    revenue_minor: Counter[Key] = Counter()
    for key, amount_minor in revenues:
        accounts[key] += 1
        revenue_minor[key] += amount_minor
    return {key: Held(count, revenue_minor[key]) for key, count in accounts.items()}
