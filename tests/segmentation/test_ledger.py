"""The ledger against a plain list of entries, with a store that gives it only the blocks it asks for."""

import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.account import NO_DAY
from segmentation.ledger import OPEN_ENTRIES_MAX, Ledger
from tests.segmentation.block_store import BlockStore

WINDOW_DAYS = 5

Entry = tuple[int, int, bytes]


class Take(NamedTuple):
    """Entries that arrive together: each (day relative to the clock, value, id)."""

    together: list[Entry]


class Many(NamedTuple):
    """A run of entries of one day, enough to close blocks."""

    days_ahead: int
    value: int
    entries: int


class Advance(NamedTuple):
    """The clock goes on by some days."""

    days: int


class Reload(NamedTuple):
    """The ledger is written; and read anew, or kept in memory."""

    reopened: bool


Step = Take | Many | Advance | Reload


class Model:
    """A ledger with its store, beside the list of all entries that it ever took."""

    def __init__(self) -> None:
        self.store = BlockStore()
        self.ledger = Ledger()
        self.day = NO_DAY
        self.sum = 0
        self.taken: list[Entry] = []
        self.numbered = 0

    def carry_out(self, step: Step) -> None:
        match step:
            case Take(together):
                for days_ahead, value, entry_id in together:
                    self.take(self.day + days_ahead, value, entry_id)
            case Many(days_ahead, value, entries):
                for _ in range(entries):
                    self.numbered += 1
                    self.take(self.day + days_ahead, value, b"many" + self.numbered.to_bytes(4, "big"))
            case Advance(days):
                self.advance(self.day + days)
            case Reload(reopened):
                self.store.save(self.ledger)
                assert not self.ledger.blocks
                if reopened:
                    self.ledger = self.store.reopen()

    def take(self, day: int, value: int, entry_id: bytes) -> None:
        self.store.load(self.ledger, self.ledger.blocks_for_id(entry_id))
        horizon = self.day - WINDOW_DAYS
        known = self.ledger.contains(entry_id)
        days = [taken for taken, _, taken_id in self.taken if taken_id == entry_id]
        if any(taken > horizon for taken in days):
            assert known, "an entry in the window is not found"
        if not days:
            assert not known, "an entry that never came is found"
        if known or day <= horizon or day < 1:
            return
        self.ledger.append(day, value, entry_id)
        self.taken.append((day, value, entry_id))
        if day <= self.day:
            self.sum += value

    def advance(self, day: int) -> None:
        self.store.load(self.ledger, self.ledger.blocks_for_advance(self.day, day, WINDOW_DAYS))
        change, due = self.ledger.advance(self.day, day, WINDOW_DAYS)
        self.sum += change
        self.day = day
        horizon = day - WINDOW_DAYS
        assert all(day > horizon for day, _, _ in Ledger(bytes(self.ledger.open)).entries()), "kept too long"
        sums = [self.sum_on(later) for later in range(day, day + 40)]
        assert self.sum == sums[0]
        assert due is None or due > day
        changed = next((day + n for n in range(1, len(sums)) if sums[n] != sums[n - 1]), None)
        if changed is not None:
            assert due is not None and due <= changed, "due after the sum has changed"

    def sum_on(self, day: int) -> int:
        return sum(value for taken, value, _ in self.taken if day - WINDOW_DAYS < taken <= day)


