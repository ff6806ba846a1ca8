"""A population's accounts in the order of their revenue: which position a revenue has, where a share begins.

The position of a revenue is the weight of the accounts with strictly more revenue, as a share of all weight.
It depends on revenue alone and never rises with it. So "position below a share" is always "revenue of at
least `line(share)`": one integer, found without looking at accounts.

The accounts lie in one row of bins. A bin holds the accounts whose revenue is at least its low and less than
the next bin's low, unsorted, in one dict for each group. So a new revenue costs two dict operations, and only
a bin that a line or a position falls in is ever sorted. Bins are cut between revenues: ties are never parted.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import Final, NamedTuple

WHOLE_BP: Final = 10_000
"""All of the weight, in basis points."""

UNREACHABLE_MINOR: Final = 1 << 96
"""A line that no revenue reaches: every revenue is below it, 2^43 of the largest possible purchases too."""

LOAD: Final = 192
"""Accounts in a fresh bin. With more, the bin of a line or a position is dearer to add up; with less, there are more
bins to add up. For 100,000 to 1,000,000 accounts this keeps both small."""


class Basis(StrEnum):
    """What an account weighs in its population."""

    REVENUE = "revenue"
    """Its revenue: the first 30 % have 30 % of the revenue."""
    ACCOUNTS = "accounts"
    """One: the first 30 % are 30 % of the accounts."""


_BY_REVENUE, _BY_ACCOUNTS = Basis  # a name is found in a tenth of the time that a member of an enumeration takes


class Share(NamedTuple):
    """A position as the exact fraction above / total, in [0, 1)."""

    above: int
    total: int


class OrderIndex:
    """Accounts, each with a revenue and in one group, in the order of their revenue.

    Complexities are for n accounts. The first `position`, `line` or `total` after a change adds up the
    weights of the n / `load` bins, one flat list: only then, so that a batch of changes pays for it once.
    """

    def __init__(self, group_count: int, members: Iterable[tuple[str, int, int]] = (), *, load: int = LOAD) -> None:
        """Hold `members`, each (account, revenue in minor units, group from 0 to `group_count` - 1).

        `load` is the number of accounts in a fresh bin; a bin is cut when it holds more than twice that.
        O(n log n). Raises ValueError for a revenue or a group out of range and for an account named twice.
        """
        if group_count < 1 or load < 1:
            raise ValueError("an order index needs at least one group, and bins of at least one account")
        self._group_count = group_count
        self._load = load
        self._revenues: dict[str, int] = {}
        # Bin i holds the revenues from lows[i] up to, not with, lows[i + 1]; the last bin has no upper end.
        self._lows = [0]
        self._bins: list[_Bin] = []
        self._bin_revenue: list[int] = []
        self._bin_accounts: list[int] = []
        self._running: dict[Basis, list[int]] = {}
        self._fill(members)

    def _fill(self, members: Iterable[tuple[str, int, int]]) -> None:
        # all at once, as a restart waits for it
        rows = sorted(members, key=itemgetter(1))
        ladder = [*map(itemgetter(1), rows)]
        self._revenues = dict(zip(map(itemgetter(0), rows), ladder, strict=True))
        if len(self._revenues) < len(rows):
            raise ValueError("an account is here twice")
        for group in set(map(itemgetter(2), rows)):
            self._require_group(group)
        for revenue in ladder[:1] + ladder[-1:]:
            require_revenue(revenue)
        self._lows += sorted(set(ladder[self._load :: self._load]))
        starts = [bisect_left(ladder, low) for low in self._lows]
        self._bins = [_Bin(self._group_count) for _ in self._lows]
        for held, (first, last) in zip(self._bins, pairwise([*starts, len(rows)]), strict=True):
            groups = held.groups
            for account, revenue, group in rows[first:last]:
                groups[group][account] = revenue
        self._bin_revenue = [held.revenue() for held in self._bins]
        self._bin_accounts = [held.accounts() for held in self._bins]
        for i in reversed(range(len(self._bins))):
            self._fit(i)

    def __len__(self) -> int:
        """The number of accounts. O(1)."""
        return len(self._revenues)

    def __contains__(self, account: object) -> bool:
        """Whether the account is here. O(1)."""
        return account in self._revenues

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """Every (account, revenue, group), by bins upwards and in no order within a bin. O(n)."""
        for held in self._bins:
            for group, members in enumerate(held.groups):
                for account, revenue in members.items():
                    yield account, revenue, group

    def get(self, account: str) -> int | None:
        """The account's revenue in minor units, None for an account that is not here. O(1)."""
        return self._revenues.get(account)

    def revenue_of(self, account: str) -> int:
        """The account's revenue in minor units. O(1). Raises KeyError for an account that is not here."""
        return self._revenues[account]

    def group_of(self, account: str) -> int:
        """The account's group. O(log n). Raises KeyError for an account that is not here."""
        return self._bins[self._bin_at(self._revenues[account])].group_of(account)

    def insert(self, account: str, revenue: int, group: int) -> None:
        """Take an account in. O(log n) amortised, and a memmove of the n / `load` bins where one is cut.

        Raises ValueError for a revenue or group out of range, or an account already here; nothing changes.
        """
        self._require_absent(account)
        self._require_group(group)
        require_revenue(revenue)
        self._revenues[account] = revenue
        self._add(account, revenue, group)

    def remove(self, account: str) -> tuple[int, int]:
        """Let an account go; return its revenue and its group. Complexity as `insert`.

        Raises KeyError for an account that is not here.
        """
        revenue = self._revenues.pop(account)
        return revenue, self._discard(account, revenue)

    def update(self, account: str, revenue: int) -> tuple[int, int]:
        """Give an account another revenue in the same group; return its old revenue and its group.

        Complexity as `insert`. Raises KeyError for an account that is not here, ValueError for a revenue out
        of range; nothing changes then.
        """
        require_revenue(revenue)
        old = self._revenues[account]
        lows, bins, counts = self._lows, self._bins, self._bin_accounts
        # Not by _discard and _add: most standings are updates, and calls cost more than what they do.
        i, j = bisect_right(lows, old) - 1, bisect_right(lows, revenue) - 1
        source, target = bins[i], bins[j]
        group = source.group_of(account)
        if source is not target:
            del source.groups[group][account]
        target.groups[group][account] = revenue
        source.discarded(old)
        target.added(revenue)
        self._bin_revenue[i] -= old
        self._bin_revenue[j] += revenue
        self._revenues[account] = revenue
        self._running.clear()
        if source is not target:
            counts[i] -= 1
            counts[j] += 1
            if counts[j] > 2 * self._load:
                self._fit(j)
                i = self._bin_at(old)
            if 2 * counts[i] < self._load:
                self._fit(i)
        return old, group

    def regroup(self, account: str, before: int, after: int) -> None:
        """Put an account from one group into another; no weight changes. O(log n).

        Raises KeyError for an account that is not here or not in the group `before`, ValueError for a group out of
        range; nothing changes then.
        """
        self._require_group(after)
        revenue = self._revenues[account]
        groups = self._bins[bisect_right(self._lows, revenue) - 1].groups
        del groups[before][account]
        groups[after][account] = revenue

    def total(self, basis: Basis) -> int:
        """The weight of all accounts: their revenue in minor units or their number. O(1), see the class."""
        return self._running_weights(basis)[-1]

    def position(self, revenue: int, basis: Basis) -> Share:
        """The weight strictly above a revenue, and all weight: their quotient is the position, exactly.

        Any revenue has one, whether an account has that revenue or not. O(log n), see the class, and a sort
        of one bin if the bin of this revenue has changed since its last sort.
        """
        by_revenue, by_accounts = self.positions(revenue)
        return by_accounts if basis is Basis.ACCOUNTS else by_revenue

    def positions(self, revenue: int) -> tuple[Share, Share]:
        """The position by revenue and that by accounts: both for little more than one. Complexity as `position`."""
        by_revenue, by_accounts = self._running_weights(_BY_REVENUE), self._running_weights(_BY_ACCOUNTS)
        i = max(bisect_right(self._lows, revenue) - 1, 0)
        if self._is_single(i):
            revenue_up_to, accounts_up_to = by_revenue[i + 1], by_accounts[i + 1]
        else:
            ladder = self._bins[i].ladder()
            rank = bisect_right(ladder, revenue)
            accounts_up_to = by_accounts[i] + rank
            # whichever part of the bin is the smaller one is added up
            if 2 * rank > len(ladder):
                revenue_up_to = by_revenue[i + 1] - sum(ladder[rank:])
            else:
                revenue_up_to = by_revenue[i] + sum(ladder[:rank])
        total_revenue, total_accounts = by_revenue[-1], by_accounts[-1]
        return (
            Share(total_revenue - revenue_up_to, total_revenue),
            Share(total_accounts - accounts_up_to, total_accounts),
        )

    def line(self, share_bp: int, basis: Basis) -> int:
        """The least revenue, in minor units, whose position is below a share given in basis points.

        It is `UNREACHABLE_MINOR` where no revenue has such a position: for shares up to 0, and while there
        are no accounts. It is 0 where every revenue has: for shares above 10,000. Complexity as `position`.
        """
        running = self._running_weights(basis)
        total = running[-1]
        # The weight above a revenue is below the share just where the weight up to and with it exceeds this.
        limit = (WHOLE_BP - share_bp) * total // WHOLE_BP
        if limit >= total:
            return UNREACHABLE_MINOR
        if limit < 0:
            return 0
        i = bisect_right(running, limit) - 1
        if self._is_single(i):
            return self._lows[i]
        return self._bins[i].revenue_past(limit - running[i], basis)

    def members_between(self, group: int, low: int, high: int) -> list[tuple[str, int]]:
        """Each (account, revenue) of a group with `low` <= revenue < `high`, in no order.

        O(log n + bins from `low` to `high` + the group's members in these bins).
        """
        if low >= high:
            return []
        reach = self._bins[max(self._bin_at(low), 0) : self._bin_at(high - 1) + 1]
        return [
            (account, revenue)
            for held in reach
            for account, revenue in held.groups[group].items()
            if low <= revenue < high
        ]

    def _bin_at(self, revenue: int) -> int:
        return bisect_right(self._lows, revenue) - 1

    def _is_single(self, i: int) -> bool:
        """Whether bin i can hold one revenue only: then it is never cut, however many accounts share it."""
        return i + 1 < len(self._lows) and self._lows[i + 1] == self._lows[i] + 1

    def _running_weights(self, basis: Basis) -> list[int]:
        """The weight of the first 0, 1, 2, ... bins."""
        running = self._running.get(basis)
        if running is None:
            weights = self._bin_accounts if basis is _BY_ACCOUNTS else self._bin_revenue
            running = self._running[basis] = list(accumulate(weights, initial=0))
        return running

    def _add(self, account: str, revenue: int, group: int) -> None:
        i = self._bin_at(revenue)
        held = self._bins[i]
        held.groups[group][account] = revenue
        held.added(revenue)
        self._bin_revenue[i] += revenue
        self._bin_accounts[i] += 1
        self._running.clear()
        if self._bin_accounts[i] > 2 * self._load:
            self._fit(i)

    def _discard(self, account: str, revenue: int) -> int:
        i = self._bin_at(revenue)
        held = self._bins[i]
        group = held.group_of(account)
        del held.groups[group][account]
        held.discarded(revenue)
        self._bin_revenue[i] -= revenue
        self._bin_accounts[i] -= 1
        self._running.clear()
        if 2 * self._bin_accounts[i] < self._load:
            self._fit(i)
        return group

    def _fit(self, i: int) -> None:
        """Cut bin i if it has grown too large; join it with a neighbour if it is small and there is room.

        Of two neighbours one is never small, so there are less than 4 n / `load` + 2 bins.
        """
        counts, load = self._bin_accounts, self._load
        if counts[i] > 2 * load:
            if not self._is_single(i):
                self._cut(i)
        elif 2 * counts[i] < load:
            if i > 0 and counts[i - 1] + counts[i] <= load:
                self._join(i - 1)
            elif i + 1 < len(counts) and counts[i] + counts[i + 1] <= load:
                self._join(i)

    def _cut(self, i: int) -> None:
        """Cut bin i at its median revenue, or just above its low if half of the accounts have just that."""
        held, low = self._bins[i], self._lows[i]
        cut = max(held.median(), low + 1)
        parts = held.parted(cut)
        self._lows[i : i + 1] = [low, cut]
        self._bins[i : i + 1] = parts
        self._bin_revenue[i : i + 1] = [part.revenue() for part in parts]
        self._bin_accounts[i : i + 1] = [part.accounts() for part in parts]
        # The upper part first: whatever becomes of it, the lower one is still bin i.
        self._fit(i + 1)
        self._fit(i)

    def _join(self, i: int) -> None:
        """Join bin i + 1 into bin i."""
        self._bins[i].absorb(self._bins[i + 1])
        self._bin_revenue[i] += self._bin_revenue[i + 1]
        self._bin_accounts[i] += self._bin_accounts[i + 1]
        for row in (self._lows, self._bins, self._bin_revenue, self._bin_accounts):
            del row[i + 1]
        self._fit(i)

    def _require_absent(self, account: str) -> None:
        if account in self._revenues:
            raise ValueError(f"account {account!r} is already here")

    def _require_group(self, group: int) -> None:
        if not 0 <= group < self._group_count:
            raise ValueError(f"group {group} is not one of the {self._group_count} groups")

    def _check(self) -> None:
        """Assert every invariant. O(n log n), for tests."""
        lows, bins = self._lows, self._bins
        assert lows[0] == 0 and all(low < high for low, high in pairwise(lows))
        members = list(self)
        assert len(members) == len(self._revenues), "each account lies in one bin and in one group"
        assert {account: revenue for account, revenue, _ in members} == self._revenues
        for i, (low, high, held) in enumerate(zip(lows, [*lows[1:], UNREACHABLE_MINOR], bins, strict=True)):
            assert len(held.groups) == self._group_count
            assert all(max(low, 1) <= revenue < high for revenue in held.revenues())
            assert held.accounts() <= 2 * self._load or self._is_single(i)
            held.check()
        assert self._bin_revenue == [held.revenue() for held in bins]
        assert self._bin_accounts == [held.accounts() for held in bins]
        assert all(2 * max(pair) >= self._load for pair in pairwise(self._bin_accounts)), "small neighbours"
        for basis, running in self._running.items():
            weights = self._bin_accounts if basis is Basis.ACCOUNTS else self._bin_revenue
            assert running == list(accumulate(weights, initial=0))


