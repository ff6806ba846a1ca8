"""A report of a period against its definitions, counted out one instant at a time."""

from collections import Counter
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.period_report import (
    DayMoves,
    PastChange,
    Period,
    period_report,
    segment_at,
    timeline,
)
from segmentation.population import CauseKind, Member
from segmentation.segments import SEGMENTS, TIERS, Segment

HOUR_US = MICROSECONDS_PER_DAY // 24
STEPS_US = (0, 1, HOUR_US, MICROSECONDS_PER_DAY, 3 * MICROSECONDS_PER_DAY, 9 * MICROSECONDS_PER_DAY)


class World(NamedTuple):
    """Accounts with all of their changes, and what is asked about them."""

    chains: dict[str, list[PastChange]]
    members: list[Member]
    period: Period
    as_of_us: int
    within_days: int


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Accounts that wander between segments, some of them not announced yet."""
    chains: dict[str, list[PastChange]] = {}
    members = []
    latest_us = 0
    for number in range(draw(st.integers(0, 6))):
        chain = draw(wandering())
        account_id = f"account-{number}"
        if chain:
            chains[account_id] = chain
            latest_us = max(latest_us, chain[-1].effective_at_us)
        members.append(
            Member(
                account_id,
                segment=chain[-1].current if chain else None,
                sequence=len(chain),
                revenue_minor=draw(st.integers(-50, 1_000)),
            )
        )
    first = draw(st.integers(0, 25))
    period = Period(first, first + draw(st.integers(0, 12)))
    as_of_us = latest_us + draw(st.sampled_from(STEPS_US))
    return World(chains, members, period, as_of_us, draw(st.integers(1, 9)))


@st.composite
def wandering(draw: st.DrawFn) -> list[PastChange]:
    """The changes of one account."""
    chain: list[PastChange] = []
    at_us = draw(st.integers(0, 20)) * MICROSECONDS_PER_DAY
    segment: Segment | None = None
    for sequence in range(1, draw(st.integers(0, 9)) + 1):
        current = draw(st.sampled_from([other for other in SEGMENTS if other is not segment]))
        cause = draw(st.sampled_from([CauseKind.PURCHASE, CauseKind.BOUNDARY_MOVED, CauseKind.REFUND]))
        chain.append(PastChange(sequence, segment, current, cause, False, sequence, at_us))
        segment = current
        at_us += draw(st.sampled_from(STEPS_US))
    return chain


def was(chain: list[PastChange], at_us: int) -> Segment | None:
    """What an account was just before an instant, from all of its changes."""
    segment = None
    for change in chain:
        if change.effective_at_us < at_us:
            segment = change.current
    return segment


@given(worlds())
def test_segments_and_their_numbers_are_what_was_counted(world: World) -> None:
    """Who is where now, who came and who left, and where all were at begin and end."""
    found = period_report(
        world.chains, world.members, world.period, as_of_us=world.as_of_us, undone_within_days=world.within_days
    )
    told = [member for member in world.members if member.segment is not None]
    begin_us, end_us = world.period.begin_us, world.period.end_us
    inside = [c for chain in world.chains.values() for c in chain if begin_us <= c.effective_at_us < end_us]
    assert [part.segment for part in found.performance] == list(SEGMENTS)
    for part in found.performance:
        here = [member for member in told if member.segment is part.segment]
        assert (part.accounts, part.revenue_minor) == (len(here), sum(member.revenue_minor for member in here))
        assert part.entered == sum(change.current is part.segment for change in inside)
        assert part.left == sum(change.previous is part.segment for change in inside)
        assert part.at_begin == sum(was(chain, begin_us) is part.segment for chain in world.chains.values())
        assert part.at_end == sum(was(chain, end_us) is part.segment for chain in world.chains.values())
        assert part.net == part.at_end - part.at_begin
    pairs = [(was(chain, begin_us), was(chain, end_us)) for chain in world.chains.values()]
    assert found.migration == Counter(pair for pair in pairs if pair[1] is not None)
    assert found.untold == len(world.members) - len(told)
    assert found.accounts == len(told)
    assert found.revenue_minor == sum(member.revenue_minor for member in told)


@given(worlds())
def test_moves_and_their_causes_are_what_was_counted(world: World) -> None:
    """Each change but the first of its account is a move; the days add up to all of them."""
    found = period_report(
        world.chains, world.members, world.period, as_of_us=world.as_of_us, undone_within_days=world.within_days
    )
    begin_us, end_us = world.period.begin_us, world.period.end_us
    inside = [(a, c) for a, chain in world.chains.items() for c in chain if begin_us <= c.effective_at_us < end_us]
    moves = [(account_id, change) for account_id, change in inside if change.sequence > 1]
    displaced = [account_id for account_id, change in moves if change.cause == "boundary_moved"]
    assert found.moves == Counter((change.previous, change.current) for _, change in moves)
    assert found.causes == Counter(change.cause for _, change in moves)
    assert list(found.causes.values()) == sorted(found.causes.values(), reverse=True)
    assert (found.move_count, found.placed) == (len(moves), len(inside) - len(moves))
    assert found.moved_accounts == len({account_id for account_id, _ in moves})
    assert (found.displaced_moves, found.displaced_accounts) == (len(displaced), len(set(displaced)))
    assert sum(map(sum, found.days.values())) == len(inside)
    assert set(found.days) == {change.effective_at_us // MICROSECONDS_PER_DAY for _, change in inside}
    assert list(found.days) == sorted(found.days)
    assert sum(day.entered for day in found.days.values()) == found.placed
    down = [(KEY, ENTERPRISE), (KEY, COMMERCIAL), (ENTERPRISE, COMMERCIAL)]
    assert sum(day.down for day in found.days.values()) == sum(found.moves.get(pair, 0) for pair in down)
    assert sum(day.up for day in found.days.values()) == sum(found.moves.get(pair[::-1], 0) for pair in down)


KEY, ENTERPRISE, COMMERCIAL = TIERS


@given(worlds())
def test_a_move_is_undone_by_a_return_in_time(world: World) -> None:
    """Of the moves between tiers whose time is over; a return after the period counts, too."""
    found = period_report(
        world.chains, world.members, world.period, as_of_us=world.as_of_us, undone_within_days=world.within_days
    ).undone
    within_us = world.within_days * MICROSECONDS_PER_DAY
    moves = undone = young = 0
    for chain in world.chains.values():
        for change in chain:
            if change.previous not in TIERS or change.current not in TIERS:
                continue
            if not world.period.begin_us <= change.effective_at_us < world.period.end_us:
                continue
            if world.as_of_us - change.effective_at_us < within_us:
                young += 1
                continue
            moves += 1
            undone += any(
                later.sequence > change.sequence
                and later.current is change.previous
                and later.effective_at_us - change.effective_at_us <= within_us
                for later in chain
            )
    assert found == (world.within_days, moves, undone, young)


@given(worlds())
def test_of_what_was_before_the_period_little_is_needed(world: World) -> None:
    """The last change of each account; and not even that where the account has no other."""
    least = {}
    for account_id, chain in world.chains.items():
        since = [change for change in chain if change.effective_at_us >= world.period.begin_us]
        if since:
            least[account_id] = since
    last = {
        account_id: [
            change
            for change, later in zip(chain, [*chain[1:], None], strict=True)
            if later is None or later.effective_at_us >= world.period.begin_us
        ]
        for account_id, chain in world.chains.items()
    }
    whole, from_last, from_least = (
        period_report(chains, world.members, world.period, as_of_us=world.as_of_us, undone_within_days=2)
        for chains in (world.chains, last, least)
    )
    assert from_last == whole
    assert from_least == whole


@given(wandering(), st.integers(0, 30), st.integers(0, 5))
@example([], 3, 1)
def test_a_timeline_leads_from_begin_to_end(chain: list[PastChange], first: int, days: int) -> None:
    """Its changes are those of the period, and each begins where the one before it ended."""
    period = Period(first, first + days)
    member = Member("a", segment=chain[-1].current if chain else None, revenue_minor=7)
    found = timeline(chain, member, period)
    at = found.at_begin
    assert at is was(chain, period.begin_us)
    for change in found.changes:
        assert period.holds(change.effective_at_us)
        assert change.previous is at
        at = change.current
    assert at is segment_at(chain, period.end_us, member.segment) is was(chain, period.end_us)
    assert (found.now, found.revenue_minor) == (member.segment, 7)


def test_a_change_that_is_not_in_the_log_yet_is_in_no_number() -> None:
    """What the state knows more is what accounts are now; the period is told by the log alone."""
    chain = [PastChange(1, None, ENTERPRISE, CauseKind.BACKFILL, False, 0, MICROSECONDS_PER_DAY)]
    members = [Member("a", segment=KEY, sequence=2, revenue_minor=5)]
    period = Period(2, 3)
    found = period_report({"a": chain}, members, period, as_of_us=period.end_us, undone_within_days=7)
    assert found.migration == {(ENTERPRISE, ENTERPRISE): 1}
    assert [(part.accounts, part.net, part.at_end - part.at_begin) for part in found.performance[:2]] == [
        (1, 0, 0),
        (0, 0, 0),
    ]


def test_a_return_counts_to_the_microsecond() -> None:
    """Seven days are seven times 24 hours; a stage is no tier that one returns to."""
    day_us = MICROSECONDS_PER_DAY

    def undone(back_us: int) -> tuple[int, ...]:
        chain = [
            PastChange(1, None, Segment.NEW_START, CauseKind.FIRST_PURCHASE, False, 0, day_us),
            PastChange(2, Segment.NEW_START, KEY, CauseKind.GRADUATED, False, 0, day_us),
            PastChange(3, KEY, ENTERPRISE, CauseKind.BOUNDARY_MOVED, False, 0, day_us),
            PastChange(4, ENTERPRISE, KEY, CauseKind.PURCHASE, False, 0, back_us),
        ]
        members = [Member("a", segment=KEY)]
        found = period_report({"a": chain}, members, Period(1, 1), as_of_us=8 * day_us, undone_within_days=7)
        assert found.days == {1: DayMoves(entered=1, advanced=1, down=1)}
        return found.undone[1:]

    assert undone(8 * day_us) == (1, 1, 0)
    assert undone(8 * day_us + 1) == (1, 0, 0)
