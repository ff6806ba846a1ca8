"""The what-if against installations that really ran under the other policy, fed the same events."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.account import Account, Standing, entry_id_of
from segmentation.events import MICROSECONDS_PER_DAY, Purchase
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.population import Population
from segmentation.segments import Segment, Stage
from segmentation.what_if import EFFECTS, Effect, WhatIf, field_effects, what_if
from tests.segmentation.brute_force import position
from tests.segmentation.reference_population import snapshot

BEGIN, END = 1_000, 1_030
Log = dict[str, list[tuple[int, int]]]
"""Account -> (day, amount in minor units) of each purchase and refund."""

amounts = st.one_of(st.sampled_from([0, 1, 1, 2, 100, -1, -100]), st.integers(-50, 10**6))
logs = st.dictionaries(
    st.integers(0, 30).map("account-{}".format),
    st.lists(st.tuples(st.integers(BEGIN - 20, END + 3), amounts), max_size=6),
    max_size=25,
)


@st.composite
def policies(draw: st.DrawFn, bands: tuple[str, ...]) -> Policy:
    """A policy with a short window, so that revenue leaves it meanwhile."""
    shares: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"key": 30, "enterprise": 50, "commercial": 20},
                {"key": 10, "enterprise": 20, "commercial": 70},
                {"key": "33.33", "enterprise": "33.34", "commercial": "33.33"},
            ]
        )
    )
    return Policy.default().with_changes(
        window_days=25,
        tiers=shares,
        basis=draw(st.sampled_from(["revenue", "accounts"])),
        band=draw(st.sampled_from(bands)),
        new_start_days=draw(st.sampled_from([0, 1, 7, 12, 40])),
    )


class Ran(NamedTuple):
    """An installation that took in a log, day by day."""

    accounts: dict[str, Account]
    population: Population


def ran(policy: Policy, log: Log) -> Ran:
    """Every account is told of, on every day on which anything is new, as the account stage tells of it."""
    accounts = {account_id: Account(account_id, day=BEGIN - 21) for account_id in log}
    population = Population("all", basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp)
    for day in range(BEGIN - 20, END + 1):
        standings = []
        for account_id, account in accounts.items():
            reason = account.advance(day, policy)
            came = [(number, event) for number, event in enumerate(log[account_id]) if min(event[0], END) == day]
            for number, (_, amount_minor) in came:
                purchase = Purchase(
                    account_id, f"{number}", day * MICROSECONDS_PER_DAY, log[account_id][number][0], amount_minor,
                    amount_minor < 0,
                )  # fmt: skip
                account.apply(purchase, entry_id_of(purchase), policy)
            if reason or came or day == END:
                stage = str(account.stage(policy.new_start_days))
                told = str(reason or "purchase")
                standings.append(
                    Standing(account_id, stage, account.revenue_minor, account.version, day, told, None, None)
                )
        population.apply(standings, day * MICROSECONDS_PER_DAY)
    return Ran(accounts, population)


def asked(here: Ran, present: Policy, other: Policy) -> WhatIf:
    """The what-if of an installation."""
    stages = {account_id: str(account.stage(other.new_start_days)) for account_id, account in here.accounts.items()}
    return what_if({"all": here.population.members.values()}, present, other, stages=stages)


def would_be(here: Ran, result: WhatIf) -> dict[str, Segment]:
    """Every account's segment as the what-if has it."""
    now = {account_id: member.current_segment for account_id, member in here.population.members.items()}
    for shift in result.shifts:
        assert now[shift.account_id] is shift.previous
        assert shift.current is not shift.previous
    return now | {shift.account_id: shift.current for shift in result.shifts}


@given(logs, policies(bands=("0", "2")), policies(bands=("0",)))
def test_without_a_band_it_is_what_a_new_installation_says(log: Log, present: Policy, other: Policy) -> None:
    """Segments, cutoffs, and what each segment holds; whatever happened under the present policy."""
    here, there = ran(present, log), ran(other, log)
    result = asked(here, present, other)
    assert would_be(here, result) == {
        account_id: member.current_segment for account_id, member in there.population.members.items()
    }
    assert result.cutoffs["all"].before_minor == here.population.tiers.cutoffs()
    assert result.cutoffs["all"].after_minor == there.population.tiers.cutoffs()
    for run, held in ((here, result.before), (there, result.after)):
        for segment in Segment:
            inside = [m for m in run.population.members.values() if m.current_segment is segment]
            expected = (len(inside), sum(member.revenue_minor for member in inside))
            assert held.get(segment, (0, 0)) == expected


