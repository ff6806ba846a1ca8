"""A population: accounts ranked against each other, and the changes that standings cause among them.

What an account's segment *is* follows from its stage and, once it is established, from its tier. What the world was
*told* it is can be older: after the store went back in time, or while a population is muted. A change is always the
step from what was told to what is, so that each account's changes form one chain.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from segmentation.account import Reason, Standing
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.order_index import Basis, Share
from segmentation.risk import DAYS, Level, Risk
from segmentation.segments import TIERS, Segment, Stage
from segmentation.tiers import Cause, Move, Tiers


class CauseKind(StrEnum):
    """Why an account changed its segment."""

    FIRST_SIGNUP = "first_signup"
    FIRST_PURCHASE = "first_purchase"
    FIRST_ENGAGEMENT = "first_engagement"
    PURCHASE = "purchase"
    REFUND = "refund"
    WINDOW_EXPIRY = "window_expiry"
    REVENUE_DUE = "revenue_due"
    GRADUATED = "graduated"
    LAPSED = "lapsed"
    BOUNDARY_MOVED = "boundary_moved"
    """Others moved the cutoff past this account, which did nothing."""
    COMBINED = "combined"
    """Neither the account's own revenue nor the moved cutoff would have done it alone."""
    BACKFILL = "backfill"
    """All that happened before the first tick."""
    RECOVERED = "recovered"
    """Found to differ from what was last told, after the store had lost its newest writes."""


class Direction(StrEnum):
    """Which way a change goes."""

    ENTERED = "entered"
    """The account's first segment."""
    ADVANCED = "advanced"
    """From one stage to a later one: it bought for the first time, or is no longer new."""
    UP = "up"
    DOWN = "down"


class ChangeCause(NamedTuple):
    """Why, and by how much money."""

    kind: CauseKind
    event_id: str | None
    own_change_minor: int
    """By how much the account's rolling revenue changed."""
    cutoff_change_minor: int | None
    """By how much the cutoff that the account crossed moved; None where it crossed none, or the cutoff is new."""


class Change(NamedTuple):
    """One account moved from one segment to another."""

    account_id: str
    population: str
    sequence: int
    """1, 2, 3, ... for each account, without gaps."""
    previous_segment: Segment | None
    current_segment: Segment
    direction: Direction
    cause: ChangeCause
    lapsed: bool
    rolling_revenue_minor: int
    position_revenue: Share | None
    """None for an account that is not ranked."""
    position_accounts: Share | None
    cutoffs_minor: tuple[int | None, ...]
    """Lowest rolling revenue of each tier but the last."""
    to_next_tier_up_minor: int | None
    to_next_tier_down_minor: int | None
    effective_at_us: int


_OF_STAGE: dict[str, Segment] = {stage: Segment(stage) for stage in Stage if stage is not Stage.ESTABLISHED}
_OF_TIER: dict[int | None, Segment] = {None: Segment.COMMERCIAL, **dict(enumerate(TIERS))}


class Member:
    """What the ranking stage knows of one account."""

    __slots__ = (
        "account_id",
        "day",
        "effective_at_us",
        "revenue_minor",
        "risk",
        "segment",
        "sequence",
        "stage",
        "tier",
        "version",
    )

    def __init__(
        self,
        account_id: str,
        stage: str = Stage.PROSPECT,
        revenue_minor: int = 0,
        tier: int | None = None,
        segment: Segment | None = None,
        sequence: int = 0,
        effective_at_us: int = 0,
        version: int = 0,
        day: int = 0,
        risk: Risk | None = None,
    ) -> None:
        self.account_id = account_id
        self.stage = stage
        self.revenue_minor = revenue_minor
        self.tier = tier
        """None: not ranked."""
        self.segment = segment
        """What the world was last told; None: nothing yet."""
        self.sequence = sequence
        """Of the last change told."""
        self.effective_at_us = effective_at_us
        """Of the last change told."""
        self.version = version
        """Of the newest standing taken; 0: none yet."""
        self.day = day
        """Of the newest standing taken."""
        self.risk = risk
        """None: it has not purchased yet."""

    @property
    def lapsed(self) -> bool:
        """Established, but without revenue in the window."""
        return self.stage == Stage.ESTABLISHED and self.tier is None

    @property
    def is_risk_untold(self) -> bool:
        """Whether the world takes its risk for another one than it is."""
        return self.risk is not None and self.risk.is_untold

    @property
    def current_segment(self) -> Segment:
        """What the account is, whatever was told."""
        return _OF_STAGE.get(self.stage) or _OF_TIER[self.tier]


