"""Turns the CDNOW purchase log into a file that `resegment replay` takes.

    python examples/cdnow.py cdnow.jsonl
    resegment replay cdnow.jsonl --embedded --verify

With --shift-to the dates are moved, so that the log ends on a day of your choice; --shuffle-days and --duplicates
make it as untidy as real deliveries are. The end state must be the same.
"""

import sys
from contextlib import nullcontext
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from streams.cdnow import CdnowMissing, data_file, disturbed, read_lines


def main(
    output: Annotated[Path | None, typer.Argument(help="File to write; none: standard output.")] = None,
    data: Annotated[Path | None, typer.Option(help="CDNOW_master.txt, if it is not installed.")] = None,
    shift_to: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Move all dates so that the last one is this day.")
    ] = None,
    shuffle_days: Annotated[float, typer.Option(min=0, help="Events arrive up to this many days late.")] = 0,
    duplicates: Annotated[float, typer.Option(min=0, max=100, help="Percentage of events that come twice.")] = 0,
    seed: Annotated[
        int, typer.Option(help="Of the chance in the two options before; the same seed, the same file.")
    ] = 0,
) -> None:
    """Write the CDNOW purchases, and a signup before each account's first one, as one JSON object a line."""
    last_day: date | None = shift_to.date() if shift_to else None
    try:
        lines = read_lines(data or data_file(), last_day=last_day)
        lines = disturbed(lines, shuffle_days=shuffle_days, duplicates_percent=duplicates, seed=seed)
        with output.open("wb") if output else nullcontext(sys.stdout.buffer) as file:
            file.writelines(line.payload + b"\n" for line in lines)
    except (CdnowMissing, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    if output:
        days = sorted({line.occurred_at.date() for line in lines})
        print(f"{len(lines):,} events from {days[0]} to {days[-1]} in {output}")


if __name__ == "__main__":
    typer.run(main)
