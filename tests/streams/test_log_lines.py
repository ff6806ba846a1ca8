"""What a worker's log lines hold: fields for programs, colours for people, and nothing of a record."""

import json
import logging
import sys
from pathlib import Path

from state.keys import StageName, shard_keys
from streams.cli.log_lines import FIELDS, formatter
from streams.embedded import Embedded
from streams.topics import Topic
from tests.pipeline import CommandProcess, Installation, event, moment, purchase

MARK = "marked-3f9a"


def line(record: logging.LogRecord, *, is_terminal: bool) -> str:
    """The record as it would be printed."""
    return formatter(is_terminal=is_terminal).format(record)


def record_of(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    """As a module logs it."""
    logger = logging.getLogger("streams.shard")
    return logger.makeRecord(logger.name, logging.WARNING, "", 0, message, arguments, None, extra=extra)


def test_a_line_for_programs_is_one_object() -> None:
    """The event, what it is about, and nothing that is not one of the fields."""
    record = record_of(
        "%d offsets\nare gone", 3, shard="accounts shard 0", topic=Topic.TICKS, end_offset=7, payload=MARK
    )
    record.created = 1_700_000_000.5
    assert json.loads(line(record, is_terminal=False)) == {
        "timestamp": "2023-11-14T22:13:20.500+00:00",
        "level": "WARNING",
        "logger": "streams.shard",
        "event": "3 offsets\nare gone",
        "shard": "accounts shard 0",
        "topic": "ticks",
        "end_offset": 7,
    }
    assert "\n" not in line(record, is_terminal=False)


def test_a_line_for_people_says_the_same() -> None:
    """And a terminal obeys nothing of it that somebody else wrote."""
    shown = line(record_of("no tick", reason="KafkaError: \x1b]0;title\x07", shard="x"), is_terminal=True)
    assert "no tick" in shown and "WARNING" in shown and "reason" in shown
    assert "\x1b]0;" not in shown and "\x07" not in shown


def test_a_traceback_shows_no_locals() -> None:
    """They hold records, and passwords. The renderer would show them if it were not told otherwise."""
    for is_terminal in (True, False):
        payload = "marked-" + str(len(MARK) - 9) + "-local"
        try:
            raise ArithmeticError("in the middle")
        except ArithmeticError:
            record = logging.LogRecord("streams", logging.ERROR, "", 0, "failed", (), sys.exc_info())
        shown = line(record, is_terminal=is_terminal)
        assert "ArithmeticError" in shown and "Traceback" in shown
        assert payload not in shown


async def test_a_pipeline_says_which_batch_and_why_and_nothing_of_a_record(embedded: Embedded, tmp_path: Path) -> None:
    """A worker whose commit is refused goes back, and on: each line is JSON, with shard, batch and reason."""
    async with Installation(embedded, partitions=1, kafka_session_timeout_seconds=6.0) as installation:
        marked = event(
            "signup",
            f"{MARK}-account",
            f"{MARK}-event",
            moment(0),
            name=f"{MARK} Ltd",
            attributes={"owner": f"{MARK} Kim", f"{MARK}_city": MARK},
        )
        variables = {"RESEGMENT_LOG_LEVEL": "DEBUG"}
        with CommandProcess(installation, tmp_path, "worker", "worker", variables=variables) as process:
            await process.until_said("claimed 2 shards")
            await installation.send(marked, purchase(f"{MARK}-account", f"{MARK}-2", moment(0), 100, note=MARK))
            await installation.tick(moment(1))
            await installation.rest()
            meta = shard_keys(installation.settings.redis_prefix, StageName.ACCOUNTS, 0).meta
            await installation.redis.hset(meta, "owner", "another")
            await installation.send(purchase(f"{MARK}-account", f"{MARK}-3", moment(0), 100, order_id=MARK))
            await process.until_said("going back to what is stored")
            await installation.rest()
            process.check()
            said = process.said()
    assert MARK not in said
    lines = [json.loads(text) for text in said.splitlines()]
    (back,) = [found for found in lines if found["event"] == "going back to what is stored"]
    assert back["shard"] == "accounts shard 0" and back["level"] == "WARNING"
    assert (back["topic"], back["first_offset"], back["end_offset"]) == ("purchases", 1, 2)
    assert "claimed by another worker" in back["reason"]
    assert all({"timestamp", "level", "logger", "event"} <= set(found) for found in lines)
    assert all(set(found) <= {"timestamp", "level", "logger", "event", "exception", *FIELDS} for found in lines)
