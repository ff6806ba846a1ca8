"""An account against its definition: the set of its events and the day say what it is, and nothing else does."""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.account import (
    NEVER,
    NO_DAY,
    Account,
    Profile,
    Reason,
    engagement_kind,
    engagement_value,
    entry_id_of,
    reason_of,
)
from segmentation.application import NOT_LARGER
from segmentation.events import MICROSECONDS_PER_DAY, AttributeValue, Event, Purchase, Signup
from segmentation.ledger import OPEN_ENTRIES_MAX
from segmentation.policy import Policy
from segmentation.segments import Stage
from tests.segmentation.stored_account import (
    ACCOUNT_ID,
    Standing,
    StoredAccount,
    by_definition,
    day_of,
    engagement,
    evidence_by_definition,
    instant_of,
    purchase,
    rhythm_by_definition,
    signup,
)

DEFAULT = Policy.default()
POLICIES = [
    DEFAULT.with_changes(window_days=7, new_start_days=3, engagement_days=4),
    DEFAULT.with_changes(window_days=1, new_start_days=0, engagement_days=1),
    DEFAULT.with_changes(window_days=3, new_start_days=9, engagement_days=2),
    DEFAULT.with_changes(window_days=10, new_start_days=1, engagement_days=30),
]

LAST_DAY = 40
amounts = st.sampled_from([0, 1, 100, 100, 12_345, 2**63 - 1])
event_days = st.integers(1, LAST_DAY)


class _Kind(NamedTuple):
    kind: str
    day: int
    occurred_day: int
    amount_minor: int
    copies: int


def _events(kinds: Sequence[_Kind]) -> list[Event]:
    events: list[Event] = []
    for number, (kind, day, occurred_day, amount, copies) in enumerate(kinds):
        for copy in range(copies):
            event_id = f"{number}.{copy}"
            if kind == "purchase":
                events.append(purchase(event_id, day, amount))
            elif kind == "refund":
                at_us = occurred_day * MICROSECONDS_PER_DAY
                events.append(Purchase(ACCOUNT_ID, event_id, at_us, day, -amount, True))
            elif kind == "signup":
                events.append(signup(event_id, day))
            else:
                events.append(engagement(event_id, day, ("login", "cancel_request", "support_ticket")[number % 3]))
    return events


# A kind may come in so many copies, each with an id of its own, that blocks close.
sets_of_events = st.lists(
    st.builds(
        _Kind,
        st.sampled_from(["purchase", "purchase", "purchase", "refund", "signup", "engagement"]),
        event_days,
        event_days,
        amounts,
        st.sampled_from([1, 1, 1, 2, OPEN_ENTRIES_MAX + 8]),
    ),
    max_size=8,
).map(_events)
policies = st.sampled_from(POLICIES)


def _deliver(events: Sequence[Event], rng: random.Random) -> list[Event]:
    """The events in any order, some of them twice or more."""
    told = [*events, *(event for event in events if rng.random() < 0.2), *events[: rng.randint(0, 3)]]
    rng.shuffle(told)
    return told


def _batches(events: Sequence[Event], rng: random.Random) -> list[list[Event]]:
    cuts = sorted({0, len(events), *(rng.randint(0, len(events)) for _ in range(rng.choice((0, 2, 9))))})
    return [list(events[start:end]) for start, end in pairwise(cuts)]


@settings(max_examples=150)
@given(sets_of_events, policies, policies, st.randoms(use_true_random=False))
def test_an_account_that_goes_by_another_policy_is_what_it_would_be_had_it_always(
    events: list[Event], policy: Policy, other: Policy, rng: random.Random
) -> None:
    """Whatever came before and comes after, on every day, if the windows are no longer than they were."""
    shorter = {name: min(policy.document()[name], other.document()[name]) for name in NOT_LARGER}
    other = other.with_changes(**shorter)
    stored = StoredAccount(policy)
    told: list[Event] = []
    batches = _batches(_deliver(events, rng), rng)
    switch_at = rng.randint(0, len(batches))
    for number, batch in enumerate([*batches, []]):
        if number == switch_at and told:
            stored.switch(other)
            assert stored.account.version == 2 + sum(isinstance(event, Purchase) for event in told)
            assert stored.account.policy_parity == 1
        stored.take(batch)
        told += batch
        assert stored.standing == by_definition(told, stored.day, stored.policy)
        if rng.random() < 0.5:
            stored.reopen()
        stored.tick(min(LAST_DAY, stored.day + rng.choice((0, 1, 1, 2, 6, 15))))
        assert stored.standing == by_definition(told, stored.day, stored.policy)
    for day in range(stored.day + 1, LAST_DAY + 20):
        stored.tick(day)
        assert stored.standing == by_definition(told, day, stored.policy)


