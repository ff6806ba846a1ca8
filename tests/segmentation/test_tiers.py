"""The tiers against the definitions by brute force, and what they do at the edges."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.order_index import LOAD, UNREACHABLE_MINOR, Basis
from segmentation.tiers import Cause, Distance, Move, Tiers
from tests.segmentation.brute_force import BruteForce, position

Batch = list[tuple[str, int | None]]

STEPS = 90
"""Batches for each of the 64 configurations: 5,760 of them take a few seconds."""

REGIMES: dict[str, Callable[[random.Random], int]] = {
    "ties": lambda rng: rng.randint(1, 6),
    "few": lambda rng: rng.randint(1, 60),
    # One account may hold nearly everything.
    "giant": lambda rng: rng.choice((1, 2, 3, 10**3, 10**15)) * rng.randint(1, 3),
    "wide": lambda rng: int(rng.lognormvariate(9, 1.5)) + 1,
}

CONFIGURATIONS = [
    *product(Basis, (0, 100, 200, 500), REGIMES, [(3000, 8000)]),
    *product(Basis, (0, 300), ("ties", "wide"), [(5000,), (200, 9800), (4000, 4700, 5300), (0, 10000)]),
]


def random_batch(rng: random.Random, revenues: dict[str, int], size: int, regime: str) -> Batch:
    """New, changed, nudged and leaving accounts, some of them more than once."""
    leaving = rng.choice((0, 0.1, 0.1, 0.5, 1 if rng.random() < 0.1 else 0))
    nudged = rng.random() < 0.5
    batch: Batch = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 10, rng.randint(1, 50)))):
        account = f"account-{rng.randrange(size)}"
        if rng.random() < leaving:
            batch.append((account, None))
        elif nudged and account in revenues:
            batch.append((account, max(1, revenues[account] + rng.choice((-2, -1, 1, 2)))))
        else:
            batch.append((account, REGIMES[regime](rng)))
    return batch


def assert_same(tiers: Tiers, reference: BruteForce) -> None:
    """Every answer of the tiers is what the definitions say."""
    tiers._check()
    assert {account: (revenue, tier) for account, revenue, tier in tiers} == {
        account: (revenue, reference.tier(account)) for account, revenue in reference.revenues.items()
    }
    assert tiers.cutoffs() == tiers.gates(None) == reference.cutoffs()
    everyone = list(reference.revenues.values())
    for revenue in [0, 1, *everyone[:3], max(everyone, default=0) + 1]:
        for basis in Basis:
            assert tiers.position(revenue, basis) == position(everyone, revenue, basis)


@pytest.mark.parametrize(("basis", "band", "regime", "boundaries"), CONFIGURATIONS)
def test_batches_give_what_brute_force_gives(basis: Basis, band: int, regime: str, boundaries: tuple[int, ...]) -> None:
    """After every random batch the moves, their causes and the whole state equal the brute-force ones."""
    rng = random.Random(f"{basis} {band} {regime} {boundaries}")
    tiers = Tiers(basis=basis, boundaries=boundaries, band=band, load=2)
    reference = BruteForce(basis, boundaries, band)
    size, load = 10, 2
    for step in range(STEPS):
        if step % 30 == 0:
            size, load = rng.choice((1, 3, 10, 25, 50)), rng.choice((1, 2, 4, 8, LOAD))
        if step % 10 == 0:
            # A restart, from nothing but the tier and revenue of each account.
            tiers = Tiers(basis=basis, boundaries=boundaries, band=band, members=list(tiers), load=load)
        batch = random_batch(rng, reference.revenues, size, regime)
        moves, expected = tiers.apply(batch), reference.apply(batch)
        assert sorted(moves, key=str) == sorted(expected, key=str), f"batch {step}: {batch}"
        assert_same(tiers, reference)


def test_random_batches_reach_every_kind_of_move() -> None:
    """The random batches of the test above are worth something: all that can happen happens in them."""
    rng = random.Random(1)
    seen: Counter[str] = Counter()
    reference = BruteForce(Basis.REVENUE, (3000, 8000), 200)
    for step in range(300):
        batch = random_batch(rng, reference.revenues, rng.choice((1, 25, 25)), list(REGIMES)[step // 75])
        for move in reference.apply(batch):
            seen[move.cause] += 1
            seen["entered"] += move.previous is None
            seen["left"] += move.current is None
            seen["displaced"] += move.account not in dict(batch)
            seen["two tiers at once"] += {move.previous, move.current} == {0, 2}
    assert min(seen[what] for what in [*Cause, "entered", "left", "displaced", "two tiers at once"]) >= 5


@settings(max_examples=150)
@given(
    basis=st.sampled_from(Basis),
    band=st.sampled_from([0, 200, 1000]),
    batches=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from("abcdefgh"),
                st.one_of(st.none(), st.integers(1, 12), st.sampled_from([10**6, 10**12])),
            ),
            max_size=6,
        ),
        max_size=12,
    ),
)
def test_any_prefix_gives_what_brute_force_gives(basis: Basis, band: int, batches: list[Batch]) -> None:
    """The same comparison on batches that Hypothesis chooses, and shrinks when they differ."""
    tiers = Tiers(basis=basis, boundaries=(3000, 8000), band=band, load=1)
    reference = BruteForce(basis, (3000, 8000), band)
    for batch in batches:
        assert sorted(tiers.apply(batch), key=str) == sorted(reference.apply(batch), key=str)
        assert_same(tiers, reference)


@settings(max_examples=100)
@given(
    basis=st.sampled_from(Basis),
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(1, 50))), max_size=6),
        max_size=12,
    ),
)
def test_without_a_band_history_does_not_matter(basis: Basis, batches: list[Batch]) -> None:
    """With band 0 the tiers are a function of the revenues: batch by batch, or all at once."""
    one_by_one, at_once = (Tiers(basis=basis, boundaries=(3000, 8000), band=0, load=load) for load in (1, LOAD))
    for batch in batches:
        one_by_one.apply(batch)
    at_once.apply([standing for batch in batches for standing in batch])
    assert sorted(one_by_one) == sorted(at_once)


@pytest.mark.parametrize(("basis", "band", "load"), list(product(Basis, (0, 200, 500), (2, LOAD))))
def test_a_distance_ends_exactly_at_the_gate(basis: Basis, band: int, load: int) -> None:
    """Gaining `up` reaches the next gate and one less does not; losing `down` misses one's own."""
    rng = random.Random(band)
    tiers = Tiers(basis=basis, boundaries=(3000, 8000), band=band, load=load)
    for _ in range(5):
        tiers.apply([(f"account-{rng.randrange(80)}", REGIMES["wide"](rng)) for _ in range(40)])
    seen = set()
    for account, revenue, tier in tiers:
        gates = [UNREACHABLE_MINOR if gate is None else gate for gate in tiers.gates(tier)]

        def number_missed(revenue: int, gates: list[int] = gates) -> int:
            return sum(revenue < gate for gate in gates)

        assert number_missed(revenue) == tier
        up, down = tiers.distance(account)
        assert (up is None, down is None) == (tier == 0, tier == 2)
        if up is not None:
            assert up > 0
            assert number_missed(revenue + up) < tier == number_missed(revenue + up - 1)
        if down is not None:
            assert 0 < down <= revenue
            assert number_missed(revenue - down) > tier == number_missed(revenue - down + 1)
        seen.add(tier)
    assert seen == {0, 1, 2}


