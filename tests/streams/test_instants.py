from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.instants import format_day, format_instant, parse_day, parse_instant

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moments, offsets)
def test_an_instant_is_the_same_by_every_offset(moment: datetime, offset: timezone) -> None:
    """A date-time at any offset is read as the microseconds since 1970 in UTC."""
    local = moment.replace(tzinfo=UTC).astimezone(offset)

    instant_us = parse_instant(local.isoformat())

    assert EPOCH + timedelta(microseconds=instant_us) == local


@given(moments)
def test_what_is_written_is_read_again(moment: datetime) -> None:
    """Formatting loses nothing."""
    instant_us = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)

    assert parse_instant(format_instant(instant_us)) == instant_us


@pytest.mark.parametrize(
    ("text", "instant_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.123456999Z", 123_456),
        ("1970-01-01T00:00:00.123456999999999999+00:00", 123_456),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
    ],
)
def test_forms_that_the_standard_allows(text: str, instant_us: int) -> None:
    """Small letters, any offset, and digits finer than a microsecond, which are cut off."""
    assert parse_instant(text) == instant_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-05",
        "2026-01-05T10:00:00",
        "2026-01-05 10:00:00Z",
        "2026-01-05_10:00:00Z",
        "2026-01-05T10:00Z",
        "2026-01-05T10Z",
        "20260105T100000Z",
        "2026-W02-1T10:00:00Z",
        "2026-1-5T10:00:00Z",
        "2026-01-05T10:00:00+01",
        "2026-01-05T10:00:00+0100",
        "2026-01-05T10:00:00+24:00",
        "2026-01-05T10:00:00+01:60",
        "2026-01-05T10:00:00+01:00:30",
        "2026-01-05T10:00:00 Z",
        "2026-01-05T10:00:00.Z",
        "2026-01-05T10:00:00,5Z",
        "2026-01-05T10:00:00." + "1" * 19 + "Z",
        "2026-01-05T24:00:00Z",
        "2026-01-05T10:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "2026-00-01T10:00:00Z",
        "2026-01-32T10:00:00Z",
        "0000-01-01T10:00:00Z",
        "-2026-01-05T10:00:00Z",
        "12026-01-05T10:00:00Z",
        "2026-01-05T10:00:00Z\n",
        " 2026-01-05T10:00:00Z",
        "٢٠٢٦-01-05T10:00:00Z",
        "1767607200",
    ],
)
def test_forms_that_are_refused(text: str) -> None:
    """Neighbours of the standard, and days that no calendar has. The message does not repeat the text."""
    with pytest.raises(ValueError, match=r"RFC 3339|calendar") as refusal:
        parse_instant(text)

    assert not text or text not in str(refusal.value)


@pytest.mark.parametrize(
    ("day", "text"), [(0, "1970-01-01"), (10_227, "1998-01-01"), (-1, "1969-12-31"), (19_782, "2024-02-29")]
)
def test_days_are_read_and_written(day: int, text: str) -> None:
    """By their number from 1970-01-01."""
    assert parse_day(text) == day
    assert format_day(day) == text


@pytest.mark.parametrize(
    "text", ["", "1998-1-1", "19980101", "1998-02-29", "1998-W01-1", "1998-01-01T00:00:00Z", "١٩٩٨-01-01"]
)
def test_days_that_are_none_are_refused(text: str) -> None:
    """Other forms, and what no calendar has."""
    with pytest.raises(ValueError):
        parse_day(text)


@pytest.mark.parametrize(
    ("instant_us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (500_000, "1970-01-01T00:00:00.500000Z"),
        (65_535 * 86_400_000_000 - 1, "2149-06-05T23:59:59.999999Z"),
    ],
)
def test_instants_are_written_in_utc(instant_us: int, text: str) -> None:
    """Microseconds are there only if they say something."""
    assert format_instant(instant_us) == text
