"""The tiers of one population, kept right under a stream of revenues: who moves, displaced accounts included.

Each boundary between two tiers is a Schmitt trigger for each account. One that is above it, on the better
side, stays there until its position is boundary + band or more; one that is below stays until its position
is less than boundary - band; one that enters the population takes the side that its position says.
Boundaries rise, so the triggers nest, and the tier an account comes from, 0 the best, tells all of them: it
is below the first `tier` boundaries and above the others.

"Position below a share" is "revenue of at least a line" (see `order_index`). So at each boundary an account
is asked for one revenue, a gate, and its tier is the number of gates it falls short of. When gates move,
whoever they displace has a revenue between a gate's old and new place: nobody else is looked at.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from segmentation.order_index import LOAD, UNREACHABLE_MINOR, WHOLE_BP, Basis, OrderIndex, Share, require_revenue


class Cause(StrEnum):
    """What moved an account."""

    OWN = "own"
    """Its own revenue: with it, it would have moved under the old gates too. Also entering and leaving."""
    BOUNDARY_MOVED = "boundary_moved"
    """The gates: they would have moved it with its old revenue too."""
    COMBINED = "combined"
    """Both together: neither alone would have moved it."""


class Move(NamedTuple):
    """One account goes from one tier to another."""

    account: str
    previous: int | None
    """None: it was not in the population."""
    current: int | None
    """None: it is no longer in the population."""
    cause: Cause


class Distance(NamedTuple):
    """How far an account is from its neighbouring tiers, in minor units of revenue, as the gates are now."""

    up: int | None
    """The least gain that passes the gate to the next better tier; None where no gain does."""
    down: int | None
    """The least loss that falls short of the gate to its own tier; None where no loss does."""


class Tiers:
    """The accounts of one population, their revenues and their tiers.

    All that it knows follows from the (account, revenue, tier) of each: iterate to write them down, give
    them to the constructor to go on with the same moves. (With a band, revenues alone do not tell the tiers.)
    """

    def __init__(
        self,
        *,
        basis: Basis,
        boundaries: Sequence[int],
        band: int,
        members: Iterable[tuple[str, int, int]] = (),
        load: int = LOAD,
    ) -> None:
        """Begin with `members`: (account, revenue in minor units, tier), as an earlier instance left them.

        `boundaries` are the shares of the weight, in basis points from 0 to 10,000 and rising, where one tier
        ends and the next begins: (3000, 8000) parts three tiers. `band`, in basis points, is how far past a
        boundary a position must be to cross it; 0 switches the band off. `load`: see `OrderIndex`.

        Tiers are taken as they are, even if other rules made them: the next `apply`, of nothing perhaps,
        moves whomever the rules given here displace.
        O(n log n). Raises ValueError for rules or members out of range, and for an account named twice.
        """
        rising = sorted(set(boundaries))
        if list(boundaries) != rising or not all(0 <= boundary <= WHOLE_BP for boundary in rising):
            raise ValueError(f"boundaries rise from 0 to {WHOLE_BP} basis points, not {tuple(boundaries)}")
        if band < 0:
            raise ValueError(f"a band is 0 or more basis points, not {band}")
        self._basis = basis
        self._boundaries = tuple(boundaries)
        self._band = band
        self._index = OrderIndex(len(boundaries) + 1, members, load=load)
        self._gates = self._gates_now()
        # The gates that all accounts agree with. Before the first batch that is only sure of gates that keep
        # every account where it is: nothing is enough to rise, and anything to stay.
        count = len(boundaries)
        self._settled = _Gates.of(self._gates.pure, (UNREACHABLE_MINOR,) * count, (0,) * count)

    def __len__(self) -> int:
        """The number of accounts. O(1)."""
        return len(self._index)

    def __contains__(self, account: object) -> bool:
        """Whether the account is in the population. O(1)."""
        return account in self._index

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """Every (account, revenue in minor units, tier), in no particular order. O(n)."""
        return iter(self._index)

    def tier(self, account: str) -> int:
        """Its tier, 0 the best. O(log n). Raises KeyError for an account outside the population."""
        return self._index.group_of(account)

    def revenue_of(self, account: str) -> int:
        """Its revenue in minor units. O(1). Raises KeyError for an account outside the population."""
        return self._index.revenue_of(account)

    def total(self, basis: Basis | None = None) -> int:
        """All weight, by the population's basis if no other is given. Complexity: `OrderIndex.total`."""
        return self._index.total(basis or self._basis)

    def position(self, revenue: int, basis: Basis | None = None) -> Share:
        """The weight strictly above a revenue, and all weight; by the population's basis if none is given.

        Any revenue has a position, whether an account has it or not. Complexity: `OrderIndex.position`.
        """
        return self._index.position(revenue, basis or self._basis)

    def positions(self, revenue: int) -> tuple[Share, Share]:
        """The position of a revenue by revenue and by accounts. Complexity: `OrderIndex.position`."""
        return self._index.positions(revenue)

    def cutoffs(self) -> tuple[int | None, ...]:
        """For each boundary the least revenue on its better side, band aside; None where none is. O(1).

        Compare it with what it was before an `apply` to see how far the batch moved the boundaries.
        """
        return _reachable(self._gates.pure)

    def gates(self, tier: int | None) -> tuple[int | None, ...]:
        """For each boundary the revenue that an account from this tier needs to be on its better side. O(1).

        None where no revenue is enough, 0 where any is. An account from outside the population comes from
        tier None: its gates are the cutoffs.
        """
        return _reachable(self._gates.asked_of(tier))

    def distance(self, account: str) -> Distance:
        """What gain takes the account to the next better tier, and what loss out of its own. O(log n).

        It is for the gates as they are now; where revenue is the weight, an account's own gain moves them
        too. Raises KeyError for an account outside the population.
        """
        return self.distance_of(self._index.revenue_of(account), self._index.group_of(account))

    def distance_of(self, revenue: int, tier: int) -> Distance:
        """The distance of an account with this revenue in this tier. O(1)."""
        low, high = self._gates.ranges[tier]
        return Distance(
            None if high == UNREACHABLE_MINOR else high - revenue,
            None if low == 0 else revenue - low + 1,
        )

    def apply(self, revenues: Iterable[tuple[str, int | None]]) -> list[Move]:
        """Take in new (account, revenue), None for one that leaves, and return every move that follows.

        A batch is one instant: of several revenues of an account the last one counts, and an account moves
        at most once. First come the accounts of the batch, in its order, then the displaced ones, highest
        revenue first.
        O(k log n + d log d) for k revenues and d displaced accounts, and the index adds up its bins.
        Raises ValueError for a revenue that `require_revenue` refuses; nothing changes then.
        """
        latest = dict(revenues)
        for revenue in latest.values():
            if revenue is not None:
                require_revenue(revenue)
        standings = self._take_in(latest)
        before, settled = self._gates, self._settled
        self._gates = self._settled = self._gates_now()
        return self._moves_of_batch(standings, before) + self._moves_of_displaced(settled)

    def _take_in(self, latest: dict[str, int | None]) -> list["_Standing"]:
        """Bring the index up to date, leaving accounts in their old tiers, and new ones in tier 0 for now."""
        index, get = self._index, self._index.get
        standings: list[_Standing] = []
        for account, revenue in latest.items():
            old = get(account)
            if old is None:
                if revenue is not None:
                    index.insert(account, revenue, 0)
                    standings.append((account, revenue, None, None))
            elif revenue is None:
                standings.append((account, None, *index.remove(account)))
            elif revenue != old:
                standings.append((account, revenue, *index.update(account, revenue)))
        return standings

    def _moves_of_batch(self, standings: list["_Standing"], before: "_Gates") -> list[Move]:
        """Put the accounts with a new revenue into their tiers."""
        after, regroup = self._gates, self._index.regroup
        moves = []
        for account, revenue, old_revenue, tier in standings:
            if revenue is None:
                moves.append(Move(account, tier, None, Cause.OWN))
                continue
            current = after.tier_of(revenue, tier)
            if current != tier:
                moves.append(Move(account, tier, current, _cause(revenue, old_revenue, tier, before, after)))
                regroup(account, tier or 0, current)
        return moves

    def _moves_of_displaced(self, settled: "_Gates") -> list[Move]:
        """Put the accounts that gates have passed by into their tiers."""
        displaced = []
        for tier in range(len(self._boundaries) + 1):
            low, high = self._gates.ranges[tier]
            settled_low, settled_high = settled.ranges[tier]
            displaced += [
                (-revenue, account, tier)
                for passed in ((high, settled_high), (settled_low, low))
                for account, revenue in self._index.members_between(tier, *passed)
            ]
        moves = []
        for negative_revenue, account, tier in sorted(displaced):
            current = self._gates.tier_of(-negative_revenue, tier)
            moves.append(Move(account, tier, current, Cause.BOUNDARY_MOVED))
            self._index.regroup(account, tier, current)
        return moves

    def _gates_now(self) -> "_Gates":
        pure, rise, fall = (
            tuple([self._index.line(boundary + shift, self._basis) for boundary in self._boundaries])
            for shift in (0, -self._band, self._band)
        )
        return _Gates.of(pure, rise, fall)

    def _check(self) -> None:
        """Assert every invariant. O(n log n), for tests."""
        self._index._check()
        assert self._gates == self._gates_now()
        for account, revenue, tier in self:
            low, high = self._settled.ranges[tier]
            assert low <= revenue < high, f"{account!r} is in tier {tier} against the gates"


