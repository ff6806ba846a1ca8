"""What a verification found."""

from dataclasses import dataclass, field
from typing import NamedTuple

MISMATCHES_KEPT_MAX = 1_000
"""All are counted; this many are kept."""


class Mismatch(NamedTuple):
    """One thing that is not as the log says it must be."""

    kind: str
    """Name of the invariant that does not hold."""
    subject: str
    """The account, or the input and partition (`purchases[3]`)."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: expected {self.expected}, found {self.found}"


@dataclass
class Report:
    """The result of a verification. The first five numbers are of purchases, signups and engagements."""

    events: int = 0
    """Records in the log that the state has taken in."""
    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    accounts: int = 0
    changes: int = 0
    """Segment changes in the log, each once."""
    mismatches: list[Mismatch] = field(default_factory=list)
    """The first MISMATCHES_KEPT_MAX of them."""
    mismatch_count: int = 0
    warnings: list[str] = field(default_factory=list)
    """What could not be compared, or only in part, and why."""
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether everything that could be compared is as it must be."""
        return not self.mismatch_count

    def add(self, mismatch: Mismatch) -> None:
        """Count a mismatch, and keep it if there is room."""
        self.mismatch_count += 1
        if len(self.mismatches) < MISMATCHES_KEPT_MAX:
            self.mismatches.append(mismatch)

    def fields(self) -> dict[str, int | float]:
        """The numbers, in the order of `line`."""
        return {
            "events": self.events,
            "applied": self.applied,
            "duplicates": self.duplicates,
            "dead_letters": self.dead_letters,
            "accounts": self.accounts,
            "changes": self.changes,
            "mismatches": self.mismatch_count,
            "seconds": round(self.seconds, 1),
        }

    def line(self) -> str:
        """`events=... applied=... ... mismatches=... seconds=...`, for programs."""
        return " ".join(f"{name}={value}" for name, value in self.fields().items())
