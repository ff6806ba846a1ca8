"""Figures for people, the same on a terminal and on a page."""

from segmentation.period_report import Period
from segmentation.segments import SEGMENTS, Segment
from streams.instants import format_day

NOT_THERE = "not there yet"
"""Where an account was that had no segment."""


def percent(part: int, whole: int) -> str:
    """A share with one decimal: `percent(1, 8)` is `12.5%`; a dash where there is nothing to have a share of."""
    return f"{part / whole:.1%}" if whole > 0 else "-"


def share(part: int, whole: int) -> float | None:
    """The same for programs, with nine digits; None where there is nothing to have a share of."""
    return round(part / whole, 9) if whole > 0 else None


def signed(count: int) -> str:
    """A difference: `+1,234`, `-5`, `0`."""
    return f"{count:+,}" if count else "0"


def days_of(period: Period) -> str:
    """A period by its first and its last day."""
    return f"{format_day(period.from_day)} to {format_day(period.to_day)}"


def segment_name(segment: Segment | None) -> str:
    """A segment, or that there was none."""
    return NOT_THERE if segment is None else str(segment)


def rows_of(sources: set[Segment | None] | set[Segment]) -> list[Segment | None]:
    """The rows of a matrix: every segment, and above them the accounts that were not there, if there are any."""
    return [None, *SEGMENTS] if None in sources else [*SEGMENTS]
