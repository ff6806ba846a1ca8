"""Tables on a terminal."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from segmentation.segments import SEGMENTS, Segment
from streams.cli.console import segment
from streams.cli.figures import rows_of, segment_name


def new_table(title: str, *headings: str | Text) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=f"\n{title}", title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left")
    return made


def matrix(
    title: str, counts: Mapping[tuple[Segment | None, Segment], int] | Mapping[tuple[Segment, Segment], int]
) -> Table:
    """How many from where (rows) to where (columns)."""
    by_pair: dict[tuple[Segment | None, Segment], int] = dict(counts.items())
    made = new_table(title, "", *(segment(name) for name in SEGMENTS))
    for previous in rows_of({source for source, _ in by_pair}):
        row = [by_pair.get((previous, current), 0) for current in SEGMENTS]
        made.add_row(segment(segment_name(previous)), *(f"{count:,}" if count else "·" for count in row))
    return made