@settings(max_examples=150)
@given(sets_of_events, policies, st.randoms(use_true_random=False))
def test_after_every_batch_an_account_is_what_its_events_and_the_day_say(
    events: list[Event], policy: Policy, rng: random.Random
) -> None:
    """In any order, with duplicates, in any batches, with the clock moving in between, and read anew at any time."""
    stored = StoredAccount(policy)
    told: list[Event] = []
    for batch in _batches(_deliver(events, rng), rng):
        stored.take(batch)
        told += batch
        assert stored.standing == by_definition(told, stored.day, policy)
        assert stored.rhythm == rhythm_by_definition(told, stored.day)
        assert stored.account.evidence_days == evidence_by_definition(told)
        assert stored.account.version == bool(told) + sum(isinstance(event, Purchase) for event in told)
        for _ in range(rng.choice((0, 0, 1, 2))):
            stored.tick(stored.day + rng.choice((1, 1, 1, 2, 5, 13)))
        if rng.random() < 0.3:
            stored.reopen()


@settings(max_examples=100)
@given(sets_of_events, policies, st.randoms(use_true_random=False))
def test_the_clock_that_looks_only_when_an_account_is_due_misses_nothing(
    events: list[Event], policy: Policy, rng: random.Random
) -> None:
    """On every day the standing is right, though the account is looked at on its due days alone."""
    stored = StoredAccount(policy)
    told: list[Event] = []
    batches = _batches(_deliver(events, rng), rng)
    for day in range(1, LAST_DAY + policy.window_days + policy.new_start_days + 2):
        stored.tick(day)
        assert stored.standing == by_definition(told, day, policy), f"on day {day}"
        assert stored.rhythm == rhythm_by_definition(told, day), f"on day {day}"
        if batches and rng.random() < 0.3:
            batch = batches.pop()
            stored.take(batch)
            told += batch
            assert stored.standing == by_definition(told, day, policy)
    assert not stored.history.blocks, "the window is empty, and closed blocks are still stored"


@settings(max_examples=80)
@given(sets_of_events, policies, st.integers(1, 60), st.randoms(use_true_random=False))
def test_order_duplicates_and_cuts_leave_no_trace(
    events: list[Event], policy: Policy, last_day: int, rng: random.Random
) -> None:
    """Two deliveries of one set of events, by any path of the clock to the same day, end in the same account."""
    ends = []
    for _ in range(2):
        stored = StoredAccount(policy)
        for batch in _batches(_deliver(events, rng), rng):
            stored.take(batch)
            stored.tick(rng.randint(stored.day, last_day))
        stored.take([])
        stored.tick(last_day)
        assert stored.account.profile is not None
        days = stored.account.purchase_days
        ends.append((stored.standing, stored.account.profile.fields, days.first_day, days.bits))
    assert ends[0] == ends[1]


@settings(max_examples=150)
@given(sets_of_events, policies, st.randoms(use_true_random=False))
def test_an_event_is_new_once_while_its_day_is_remembered(
    events: list[Event], policy: Policy, rng: random.Random
) -> None:
    """A copy of an event that lies in the window, or an engagement within its horizon, is a duplicate however late."""
    stored = StoredAccount(policy)
    seen: set[bytes] = set()
    for batch in _batches(_deliver(events, rng), rng):
        for event, new in zip(batch, stored.take(batch), strict=True):
            day = event.day if isinstance(event, Purchase) else event.occurred_at_us // MICROSECONDS_PER_DAY
            kept_days = policy.window_days if isinstance(event, Purchase | Signup) else policy.engagement_days
            if entry_id_of(event) not in seen:
                assert new
            elif day > stored.day - kept_days:
                assert not new
            seen.add(entry_id_of(event))
        stored.tick(stored.day + rng.choice((0, 1, 1, 4)))
        if rng.random() < 0.3:
            stored.reopen()


