"""RFC 3339 date-times and instants: integer microseconds since 1970-01-01T00:00Z."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# fromisoformat alone would take far more than RFC 3339: other separators, week dates, offsets with seconds.
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,18})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch


def parse_instant(text: str) -> int:
    """An RFC 3339 date-time with its offset, as an instant in microseconds; finer digits are cut off.

    More than 18 digits of a second are refused, and so is a leap second (`:60`), which this time line has no
    place for. Raises ValueError for them and all that is no such date-time, without repeating the text. O(1).
    """
    if not _RFC_3339(text):
        raise ValueError("not an RFC 3339 date-time with an offset")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            raise ValueError("no such day in the calendar") from None
    return (moment - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=1_024)
def format_instant(instant_us: int) -> str:
    """The instant as RFC 3339 in UTC (`2026-11-22T10:00:00Z`), with microseconds only if there are any.

    Raises OverflowError before the year 1 and after 9999.
    """
    moment = _EPOCH + timedelta(microseconds=instant_us)
    return moment.isoformat().replace("+00:00", "Z")


def parse_day(text: str) -> int:
    """A day of the calendar (`1998-06-30`), as the number of days since 1970-01-01. Raises ValueError. O(1)."""
    if not _DAY(text):
        raise ValueError("not a day like 1998-06-30")
    return date.fromisoformat(text).toordinal() - _EPOCH.toordinal()


def format_day(day: int) -> str:
    """The day as `parse_day` takes it."""
    return date.fromordinal(day + _EPOCH.toordinal()).isoformat()
