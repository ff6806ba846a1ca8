"""What became of the segments in a period: who came and left, from where to where, why, and what was undone.

Everything follows from the changes that were announced and from what the accounts are now. All numbers are counts and
sums of integers; shares are for whoever shows them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.population import CauseKind, Direction, Member, direction_of
from segmentation.segments import SEGMENTS, TIERS, Segment


class Period(NamedTuple):
    """Whole days (UTC), the first and the last one included, as numbers since 1970-01-01."""

    from_day: int
    to_day: int

    @property
    def begin_us(self) -> int:
        """The first instant of it."""
        return self.from_day * MICROSECONDS_PER_DAY

    @property
    def end_us(self) -> int:
        """The first instant after it."""
        return (self.to_day + 1) * MICROSECONDS_PER_DAY

    def holds(self, instant_us: int) -> bool:
        """Whether an instant is in it."""
        return self.begin_us <= instant_us < self.end_us


class PastChange(NamedTuple):
    """An announced change of an account: what a report needs of it."""

    sequence: int
    previous: Segment | None
    """None: it was the account's first segment."""
    current: Segment
    cause: str
    lapsed: bool
    revenue_minor: int
    """The account's rolling revenue at the change."""
    effective_at_us: int

    @property
    def is_move(self) -> bool:
        """Whether the account had another segment before."""
        return self.previous is not None and self.previous is not self.current

    @property
    def is_between_tiers(self) -> bool:
        """Whether it can be undone: no account goes back to an earlier stage."""
        return self.is_move and self.previous in TIERS and self.current in TIERS


class Performance(NamedTuple):
    """One segment: what is in it now, and who came and left in the period."""

    segment: Segment
    accounts: int
    """Now."""
    revenue_minor: int
    """Rolling revenue of these accounts now."""
    entered: int
    """Changes into it, first segments included: an account that comes twice counts twice."""
    left: int
    """Changes out of it."""
    at_begin: int
    """Accounts in it when the period began."""
    at_end: int
    """Accounts in it when the period ended, or now if that is to come."""

    @property
    def net(self) -> int:
        """By how many accounts it grew in the period: also `at_end - at_begin`."""
        return self.entered - self.left


class Undone(NamedTuple):
    """Moves between tiers that were soon taken back: the account returned to the tier it had left."""

    within_days: int
    """How soon: a return up to this many times 24 hours after the move counts, also one after the period."""
    moves: int
    """Moves between tiers in the period that are that old, so that it is known what became of them."""
    undone: int
    """How many of those were undone."""
    too_young: int
    """Moves between tiers in the period that are younger, and in neither number."""


class DayMoves(NamedTuple):
    """What one day changed."""

    entered: int = 0
    advanced: int = 0
    up: int = 0
    down: int = 0


class Timeline(NamedTuple):
    """One account in the period."""

    account_id: str
    at_begin: Segment | None
    """None: it was not there yet."""
    changes: tuple[PastChange, ...]
    now: Segment | None
    """What was last told of it; None: nothing yet."""
    revenue_minor: int
    """Its rolling revenue now."""


class PeriodReport(NamedTuple):
    """What became of the segments in a period."""

    period: Period
    as_of_us: int
    """The instant of "now"."""
    performance: tuple[Performance, ...]
    """In the order of SEGMENTS."""
    untold: int
    """Accounts of which no segment was announced yet; they are in no other number."""
    migration: Mapping[tuple[Segment | None, Segment], int]
    """(Segment when the period began, segment when it ended) -> accounts; from None: they were not there yet."""
    moves: Mapping[tuple[Segment, Segment], int]
    """(From, to) -> changes in the period. First segments are no moves."""
    placed: int
    """First segments given in the period."""
    causes: Mapping[str, int]
    """Cause -> moves, the most frequent first."""
    moved_accounts: int
    """Accounts with a move in the period."""
    displaced_accounts: int
    """Those of them that others displaced at least once, with the cause `boundary_moved`."""
    undone: Undone
    days: Mapping[int, DayMoves]
    """Day -> what it changed, for the days of the period with changes, in order."""

    @property
    def accounts(self) -> int:
        """All accounts with a segment, now."""
        return sum(part.accounts for part in self.performance)

    @property
    def revenue_minor(self) -> int:
        """Their rolling revenue now."""
        return sum(part.revenue_minor for part in self.performance)

    @property
    def move_count(self) -> int:
        """All moves in the period."""
        return sum(self.moves.values())

    @property
    def displaced_moves(self) -> int:
        """Moves of accounts that did nothing."""
        return self.causes.get(CauseKind.BOUNDARY_MOVED, 0)


Chains = Mapping[str, Sequence[PastChange]]
"""Account -> its changes by sequence, each once. Before the period none is needed but the last, and of an account
without any other change not even that: what it is now then says what it was."""