@settings(max_examples=150)
@given(sets_of_events, policies, st.randoms(use_true_random=False))
def test_the_reason_of_a_due_day_tells_what_changed(events: list[Event], policy: Policy, rng: random.Random) -> None:
    """Advancing says why wherever the stage or the revenue was another one on any of the days passed over."""
    stored, daily = StoredAccount(policy), StoredAccount(policy)
    delivered = _deliver(events, rng)
    stored.take(delivered)
    daily.take(delivered)
    while stored.day < LAST_DAY + 20:
        before, rhythm, passed = stored.standing, stored.rhythm, set()
        reason = stored.tick(stored.day + rng.choice((1, 1, 3, 11)))
        after = stored.standing
        for day in range(daily.day + 1, stored.day + 1):
            daily.tick(day)
            passed.add((daily.standing, daily.rhythm))
        assert reason is not None or passed == {(before, rhythm)}
        if before.stage is not after.stage:
            came = before.stage is Stage.PROSPECT
            assert reason is (Reason.REVENUE_DUE if came else Reason.GRADUATED)
        elif reason is not None:
            more = after.revenue_minor > before.revenue_minor
            assert reason is (Reason.REVENUE_DUE if more else Reason.WINDOW_EXPIRY)


@pytest.mark.parametrize(
    ("bought", "last_day_inside"),
    [
        ("2027-01-01", "2027-12-31"),
        ("2027-02-28", "2028-02-27"),
        ("2027-03-01", "2028-02-28"),
        ("2028-02-29", "2029-02-27"),
        ("2028-12-31", "2029-12-30"),
    ],
)
def test_revenue_stays_for_exactly_the_window(bought: str, last_day_inside: str) -> None:
    """365 whole UTC days, over leap days and year's ends; on the next one it is gone."""
    stored = StoredAccount(DEFAULT)
    stored.tick(day_of(bought) - 1)
    stored.take([purchase("1", day_of(bought))])
    assert stored.account.revenue_minor == 0, "it is dated after the clock's day"
    stored.tick(day_of(bought))
    assert stored.account.revenue_minor == 100
    stored.tick(day_of(last_day_inside))
    assert stored.account.revenue_minor == 100
    assert stored.tick(day_of(last_day_inside) + 1) is Reason.WINDOW_EXPIRY
    assert stored.account.revenue_minor == 0
    assert stored.account.stage(DEFAULT.new_start_days) is Stage.ESTABLISHED


def test_a_late_purchase_counts_up_to_the_edge_of_the_window() -> None:
    """The oldest day of the window still counts, the one before it only says when the account began."""
    today = day_of("2028-02-29")
    inside, outside = StoredAccount(DEFAULT), StoredAccount(DEFAULT)
    inside.tick(today)
    outside.tick(today)
    assert inside.take([purchase("1", today - 364)]) == [True]
    assert inside.account.revenue_minor == 100
    assert inside.account.due_day == today + 1
    assert outside.take([purchase("1", today - 365)]) == [True]
    assert outside.standing == Standing(Stage.ESTABLISHED, 0, today - 365)
    assert outside.account.due_day == NEVER


def test_the_last_microsecond_of_a_day_belongs_to_it() -> None:
    """Leap day and year's end are days like any other."""
    for text in ("2028-02-29", "2027-12-31"):
        last, first = instant_of(f"{text}T23:59:59.999999"), instant_of(f"{text}T00:00:00")
        assert last // MICROSECONDS_PER_DAY == first // MICROSECONDS_PER_DAY == day_of(text)
        assert (last + 1) // MICROSECONDS_PER_DAY == day_of(text) + 1


@pytest.mark.parametrize("new_start_days", [0, 1, 90])
def test_an_account_is_new_for_exactly_so_many_days(new_start_days: int) -> None:
    """The day of the first purchase is the first of them; with 0 days nobody is ever new."""
    policy = DEFAULT.with_changes(new_start_days=new_start_days)
    stored = StoredAccount(policy)
    stored.tick(999)
    stored.take([purchase("1", 1_000)])
    stages = []
    for day in range(1_000, 1_000 + 95):
        stored.tick(day)
        stages.append(stored.standing.stage)
    assert stages == [Stage.NEW_START] * new_start_days + [Stage.ESTABLISHED] * (95 - new_start_days)


def test_an_earlier_first_purchase_that_comes_late_ends_being_new() -> None:
    """What counts is the earliest purchase of all, whenever it was told."""
    stored = StoredAccount(DEFAULT)
    stored.tick(1_000)
    stored.take([purchase("2", 1_000)])
    assert stored.standing.stage is Stage.NEW_START
    stored.take([purchase("1", 911)])
    assert stored.standing == Standing(Stage.NEW_START, 200, 911)
    assert stored.account.due_day == 1_001
    stored.take([purchase("0", 910)])
    assert stored.standing == Standing(Stage.ESTABLISHED, 300, 910)


