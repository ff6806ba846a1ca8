"""The worked example of docs/report.md is what the program says."""

import re
from pathlib import Path

import pytest

from segmentation.money import format_amount
from segmentation.period_report import PastChange, Period, period_report
from segmentation.population import CauseKind, Member
from segmentation.segments import Segment
from streams.cli.figures import percent, signed
from streams.instants import parse_day, parse_instant

PAGE = re.sub(r"\s+", " ", (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8"))
KEY, ENTERPRISE, COMMERCIAL = Segment.KEY, Segment.ENTERPRISE, Segment.COMMERCIAL
NEW_START, PROSPECT = Segment.NEW_START, Segment.PROSPECT


def change(sequence: int, day: int, previous: Segment, current: Segment, cause: CauseKind) -> PastChange:
    """At noon of a day of June."""
    return PastChange(sequence, previous, current, cause, False, 0, parse_instant(f"2026-06-{day:02}T12:00:00Z"))


CHAINS = {
    "acme": [change(4, 3, ENTERPRISE, KEY, CauseKind.PURCHASE)],
    "brix": [
        change(4, 3, KEY, ENTERPRISE, CauseKind.BOUNDARY_MOVED),
        change(5, 8, ENTERPRISE, KEY, CauseKind.PURCHASE),
    ],
    "corm": [change(4, 26, COMMERCIAL, ENTERPRISE, CauseKind.PURCHASE)],
    "dual": [change(2, 10, PROSPECT, NEW_START, CauseKind.FIRST_PURCHASE)],
}
MEMBERS = [
    Member("acme", segment=KEY, revenue_minor=500_000),
    Member("brix", segment=KEY, revenue_minor=400_000),
    Member("corm", segment=ENTERPRISE, revenue_minor=90_000),
    Member("dual", segment=NEW_START, revenue_minor=10_000),
]
REPORT = period_report(
    CHAINS,
    MEMBERS,
    Period(parse_day("2026-06-01"), parse_day("2026-06-30")),
    as_of_us=parse_instant("2026-07-01T00:00:00Z"),
    undone_within_days=7,
)


@pytest.mark.parametrize("number", range(5))
def test_each_row_of_the_example_is_computed(number: int) -> None:
    """To the digits that are printed."""
    part = REPORT.performance[number]
    cells = (
        f"`{part.segment}`",
        f"{part.accounts}",
        format_amount(part.revenue_minor, "USD"),
        percent(part.revenue_minor, REPORT.revenue_minor),
        f"{part.entered}",
        f"{part.left}",
        signed(part.net),
    )
    assert f"| {' | '.join(cells)} |" in PAGE


def test_each_sentence_of_the_example_is_computed() -> None:
    """Moves, who was displaced, what was undone."""
    moves, undone = REPORT.move_count, REPORT.undone
    for said in (
        f"{moves} moves of {REPORT.moved_accounts} accounts.",
        f"Displaced: {REPORT.displaced_moves} move of {moves} ({percent(REPORT.displaced_moves, moves)}), "
        f"{REPORT.displaced_accounts} account of {REPORT.moved_accounts} "
        f"({percent(REPORT.displaced_accounts, REPORT.moved_accounts)}).",
        f"Of {undone.moves + undone.too_young} moves between tiers, {undone.moves} are at least 7 days old;",
        f"{undone.undone} of {undone.moves} ({percent(undone.undone, undone.moves)}) was undone.",
    ):
        assert said in PAGE


def test_the_cells_that_the_example_names_are_the_ones() -> None:
    """brix ended where it began, and went both ways."""
    assert REPORT.migration[KEY, KEY] == 1
    assert REPORT.moves[KEY, ENTERPRISE] == 1 and REPORT.moves[ENTERPRISE, KEY] == 2
