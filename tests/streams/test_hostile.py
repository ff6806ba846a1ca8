"""What a stranger writes into the topics: commands print none of it that a terminal obeys; logs say nothing of it."""

import json
import re
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streams.cli.console import escape, print_json
from streams.embedded import Embedded
from streams.topics import Topic
from tests.pipeline import CommandProcess, Installation, Sent, check, environment_of, event, moment, purchase
from tests.streams.bad_records import BAD_RECORDS, partition_of
from tests.streams.command_line import Done, resegment
from tests.streams.installation import TOPICS

CANARY = "canary"

DANGEROUS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2066\u2067\u2068\u2069",
    *"\u00ad\u034f\u115f\u1160\u180e\u3164\ufeff\uffa0\ufff9\ufffe\U000e0001\U000e0041\ud800",
]
"""C0, DEL, C1; direction, separators, no width; blank letters, what stands for nothing, tags."""

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil\x1b\\\\link \x9b31m \x7f\x08\x08\r\n"
    "\u202egnp.exe\u2066\u200b\u2028\u2029\ufeff\U000e0041 "
    "[bold red]markup[/bold red] [link=http://evil]x[/link] :boom: {}%s"
)


def is_harmless(text: str) -> bool:
    """Whether each character is one that is seen, on lines that the command itself ended."""
    return all(character == "\n" or (character.isprintable() and character not in DANGEROUS) for character in text)