def test_a_refund_takes_from_the_day_it_names() -> None:
    """With the purchase's day it leaves the window together with the purchase; it never makes a customer."""
    stored = StoredAccount(DEFAULT)
    stored.tick(1_000)
    stored.take([purchase("r", 990, 100, refund=True)])
    assert stored.standing == Standing(Stage.PROSPECT, -100, NEVER)
    stored.take([purchase("p", 990, 100)])
    assert stored.standing == Standing(Stage.NEW_START, 0, 990)
    stored.tick(990 + 365)
    assert stored.standing == Standing(Stage.ESTABLISHED, 0, 990)


def test_a_free_purchase_makes_a_customer() -> None:
    """A purchase of nothing is a purchase: it has a day, and no revenue."""
    stored = StoredAccount(DEFAULT)
    stored.tick(1_000)
    stored.take([purchase("1", 1_000, 0)])
    assert stored.standing == Standing(Stage.NEW_START, 0, 1_000)
    assert stored.account.due_day == 1_090


def test_before_the_first_tick_everything_lies_ahead() -> None:
    """Without a clock nobody has bought anything yet; the first tick counts all of it at once."""
    stored = StoredAccount(DEFAULT)
    stored.take([purchase(str(day), day) for day in range(1, 500)])
    assert stored.account.day == NO_DAY
    assert stored.standing == Standing(Stage.PROSPECT, 0, 1)
    assert stored.account.due_day == NO_DAY + 1
    stored.tick(499)
    assert stored.standing == Standing(Stage.ESTABLISHED, 36_500, 1)
    assert stored.account.due_day == 500


def test_the_last_days_that_can_be_counted() -> None:
    """A due day beyond the calendar never comes, and nothing overflows."""
    stored = StoredAccount(DEFAULT)
    stored.tick(65_000)
    stored.take([purchase("1", 65_534), purchase("2", 65_000), signup("3", 65_534)])
    assert stored.account.due_day == 65_090
    stored.tick(65_090)
    stored.tick(65_365)
    assert stored.standing == Standing(Stage.ESTABLISHED, 0, 65_000)
    stored.tick(65_534)
    assert stored.standing == Standing(Stage.ESTABLISHED, 100, 65_000)
    assert stored.account.due_day == NEVER


def test_a_clock_that_goes_back_changes_nothing() -> None:
    """An account is advanced, never taken back."""
    account = Account(ACCOUNT_ID)
    account.apply(purchase("1", 5), entry_id_of(purchase("1", 5)), DEFAULT)
    account.advance(10, DEFAULT)
    assert account.advance(4, DEFAULT) is None
    assert (account.day, account.revenue_minor) == (10, 100)


def test_time_alone_costs_nothing_while_an_account_is_not_due() -> None:
    """A purchase a month needs to be looked at when it graduates and when a month leaves, not every day."""
    stored = StoredAccount(DEFAULT)
    for day in range(1, 366):
        stored.tick(day)
        if day % 30 == 0:
            stored.take([purchase(str(day), day)])
    advances = stored.advances
    for day in range(366, 800):
        stored.tick(day)
    assert stored.standing == Standing(Stage.ESTABLISHED, 0, 30)
    assert stored.advances - advances <= 12 + 2
    assert stored.history.open == b""


def test_statements_without_revenue_leave_the_store_too() -> None:
    """An account that only signs up, again and again, does not keep its ids for ever."""
    stored = StoredAccount(DEFAULT)
    for day in range(1, 3_000):
        stored.tick(day)
        if day < 2_000:
            stored.take([signup(str(day), day)])
            assert len(stored.history.blocks) <= 365 // OPEN_ENTRIES_MAX + 3
    assert stored.history.blocks == {}
    assert stored.advances < 2_200


def test_free_purchases_leave_the_store_too() -> None:
    """Each as a day with a purchase that leaves the window, and its ids with their block."""
    stored = StoredAccount(DEFAULT)
    for day in range(1, 3_000):
        stored.tick(day)
        if day < 2_000:
            stored.take([purchase(str(day), day, 0)])
            assert len(stored.history.blocks) <= 365 // OPEN_ENTRIES_MAX + 3
    assert stored.history.blocks == {}
    assert stored.advances < 2_200


