"""The dated entries of one account, kept so that an event costs the same however long the history is.

An entry is a day, a value and eight bytes that identify the event. The newest entries are in the *open block*; when
that is full it becomes a *closed block*, which never changes again, and of which only a summary is needed: the days it
spans, and two bytes of each id. So whether an id was seen before is answered from the summaries but for one id in
65,536 a remembered entry, and only then, or when days leave the window, must a closed block be loaded.

Blocks are loaded by the caller (this module does no I/O): ask `blocks_for_id` or `blocks_for_advance`, put what was
loaded into `blocks`, then call.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

ENTRY = Struct("<Hq8s")
"""Day, value, id."""
ID_SIZE = 8
_ID_AT = ENTRY.size - ID_SIZE
_FINGERPRINT_SIZE = 2

OPEN_ENTRIES_MAX = 27
"""486 bytes: with the account's header and its purchase days of two years a document stays under 640 bytes, where the
cost of writing one jumps."""

_SUMMARY = Struct("<IHHH")
"""Of a closed block in the index: number, first day, last day, and how many entries' fingerprints follow."""
_SUMMARY_SIZE = _SUMMARY.size + OPEN_ENTRIES_MAX * _FINGERPRINT_SIZE
"""All closed blocks have the same number of entries, and so summaries of one size: what is found in the index says
where, and none has to be unpacked for that."""

_NO_BLOCKS: frozenset[int] = frozenset()
"""One for all ledgers, most of which have none: two sets for each took more memory than all else."""


class BlockSummary(NamedTuple):
    """What is known of a closed block without loading it."""

    number: int
    first_day: int
    last_day: int
    fingerprints: bytes
    """The first two bytes of each entry's id, in order."""


