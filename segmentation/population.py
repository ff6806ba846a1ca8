"""A population: accounts ranked against each other, and the changes that standings cause among them.

What an account's segment *is* follows from its stage and, once it is established, from its tier. What the world was
*told* it is can be older: after the store went back in time, or while a population is muted. A change is always the
step from what was told to what is, so that each account's changes form one chain.
"""

from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from segmentation.account import Reason, Standing
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.order_index import Basis, Share
from segmentation.risk import DAYS, Risk
from segmentation.segments import TIERS, Segment, Stage
from segmentation.tiers import Cause, Move, Tiers
from segmentation.transfers import Departure, HandOver, Told, Transfers


class CauseKind(StrEnum):
    """Why an account changed its segment."""

    FIRST_SIGNUP = "first_signup"
    FIRST_PURCHASE = "first_purchase"
    FIRST_ENGAGEMENT = "first_engagement"
    PURCHASE = "purchase"
    REFUND = "refund"
    POPULATION_CHANGED = "population_changed"
    """It is ranked against others than before."""
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
    POLICY_CHANGED = "policy_changed"
    """Another policy was applied. What happened while the accounts were taken over to it is in it, too."""


class Direction(StrEnum):
    """Which way a change goes."""

    ENTERED = "entered"
    """The account's first segment."""
    ADVANCED = "advanced"
    """From one stage to a later one: it bought for the first time, or is no longer new."""
    UP = "up"
    DOWN = "down"
    MOVED = "moved"
    """To another population; the segment may be the same."""


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
    previous_population: str | None = None
    """The one that the account was in before; None where it is the same, or there was none."""
    transfer: int = 0
    """See `Standing.transfer`."""


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
        "told_in",
        "transfer",
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
        transfer: int = 0,
        told_in: str = "",
    ) -> None:
        self.account_id = account_id
        self.transfer = transfer
        """The number of the transfer by which it came; 0: it began here."""
        self.told_in = told_in
        """The population in which the world was told that it is, where that is another one; else empty."""
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
    def is_told(self) -> bool:
        """Whether the world was told the segment that it has, and the population that it is in."""
        return self.current_segment is self.segment and not self.told_in

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
        self.transfers = Transfers(name)
        self._basis, self._boundaries, self._band = basis, boundaries, band
        self.tiers = self._new_tiers()
        self.muted = False
        """While it is, standings are taken but nothing is announced; see `unmute`."""
        self.displaced_by_policy: set[str] = set()
        """Accounts that another policy has put elsewhere than the world was told, until it is: see `blame_policy`."""

    def apply(
        self, standings: Iterable[Standing], clock_us: int, leaving: Collection[str] = ()
    ) -> tuple[list[Change], list[Member]]:
        """Take a batch of standings as of one instant: of several for an account the newest counts.

        leaving: members to take out. Returns the changes, displaced accounts included, and every member that is
        different now.
        """
        cutoffs_before = self.tiers.cutoffs()
        moves = self._take_out(leaving)
        taken: dict[str, _Taken] = {}
        members = self.members
        for standing in standings:
            account_id, stage, revenue_minor, version, day = standing[:5]
            first_day, last_day, days_bought, _, recent = standing[8:13]
            member = members.get(account_id)
            if member is None or member.transfer != standing.transfer:
                member = self._taken_in(standing, member)
                if member is None:
                    continue
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
        for move in self.tiers.apply(_ranked(taken)):
            moves[move.account] = move
        for account_id, move in moves.items():
            members[account_id].tier = move.current
        touched = [member for member, _, _, _ in taken.values()]
        touched += [members[account_id] for account_id in moves if account_id not in taken]
        if self.muted:
            return [], touched
        changed = [
            (member, now)
            for member in touched
            if (now := member.current_segment) is not member.segment or member.told_in
        ]
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
            if account_id in self.displaced_by_policy:
                self.displaced_by_policy.discard(account_id)
                if not member.told_in:
                    kind, own = CauseKind.POLICY_CHANGED, None
            cause = ChangeCause(
                kind,
                own.event_id if own else None,
                own_change_minor,
                _cutoff_change(own_move, cutoffs_before, cutoffs),
            )
            changes.append(self._change(member, now, cause, effective_at_us(own, clock_us), cutoffs))
        return changes, touched

    def _taken_in(self, standing: Standing, member: Member | None) -> Member | None:
        """The member that a standing is of; None: it is of none, or not yet."""
        takes = self.transfers.takes(standing, member)
        if takes is False:
            return None
        if takes is True:
            return member or self._member(standing.account_id)
        return self._admit(takes)

    def _admit(self, hand_over: HandOver) -> Member:
        """A member that the world may know already. It goes on from what that was told."""
        told, member = hand_over.told, self._member(hand_over.account_id)
        member.transfer = hand_over.transfer
        member.sequence, member.segment, member.effective_at_us = told.sequence, told.segment, told.effective_at_us
        member.told_in = told.population if told.population != self.name else ""
        if told.risk_sequence or told.fall_day:
            risk = member.risk = Risk(level=told.risk_level, told_level=told.risk_level, sequence=told.risk_sequence)
            risk.effective_at_us = told.risk_effective_at_us
            risk.note_change(told.fall_day)
        return member

    def _take_out(self, leaving: Collection[str]) -> dict[str, Move]:
        """Members that are none any more. Returns whom that displaces."""
        if not leaving:
            return {}
        ranked = [account_id for account_id in leaving if self.members[account_id].tier is not None]
        moves = {move.account: move for move in self.tiers.apply((account_id, None) for account_id in ranked)}
        for account_id in leaving:
            moves.pop(account_id, None)
            del self.members[account_id]
            self.displaced_by_policy.discard(account_id)
        return moves

    def expects(self, hand_over: HandOver) -> bool:
        """Whether a hand-over is news."""
        return self.transfers.expects(hand_over, self.members.get(hand_over.account_id))

    def arrive(self, hand_over: HandOver) -> HandOver | Standing | None:
        """A hand-over has come. Returns one to be sent on, or the standing with which the account is a member now."""
        return self.transfers.arrive(hand_over, self.members.get(hand_over.account_id))

    def has(self, standing: Standing) -> bool:
        """Whether a standing is of a member, in this stay of it."""
        member = self.members.get(standing.account_id)
        return member is not None and member.transfer == standing.transfer

    def told_of(self, account_id: str) -> Told:
        """What the world was told last of an account, as far as it is a member."""
        member = self.members.get(account_id)
        if member is None:
            return Told()
        risk = member.risk or Risk()
        told_in = member.told_in or (self.name if member.sequence else "")
        told = Told(told_in, member.sequence, member.segment, member.effective_at_us, risk.fall_day)
        return told._replace(
            risk_sequence=risk.sequence, risk_level=risk.told_level, risk_effective_at_us=risk.effective_at_us
        )

    def depart(self, departure: Departure) -> tuple[HandOver | None, bool]:
        """An account leaves. Returns the hand-over, if it is to be sent, and whether a member is to be taken out."""
        account_id = departure.account_id
        member = self.members.get(account_id)
        hand_over = self.transfers.depart(departure, member, self.told_of(account_id))
        left = self.transfers.get(account_id).left
        return hand_over, member is not None and member.transfer < min(left, departure.transfer)

    def learn(self, given: HandOver) -> bool:
        """The log says that an account was handed over from here. Returns whether that is news.

        If it is, the population must be muted until it has taken the departure: others announce the account now.
        """
        before = self.transfers.get(given.account_id)
        self.transfers.learn(given)
        return self.transfers.get(given.account_id) != before

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
        return self._go_on_from_told(())

    def adopt(self, *, basis: Basis, boundaries: tuple[int, ...], band: int) -> list[Member]:
        """As `unmute`, but by other rules from now on. O(n log n).

        Who is ranked, and was told to be outside of the ranking, enters it: with the tier that its position says.
        """
        self._basis, self._boundaries, self._band = basis, boundaries, band
        entering = [m for m in self.members.values() if m.tier is not None and (m.segment not in TIERS or m.told_in)]
        for member in entering:
            member.tier = None
        return self._go_on_from_told(entering)

    def _go_on_from_told(self, entering: Iterable[Member]) -> list[Member]:
        self.muted = False
        changed = []
        for member in self.members.values():
            if member.told_in:
                continue  # it was told a tier among others
            if member.tier is not None and member.segment in TIERS and member.current_segment != member.segment:
                member.tier = TIERS.index(member.segment)
                changed.append(member)
        self.tiers = self._new_tiers()
        for move in self.tiers.apply((member.account_id, member.revenue_minor) for member in entering):
            member = self.members[move.account]
            member.tier = move.current
            changed.append(member)
        return changed

    def blame_policy(self) -> None:
        """What differs now from what was told is the doing of the policy that was adopted last. O(n)."""
        self.displaced_by_policy = {
            member.account_id for member in self.members.values() if member.segment is not None and not member.is_told
        }

    def untold(self) -> list[str]:
        """Every account that has another segment or risk than the world was told, in order. O(n log n)."""
        return sorted(
            [member.account_id for member in self.members.values() if not member.is_told or member.is_risk_untold]
        )

    def announce(self, account_ids: Collection[str], clock_us: int) -> tuple[list[Change], list[Member]]:
        """Of these accounts, the changes from what was told to what is, and the members concerned. O(k log n)."""
        members = [self.members[account_id] for account_id in account_ids]
        differing = [member for member in members if not member.is_told]
        cutoffs = self.tiers.cutoffs()
        changes = [
            self._change(member, member.current_segment, self._cause_untold(member), clock_us, cutoffs)
            for member in differing
        ]
        self.displaced_by_policy.difference_update(account_ids)
        return changes, differing

    def _cause_untold(self, member: Member) -> ChangeCause:
        if member.segment is None:
            return _NEVER_TOLD
        if member.told_in:
            return _TOLD_ELSEWHERE
        return _BY_POLICY if member.account_id in self.displaced_by_policy else _TOLD_OTHERWISE

    def _new_tiers(self) -> Tiers:
        return Tiers(
            basis=self._basis,
            boundaries=self._boundaries,
            band=self._band,
            members=[(m.account_id, m.revenue_minor, m.tier) for m in self.members.values() if m.tier is not None],
        )

    def was_told(self, account_id: str, transfer: int, told: Told, *, instead: bool = False) -> bool:
        """Learn from the log what the world was told of an account in its stay here after a transfer.

        Of segment or of risk: of the other one nothing is in `told`. Returns whether that was news.
        instead: of what is taken for told from that sequence on, and nobody was.
        """
        member = self.members.get(account_id)
        if member is None or member.transfer != transfer:
            if member is not None and transfer < member.transfer:
                return False
            return self.transfers.was_told(account_id, transfer, told, instead=instead)
        is_news = False
        if told.sequence and (told.sequence > member.sequence or instead):
            member.sequence, member.segment, member.effective_at_us = told.sequence, told.segment, told.effective_at_us
            member.told_in = ""
            member.risk = member.risk or Risk()
            member.risk.note_change(told.fall_day)
            is_news = True
        if told.risk_sequence:
            member.risk = member.risk or Risk()
            sequence, level, effective_at_us = told[5:]
            is_news |= member.risk.was_told(sequence, level, effective_at_us, instead=instead)
        return is_news

    def _member(self, account_id: str) -> Member:
        member = self.members.get(account_id)
        if member is None:
            member = self.members[account_id] = Member(account_id)
        return member

    def _change(
        self, member: Member, now: Segment, cause: ChangeCause, effective_at_us: int, cutoffs: tuple[int | None, ...]
    ) -> Change:
        previous, member.segment = member.segment, now
        told_in, member.told_in = member.told_in, ""
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
            Direction.MOVED if told_in else direction_of(previous, now),
            cause,
            member.lapsed,
            revenue_minor,
            position_revenue,
            position_accounts,
            cutoffs,
            up,
            down,
            member.effective_at_us,
            told_in or None,
            member.transfer,
        )