# Of zeros and ones only: two ids often begin alike, and their bytes stand in days, values and across entries too.
ids = st.binary(min_size=8, max_size=8).map(lambda data: bytes(byte & 1 for byte in data))
values = st.sampled_from([0, 0, 1, -1, 256, 2**63 - 1, -(2**63)])
days_ahead = st.integers(-WINDOW_DAYS - 1, 9)
steps = st.lists(
    st.one_of(
        st.builds(Take, st.lists(st.tuples(days_ahead, values, ids), min_size=1, max_size=12)),
        st.builds(Many, days_ahead, values, st.sampled_from([1, OPEN_ENTRIES_MAX - 1, OPEN_ENTRIES_MAX, 100])),
        st.builds(Advance, st.sampled_from([1, 1, 2, WINDOW_DAYS - 1, WINDOW_DAYS, WINDOW_DAYS + 1, 30])),
        st.builds(Reload, st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(steps)
def test_a_ledger_is_its_list_of_entries_whatever_is_loaded(steps: list[Step]) -> None:
    """Ids are found exactly, sums and due days are right, and the blocks asked for are enough."""
    model = Model()
    for step in steps:
        model.carry_out(step)


@settings(max_examples=120)
@given(steps)
def test_the_store_holds_exactly_what_the_index_names(steps: list[Step]) -> None:
    """No block is left behind, none is missing, and its summary is true; in the end nothing is stored."""
    model = Model()
    for step in steps:
        model.carry_out(step)
        if isinstance(step, Reload):
            assert model.store.blocks.keys() == {block.number for block in model.ledger.closed}
            for block in model.ledger.closed:
                entries = list(Ledger(model.store.blocks[block.number]).entries())
                assert len(entries) == OPEN_ENTRIES_MAX
                assert block.first_day == min(day for day, _, _ in entries)
                assert block.last_day == max(day for day, _, _ in entries)
                assert block.fingerprints == b"".join(entry_id[:2] for _, _, entry_id in entries)
    model.advance(model.day + 9 + WINDOW_DAYS)
    model.store.save(model.ledger)
    assert (model.store.open, model.store.index, model.store.blocks) == (b"", b"", {})
    assert model.sum == 0


@settings(max_examples=100)
@given(steps)
def test_entries_in_the_window_are_all_there(steps: list[Step]) -> None:
    """Whatever lies in the window or ahead is held once; what is held was taken."""
    model = Model()
    for step in steps:
        model.carry_out(step)
    model.store.save(model.ledger)
    held = list(model.store.everything().entries())
    horizon = model.day - WINDOW_DAYS
    alive = [entry for entry in model.taken if entry[0] > horizon]
    assert sorted(entry for entry in held if entry[0] > horizon) == sorted(alive)
    assert set(held) <= set(model.taken)


def test_a_block_number_used_again_before_saving_leaves_nothing_behind() -> None:
    """A stored block goes, its number is taken by a new block, and that goes too, all in one commit."""
    store, ledger = BlockStore(), Ledger()
    for n in range(OPEN_ENTRIES_MAX):
        ledger.append(1, 1, n.to_bytes(8, "big"))
    store.save(ledger)
    ledger.forget(1)
    for n in range(OPEN_ENTRIES_MAX):
        ledger.append(2, 1, n.to_bytes(8, "big"))
    ledger.forget(2)
    store.save(ledger)
    assert store.blocks == {}


def test_a_block_number_used_again_holds_the_new_block() -> None:
    """A stored block goes and its number is taken by a new block in the same commit: the new one is stored."""
    store, ledger = BlockStore(), Ledger()
    for n in range(OPEN_ENTRIES_MAX):
        ledger.append(1, 1, n.to_bytes(8, "big"))
    store.save(ledger)
    ledger.forget(1)
    for n in range(OPEN_ENTRIES_MAX):
        ledger.append(2, n, n.to_bytes(8, "big"))
    store.save(ledger)
    assert [day for day, _, _ in store.everything().entries()] == [2] * OPEN_ENTRIES_MAX


def test_ids_that_begin_alike_are_told_apart() -> None:
    """The first two bytes only say where to look: all eight decide."""
    store, ledger = BlockStore(), Ledger()
    known = [b"\x07\x07" + n.to_bytes(6, "big") for n in range(3 * OPEN_ENTRIES_MAX)]
    for entry_id in known:
        ledger.append(1, 1, entry_id)
    store.save(ledger)
    other = b"\x07\x07" + (99_999).to_bytes(6, "big")
    assert ledger.blocks_for_id(other) == [0, 1, 2]
    with pytest.raises(KeyError):
        ledger.contains(other)
    store.load(ledger, ledger.blocks_for_id(other))
    assert not ledger.contains(other)
    assert all(ledger.contains(entry_id) for entry_id in known)


def test_an_id_across_two_fingerprints_is_no_suspect() -> None:
    """Fingerprints are compared where they begin, not at any byte."""
    ledger = Ledger()
    for n in range(OPEN_ENTRIES_MAX):
        ledger.append(1, 1, b"\x01\x02" + n.to_bytes(6, "big"))
    ledger.saved()
    assert ledger.blocks_for_id(b"\x02\x01" + bytes(6)) == []
    assert ledger.blocks_for_id(b"\x01\x02" + bytes(6)) == [0]


@pytest.mark.parametrize("shuffled_days", [0, 3])
def test_an_event_of_an_account_with_a_long_history_touches_few_blocks(shuffled_days: int) -> None:
    """With 2,000 entries in a year, a day of six more reads and writes a handful of blocks, not sixty."""
    rng = random.Random(7)
    days = [day for day in range(1, 366) for _ in range(6)]
    days.sort(key=lambda day: day + rng.uniform(0, shuffled_days))
    store, ledger = BlockStore(), Ledger()
    for day in days:
        ledger.append(day, 1, rng.randbytes(8))
    store.load(ledger, ledger.blocks_for_advance(NO_DAY, 365, 365))
    assert ledger.advance(NO_DAY, 365, 365)[0] == len(days)
    store.save(ledger)
    assert len(ledger.closed) > 60
    for day in range(366, 366 + 100):
        read, written = store.blocks_read, store.blocks_written
        store.load(ledger, ledger.blocks_for_advance(day - 1, day, 365))
        assert ledger.advance(day - 1, day, 365)[0] == -6
        for _ in range(6):
            entry_id = rng.randbytes(8)
            store.load(ledger, ledger.blocks_for_id(entry_id))
            assert not ledger.contains(entry_id)
            ledger.append(day, 1, entry_id)
        store.save(ledger)
        ledger = store.reopen()
        assert store.blocks_read - read <= 4
        assert store.blocks_written - written <= 1
    assert store.indexes_written <= 2 * 100 * 6 / OPEN_ENTRIES_MAX + 3