def test_engagements_are_kept_for_their_horizon_only() -> None:
    """However many come, what is stored does not grow beyond the horizon."""
    policy = DEFAULT.with_changes(engagement_days=10)
    stored = StoredAccount(policy)
    for day in range(1, 300):
        stored.tick(day)
        stored.take([engagement(f"{day}.{n}", day) for n in range(7)])
        assert len(stored.engagements.blocks) <= 70 // OPEN_ENTRIES_MAX + 3
        stored.reopen()
    assert stored.take([engagement("299.0", 299), engagement("290.6", 290)]) == [False, False]
    for _ in range(2):
        assert stored.take([engagement("new", 290), engagement("too old to be remembered", 289)])[1]
    assert stored.take([engagement("new", 290)]) == [False]
    assert stored.standing == Standing(Stage.PROSPECT, 0, NEVER)


@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 1_000_000), st.integers(0, 1_000_000))
def test_an_engagement_keeps_its_kind_and_its_weight(kind: str, other: str, weight: int, other_weight: int) -> None:
    """Both fit one value of the ledger; the kind can be told whatever the weight."""
    value, other_value = engagement_value(kind, weight), engagement_value(other, other_weight)
    assert -(2**63) <= value < 2**63
    assert value & 0xFFFFFFFF == weight
    assert (engagement_kind(value) == engagement_kind(other_value)) == (kind == other)


def test_ids_are_told_apart_by_topic() -> None:
    """A purchase, a signup and an engagement may bear the same id: each is new."""
    stored = StoredAccount(DEFAULT)
    stored.tick(1_000)
    same: list[Event] = [purchase("1", 1_000), signup("1", 1_000), engagement("1", 1_000)]
    assert stored.take(same) == [True, True, True]
    assert stored.take(same) == [False, False, False]
    assert [reason_of(event) for event in [*same, purchase("2", 1, refund=True)]] == [
        Reason.PURCHASE,
        Reason.SIGNUP,
        Reason.ENGAGEMENT,
        Reason.REFUND,
    ]


statements = st.tuples(
    st.sampled_from(["name", "attributes.region", "attributes.employees"]),
    st.one_of(st.integers(-2, 2), st.sampled_from([0.0, -0.0, 1.0, 2.5]), st.sampled_from(["", "1", "EU"])),
    st.integers(1, 3),
)


def _shown(profile: Profile) -> dict[str, tuple[str, int]]:
    """With 1, 1.0 and -0.0 told apart, which are equal in Python and not in JSON."""
    return {field: (repr(value), at) for field, (value, at) in profile.fields.items()}


@settings(max_examples=200)
@given(st.lists(statements, max_size=12), st.randoms(use_true_random=False))
def test_of_each_field_the_latest_statement_holds_whatever_the_order(
    stated: list[tuple[str, AttributeValue, int]], rng: random.Random
) -> None:
    """Also where two are of the same instant; telling one twice changes nothing."""
    profile, other = Profile(), Profile()
    for statement in stated:
        profile.state(*statement)
    again = [*stated, *stated[:4]]
    rng.shuffle(again)
    for statement in again:
        other.state(*statement)
    assert _shown(profile) == _shown(other)
    for field, (value, at) in profile.fields.items():
        latest = max(stated_at for name, _, stated_at in stated if name == field)
        assert at == latest
        assert repr(value) in {repr(v) for name, v, when in stated if (name, when) == (field, latest)}


def test_a_signup_states_only_the_fields_it_has() -> None:
    """A field that a later signup leaves out keeps what it said before; one that is late only fills gaps."""
    stored = StoredAccount(DEFAULT)
    stored.take(
        [
            Signup(ACCOUNT_ID, "2", 2_000, None, {"region": "EU", "employees": 7}),
            Signup(ACCOUNT_ID, "3", 3_000, "Acme", {"region": "US"}),
            Signup(ACCOUNT_ID, "1", 1_000, "Old", {"region": "??", "owner": "kim"}),
        ]
    )
    assert stored.account.profile is not None
    assert stored.account.profile.fields == {
        "name": ("Acme", 3_000),
        "attributes.region": ("US", 3_000),
        "attributes.employees": (7, 2_000),
        "attributes.owner": ("kim", 1_000),
    }
    stored.account.profile.changed = False
    stored.take([Signup(ACCOUNT_ID, "4", 500, "Older", {})])
    assert not stored.account.profile.changed
