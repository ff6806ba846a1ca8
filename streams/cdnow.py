"""The CDNOW purchase log as events: 23,570 customers of a music shop and their 69,659 purchases, 1997 and 1998.

Published by Fader and Hardie; the file is part of the `lifetimes` wheel, which is only read, never imported.
"""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import orjson

SECONDS_PER_DAY = 86_400


class CdnowMissing(Exception):
    """The data file is not installed. The message says how to get it."""


class _Row(NamedTuple):
    customer: str
    day: date
    amount_minor: int
    number: int
    """Line in the file, for an event id that is the same each time."""


class Line(NamedTuple):
    """One line of a replay file."""

    occurred_at: datetime
    payload: bytes
    """JSON, without the line's end."""


def data_file() -> Path:
    """The installed file. Raises CdnowMissing."""
    spec = find_spec("lifetimes")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "CDNOW_master.txt"
        if path.is_file():
            return path
    raise CdnowMissing(
        "The CDNOW purchase log is not installed. Get it: pip install --no-deps lifetimes==0.11.3 "
        "(its data file is read, the library is not used)."
    )


def read_lines(path: Path, *, last_day: date | None = None) -> list[Line]:
    """All events in order of time: a signup a second before an account's first purchase, and the purchases.

    `last_day`: all dates are moved by the same number of days, so that the newest is this one. Purchases of a day
    are spread over it evenly, in the file's order. Raises ValueError for a file of another form.
    """
    rows = sorted(_rows(path), key=lambda row: (row.day, row.number))
    shift = last_day - rows[-1].day if last_day and rows else timedelta()
    known: set[str] = set()
    lines = []
    for day, group in groupby(rows, key=lambda row: row.day):
        of_day = list(group)
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + shift
        for count, row in enumerate(of_day, 1):
            at = midnight + timedelta(seconds=count * SECONDS_PER_DAY // (len(of_day) + 1))
            if row.customer not in known:
                known.add(row.customer)
                lines.append(_signup(row, at - timedelta(seconds=1)))
            lines.append(_purchase(row, at))
    return lines


def disturbed(
    lines: list[Line], *, shuffle_days: float = 0, duplicates_percent: float = 0, seed: int = 0
) -> list[Line]:
    """The same events as a careless sender brings them: up to `shuffle_days` late, and some of them twice.

    A duplicate follows within the same time (a day, where nothing is shuffled). The same seed gives the same lines.
    """
    chance = random.Random(seed)
    late = timedelta(days=shuffle_days)
    arrivals = [(line.occurred_at + chance.random() * late, line) for line in lines]
    twice = chance.sample(range(len(lines)), round(len(lines) * duplicates_percent / 100))
    for number in twice:
        arrived_at, line = arrivals[number]
        arrivals.append((arrived_at + chance.random() * (late or timedelta(days=1)), line))
    arrivals.sort(key=lambda arrival: arrival[0])
    return [line for _, line in arrivals]


def _rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="ascii") as file:
        next(file)
        for number, text in enumerate(file, 1):
            customer, day, _, dollars = text.split()
            amount = _cents(dollars)
            yield _Row(customer, date(int(day[:4]), int(day[4:6]), int(day[6:])), amount, number)


def _cents(dollars: str) -> int:
    whole, _, cents = dollars.partition(".")
    if len(cents) != 2:
        raise ValueError(f"not an amount of dollars and cents: {dollars}")
    return int(whole) * 100 + int(cents)


def _purchase(row: _Row, at: datetime) -> Line:
    return _line(
        at,
        type="purchase",
        event_id=f"cdnow-{row.number}",
        account_id=f"cdnow-{row.customer}",
        amount_minor=row.amount_minor,
        currency="USD",
    )


def _signup(row: _Row, at: datetime) -> Line:
    account_id = f"cdnow-{row.customer}"
    return _line(at, type="signup", event_id=f"cdnow-signup-{row.customer}", account_id=account_id)


def _line(at: datetime, **fields: Any) -> Line:
    occurred_at = at.isoformat().replace("+00:00", "Z")
    return Line(at, orjson.dumps({**fields, "occurred_at": occurred_at}))
