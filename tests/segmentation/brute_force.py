"""The ranking from its definitions: every position anew, one Schmitt trigger per account and boundary."""

from collections.abc import Collection, Iterable, Sequence

from segmentation.order_index import WHOLE_BP, Basis
from segmentation.tiers import Cause, Move

Sides = tuple[bool, ...]
"""For each boundary, whether an account is above it."""


def weight(revenue: int, basis: Basis) -> int:
    """What one account weighs."""
    return revenue if basis is Basis.REVENUE else 1


def position(revenues: Collection[int], revenue: int, basis: Basis) -> tuple[int, int]:
    """The weight strictly above a revenue, and all weight."""
    above = sum(weight(other, basis) for other in revenues if other > revenue)
    return above, sum(weight(other, basis) for other in revenues)


def line(revenues: Collection[int], share_bp: int, basis: Basis) -> int | None:
    """The least revenue that any account has whose position is below the share."""
    below_share = []
    for revenue in revenues:
        above, total = position(revenues, revenue, basis)
        if above * WHOLE_BP < share_bp * total:
            below_share.append(revenue)
    return min(below_share, default=None)


class BruteForce:
    """The same answers as `Tiers.apply`, in quadratic time."""

    def __init__(self, basis: Basis, boundaries: Sequence[int], band: int) -> None:
        self.basis = basis
        self.boundaries = boundaries
        self.band = band
        self.revenues: dict[str, int] = {}
        self.sides: dict[str, Sides] = {}

    def apply(self, batch: Iterable[tuple[str, int | None]]) -> set[Move]:
        """Take in a batch; return the moves."""
        old_revenues, old_sides = dict(self.revenues), self.sides
        for account, revenue in dict(batch).items():
            self.revenues.pop(account, None)
            if revenue is not None:
                self.revenues[account] = revenue
        old, new = list(old_revenues.values()), list(self.revenues.values())
        positions = {revenue: position(new, revenue, self.basis) for revenue in new}
        self.sides = {
            account: self.triggered(old_sides.get(account), positions[revenue])
            for account, revenue in self.revenues.items()
        }
        moves = set()
        for account in old_sides.keys() | self.sides.keys():
            was, now = old_sides.get(account), self.sides.get(account)
            if was == now:
                continue
            cause = Cause.OWN
            if was is not None and now is not None:
                own_alone = self.triggered(was, position(old, self.revenues[account], self.basis))
                others_alone = self.triggered(was, position(new, old_revenues[account], self.basis))
                if own_alone == was:
                    cause = Cause.COMBINED if others_alone == was else Cause.BOUNDARY_MOVED
            moves.add(Move(account, tier_of(was), tier_of(now), cause))
        return moves

    def triggered(self, sides: Sides | None, place: tuple[int, int]) -> Sides:
        """The sides of an account at a position that was on these sides, or (None) nowhere."""
        above, total = place
        return tuple(
            above * WHOLE_BP < boundary * total
            if sides is None
            else not above * WHOLE_BP >= (boundary + self.band) * total
            if sides[i]
            else above * WHOLE_BP < (boundary - self.band) * total
            for i, boundary in enumerate(self.boundaries)
        )

    def tier(self, account: str) -> int | None:
        """The account's tier."""
        return tier_of(self.sides.get(account))

    def cutoffs(self) -> tuple[int | None, ...]:
        """For each boundary the least revenue on its better side."""
        return tuple(line(self.revenues.values(), boundary, self.basis) for boundary in self.boundaries)


def tier_of(sides: Sides | None) -> int | None:
    """The number of boundaries that an account is below; boundaries nest."""
    if sides is None:
        return None
    assert list(sides) == sorted(sides), "who is above a boundary is above all later ones"
    return sides.count(False)