@given(logs, policies(bands=("0", "2", "4.5")), policies(bands=("2", "4.5")))
def test_with_a_band_everybody_is_on_an_allowed_side_and_moves_only_if_not(
    log: Log, present: Policy, other: Policy
) -> None:
    """At each boundary of the other policy; who was ranked and may stay, stays."""
    here = ran(present, log)
    found = would_be(here, asked(here, present, other))
    order = [Segment.KEY, Segment.ENTERPRISE, Segment.COMMERCIAL]
    stages = {account_id: account.stage(other.new_start_days) for account_id, account in here.accounts.items()}
    members = here.population.members
    ranked = [
        members[account_id]
        for account_id, stage in stages.items()
        if stage is Stage.ESTABLISHED and members[account_id].revenue_minor > 0
    ]
    revenues = [member.revenue_minor for member in ranked]
    for member in ranked:
        above, total = position(revenues, member.revenue_minor, Basis(other.basis))

        def allowed(tier: int, above: int = above, total: int = total) -> bool:
            return all(
                above * 10_000 < (boundary + other.band_bp) * total
                if tier <= number
                else above * 10_000 >= (boundary - other.band_bp) * total
                for number, boundary in enumerate(other.boundaries)
            )

        tier = order.index(found[member.account_id])
        assert allowed(tier)
        if member.tier is not None and allowed(member.tier):
            assert tier == member.tier
        if member.tier is None:  # it enters, and enters where its position is
            assert tier == sum(above * 10_000 >= boundary * total for boundary in other.boundaries)
    for account_id, stage in stages.items():
        if stage is not Stage.ESTABLISHED:
            assert found[account_id] is Segment(stage)
        elif members[account_id].revenue_minor <= 0:
            assert found[account_id] is Segment.COMMERCIAL


@given(logs, policies(bands=("0", "2")))
def test_the_same_policy_moves_nobody(log: Log, present: Policy) -> None:
    """And nothing of what is asked is left behind in the members."""
    here = ran(present, log)
    before = snapshot(here.population)
    result = asked(here, present, present)
    assert result.shifts == [] and result.matrix() == {}
    assert result.before == result.after
    assert len({*result.cutoffs["all"]}) == 1
    asked(here, present, present.with_changes(basis="accounts", new_start_days=3, band=0))
    assert snapshot(here.population) == before


@given(logs, policies(bands=("0", "2")), policies(bands=("0", "2")))
def test_its_numbers_add_up(log: Log, present: Policy, other: Policy) -> None:
    """Who moves leaves one segment and enters another; the largest come first."""
    result = asked(ran(present, log), present, other)
    assert result.shifts == sorted(result.shifts, key=lambda shift: (-shift.revenue_minor, shift.account_id))
    matrix = result.matrix()
    assert sum(held.accounts for held in matrix.values()) == len(result.shifts)
    assert sum(held.revenue_minor for held in matrix.values()) == result.moved_revenue_minor
    assert result.accounts == len(log)
    for place in (0, 1):
        for segment in Segment:
            came = sum(held[place] for (_, to), held in matrix.items() if to is segment)
            left = sum(held[place] for (previous, _), held in matrix.items() if previous is segment)
            after, before = result.after.get(segment, (0, 0)), result.before.get(segment, (0, 0))
            assert after[place] - before[place] == came - left


@pytest.mark.parametrize(
    ("changes", "effects"),
    [
        ({}, {}),
        ({"basis": "accounts", "band": 0}, {"band": Effect.ANSWERED, "basis": Effect.ANSWERED}),
        (
            {"tiers": {"key": 20, "enterprise": 60, "commercial": 20}},
            {"tiers.enterprise": Effect.ANSWERED, "tiers.key": Effect.ANSWERED},
        ),
        ({"new_start_days": 30}, {"new_start_days": Effect.ANSWERED}),
        (
            {"version": "x", "engagement_days": 1, "engagement_weights": {"login": 2}},
            {"engagement_days": Effect.NONE, "engagement_weights.login": Effect.NONE, "version": Effect.NONE},
        ),
        (
            {"window_days": 1, "future_days": 1, "rates": {}, "base_currency": "CHF"},
            {
                "base_currency": Effect.UNKNOWN,
                "future_days": Effect.UNKNOWN,
                "rates.EUR": Effect.UNKNOWN,
                "window_days": Effect.UNKNOWN,
            },
        ),
    ],
)
def test_of_each_field_it_is_said_what_can_be_said(changes: dict[str, object], effects: dict[str, Effect]) -> None:
    """What is not in the numbers has its reason."""
    found = field_effects(Policy.default(), Policy.default().with_changes(**changes))
    assert {field.difference.field: field.effect for field in found} == effects
    assert all(bool(field.why) is (field.effect is not Effect.ANSWERED) for field in found)


def test_every_field_of_a_policy_has_its_effect() -> None:
    """One that is new in the policy cannot be forgotten here."""
    assert EFFECTS.keys() == {field.alias or name for name, field in Policy.model_fields.items()}
