"""A population from its definitions, in quadratic time: what each account is, and why it came to be that."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segmentation.account import Reason, Standing
from segmentation.order_index import Basis
from segmentation.population import CauseKind, Change, Direction, Member, Population
from segmentation.segments import TIERS, Segment, Stage
from segmentation.tiers import Cause
from tests.segmentation.brute_force import BruteForce, position

FIRST = {
    Reason.SIGNUP: CauseKind.FIRST_SIGNUP,
    Reason.PURCHASE: CauseKind.FIRST_PURCHASE,
    Reason.ENGAGEMENT: CauseKind.FIRST_ENGAGEMENT,
    Reason.REFUND: CauseKind.REFUND,
}


class Expected(NamedTuple):
    """One change as it ought to be."""

    account_id: str
    previous: Segment | None
    current: Segment
    kind: CauseKind
    event_id: str | None
    own_change_minor: int
    lapsed: bool


class ReferencePopulation:
    """The same answers as `Population`, from all standings and one trigger for each account and boundary."""

    def __init__(self, basis: Basis, boundaries: Sequence[int], band: int) -> None:
        self.tiers = BruteForce(basis, boundaries, band)
        self.latest: dict[str, Standing] = {}
        self.told: dict[str, Segment] = {}

    def apply(self, batch: Iterable[Standing]) -> list[Expected]:
        """Take a batch; return the changes that follow, by account."""
        before = dict(self.latest)
        taken: dict[str, Standing] = {}
        for standing in batch:
            known = self.latest.get(standing.account_id)
            if known is None or standing.version > known.version or standing.day > known.day:
                self.latest[standing.account_id] = taken[standing.account_id] = standing
        moves = {
            move.account: move
            for move in self.tiers.apply(
                (standing.account_id, standing.revenue_minor if _is_ranked(standing) else None)
                for standing in taken.values()
            )
        }
        changes = []
        for account_id in sorted(self.latest):
            current, previous = self.segment(account_id), self.told.get(account_id)
            if current == previous:
                continue
            self.told[account_id] = current
            standing_or_none = taken.get(account_id)
            old = before.get(account_id)
            move = moves.get(account_id)
            if standing_or_none is None:
                kind = CauseKind.BOUNDARY_MOVED
            else:
                kind = self._kind(standing_or_none, old, previous, move.cause if move else None)
            is_own = kind is not CauseKind.BOUNDARY_MOVED and standing_or_none is not None
            changes.append(
                Expected(
                    account_id,
                    previous,
                    current,
                    kind,
                    standing_or_none.event_id if is_own and standing_or_none else None,
                    self.latest[account_id].revenue_minor - (old.revenue_minor if old else 0),
                    self.is_lapsed(account_id),
                )
            )
        return changes

    def _kind(
        self, standing: Standing, old: Standing | None, previous: Segment | None, cause: Cause | None
    ) -> CauseKind:
        if previous is None or old is None:
            return FIRST.get(Reason(standing.reason), CauseKind.BACKFILL)
        if old.stage != standing.stage:
            return CauseKind.FIRST_PURCHASE if old.stage == Stage.PROSPECT else CauseKind.GRADUATED
        if cause in (Cause.BOUNDARY_MOVED, Cause.COMBINED):
            return CauseKind(cause.value)
        if standing.reason == Reason.WINDOW_EXPIRY and not _is_ranked(standing):
            return CauseKind.LAPSED
        return CauseKind(standing.reason)

    def segment(self, account_id: str) -> Segment:
        """What the account is."""
        stage = self.latest[account_id].stage
        if stage != Stage.ESTABLISHED:
            return Segment(stage)
        tier = self.tiers.tier(account_id)
        return Segment.COMMERCIAL if tier is None else TIERS[tier]

    def is_lapsed(self, account_id: str) -> bool:
        """Established, with no revenue left."""
        standing = self.latest[account_id]
        return standing.stage == Stage.ESTABLISHED and standing.revenue_minor <= 0

    def share(self, account_id: str, basis: Basis) -> tuple[int, int] | None:
        """The account's position; None outside the ranked population."""
        revenue = self.tiers.revenues.get(account_id)
        return None if revenue is None else position(list(self.tiers.revenues.values()), revenue, basis)


def _is_ranked(standing: Standing) -> bool:
    return standing.stage == Stage.ESTABLISHED and standing.revenue_minor > 0


def direction(previous: Segment | None, current: Segment) -> Direction:
    """Which way a change goes."""
    if previous is None:
        return Direction.ENTERED
    if previous in (Segment.PROSPECT, Segment.NEW_START) or current in (Segment.PROSPECT, Segment.NEW_START):
        return Direction.ADVANCED
    order = [Segment.KEY, Segment.ENTERPRISE, Segment.COMMERCIAL]
    return Direction.UP if order.index(current) < order.index(previous) else Direction.DOWN


def copy_of(member: Member) -> Member:
    """A member as it would be read from the store."""
    return Member(
        member.account_id,
        stage=member.stage,
        revenue_minor=member.revenue_minor,
        tier=member.tier,
        segment=member.segment,
        sequence=member.sequence,
        effective_at_us=member.effective_at_us,
        version=member.version,
        day=member.day,
    )


def snapshot(population: Population) -> dict[str, tuple[object, ...]]:
    """Everything that is stored of a population's members."""
    return {account_id: fields_of(member) for account_id, member in population.members.items()}


def fields_of(member: Member) -> tuple[object, ...]:
    """Everything that is stored of a member."""
    return tuple(getattr(member, name) for name in Member.__slots__)


class Chains:
    """What the world was told, and that each account's changes are one chain."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.last: dict[str, Change] = {}

    def tell(self, changes: Sequence[Change]) -> None:
        """Take changes as they are announced. Fails where one does not follow on the last of its account."""
        assert len({change.account_id for change in changes}) == len(changes), "an account changed twice at once"
        for change in changes:
            last = self.last.get(change.account_id)
            assert change.sequence == (last.sequence + 1 if last else 1)
            assert change.previous_segment == (last.current_segment if last else None)
            assert change.current_segment != change.previous_segment
            assert change.effective_at_us >= (last.effective_at_us if last else 0)
            assert change.direction is direction(change.previous_segment, change.current_segment)
            self.last[change.account_id] = change
        self.changes += changes
