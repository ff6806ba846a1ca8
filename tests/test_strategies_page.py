"""The tables and the worked example of docs/strategies.md are what the program has and says."""

import re
import tomllib
from pathlib import Path

import pytest

from segmentation.capacity import Move, capacity
from segmentation.policy import Policy
from segmentation.segments import Segment
from streams.capacity import CapacityNow
from streams.cli.capacity import show_segments_and_roles

PAGE = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
ACCOUNTS = {
    Segment.KEY: 20,
    Segment.ENTERPRISE: 900,
    Segment.COMMERCIAL: 3_000,
    Segment.NEW_START: 60,
    Segment.PROSPECT: 800,
}
MOVES = {
    Move(Segment.ENTERPRISE, Segment.KEY): 3,
    Move(Segment.NEW_START, Segment.COMMERCIAL): 12,
    Move(Segment.PROSPECT, Segment.NEW_START): 10,
}


def test_the_example_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """To the last blank between two columns."""
    accounts = [(segment, None) for segment, count in ACCOUNTS.items() for _ in range(count)]
    show_segments_and_roles(CapacityNow(0, 0, capacity(Policy.default(), accounts, MOVES), 0))

    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    (written,) = [text for language, text in BLOCKS if not language]
    assert printed == written.rstrip("\n")


def test_the_numbers_in_the_text_are_those_of_the_example() -> None:
    """Each product that the text names, worked out."""
    text = re.sub(r"\s+", " ", PAGE)
    for segment, count in {Segment.ENTERPRISE: 900, Segment.KEY: 3}.items():
        playbook = Policy.default().segments.of(segment)
        assert f"{count} x {playbook.touches_a_quarter} x {playbook.minutes_a_touch}" in text
    assert f"= {900 * 4 * 45:,} minutes, {900 * 4 * 45 // 60:,} hours" in text
    assert f"{3 * 4 * 45 // 60} hours, less" in text and f"{3 * 12 * 60 // 60} hours, more" in text


def test_the_tables_on_the_page_are_the_default_ones() -> None:
    """Who copies them changes nothing."""
    (written,) = [text for language, text in BLOCKS if language == "toml"]
    default = Policy.default().document()
    tables = tomllib.loads(written)

    assert tables["segments"] == {"enterprise": default["segments"]["enterprise"]}
    assert tables["team"] == {"account_manager": default["team"]["account_manager"]}
    assert tables["owners"] == default["owners"]