_Standing = tuple[str, int | None, int | None, int | None]
"""An account, its revenue (None: it has left), its old revenue and the tier it comes from (None: it is new)."""


class _Gates(NamedTuple):
    """The lines of one moment: for each boundary a revenue in minor units."""

    pure: tuple[int, ...]
    """What an account that enters the population needs to be above the boundary."""
    rise: tuple[int, ...]
    """What an account below the boundary needs to get above it."""
    fall: tuple[int, ...]
    """What an account above the boundary needs to stay there."""
    ranges: tuple[tuple[int, int], ...]
    """For each tier: an account stays there with a revenue from the first up to, not with, the second."""

    @classmethod
    def of(cls, pure: tuple[int, ...], rise: tuple[int, ...], fall: tuple[int, ...]) -> "_Gates":
        return cls(pure, rise, fall, tuple(zip((*fall, 0), (UNREACHABLE_MINOR, *rise), strict=True)))

    def asked_of(self, tier: int | None) -> tuple[int, ...]:
        """The gates of an account that comes from this tier."""
        return self.pure if tier is None else self.rise[:tier] + self.fall[tier:]

    def tier_of(self, revenue: int, tier: int | None) -> int:
        """Where an account goes that comes from this tier."""
        if tier is not None:
            low, high = self.ranges[tier]
            if low <= revenue < high:
                return tier
        return sum([revenue < gate for gate in self.asked_of(tier)])


def _cause(revenue: int, old_revenue: int | None, tier: int | None, before: _Gates, after: _Gates) -> Cause:
    """Why an account with a new revenue leaves the tier it comes from."""
    if tier is None or old_revenue is None or before.tier_of(revenue, tier) != tier:
        return Cause.OWN
    return Cause.BOUNDARY_MOVED if after.tier_of(old_revenue, tier) != tier else Cause.COMBINED


def _reachable(gates: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple([None if gate == UNREACHABLE_MINOR else gate for gate in gates])