def test_a_distance_by_accounts_is_what_it_takes() -> None:
    """An account that weighs 1 does not move the gates by its gain: `up` moves it, and one less does not."""
    members = [(f"account-{i}", 100 - 3 * i, 0 if i < 6 else 1 if i < 16 else 2) for i in range(20)]

    def moves_after(gain: int) -> list[Move]:
        tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(3000, 8000), band=0, members=members)
        assert tiers.distance("account-10").up == 85 - 70
        return tiers.apply([("account-10", 70 + gain)])

    assert moves_after(14) == []
    assert moves_after(15) == [Move("account-10", 1, 0, Cause.OWN)]
    # The lowest key account was its equal so far; now it is pushed to position 6/20.
    assert moves_after(16) == [
        Move("account-10", 1, 0, Cause.OWN),
        Move("account-5", 0, 1, Cause.BOUNDARY_MOVED),
    ]


@pytest.mark.parametrize(("basis", "band"), list(product(Basis, (0, 200))))
def test_the_only_account_is_key(basis: Basis, band: int) -> None:
    """Nothing is above it: its position is 0. It comes and goes, and an empty population has no cutoffs."""
    tiers = Tiers(basis=basis, boundaries=(3000, 8000), band=band)
    assert tiers.apply([]) == [] == tiers.apply([("x", None)])
    assert tiers.cutoffs() == tiers.gates(None) == tiers.gates(1) == (None, None)
    assert tiers.apply([("x", 5)]) == [Move("x", None, 0, Cause.OWN)]
    assert (tiers.cutoffs(), tiers.distance("x")) == ((5, 5), Distance(up=None, down=1))
    assert tiers.apply([("x", 1)]) == [], "its revenue does not matter"
    assert tiers.apply([("x", None)]) == [Move("x", 0, None, Cause.OWN)]
    assert (len(tiers), tiers.total(), tiers.cutoffs()) == (0, 0, (None, None))
    tiers._check()


