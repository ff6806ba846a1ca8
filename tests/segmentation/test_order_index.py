"""The order index against sums over all accounts."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from segmentation.order_index import UNREACHABLE_MINOR, WHOLE_BP, Basis, OrderIndex
from tests.segmentation import brute_force

GROUPS = 3

# Many ties, some ties, and amounts of which a few weigh more than all others together.
REVENUES = st.one_of(st.integers(1, 5), st.integers(1, 200), st.sampled_from([10**3, 10**9, 10**15]))


class OrderIndexMachine(RuleBasedStateMachine):
    """Random changes, each followed by a comparison with a plain dict of the same accounts."""

    present: Bundle[str] = Bundle("present")

    @initialize(
        target=present,
        members=st.dictionaries(
            st.text("abc", max_size=4), st.tuples(REVENUES, st.integers(0, GROUPS - 1)), max_size=40
        ),
        load=st.integers(1, 6),
    )
    def fill(self, members: dict[str, tuple[int, int]], load: int) -> Any:
        self.expected = dict(members)
        self.index = OrderIndex(GROUPS, [(name, *held) for name, held in members.items()], load=load)
        return multiple(*members)

    @rule(target=present, number=st.integers(0, 10**6), revenue=REVENUES, group=st.integers(0, GROUPS - 1))
    def insert(self, number: int, revenue: int, group: int) -> Any:
        account = f"account-{number}"
        if account in self.expected:
            with pytest.raises(ValueError, match="already here"):
                self.index.insert(account, revenue, group)
            return multiple()
        self.index.insert(account, revenue, group)
        self.expected[account] = revenue, group
        return account

    @rule(account=consumes(present))
    def remove(self, account: str) -> None:
        assert self.index.remove(account) == self.expected.pop(account)

    @rule(account=present, revenue=REVENUES)
    def update(self, account: str, revenue: int) -> None:
        assert self.index.update(account, revenue) == self.expected[account]
        self.expected[account] = revenue, self.expected[account][1]

    @rule(account=present, group=st.integers(0, GROUPS - 1))
    def regroup(self, account: str, group: int) -> None:
        revenue, before = self.expected[account]
        self.index.regroup(account, before, group)
        self.expected[account] = revenue, group

    @rule(revenue=st.one_of(REVENUES, st.integers(-1, 201)), basis=st.sampled_from(Basis))
    def position(self, revenue: int, basis: Basis) -> None:
        assert self.index.position(revenue, basis) == brute_force.position(self.revenues(), revenue, basis)

    @rule(share_bp=st.integers(-200, WHOLE_BP + 200), basis=st.sampled_from(Basis))
    def line(self, share_bp: int, basis: Basis) -> None:
        expected = brute_force.line(self.revenues(), share_bp, basis)
        line = self.index.line(share_bp, basis)
        if expected is None:
            assert line == UNREACHABLE_MINOR
        else:
            assert line == (0 if share_bp > WHOLE_BP else expected)

    @rule(group=st.integers(0, GROUPS - 1), low=st.integers(-1, 201), high=st.integers(-1, 201))
    def members_between(self, group: int, low: int, high: int) -> None:
        assert sorted(self.index.members_between(group, low, high)) == sorted(
            (account, revenue)
            for account, (revenue, its_group) in self.expected.items()
            if its_group == group and low <= revenue < high
        )

    @invariant()
    def agrees(self) -> None:
        self.index._check()
        assert {account: (revenue, group) for account, revenue, group in self.index} == self.expected
        assert len(self.index) == len(self.expected)
        for account, (revenue, group) in self.expected.items():
            assert account in self.index
            assert (self.index.revenue_of(account), self.index.group_of(account)) == (revenue, group)

    def revenues(self) -> list[int]:
        return [revenue for revenue, _ in self.expected.values()]


def test_any_changes_in_any_order_keep_the_index_right() -> None:
    """Hypothesis chooses the changes, and shrinks what fails to the fewest of them."""
    run_state_machine_as_test(OrderIndexMachine, settings=settings(max_examples=60, stateful_step_count=40))


def filled(revenues: list[int], load: int = 4) -> OrderIndex:
    return OrderIndex(1, [(f"account-{i}", revenue, 0) for i, revenue in enumerate(revenues)], load=load)


@pytest.mark.parametrize("basis", Basis)
def test_an_empty_index_has_no_weight_and_no_line(basis: Basis) -> None:
    """Total 0: every revenue has the position 0 of 0, and no revenue is below any share."""
    index = OrderIndex(3)
    assert index.position(1, basis) == (0, 0)
    assert index.total(basis) == 0
    assert {index.line(share_bp, basis) for share_bp in (0, 1, WHOLE_BP)} == {UNREACHABLE_MINOR}
    assert not list(index)
    assert not index.members_between(0, 0, UNREACHABLE_MINOR)
    index._check()


def test_a_line_is_strictly_below_its_share() -> None:
    """A position of exactly 3/10 is not below 30 %, but it is below 30.01 %."""
    index = filled([7] * 7 + [8] * 3)
    assert index.position(7, Basis.ACCOUNTS) == (3, 10)
    assert (index.line(3000, Basis.ACCOUNTS), index.line(3001, Basis.ACCOUNTS)) == (8, 7)
    index = filled([30, 70])
    assert index.position(30, Basis.REVENUE) == (70, 100)
    assert (index.line(7000, Basis.REVENUE), index.line(7001, Basis.REVENUE)) == (70, 30)


def test_equal_revenues_share_a_bin_of_any_size() -> None:
    """A bin that grows past its limit is cut around a revenue, never within one."""
    index = filled([50] * 100 + [49, 51], load=2)
    index._check()
    assert index.position(50, Basis.ACCOUNTS) == (1, 102)
    assert index.position(49, Basis.ACCOUNTS) == (101, 102)
    assert index.position(48, Basis.REVENUE) == (5100, 5100)
    assert index.line(5000, Basis.REVENUE) == 50


def test_bins_go_with_their_accounts() -> None:
    """However accounts leave, and in whatever order, no row of empty bins stays behind."""
    names = [f"{i:04}" for i in range(1000)]
    for order in (names, names[::-1], random.Random(1).sample(names, len(names))):
        index = OrderIndex(1, [(account, 1 + i, 0) for i, account in enumerate(names)], load=8)
        for account in order:
            index.remove(account)
            assert len(index._bins) <= 4 * len(index) // 8 + 2
        index._check()


def test_a_nearly_sorted_stream_keeps_bins_small() -> None:
    """Revenues that only rise, as new accounts bring them, cut the last bin again and again."""
    index = OrderIndex(1, load=8)
    for i in range(500):
        index.insert(f"{i}", 1 + i, 0)
    index._check()
    assert max(index._bin_accounts) <= 16


@pytest.mark.parametrize("load", [1, 3, 50])
def test_any_load_gives_the_same_answers(load: int) -> None:
    """The size of the bins is a matter of speed alone."""
    rng = random.Random(load)
    revenues = [int(rng.lognormvariate(5, 1.5)) + 1 for _ in range(120)]
    index = filled(revenues, load)
    index._check()
    for basis in Basis:
        for revenue in {*revenues, *range(0, 500, 7)}:
            assert index.position(revenue, basis) == brute_force.position(revenues, revenue, basis)
        for share_bp in range(0, WHOLE_BP + 1, 397):
            assert index.line(share_bp, basis) == (brute_force.line(revenues, share_bp, basis) or UNREACHABLE_MINOR)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda index: index.insert("new", 0, 0), ValueError),
        (lambda index: index.insert("new", -5, 0), ValueError),
        (lambda index: index.insert("new", UNREACHABLE_MINOR, 0), ValueError),
        (lambda index: index.insert("new", 5, 2), ValueError),
        (lambda index: index.insert("new", 5, -1), ValueError),
        (lambda index: index.insert("here", 5, 0), ValueError),
        (lambda index: index.update("here", 0), ValueError),
        (lambda index: index.update("new", 5), KeyError),
        (lambda index: index.regroup("here", 0, 2), ValueError),
        (lambda index: index.regroup("here", 0, 1), KeyError),
        (lambda index: index.regroup("new", 0, 1), KeyError),
        (lambda index: index.remove("new"), KeyError),
        (lambda index: index.revenue_of("new"), KeyError),
        (lambda index: index.group_of("new"), KeyError),
    ],
)
def test_a_refused_change_changes_nothing(change: Callable[[OrderIndex], object], error: type[Exception]) -> None:
    """Errors come before the first write."""
    index = OrderIndex(2, [("here", 10, 1)])
    with pytest.raises(error):
        change(index)
    index._check()
    assert list(index) == [("here", 10, 1)]


@pytest.mark.parametrize(
    "members", [[("a", 0, 0)], [("a", -1, 0)], [("a", 1, 2)], [("a", 1, -1)], [("a", 1, 0), ("a", 1, 0)]]
)
def test_the_constructor_refuses_what_insert_refuses(members: list[tuple[str, int, int]]) -> None:
    """A state that was spoilt is not taken in."""
    with pytest.raises(ValueError):
        OrderIndex(2, members)


@pytest.mark.parametrize(("group_count", "load"), [(0, 1), (1, 0)])
def test_an_index_needs_groups_and_bins(group_count: int, load: int) -> None:
    """There is no index of no groups, nor with bins of no accounts."""
    with pytest.raises(ValueError):
        OrderIndex(group_count, load=load)