@pytest.mark.parametrize("character", DANGEROUS, ids=lambda character: f"U+{ord(character):04X}")
def test_every_dangerous_character_is_escaped(character: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For people as an escape that can be read; in JSON as ASCII that says the same string."""
    shown = escape(f"a{character}b")
    assert is_harmless(shown) and re.fullmatch(r"a\\\w+b", shown), shown
    if character != "\ud800":  # what is no text never gets there
        print_json({f"a{character}": character})
        printed = capsys.readouterr().out
        assert printed.isascii() and printed[:-1].isprintable() and printed.endswith("\n")
        assert json.loads(printed) == {f"a{character}": character}


def test_what_is_seen_is_not_escaped() -> None:
    """People's names stay readable, in any script; JSON says characters beyond 16 bits right."""
    for text in ("Zoë 株式会社 Ωmega", "O'Neil & Söhne — №1", "شركة", "🙂"):
        assert escape(text) == text
        assert all(unicodedata.category(character)[0] != "C" for character in text)


@pytest.fixture
async def installation(embedded: Embedded) -> AsyncIterator[Installation]:
    """An empty installation."""
    async with Installation(embedded, kafka_session_timeout_seconds=6.0) as new:
        yield new


def run(installation: Installation, *arguments: str) -> Done:
    """A command's end, which must be a good one, and harmless to see."""
    done = resegment(*arguments, values=environment_of(installation.settings))
    assert "Traceback" not in done.err, done.err
    assert is_harmless(done.out) and is_harmless(done.err), (done.out, done.err)
    if "--json" in arguments:
        assert done.out.isascii()
        for line in done.out.splitlines():
            json.loads(line)
    return done


def change(**fields: Any) -> bytes:
    """The data of a change with hostile text in every field that has one."""
    return json.dumps(
        {
            **dict.fromkeys(
                ("account_id", "population", "previous_segment", "current_segment", "direction", "policy_version"),
                HOSTILE,
            ),
            **dict.fromkeys(("mode", "effective_at", "recorded_at"), HOSTILE),
            **dict.fromkeys(("sequence", "rolling_revenue_minor"), 10**4_000),
            "cause": {"kind": HOSTILE, "event_id": HOSTILE, "own_change_minor": 0, "cutoff_change_minor": None},
            "lapsed": False,
            **dict.fromkeys(("position_revenue", "position_accounts")),
            "cutoffs_minor": {"key": None, "enterprise": None},
            **dict.fromkeys(("to_next_tier_up_minor", "to_next_tier_down_minor")),
            "playbook": {
                **dict.fromkeys(("role", "team", "motion", "next_step"), HOSTILE),
                "channels": [HOSTILE],
                "offers": [HOSTILE],
                **dict.fromkeys(("touches_a_quarter", "minutes_a_touch"), 10**4_000),
            },
            **fields,
        }
    ).encode()


async def test_commands_print_nothing_that_a_terminal_obeys(installation: Installation) -> None:
    """Dead letters and changes that somebody else wrote, with hostile text wherever text can be."""
    hostile = HOSTILE.encode()
    name = installation.names.name
    letter_headers = [(field, hostile) for field in ("reason", "message", "topic")]
    for headers in (
        [*letter_headers, ("partition", b"0"), ("offset", b"7"), (HOSTILE, hostile)],
        [*letter_headers, ("partition", hostile), ("offset", b"9" * 5_000)],
        [],
    ):
        await installation.producer.send_and_wait(
            name(Topic.DEAD_LETTERS), hostile + b"\xff\x9b", key=b"\xfe" + hostile, headers=headers
        )
    change_headers = [("ce_id", hostile), ("ce_subject", hostile), (HOSTILE, hostile)]
    for value in (change(), change(sequence=1, rolling_revenue_minor=5), hostile, b"", b"\xff", b"[" * 100_000, None):
        await installation.producer.send_and_wait(
            name(Topic.SEGMENT_CHANGES), value, key=b"a", headers=change_headers, partition=0
        )
    for arguments in (("dead-letters",), ("dead-letters", "--json"), ("dead-letters", "--reason", "\x1b[2J")):
        listed = run(installation, *arguments)
        assert listed.status == 0, listed
    assert (
        "\\x1b[2J" in run(installation, "dead-letters").out
        and "[bold red]markup" in run(installation, "dead-letters").out
    )
    for arguments in (("watch",), ("watch", "--json")):
        watched = run(installation, *arguments, "--from-beginning", "--limit", "7")
        assert watched.status == 0, watched
    assert run(installation, "watch", "--from-beginning", "--limit", "7").err.count("not a change") >= 5
    for account in (HOSTILE.replace("\0", ""), "\x1b[2J", "\udcff"):
        assert run(installation, "explain", account).status == 2
        assert run(installation, "explain", account, "--json").status == 2
        assert run(installation, "send", "signup", account).status == 2
        assert run(installation, account).status == 2


async def test_nothing_of_a_record_is_in_the_logs(installation: Installation, tmp_path: Path) -> None:
    """A worker at the lowest level of logging, every bad record there is, and good ones with a mark in each text."""
    bad = [
        Sent(
            TOPICS[record.kind],
            record.key and record.key.replace(b"acme", b"canary"),
            record.value and record.value.replace(b"acme", b"canary").replace(b"bad-", b"canary-"),
            partition_of(record, installation.partitions),
        )
        for record in BAD_RECORDS
    ]
    about = {"name": f"{CANARY} Ltd", "attributes": {"owner": CANARY, "canary_city": f"{CANARY}\u00e9"}}
    good = [
        event("signup", f"{CANARY}-1", f"{CANARY}-s", moment(0), **about),
        purchase(f"{CANARY}-1", f"{CANARY}-p", moment(1), 100, order_id=CANARY, note=CANARY),
        event("engagement", f"{CANARY}-1", f"{CANARY}-e", moment(1), kind="canary_seen"),
    ]
    environment = {"RESEGMENT_LOG_LEVEL": "DEBUG"}
    with CommandProcess(installation, tmp_path, "worker", "worker", variables=environment) as process:
        await process.until_said("claimed 4 shards")
        await installation.send(*bad, *good)
        await installation.producer.send_and_wait(installation.names.name(Topic.TICKS), CANARY.encode(), partition=0)
        standings = installation.names.name(Topic.STANDINGS)
        for value in (CANARY.encode(), None):
            await installation.producer.send_and_wait(standings, value, key=CANARY.encode(), partition=0)
        await installation.tick(moment(2))
        await check(installation)
        explained = run(installation, "explain", f"{CANARY}-1")
        assert explained.status == 0 and f"{CANARY} Ltd" in explained.out, explained
        process.check()
        said = process.said()
    assert "DEBUG" in said
    assert CANARY not in said, [line for line in said.splitlines() if CANARY in line][:3]
