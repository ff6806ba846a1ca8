"""The CDNOW log as events: exact, in order, and the same each time."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from streams.cdnow import data_file, disturbed, read_lines
from tests.streams.command_line import is_one_line, resegment

ROWS = """ customer_id  date number_of_cds  dollar_value
 00001 19970101  1   11.77
 00002 19970112  1   12.00
 00002 19970112  5   77.00
 00003 19970102  2    0.05
 00001 19970113  2   20.76
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Five purchases of three customers, not in order of time, with the line ends of the real file."""
    path = tmp_path / "CDNOW_master.txt"
    path.write_bytes(ROWS.replace("\n", "\r\n").encode())
    return path


def test_purchases_come_in_order_of_time_with_a_signup_before_the_first(log: Path) -> None:
    """Each account signs up once, a second before its first purchase; amounts are exact cents."""
    lines = [json.loads(line.payload) for line in read_lines(log)]
    assert [(line["type"], line["account_id"][-1], line.get("amount_minor")) for line in lines] == [
        ("signup", "1", None),
        ("purchase", "1", 1177),
        ("signup", "3", None),
        ("purchase", "3", 5),
        ("signup", "2", None),
        ("purchase", "2", 1200),
        ("purchase", "2", 7700),
        ("purchase", "1", 2076),
    ]
    times = [line["occurred_at"] for line in lines]
    assert times == sorted(times)
    assert [time[:10] for time in times[2:4]] == ["1997-01-02", "1997-01-02"]
    assert len({line["event_id"] for line in lines}) == len(lines)


def test_dates_can_be_moved(log: Path) -> None:
    """All by the same number of days, so that the last one is the day asked for."""
    kept, moved = read_lines(log), read_lines(log, last_day=date(2026, 11, 22))
    assert moved[-1].occurred_at.date() == date(2026, 11, 22)
    assert {new.occurred_at - old.occurred_at for new, old in zip(moved, kept, strict=True)} == {
        date(2026, 11, 22) - date(1997, 1, 13)
    }


def test_disturbances_are_bounded_and_repeatable(log: Path) -> None:
    """The same seed gives the same lines; nothing is lost; a line is overtaken only by less than the days asked for."""
    lines = read_lines(log) * 50
    untidy = disturbed(lines, shuffle_days=3, duplicates_percent=5, seed=7)
    assert untidy == disturbed(lines, shuffle_days=3, duplicates_percent=5, seed=7)
    assert untidy != disturbed(lines, shuffle_days=3, duplicates_percent=5, seed=8)
    assert len(untidy) == len(lines) + round(len(lines) * 0.05)
    assert {line.payload for line in untidy} == {line.payload for line in lines}
    latest = untidy[0].occurred_at
    for line in untidy:
        latest = max(latest, line.occurred_at)
        assert line.occurred_at > latest - timedelta(days=6)  # late itself, and then the copy of it
    assert disturbed(lines, seed=1) == sorted(lines, key=lambda line: line.occurred_at)


def test_the_real_log_is_complete() -> None:
    """23,570 customers and 69,659 purchases, worth 2,500,315.63 dollars."""
    lines = [json.loads(line.payload) for line in read_lines(data_file())]
    purchases = [line for line in lines if line["type"] == "purchase"]
    assert len(lines) - len(purchases) == 23_570
    assert len(purchases) == 69_659
    assert sum(line["amount_minor"] for line in purchases) == 250_031_563


def test_the_example_writes_a_replay_file(log: Path, tmp_path: Path) -> None:
    """One JSON object a line, also to standard output."""
    root = Path(__file__).parents[2]
    command: list[str | Path] = [
        sys.executable,
        root / "examples" / "cdnow.py",
        "--data",
        log,
        "--shift-to",
        "2026-11-22",
    ]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([*command, tmp_path / "log.jsonl"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "8 events from 2026-11-10 to 2026-11-22" in done.stdout
    lines = (tmp_path / "log.jsonl").read_bytes()
    assert [json.loads(line)["type"] for line in lines.splitlines()].count("signup") == 3
    assert subprocess.run(command, env=environment, capture_output=True).stdout == lines


def test_without_the_data_the_demo_says_how_to_get_it(tmp_path: Path) -> None:
    """One line, and status 2."""
    (tmp_path / "lifetimes.py").write_text("")  # a package of this name, without the data
    done = resegment("demo", values={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"})
    assert done.status == 2, done
    assert is_one_line(done.err) and "pip install" in done.err