class Population:
    """The accounts of one population, live. Costs O(k log n + displaced) for k standings among n accounts."""

    def __init__(
        self,
        name: str,
        *,
        basis: Basis,
        boundaries: tuple[int, ...],
        band: int,
        members: Iterable[Member] = (),
    ) -> None:
        """boundaries and band in basis points; members as an earlier instance left them."""
        self.name = name
        self.members = {member.account_id: member for member in members}
        self._basis, self._boundaries, self._band = basis, boundaries, band
        self.tiers = self._new_tiers()
        self.muted = False
        """While it is, standings are taken but nothing is announced; see `unmute`."""

    def apply(self, standings: Iterable[Standing], clock_us: int) -> tuple[list[Change], list[Member]]:
        """Take a batch of standings as of one instant: of several for an account the newest counts.

        Returns the changes, displaced accounts included, and every member that is different now.
        """
        taken: dict[str, _Taken] = {}
        members = self.members
        for standing in standings:
            account_id, stage, revenue_minor, version, day = standing[:5]
            first_day, last_day, days_bought, _, recent, _ = standing[8:]
            member = members.get(account_id) or self._member(account_id)
            if version <= member.version and day <= member.day:
                continue  # no news; see is_news
            earlier = taken.get(account_id)
            if earlier is None:
                taken[account_id] = member, standing, member.stage, member.revenue_minor
            else:
                taken[account_id] = member, standing, earlier[2], earlier[3]
            member.version, member.day, member.stage, member.revenue_minor = version, DAYS[day], stage, revenue_minor
            if days_bought:
                if member.risk is None:
                    member.risk = Risk()
                member.risk.know(first_day, last_day, days_bought, recent)
        cutoffs_before = self.tiers.cutoffs()
        moves = {move.account: move for move in self.tiers.apply(_ranked(taken))}
        for account_id, move in moves.items():
            members[account_id].tier = move.current
        touched = [member for member, _, _, _ in taken.values()]
        touched += [members[account_id] for account_id in moves if account_id not in taken]
        if self.muted:
            return [], touched
        changed = [(member, now) for member in touched if (now := member.current_segment) is not member.segment]
        changed.sort(key=_by_account_id)
        cutoffs = self.tiers.cutoffs()
        changes = []
        for member, now in changed:
            account_id = member.account_id
            own_move, news = moves.get(account_id), taken.get(account_id)
            kind, own, own_change_minor = CauseKind.BOUNDARY_MOVED, None, 0
            if news is not None:
                _, standing, stage_before, revenue_before_minor = news
                own_change_minor = member.revenue_minor - revenue_before_minor
                kind = _kind(member, own_move, standing.reason, stage_before)
                own = standing if kind is not CauseKind.BOUNDARY_MOVED else None
            cause = ChangeCause(
                kind,
                own.event_id if own else None,
                own_change_minor,
                _cutoff_change(own_move, cutoffs_before, cutoffs),
            )
            changes.append(self._change(member, now, cause, effective_at_us(own, clock_us), cutoffs))
        return changes, touched

    def is_news(self, standing: Standing) -> bool:
        """Whether the standing rests on a purchase or a day that the newest one taken of its account does not know.

        If not, it was told before, or its sender went back in time and will come to all of this again.
        """
        member = self.members.get(standing.account_id)
        return member is None or standing.version > member.version or standing.day > member.day

    def unmute(self) -> list[Member]:
        """Announce again from now on; returns every member that is different now. O(n log n).

        With a band a tier is history, and the history since may have gone another way than the one that was told. So
        every account goes on from the tier that was told of it, and moves only where the band does not allow that one.
        What then differs from what was told, `untold` names and `announce` announces.
        """
        self.muted = False
        changed = []
        for member in self.members.values():
            if member.tier is not None and member.segment in TIERS and member.current_segment != member.segment:
                member.tier = TIERS.index(member.segment)
                changed.append(member)
        self.tiers = self._new_tiers()
        for move in self.tiers.apply(()):
            member = self.members[move.account]
            member.tier = move.current
            changed.append(member)
        return changed

    def untold(self) -> list[str]:
        """Every account that has another segment or risk than the world was told, in order. O(n log n)."""
        return sorted(
            [
                member.account_id
                for member in self.members.values()
                if member.version and (member.current_segment != member.segment or member.is_risk_untold)
            ]
        )

    def announce(self, account_ids: Iterable[str], clock_us: int) -> tuple[list[Change], list[Member]]:
        """Of these accounts, the changes from what was told to what is, and the members concerned. O(k log n)."""
        members = [self.members[account_id] for account_id in account_ids]
        differing = [(member, now) for member in members if (now := member.current_segment) is not member.segment]
        cutoffs = self.tiers.cutoffs()
        changes = [
            self._change(member, now, _NEVER_TOLD if member.segment is None else _TOLD_OTHERWISE, clock_us, cutoffs)
            for member, now in differing
        ]
        return changes, [member for member, _ in differing]

    def _new_tiers(self) -> Tiers:
        return Tiers(
            basis=self._basis,
            boundaries=self._boundaries,
            band=self._band,
            members=[(m.account_id, m.revenue_minor, m.tier) for m in self.members.values() if m.tier is not None],
        )

    def was_told(
        self, account_id: str, sequence: int, segment: Segment, effective_at_us: int, *, instead: bool = False
    ) -> Member | None:
        """Learn from the log what the world was told. Returns the member if that was news.

        instead: of what the member takes for told from that sequence on, and nobody was.
        """
        member = self._member(account_id)
        if sequence <= member.sequence and not instead:
            return None
        member.sequence, member.segment, member.effective_at_us = sequence, segment, effective_at_us
        return member

    def was_told_risk(
        self, account_id: str, sequence: int, level: Level, effective_at_us: int, *, instead: bool = False
    ) -> Member | None:
        """As `was_told`, of an account's risk."""
        member = self._member(account_id)
        if member.risk is None:
            member.risk = Risk()
        return member if member.risk.was_told(sequence, level, effective_at_us, instead=instead) else None

    def _member(self, account_id: str) -> Member:
        member = self.members.get(account_id)
        if member is None:
            member = self.members[account_id] = Member(account_id)
        return member

    def _change(
        self, member: Member, now: Segment, cause: ChangeCause, effective_at_us: int, cutoffs: tuple[int | None, ...]
    ) -> Change:
        previous, member.segment = member.segment, now
        member.sequence += 1
        member.effective_at_us = max(member.effective_at_us, effective_at_us)
        revenue_minor, tier, tiers = member.revenue_minor, member.tier, self.tiers
        position_revenue = position_accounts = up = down = None
        if tier is not None:
            position_revenue, position_accounts = tiers.positions(revenue_minor)
            up, down = tiers.distance_of(revenue_minor, tier)
        return Change(  # by position: by name it takes twice as long, and this is done for each change
            member.account_id,
            self.name,
            member.sequence,
            previous,
            now,
            direction_of(previous, now),
            cause,
            member.lapsed,
            revenue_minor,
            position_revenue,
            position_accounts,
            cutoffs,
            up,
            down,
            member.effective_at_us,
        )