@pytest.mark.parametrize(("basis", "band"), list(product(Basis, (0, 200))))
def test_equal_revenue_is_an_equal_tier(basis: Basis, band: int) -> None:
    """Fifty accounts with the same revenue all have position 0; one with less has position 50/51."""
    tiers = Tiers(basis=basis, boundaries=(3000, 8000), band=band, load=4)
    moves = tiers.apply([(f"account-{i}", 9) for i in range(50)])
    assert {move.current for move in moves} == {0}
    assert tiers.apply([("less", 8)]) == [Move("less", None, 2, Cause.OWN)]
    tiers._check()


def test_a_giant_leaves_no_middle() -> None:
    """One account with nearly all revenue is key, all others have a position near 1: enterprise is empty."""
    tiers = Tiers(basis=Basis.REVENUE, boundaries=(3000, 8000), band=0)
    tiers.apply([("giant", 10**12), *[(f"small-{i}", 1 + i) for i in range(9)]])
    assert {account: tier for account, _, tier in tiers} == {
        "giant": 0,
        **{f"small-{i}": 2 for i in range(9)},
    }
    assert tiers.cutoffs() == (10**12, 10**12)
    moves = tiers.apply([("giant", None)])
    assert moves[0] == Move("giant", 0, None, Cause.OWN)
    assert {move.cause for move in moves[1:]} == {Cause.BOUNDARY_MOVED}


def test_a_position_on_the_boundary_is_not_above_it() -> None:
    """Of ten accounts three are key: position 3/10 is not less than 30 %, nor 8/10 less than 80 %."""
    tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(3000, 8000), band=0)
    tiers.apply([(f"account-{i}", 10 - i) for i in range(10)])
    assert [tiers.tier(f"account-{i}") for i in range(10)] == [0] * 3 + [1] * 5 + [2] * 2
    assert tiers.cutoffs() == (8, 3)
    assert tiers.position(tiers.revenue_of("account-3")) == (3, 10)


def test_the_band_ends_exactly_where_it_says() -> None:
    """Above until position >= boundary + band, below until position < boundary - band."""
    tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(3000,), band=500)
    tiers.apply([(f"account-{i:02}", 1000 - 10 * i) for i in range(100)])
    assert (tiers.tier("account-29"), tiers.tier("account-30")) == (0, 1)
    # Position 0.34 is still above, 0.35 no more.
    assert tiers.apply([("account-29", 1000 - 10 * 34 - 5)]) == []
    assert tiers.position(tiers.revenue_of("account-29")) == (34, 100)
    assert tiers.apply([("account-29", 1000 - 10 * 35 - 5)]) == [Move("account-29", 0, 1, Cause.OWN)]
    assert tiers.position(tiers.revenue_of("account-29")) == (35, 100)
    # Position 0.25 is still below, 0.24 no more.
    assert tiers.apply([("account-29", 1000 - 10 * 24 - 5)]) == []
    assert tiers.position(tiers.revenue_of("account-29")) == (25, 100)
    assert tiers.apply([("account-29", 1000 - 10 * 23 - 5)]) == [Move("account-29", 1, 0, Cause.OWN)]


