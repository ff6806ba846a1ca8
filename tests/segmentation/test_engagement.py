"""Engagement: a set of days, in any order, and the day on which it counts as fallen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.account import NEVER, Account, entry_id_of
from segmentation.engagement import Engaged, EngagedDays
from segmentation.events import MICROSECONDS_PER_DAY, Engagement
from segmentation.ledger import Ledger
from segmentation.policy import Policy

POLICY = Policy.default()


def days_of(days: list[int]) -> EngagedDays:
    """A set that these were added to."""
    held = EngagedDays()
    for day in days:
        held.add(day)
    return held


def by_definition(days: set[int], day: int, engagement_days: int) -> Engaged:
    """Counted one by one."""
    recent_days = max(1, engagement_days // 3)
    return Engaged(
        sum(day - recent_days < on <= day for on in days),
        recent_days,
        sum(day - engagement_days < on <= day - recent_days for on in days),
        engagement_days - recent_days,
    )


@given(st.lists(st.integers(1_000, 1_300)), st.integers(900, 1_500), st.sampled_from([2, 3, 6, 90, 200]))
def test_days_are_counted_as_they_are(days: list[int], day: int, engagement_days: int) -> None:
    """Whatever the order, and however often one comes; days ahead do not count yet."""
    held = days_of(days)
    assert held.engaged(day, engagement_days) == by_definition(set(days), day, engagement_days)
    assert (held.bits, held.first_day) == (days_of(days[::-1]).bits, days_of(days[::-1]).first_day)


@given(st.lists(st.integers(1_000, 1_120), max_size=60), st.integers(1_000, 1_200), st.sampled_from([3, 6, 30, 90]))
def test_the_next_turn_is_the_first_day_on_which_it_is_otherwise(
    days: list[int], day: int, engagement_days: int
) -> None:
    """Found by asking about each day."""
    fallen = [by_definition(set(days), on, engagement_days).has_fallen for on in range(day, day + 400)]
    turn = next((day + n for n, found in enumerate(fallen) if found is not fallen[0]), None)
    assert days_of(days).next_turn(day, engagement_days) == turn


@given(st.lists(st.integers(0, 200), min_size=1), st.integers(1, 90))
def test_what_is_let_go_is_of_no_day_that_is_asked_about(ahead: list[int], engagement_days: int) -> None:
    """Days up to the horizon of a clock that goes on; and the set stays as short as that."""
    held, days = EngagedDays(), set[int]()
    for number, later in enumerate(ahead):
        day = 1_000 + number
        on = day - engagement_days + 1 + later % (2 * engagement_days)
        assert held.add(on) is (on not in days)
        held.let_go(day - engagement_days)
        days.add(on)
        days = {kept for kept in days if kept > day - engagement_days}
        assert held.engaged(day, engagement_days) == by_definition(days, day, engagement_days)
        assert held.bits.bit_length() <= 2 * engagement_days + len(ahead) and held.bits & 1


@pytest.mark.parametrize(
    ("recent", "past", "has_fallen"),
    [(5, 24, True), (6, 24, False), (0, 8, True), (0, 7, False), (1, 8, True), (2, 8, False), (0, 0, False)],
)
def test_fallen_is_less_than_half_of_a_past_that_says_something(recent: int, past: int, has_fallen: bool) -> None:
    """The numbers of docs/risk.md: of 24 days in 60, fewer than 6 of 30."""
    assert Engaged(recent, 30, past, 60).has_fallen is has_fallen


def engaged(account: Account, day: int, kind: str = "login") -> None:
    """One engagement more."""
    event = Engagement(account.account_id, f"{kind}-{day}", day * MICROSECONDS_PER_DAY, kind, None)
    account.apply(event, entry_id_of(event), POLICY)


def test_an_account_that_falls_silent_has_fallen_on_a_day_that_was_known_before() -> None:
    """Time alone brings it about, and time alone takes it back; evidence of another kind is no engagement."""
    account = Account("acme")
    account.engagements = Ledger()
    account.advance(1_000, POLICY)
    for day in range(1_000, 1_060, 2):
        account.advance(day, POLICY)
        engaged(account, day)
    engaged(account, 1_059, "support_ticket")
    fell_on = next(day for day in range(1_060, 1_200) if _advanced(account, day).engagement_fell)
    assert account.engaged_days.engaged(fell_on, 90).has_fallen
    assert not account.engaged_days.engaged(fell_on - 1, 90).has_fallen
    back_on = next(day for day in range(fell_on, 1_300) if not _advanced(account, day).engagement_fell)
    assert not account.engaged_days.engaged(back_on, 90).has_fallen
    assert _advanced(account, 1_400).due_day == NEVER


def _advanced(account: Account, day: int) -> Account:
    account.advance(day, POLICY)
    return account