_Taken = tuple[Member, Standing, str, int]
"""A member with the standing of a batch that counts for it, and its stage and revenue before the batch."""


def _kind(member: Member, move: Move | None, reason: str, stage_before: str) -> CauseKind:
    """Why a member changed of which there is news."""
    if member.segment is None:
        return _FIRST.get(reason, CauseKind.BACKFILL)
    if stage_before != member.stage:
        return CauseKind.FIRST_PURCHASE if stage_before == Stage.PROSPECT else CauseKind.GRADUATED
    if move is not None and move.cause is Cause.BOUNDARY_MOVED:
        return CauseKind.BOUNDARY_MOVED
    if move is not None and move.cause is Cause.COMBINED:
        return CauseKind.COMBINED
    if member.tier is None and reason == Reason.WINDOW_EXPIRY:
        return CauseKind.LAPSED
    return _OWN.get(reason, CauseKind.RECOVERED)


def _cutoff_change(move: Move | None, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> int | None:
    """How far the crossed cutoff moved: of several, the one next to where the account now is."""
    if move is None or move.previous is None or move.current is None:
        return None
    crossed = move.current - 1 if move.current > move.previous else move.current
    old, new = before[crossed], after[crossed]
    return None if old is None or new is None else new - old


def _ranked(taken: dict[str, _Taken]) -> Iterator[tuple[str, int | None]]:
    """What the tiers have to know: the revenue of who is ranked, None for who no longer is."""
    for account_id, (member, standing, _, _) in taken.items():
        if standing.revenue_minor > 0 and standing.stage == Stage.ESTABLISHED:
            yield account_id, standing.revenue_minor
        elif member.tier is not None:
            yield account_id, None


_OWN: dict[str, CauseKind] = {
    Reason.PURCHASE: CauseKind.PURCHASE,
    Reason.REFUND: CauseKind.REFUND,
    Reason.WINDOW_EXPIRY: CauseKind.WINDOW_EXPIRY,
    Reason.REVENUE_DUE: CauseKind.REVENUE_DUE,
    Reason.GRADUATED: CauseKind.GRADUATED,
    Reason.BACKFILL: CauseKind.BACKFILL,
}
_FIRST: dict[str, CauseKind] = {
    Reason.SIGNUP: CauseKind.FIRST_SIGNUP,
    Reason.PURCHASE: CauseKind.FIRST_PURCHASE,
    Reason.ENGAGEMENT: CauseKind.FIRST_ENGAGEMENT,
    Reason.REFUND: CauseKind.REFUND,
}


_NEVER_TOLD = ChangeCause(CauseKind.BACKFILL, None, 0, None)
_TOLD_OTHERWISE = ChangeCause(CauseKind.RECOVERED, None, 0, None)


@cache
def direction_of(previous: Segment | None, current: Segment) -> Direction:
    """Which way it is from one segment to another."""
    if previous is None:
        return Direction.ENTERED
    if previous not in TIERS or current not in TIERS:
        return Direction.ADVANCED
    return Direction.UP if TIERS.index(current) < TIERS.index(previous) else Direction.DOWN


def _by_account_id(step: tuple[Member, Segment]) -> str:
    return step[0].account_id


def effective_at_us(own: Standing | None, clock_us: int) -> int:
    """The causing event's instant, where that is not before the clock, nor on a day the clock has not reached."""
    if own is None or own.occurred_at_us is None or own.occurred_at_us < clock_us:
        return clock_us
    same_day = own.occurred_at_us // MICROSECONDS_PER_DAY == clock_us // MICROSECONDS_PER_DAY
    return own.occurred_at_us if same_day else clock_us