def test_each_cause_has_its_case() -> None:
    """Own: the old gates would have moved it. Boundary: the new gates would. Combined: it took both."""

    def population() -> Tiers:
        tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(5000,), band=0)
        tiers.apply([("a", 40), ("b", 30), ("c", 20), ("d", 10)])
        return tiers

    assert population().apply([("c", 35)]) == [
        Move("c", 1, 0, Cause.OWN),
        Move("b", 0, 1, Cause.BOUNDARY_MOVED),
    ]
    # The gate falls from 30 to 19: c's old 20 would have passed it too, so it rises though it lost revenue.
    assert population().apply([("c", 19), ("b", 5)]) == [
        Move("c", 1, 0, Cause.BOUNDARY_MOVED),
        Move("b", 0, 1, Cause.OWN),
    ]
    # The gate falls from 30 to 29: c's old 20 would not pass it, and its new 29 would not have passed 30.
    assert population().apply([("c", 29), ("b", 5)]) == [
        Move("c", 1, 0, Cause.COMBINED),
        Move("b", 0, 1, Cause.OWN),
    ]


def test_the_cause_is_right_in_the_first_batch_after_a_restart() -> None:
    """The old gates come back with the members: no empty batch is needed to know them."""
    members = [("a", 40, 0), ("b", 30, 0), ("c", 20, 1), ("d", 10, 1)]
    tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(5000,), band=0, members=members)
    assert tiers.cutoffs() == (30,)
    assert tiers.apply([("c", 35)])[0] == Move("c", 1, 0, Cause.OWN)


def test_the_last_of_an_accounts_revenues_counts() -> None:
    """A batch is one instant: in between, nothing happened."""
    tiers = Tiers(basis=Basis.REVENUE, boundaries=(3000, 8000), band=0)
    tiers.apply([("a", 100), ("b", 100)])
    assert tiers.apply([("c", 10**6), ("c", None)]) == []
    assert "c" not in tiers
    assert tiers.apply([("a", None), ("a", 10**6), ("a", 100)]) == []
    assert tiers.apply([("c", None), ("c", 1)]) == [Move("c", None, 2, Cause.OWN)]
    tiers._check()


def test_an_account_that_leaves_is_not_displaced_too() -> None:
    """The same batch lets an account leave and moves the gates past its revenue: it moves once, out."""
    tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(5000,), band=0)
    tiers.apply([("a", 40), ("b", 30), ("c", 20), ("d", 10)])
    assert tiers.apply([("x", 70), ("y", 60), ("z", 50), ("b", None)]) == [
        Move("x", None, 0, Cause.OWN),
        Move("y", None, 0, Cause.OWN),
        Move("z", None, 0, Cause.OWN),
        Move("b", 0, None, Cause.OWN),
        Move("a", 0, 1, Cause.BOUNDARY_MOVED),
    ]
    tiers._check()