_Taken = tuple[Member, Standing, str, int]
"""A member with the standing of a batch that counts for it, and its stage and revenue before the batch."""


def _kind(member: Member, move: Move | None, reason: str, stage_before: str) -> CauseKind:
    """Why a member changed of which there is news."""
    if member.segment is None:
        return _FIRST.get(reason, CauseKind.BACKFILL)
    if member.told_in:
        return CauseKind.POPULATION_CHANGED
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
    Reason.POLICY_CHANGED: CauseKind.POLICY_CHANGED,
}
_FIRST: dict[str, CauseKind] = {
    Reason.SIGNUP: CauseKind.FIRST_SIGNUP,
    Reason.PURCHASE: CauseKind.FIRST_PURCHASE,
    Reason.ENGAGEMENT: CauseKind.FIRST_ENGAGEMENT,
    Reason.REFUND: CauseKind.REFUND,
}


_NEVER_TOLD = ChangeCause(CauseKind.BACKFILL, None, 0, None)
_TOLD_ELSEWHERE = ChangeCause(CauseKind.POPULATION_CHANGED, None, 0, None)
_TOLD_OTHERWISE = ChangeCause(CauseKind.RECOVERED, None, 0, None)
_BY_POLICY = ChangeCause(CauseKind.POLICY_CHANGED, None, 0, None)


@cache
def direction_of(previous: Segment | None, current: Segment) -> Direction:
    """Which way it is from one segment to another."""
    if previous is None:
        return Direction.ENTERED
    if previous not in TIERS or current not in TIERS:
        return Direction.ADVANCED
    return Direction.UP if TIERS.index(current) < TIERS.index(previous) else Direction.DOWN


def fall_day(direction: str, effective_at_us: int) -> int:
    """The day of a change that is a fall to a lower tier; 0 for another one."""
    return effective_at_us // MICROSECONDS_PER_DAY if direction == Direction.DOWN else 0


def _by_account_id(step: tuple[Member, Segment]) -> str:
    return step[0].account_id


def effective_at_us(own: Standing | None, clock_us: int) -> int:
    """The causing event's instant, where that is not before the clock, nor on a day the clock has not reached."""
    if own is None or own.occurred_at_us is None or own.occurred_at_us < clock_us:
        return clock_us
    same_day = own.occurred_at_us // MICROSECONDS_PER_DAY == clock_us // MICROSECONDS_PER_DAY
    return own.occurred_at_us if same_day else clock_us