def period_report(
    chains: Chains, members: Iterable[Member], period: Period, *, as_of_us: int, undone_within_days: int
) -> PeriodReport:
    """Work the report out. `members`: every account as it is at `as_of_us`, after the last change of the chains.

    O(accounts + changes), and for each move a look at the account's changes of the next `undone_within_days` days.
    """
    accounts: Counter[Segment] = Counter()
    revenue_minor: Counter[Segment] = Counter()
    migration: Counter[tuple[Segment | None, Segment]] = Counter()
    known = untold = 0
    for member in members:
        known += 1
        chain = chains.get(member.account_id, ())
        if member.segment is None:
            untold += 1
            continue
        accounts[member.segment] += 1
        revenue_minor[member.segment] += member.revenue_minor
        at_end = segment_at(chain, period.end_us, member.segment)
        if at_end is not None:
            migration[segment_at(chain, period.begin_us, member.segment), at_end] += 1
    in_period = [[change for change in chain if period.holds(change.effective_at_us)] for chain in chains.values()]
    # not those to another population that left the segment as it was
    changes = [change for chain in in_period for change in chain if change.previous is not change.current]
    moved = [chain for chain in in_period if any(change.is_move for change in chain)]
    causes = Counter(change.cause for change in changes if change.is_move)
    return PeriodReport(
        period=period,
        as_of_us=as_of_us,
        performance=_performance(accounts, revenue_minor, migration, changes),
        untold=untold,
        migration=migration,
        moves=Counter((change.previous, change.current) for change in changes if change.previous is not None),
        placed=sum(not change.is_move for change in changes),
        causes=dict(sorted(causes.items(), key=lambda item: (-item[1], item[0]))),
        moved_accounts=len(moved),
        displaced_accounts=sum(any(map(_is_displaced, chain)) for chain in moved),
        undone=_undone(chains, period, as_of_us, undone_within_days),
        days=_days(changes),
    )


def timeline(chain: Sequence[PastChange], member: Member, period: Period) -> Timeline:
    """One account in the period, from its changes as in `Chains`. O(changes)."""
    changes = tuple(change for change in chain if period.holds(change.effective_at_us))
    at_begin = segment_at(chain, period.begin_us, member.segment)
    return Timeline(member.account_id, at_begin, changes, member.segment, member.revenue_minor)


def segment_at(chain: Sequence[PastChange], at_us: int, now: Segment | None) -> Segment | None:
    """What an account was just before an instant; None: it was not there yet. O(changes).

    `now`: what it is now, for an account of which the log holds no change any more.
    """
    for change in chain:
        if change.effective_at_us >= at_us:
            return change.previous
    return chain[-1].current if chain else now


def _is_displaced(change: PastChange) -> bool:
    return change.is_move and change.cause == CauseKind.BOUNDARY_MOVED


def _performance(
    accounts: Mapping[Segment, int],
    revenue_minor: Mapping[Segment, int],
    migration: Mapping[tuple[Segment | None, Segment], int],
    changes: Iterable[PastChange],
) -> tuple[Performance, ...]:
    entered: Counter[Segment] = Counter()
    left: Counter[Segment] = Counter()
    for change in changes:
        entered[change.current] += 1
        if change.previous is not None:
            left[change.previous] += 1
    at_begin: Counter[Segment | None] = Counter()
    at_end: Counter[Segment] = Counter()
    for (previous, current), count in migration.items():
        at_begin[previous] += count
        at_end[current] += count
    return tuple(
        Performance(
            segment,
            accounts.get(segment, 0),
            revenue_minor.get(segment, 0),
            entered[segment],
            left[segment],
            at_begin[segment],
            at_end[segment],
        )
        for segment in SEGMENTS
    )


def _undone(chains: Chains, period: Period, as_of_us: int, within_days: int) -> Undone:
    within_us = within_days * MICROSECONDS_PER_DAY
    moves = undone = too_young = 0
    for chain in chains.values():
        for number, move in enumerate(chain):
            if not (move.is_between_tiers and period.holds(move.effective_at_us)):
                continue
            until_us = move.effective_at_us + within_us
            if until_us > as_of_us:
                too_young += 1
                continue
            moves += 1
            for later in chain[number + 1 :]:
                if later.effective_at_us > until_us:
                    break
                if later.current is move.previous:
                    undone += 1
                    break
    return Undone(within_days, moves, undone, too_young)


def _days(changes: Iterable[PastChange]) -> dict[int, DayMoves]:
    directions: defaultdict[int, Counter[Direction]] = defaultdict(Counter)
    for change in changes:
        day = change.effective_at_us // MICROSECONDS_PER_DAY
        directions[day][direction_of(change.previous, change.current)] += 1
    return {
        day: DayMoves(**{str(direction): count for direction, count in counts.items()})
        for day, counts in sorted(directions.items())
    }
