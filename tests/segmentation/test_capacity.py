"""The load of roles and owners: known numbers by hand, and sums that must agree whatever the accounts are."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.capacity import Capacity, Move, OwnerLoad, SegmentLoad, capacity
from segmentation.policy import Policy
from segmentation.segments import Segment

KEY, ENTERPRISE, COMMERCIAL = Segment.KEY, Segment.ENTERPRISE, Segment.COMMERCIAL
NEW_START, PROSPECT = Segment.NEW_START, Segment.PROSPECT

POLICY = Policy.default().with_changes(
    segments={
        "key": {"role": "field", "touches_a_quarter": 10, "minutes_a_touch": 60},
        "enterprise": {"role": "field", "touches_a_quarter": 4, "minutes_a_touch": 30},
        "commercial": {"role": "inside", "touches_a_quarter": 1, "minutes_a_touch": 7},
        "new_start": {"role": "inside", "touches_a_quarter": 3, "minutes_a_touch": 5},
        "prospect": {"role": "desk", "touches_a_quarter": 6, "minutes_a_touch": 0},
    },
    team={
        "field": {"people": 1, "hours_a_quarter": 20},
        "inside": {"people": 2, "hours_a_quarter": 10},
        "desk": {"people": 0},
    },
    owners={"accounts_max": 3, "hours_a_quarter_max": 11},
)
"""Minutes a quarter: key 600, enterprise 120, commercial 7, new start 15, prospect 0."""


def test_known_numbers() -> None:
    """Nine accounts, counted by hand."""
    accounts = [
        (KEY, "kim"),
        (KEY, "lee"),
        (ENTERPRISE, "kim"),
        (COMMERCIAL, "mia"),
        (COMMERCIAL, "mia"),
        (NEW_START, "mia"),
        (NEW_START, "mia"),
        (PROSPECT, None),
        (COMMERCIAL, None),
    ]
    moves = {Move(None, KEY): 1, Move(ENTERPRISE, KEY): 1, Move(KEY, COMMERCIAL): 1, Move(NEW_START, COMMERCIAL): 2}
    found = capacity(POLICY, accounts, moves)

    assert found.segments == [
        SegmentLoad(KEY, "field", 2, 1_200, 1, 600),
        SegmentLoad(ENTERPRISE, "field", 1, 120, -1, -120),
        SegmentLoad(COMMERCIAL, "inside", 3, 21, 3, 21),
        SegmentLoad(NEW_START, "inside", 2, 30, -2, -30),
        SegmentLoad(PROSPECT, "desk", 1, 0, 0, 0),
    ]
    assert [(*role[:7], role.people_needed, role.is_short) for role in found.roles] == [
        ("field", 3, 1_320, 0, 480, 1, 20, Fraction(11, 10), True),
        ("inside", 5, 51, 1, -9, 2, 10, Fraction(51, 600), False),
        ("desk", 1, 0, 0, 0, 0, 400, 0, False),
    ]
    assert found.owners == [
        OwnerLoad("kim", 2, 720, is_over=True),  # 12 hours
        OwnerLoad("lee", 1, 600, is_over=False),  # 10 hours
        OwnerLoad("mia", 4, 44, is_over=True),  # 4 accounts
    ]
    assert found.unowned == OwnerLoad(None, 2, 7, is_over=False)


@pytest.mark.parametrize(("accounts", "is_short"), [(2, False), (3, True)])
def test_enough_is_enough(accounts: int, is_short: bool) -> None:
    """20 hours for one person with 20 hours; with a minute more there is too little."""
    policy = POLICY.with_changes(
        owners={"accounts_max": 2, "hours_a_quarter_max": 20},
        segments={**POLICY.document()["segments"], "enterprise": {"role": "field", "touches_a_quarter": 0}},
    )
    found = capacity(policy, [(KEY, "kim")] * accounts, {})

    assert found.roles[0].is_short is found.owners[0].is_over is is_short


def test_an_installation_without_accounts_asks_for_nothing() -> None:
    """All segments and roles are there, with nothing to do."""
    found = capacity(POLICY, [], {})

    assert [load.minutes_a_quarter for load in found.segments] == [0] * 5
    assert [role.people_needed for role in found.roles] == [0] * 3
    assert (found.owners, found.unowned) == ([], OwnerLoad(None, 0, 0, is_over=False))


playbooks = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["one", "two", "three"]),
        "touches_a_quarter": st.integers(0, 20),
        "minutes_a_touch": st.integers(0, 90),
    }
)
policies = st.fixed_dictionaries({str(segment): playbooks for segment in Segment}).map(
    lambda written: Policy.default().with_changes(
        segments=written,
        team={playbook["role"]: {"people": 1} for playbook in written.values()},
        owners={"accounts_max": 2, "hours_a_quarter_max": 5},
    )
)
chains = st.lists(
    st.tuples(
        st.sampled_from(["kim", "lee", "mia", None]),
        st.lists(st.sampled_from(Segment), min_size=1, max_size=6),
        st.integers(0, 5),
    ),
    max_size=30,
)
"""Accounts: an owner, the segments it had one after the other, and with how many of them the period began."""


def minutes_by_hand(policy: Policy, segment: Segment) -> int:
    """Of one account."""
    written = policy.document()["segments"][segment]
    minutes: int = written["touches_a_quarter"] * written["minutes_a_touch"]
    return minutes


def totals(found: Capacity) -> dict[str, tuple[int, int]]:
    """Accounts and minutes as each of the three views adds them up."""
    views: dict[str, list[tuple[int, int]]] = {
        "segments": [(load.accounts, load.minutes_a_quarter) for load in found.segments],
        "roles": [(load.accounts, load.minutes_a_quarter) for load in found.roles],
        "owners": [(load.accounts, load.minutes_a_quarter) for load in [*found.owners, found.unowned]],
    }
    return {
        name: (sum(accounts for accounts, _ in loads), sum(minutes for _, minutes in loads))
        for name, loads in views.items()
    }


@given(policy=policies, accounts=chains)
def test_whatever_the_accounts_all_sums_agree(
    policy: Policy, accounts: list[tuple[str | None, list[Segment], int]]
) -> None:
    """Segments, roles and owners with the unowned; and what moves did is the load now less that at the begin."""
    now = [(segments[-1], owner) for owner, segments, _ in accounts]
    moves: Counter[Move] = Counter()
    before: list[Segment] = []
    for _, segments, begun in accounts:
        before += segments[:begun][-1:]
        chain = [None, *segments]
        for place in range(min(begun, len(segments)), len(segments)):
            moves[Move(chain[place], segments[place])] += 1
    found = capacity(policy, now, moves)

    by_hand = sum(minutes_by_hand(policy, segment) for segment, _ in now)
    assert set(totals(found).values()) == {(len(now), by_hand)}
    for load in found.segments:
        assert load.accounts_change == load.accounts - before.count(load.segment)
        assert load.minutes_change == load.minutes_a_quarter - before.count(load.segment) * minutes_by_hand(
            policy, load.segment
        )
    for role in found.roles:
        then = [segment for segment in before if policy.segments.of(segment).role == role.role]
        assert role.accounts_change == role.accounts - len(then)
        assert role.minutes_change == role.minutes_a_quarter - sum(minutes_by_hand(policy, part) for part in then)
    for owner in found.owners:
        segments = [segment for segment, name in now if name == owner.owner]
        assert owner.accounts == len(segments)
        assert owner.minutes_a_quarter == sum(minutes_by_hand(policy, segment) for segment in segments)
        assert owner.is_over == (owner.accounts > 2 or owner.minutes_a_quarter > 300)
    assert found.owners == sorted(found.owners, key=lambda load: -load.minutes_a_quarter)