class _Bin:
    """Some accounts, those of each group in a dict {account: revenue}.

    Their order is worked out when it is asked for, for many bins never, and from then on kept right: that is cheaper
    than sorting again all bins that a batch of changes has touched.
    """

    __slots__ = ("_ladder", "groups")

    def __init__(self, group_count: int) -> None:
        self.groups: list[dict[str, int]] = [{} for _ in range(group_count)]
        self._ladder: list[int] | None = None

    def added(self, revenue: int) -> None:
        """Say that there is another account of this revenue."""
        if self._ladder is not None:
            insort(self._ladder, revenue)

    def discarded(self, revenue: int) -> None:
        """Say that there is one account less of this revenue."""
        if self._ladder is not None:
            del self._ladder[bisect_left(self._ladder, revenue)]

    def group_of(self, account: str) -> int:
        for group, members in enumerate(self.groups):
            if account in members:
                return group
        raise AssertionError(f"account {account!r} is not in the bin of its revenue")

    def revenues(self) -> Iterator[int]:
        return chain.from_iterable([members.values() for members in self.groups])

    def revenue(self) -> int:
        return sum(self.revenues())

    def accounts(self) -> int:
        return sum([len(members) for members in self.groups])

    def ladder(self) -> list[int]:
        """The revenues in order."""
        if self._ladder is None:
            self._ladder = sorted(self.revenues())
        return self._ladder

    def median(self) -> int:
        return self.ladder()[len(self.ladder()) // 2]

    def revenue_past(self, weight: int, basis: Basis) -> int:
        """The least revenue up to and with which the accounts here weigh more than this."""
        ladder = self.ladder()
        return ladder[weight if basis is Basis.ACCOUNTS else bisect_right(list(accumulate(ladder)), weight)]

    def parted(self, cut: int) -> tuple["_Bin", "_Bin"]:
        """The accounts with less revenue than `cut`, and the others."""
        parts = _Bin(len(self.groups)), _Bin(len(self.groups))
        for group, members in enumerate(self.groups):
            for account, revenue in members.items():
                parts[revenue >= cut].groups[group][account] = revenue
        return parts

    def absorb(self, other: "_Bin") -> None:
        """Take in all accounts of another bin."""
        for members, more in zip(self.groups, other.groups, strict=True):
            members.update(more)
        self._ladder = None

    def check(self) -> None:
        ladder = sorted(self.revenues())
        assert self._ladder is None or self._ladder == ladder


def require_revenue(revenue: int) -> None:
    """Raise ValueError unless a revenue can be ranked: more than 0 and less than `UNREACHABLE_MINOR`."""
    if not 0 < revenue < UNREACHABLE_MINOR:
        raise ValueError(f"a revenue of {revenue} minor units cannot be ranked, only 1 to {UNREACHABLE_MINOR - 1}")