class Ledger:
    """Entries of (day, value, id), each id once. Not sorted by day: entries come as late as they like."""

    __slots__ = ("blocks", "created", "index", "index_changed", "open", "removed")

    def __init__(self, open_block: bytes = b"", index: bytes = b"") -> None:
        self.open = bytearray(open_block)
        self.index = index
        """The summaries of the closed blocks, as they are stored, each followed by the first two bytes of its ids."""
        self.blocks: dict[int, bytes] = {}
        """Closed blocks that are loaded, by number."""
        self.created = _NO_BLOCKS
        """Numbers of blocks closed since `saved`."""
        self.removed = _NO_BLOCKS
        """Numbers of blocks dropped since `saved`."""
        self.index_changed = False

    def __bool__(self) -> bool:
        """Whether there is any entry. O(1)."""
        return bool(self.open or self.index)

    @property
    def closed(self) -> list[BlockSummary]:
        """The closed blocks, oldest first. O(closed blocks)."""
        closed = []
        for at in range(0, len(self.index), _SUMMARY_SIZE):
            number, first_day, last_day, _ = _SUMMARY.unpack_from(self.index, at)
            fingerprints = self.index[at + _SUMMARY.size : at + _SUMMARY_SIZE]
            closed.append(BlockSummary(number, first_day, last_day, fingerprints))
        return closed

    def saved(self) -> None:
        """Everything is stored: forget what had changed, and the loaded blocks."""
        self.created = self.removed = _NO_BLOCKS
        self.blocks.clear()
        self.index_changed = False

    def blocks_for_id(self, entry_id: bytes) -> list[int]:
        """Numbers of the closed blocks that `contains(entry_id)` must look into and that are not loaded."""
        return [number for number in self._suspects(entry_id) if number not in self.blocks] if self.index else []

    def contains(self, entry_id: bytes) -> bool:
        """Whether an entry has this id. One search of the open block and one of the index; blocks_for_id must be
        loaded."""
        if _find(self.open, entry_id):
            return True
        return bool(self.index) and any(_find(self.blocks[number], entry_id) for number in self._suspects(entry_id))

    def _suspects(self, entry_id: bytes) -> Iterator[int]:
        index, fingerprint = self.index, entry_id[:_FINGERPRINT_SIZE]
        at = index.find(fingerprint)
        while at >= 0:
            inside = at % _SUMMARY_SIZE - _SUMMARY.size
            if inside >= 0 and inside % _FINGERPRINT_SIZE == 0:
                block = at // _SUMMARY_SIZE * _SUMMARY_SIZE
                yield _SUMMARY.unpack_from(index, block)[0]
                at = block + _SUMMARY_SIZE - 1
            at = index.find(fingerprint, at + 1)

    def append(self, day: int, value: int, entry_id: bytes) -> None:
        """Add an entry; its id must not be there yet. O(1), amortised over closing a block."""
        self.open += ENTRY.pack(day, value, entry_id)
        if len(self.open) >= OPEN_ENTRIES_MAX * ENTRY.size:
            self._close()

    def _close(self) -> None:
        entries = list(ENTRY.iter_unpack(self.open))
        days = [day for day, _, _ in entries]
        number = _SUMMARY.unpack_from(self.index, len(self.index) - _SUMMARY_SIZE)[0] + 1 if self.index else 0
        fingerprints = b"".join(entry_id[:_FINGERPRINT_SIZE] for _, _, entry_id in entries)
        self.index += _SUMMARY.pack(number, min(days), max(days), len(entries)) + fingerprints
        self.blocks[number] = bytes(self.open)
        self.created |= {number}
        self.removed -= {number}
        self.index_changed = True
        self.open.clear()

    def blocks_for_advance(self, old_day: int, new_day: int, window_days: int) -> list[int]:
        """Numbers of the closed blocks that `advance` needs and that are not loaded."""
        return [
            block.number for block in self._moving(old_day, new_day, window_days) if block.number not in self.blocks
        ]

    def _moving(self, old_day: int, new_day: int, window_days: int) -> Iterator[BlockSummary]:
        """The closed blocks from which days leave the window, or come due, as the clock goes on."""
        for block in self.closed:
            if block.first_day <= new_day - window_days or block.last_day > old_day:
                yield block

    def advance(
        self, old_day: int, new_day: int, window_days: int, old_window_days: int | None = None
    ) -> tuple[int, int | None]:
        """Move the window (day - window_days, day] from old_day to new_day and forget the entries that are before it.

        old_window_days: how long it was until now, where it is shorter from now on.

        Returns by how much the sum of the values in the window changes, and the next day on which it can change again
        or a closed block can be dropped (None: never). O(entries in the open block and in those that
        `blocks_for_advance` names).
        """
        old_horizon, horizon = old_day - (old_window_days or window_days), new_day - window_days
        moving = {block.number for block in self._moving(old_day, new_day, window_days)}
        change = 0
        due_days = [
            (block.last_day if block.number in moving else block.first_day) + window_days
            for block in self.closed
            if block.last_day > horizon
        ]
        blocks: list[bytes | bytearray] = [self.open, *(self.blocks[number] for number in moving)]
        for data in blocks:
            for day, value, _ in ENTRY.iter_unpack(data):
                change += value * ((horizon < day <= new_day) - (old_horizon < day <= old_day))
                if value and day > horizon:
                    due_days.append(day if day > new_day else day + window_days)
        self.forget(horizon)
        return change, min(due_days, default=None)

    def forget(self, horizon: int) -> None:
        """Drop what is on the horizon day or before it: whole closed blocks, single entries of the open one."""
        if any(day <= horizon for day, _, _ in ENTRY.iter_unpack(self.open)):
            rest = [entry for entry in ENTRY.iter_unpack(self.open) if entry[0] > horizon]
            self.open = bytearray().join(ENTRY.pack(*entry) for entry in rest)
        kept = []
        for place, block in enumerate(self.closed):
            if block.last_day > horizon:
                kept.append(self.index[place * _SUMMARY_SIZE : (place + 1) * _SUMMARY_SIZE])
                continue
            self.blocks.pop(block.number, None)
            self.created -= {block.number}
            # also where it was never stored: a block that is may have had its number before
            self.removed |= {block.number}
            self.index_changed = True
        self.index = b"".join(kept)

    def entries(self) -> Iterator[tuple[int, int, bytes]]:
        """Every entry of the open block and of the loaded closed ones: (day, value, id)."""
        for data in (bytes(self.open), *self.blocks.values()):
            yield from ENTRY.iter_unpack(data)


def _find(entries: bytes | bytearray, entry_id: bytes) -> bool:
    at = entries.find(entry_id)
    while at >= 0:
        if at % ENTRY.size == _ID_AT:
            return True
        at = entries.find(entry_id, at + 1)
    return False