def test_moves_come_in_an_order_that_depends_on_nothing_hidden() -> None:
    """First the batch in its order, then the displaced from the highest revenue down, then by name."""
    members = [(f"account-{i}", 10 + i // 2, 0) for i in range(8)]
    expected = None
    for load, some_order in product((1, 3, LOAD), (members, members[::-1])):
        tiers = Tiers(basis=Basis.REVENUE, boundaries=(3000,), band=0, members=some_order, load=load)
        tiers.apply([])
        for account, revenue, _ in members:
            tiers.apply([(account, revenue)])
        moves = tiers.apply([("z", 10**6), ("y", 10**5), ("account-0", None)])
        assert [move.account for move in moves[:3]] == ["z", "y", "account-0"]
        displaced = [(-tiers.revenue_of(move.account), move.account) for move in moves[3:]]
        assert displaced == sorted(displaced) and displaced
        assert expected in (None, moves)
        expected = moves


def test_other_rules_move_whom_they_displace_with_the_next_batch() -> None:
    """Restored under another boundary, accounts keep their tiers until `apply`, an empty one too."""
    old = Tiers(basis=Basis.ACCOUNTS, boundaries=(3000, 8000), band=0)
    old.apply([(f"account-{i:02}", 100 - i) for i in range(100)])
    new = Tiers(basis=Basis.ACCOUNTS, boundaries=(5000, 8000), band=500, members=list(old))
    assert sorted(new) == sorted(old)
    moves = new.apply([])
    assert moves == [Move(f"account-{i}", 1, 0, Cause.BOUNDARY_MOVED) for i in range(30, 45)]
    assert new.apply([]) == []
    new._check()
    # Repeating an account's revenue is no news of its own.
    new = Tiers(basis=Basis.ACCOUNTS, boundaries=(5000, 8000), band=500, members=list(old))
    assert new.apply([("account-40", 60)]) == moves


def test_a_band_wider_than_a_boundary_lets_nobody_rise() -> None:
    """With 1 % and a band of 2 points no position is low enough to rise: there is no way up."""
    members = [("a", 3, 0), ("b", 2, 1)]
    tiers = Tiers(basis=Basis.ACCOUNTS, boundaries=(100,), band=200, members=members)
    assert tiers.gates(1) == (None,)
    assert tiers.distance("b") == Distance(up=None, down=None)
    assert tiers.apply([("b", 10**9), ("a", 1)]) == [Move("a", 0, 1, Cause.OWN)]


def test_cutoffs_before_and_after_tell_how_far_a_batch_moved_them() -> None:
    """One large purchase raises both cutoffs."""
    tiers = Tiers(basis=Basis.REVENUE, boundaries=(3000, 8000), band=200)
    tiers.apply([(f"account-{i}", 100 + i) for i in range(100)])
    before = tiers.cutoffs()
    tiers.apply([("account-0", 2000)])
    assert (before, tiers.cutoffs()) == ((176, 126), (184, 130))


@pytest.mark.parametrize("revenue", [0, -1, UNREACHABLE_MINOR])
def test_a_refused_batch_changes_nothing(revenue: int) -> None:
    """One bad revenue refuses the batch before the first account of it is taken in."""
    tiers = Tiers(basis=Basis.REVENUE, boundaries=(3000, 8000), band=200, members=[("a", 5, 0)])
    with pytest.raises(ValueError, match="cannot be ranked"):
        tiers.apply([("b", 7), ("a", None), ("c", revenue)])
    tiers._check()
    assert list(tiers) == [("a", 5, 0)]


@pytest.mark.parametrize(
    ("boundaries", "band", "members"),
    [
        ((8000, 3000), 0, []),
        ((3000, 3000), 0, []),
        ((-1,), 0, []),
        ((10001,), 0, []),
        ((3000,), -1, []),
        ((3000,), 0, [("a", 0, 0)]),
        ((3000,), 0, [("a", 1, 2)]),
        ((3000,), 0, [("a", 1, 0), ("a", 2, 0)]),
    ],
)
def test_rules_and_members_out_of_range_are_refused(
    boundaries: tuple[int, ...], band: int, members: list[tuple[str, int, int]]
) -> None:
    """The constructor raises ValueError rather than rank by nonsense."""
    with pytest.raises(ValueError):
        Tiers(basis=Basis.REVENUE, boundaries=boundaries, band=band, members=members)


def test_nobody_asks_for_accounts_outside_the_population() -> None:
    """Questions about one account raise KeyError when it is not there."""
    tiers = Tiers(basis=Basis.REVENUE, boundaries=(3000, 8000), band=200)
    for question in (tiers.tier, tiers.revenue_of, tiers.distance):
        with pytest.raises(KeyError):
            question("nobody")
