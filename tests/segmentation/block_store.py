"""What is stored of one ledger, written and read as the account stage does it."""

from collections.abc import Iterable

from segmentation.ledger import Ledger


class BlockStore:
    """The open block, the index and the closed blocks, each in a field of its own; counts what is read and written."""

    def __init__(self) -> None:
        self.open = b""
        self.index = b""
        self.blocks: dict[int, bytes] = {}
        self.blocks_read = 0
        self.blocks_written = 0
        self.indexes_written = 0

    def load(self, ledger: Ledger, numbers: Iterable[int]) -> None:
        """Give the ledger these closed blocks, which it said it needs."""
        for number in numbers:
            ledger.blocks[number] = self.blocks[number]
            self.blocks_read += 1

    def save(self, ledger: Ledger) -> None:
        """Write what changed: deletions first, as a commit does."""
        self.open = bytes(ledger.open)
        if ledger.index_changed:
            self.index = ledger.index
            self.indexes_written += 1
            for number in ledger.removed:
                self.blocks.pop(number, None)
            for number in ledger.created:
                self.blocks[number] = ledger.blocks[number]
                self.blocks_written += 1
        ledger.saved()

    def reopen(self) -> Ledger:
        """The ledger as another worker would read it, without any closed block."""
        return Ledger(self.open, self.index)

    def everything(self) -> Ledger:
        """The ledger with all its closed blocks."""
        ledger = self.reopen()
        ledger.blocks.update(self.blocks)
        return ledger
