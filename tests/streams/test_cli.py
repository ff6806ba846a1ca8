"""The commands that need no worker: what they print, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streams.cli.console import escape, readable
from streams.embedded import Embedded
from streams.server_process import free_port
from streams.topics import Topic
from tests.streams.command_line import POLICY, environment, is_one_line, resegment

COMMANDS = (
    "demo", "dev", "topics create", "topics check", "worker", "replay", "send purchase", "send refund",
    "send signup", "send engagement", "watch", "explain", "report", "capacity", "policy check", "policy diff",
    "policy apply", "export", "verify", "fit", "backtest", "dead-letters", "doctor",
    "alerts", "alerts test", "alerts log", "alerts undelivered",
)  # fmt: skip


@pytest.fixture(scope="module")
def topics(embedded: Embedded) -> dict[str, str]:
    """The environment of an installation that has its topics, and no worker."""
    values = environment(embedded)
    assert resegment("topics", "create", "--partitions", "3", values=values).status == 0
    return values


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str) -> None:
    """`--help` says what the command does and ends well."""
    done = resegment(*command.split(), "--help")
    assert done.status == 0
    assert f"Usage: resegment {command}".strip() in " ".join(done.out.split())


def test_help_imports_nothing_heavy() -> None:
    """`resegment --help` is quick: the stream processor, the database and the Kafka client are not imported for it."""
    heavy = ("faust", "duckdb", "aiokafka", "redis", "pydantic", "numpy", "scipy")
    program = (
        "import sys; from streams.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("replay",),
        ("watch", "--limit", "many"),
        ("topics", "create", "--partitions", "0"),
        ("send", "purchase", "acme", "12.345"),
        ("send", "purchase", "acme", "-5"),
        ("send", "purchase", "acme", "5", "--currency", "XYZ"),
        ("send", "signup", "acme", "--attribute", "region"),
        ("replay", "/dev/null", "--until", "yesterday"),
        ("replay", "/does/not/exist"),
        ("verify", "--policy", "/does/not/exist"),
        ("capacity", "--policy", "/does/not/exist"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    """What was typed wrongly is said in one line on standard error."""
    done = resegment(*arguments)
    assert done.status == 2, done
    assert is_one_line(done.err), done.err
    assert not done.out


def test_a_wrong_setting_is_named() -> None:
    """The line names the variable."""
    done = resegment("doctor", values={"RESEGMENT_TICK_SECONDS": "soon"})
    assert done.status == 2
    assert is_one_line(done.err)
    assert "RESEGMENT_TICK_SECONDS" in done.err


def test_a_wrong_policy_is_explained(tmp_path: Path) -> None:
    """The line names file and field."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.read_text().replace("key = 30", "key = 31"))
    done = resegment("topics", "check", "--policy", policy)
    assert done.status == 2
    assert is_one_line(done.err)
    assert str(policy) in done.err and "tiers" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("topics", "check"),
        ("topics", "create"),
        ("worker",),
        ("replay", "/dev/null"),
        ("send", "signup", "acme"),
        ("watch", "--limit", "1"),
        ("explain", "acme"),
        ("report",),
        ("capacity",),
        ("verify",),
        ("dead-letters",),
        ("doctor",),
    ],
)
def test_a_broker_that_cannot_be_reached_is_status_2(embedded: Embedded, arguments: tuple[str, ...]) -> None:
    """One line says which setting to look at."""
    values = environment(embedded, RESEGMENT_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    done = resegment(*arguments, values=values)
    assert done.status == 2, done
    assert "Traceback" not in done.err
    if arguments != ("worker",):  # which logs before it gives up
        assert is_one_line(done.err), done.err
    assert arguments == ("doctor",) or "RESEGMENT_KAFKA_BOOTSTRAP_SERVERS" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker",),
        ("replay", "/dev/null"),
        ("explain", "acme"),
        ("report",),
        ("policy", "diff", POLICY),
        ("capacity",),
        ("export", "x"),
        ("verify",),
        ("doctor",),
    ],
)
def test_a_store_that_cannot_be_reached_is_status_2(topics: dict[str, str], arguments: tuple[str, ...]) -> None:
    """One line says which setting to look at."""
    values = {**topics, "RESEGMENT_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    done = resegment(*arguments, values=values)
    assert done.status == 2, done
    assert "Traceback" not in done.err
    assert arguments == ("doctor",) or "RESEGMENT_REDIS_URL" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker",),
        ("replay", "/dev/null"),
        ("send", "signup", "acme"),
        ("watch",),
        ("capacity",),
        ("verify",),
        ("dead-letters",),
    ],
)
def test_missing_topics_are_named(embedded: Embedded, arguments: tuple[str, ...]) -> None:
    """One line says which topics are missing, and what makes them."""
    done = resegment(*arguments, values=environment(embedded))
    assert done.status == 2, done
    assert "missing" in done.err and "resegment topics create" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [("capacity",), ("capacity", "--json"), ("explain", "acme")])
def test_an_installation_without_any_worker_yet_is_status_2(topics: dict[str, str], arguments: tuple[str, ...]) -> None:
    """One line says that there is nothing to look at, and nothing is printed that could be taken for an answer."""
    done = resegment(*arguments, values=topics)
    assert done.status == 2, done
    assert is_one_line(done.err) and "no installation" in done.err
    assert not done.out


def test_topics_are_made_once_and_checked(embedded: Embedded) -> None:
    """`create` makes what is missing; `check` fails before and not after."""
    values = environment(embedded)
    before = resegment("topics", "check", "--json", values=values)
    assert before.status == 1
    assert len(json.loads(before.out)["errors"]) == len(Topic)
    created = json.loads(resegment("topics", "create", "--partitions", "3", "--json", values=values).out)
    assert len(created["created"]) == len(Topic)
    again = resegment("topics", "create", values=values)
    assert (again.status, "already" in again.out) == (0, True)
    after = resegment("topics", "check", "--json", values=values)
    assert after.status == 0, after
    assert set(json.loads(after.out)["partitions"].values()) == {3}


def test_doctor_finds_nothing_wrong_with_the_embedded_servers(topics: dict[str, str]) -> None:
    """It says what it found, and warns that this store keeps nothing."""
    done = resegment("doctor", "--json", values=topics)
    assert done.status == 0, done
    found = json.loads(done.out)["found"]
    assert {entry["about"] for entry in found} == {"program", "policy", "broker", "topics", "store", "state"}
    assert [entry["text"].split()[0] for entry in found if entry["status"] == "warning"] == ["appendonly"]
    assert any("Valkey" in entry["text"] for entry in found)


def test_doctor_fails_where_topics_are_missing(embedded: Embedded) -> None:
    """Exit status 1, and the topics by name."""
    values = environment(embedded)
    done = resegment("doctor", values=values)
    assert done.status == 1
    assert is_one_line(done.err)
    assert f"{values['RESEGMENT_TOPIC_PREFIX']}purchases is missing" in done.out


@pytest.mark.parametrize(
    ("arguments", "topic", "fields"),
    [
        (("purchase", "acme", "1250.5"), "purchases", {"amount_minor": 125_050, "currency": "USD"}),
        (("purchase", "acme", "1250", "--currency", "EUR"), "purchases", {"amount_minor": 125_000, "currency": "EUR"}),
        (
            ("refund", "acme", "0.01", "--purchased-at", "2026-01-01T00:00:00Z"),
            "purchases",
            {"kind": "refund", "amount_minor": 1, "purchased_at": "2026-01-01T00:00:00Z"},
        ),
        (
            ("signup", "acme", "--name", "Acme", "--attribute", "region=emea", "--attribute", "employees=250"),
            "signups",
            {"name": "Acme", "attributes": {"region": "emea", "employees": 250}},
        ),
        (("engagement", "acme", "login", "--weight", "3"), "engagements", {"kind": "login", "weight": 3}),
    ],
)
def test_send_says_what_it_sent(
    topics: dict[str, str], arguments: tuple[str, ...], topic: str, fields: dict[str, object]
) -> None:
    """The event has an id and a time, and lies where the answer says."""
    done = resegment("send", *arguments, "--json", values=topics)
    assert done.status == 0, done
    sent = json.loads(done.out)
    assert sent["topic"] == topic
    assert sent["offset"] >= 0
    event = sent["event"]
    assert event["account_id"] == "acme" and event["event_id"] and event["occurred_at"]
    assert {name: event[name] for name in fields} == fields


@pytest.mark.parametrize(
    "arguments",
    [
        ("purchase", "bad account", "1"),
        ("purchase", "acme", "1", "--at", "2026-01-01"),
        ("purchase", "acme", "1", "--currency", "CHF"),
        ("engagement", "acme", "Not A Kind"),
    ],
)
def test_send_refuses_what_would_be_a_dead_letter(topics: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Nothing is sent, and the line says why."""
    done = resegment("send", *arguments, values=topics)
    assert done.status == 2
    assert is_one_line(done.err)
    assert "dead letter" in done.err


def test_a_reader_that_has_enough_ends_the_command_quietly() -> None:
    """`resegment ... | head -1` prints no traceback."""
    program = f"{sys.executable} -m streams.cli replay --help | head -1"
    done = subprocess.run(["/bin/sh", "-c", program], capture_output=True, text=True, check=True)
    assert not done.stderr


def test_what_cannot_be_seen_is_escaped() -> None:
    """Control characters, direction marks, lone surrogates and bytes that are no text come out as escapes."""
    assert escape("a\x1b[31m\u202e\ud800é") == "a\\x1b[31m\\u202e\\ud800é"
    assert readable(b"\xff\x00[bold]") == "\\xff\\x00[bold]"
    assert readable(None) == "(none)"
    assert readable(b"x" * 1000).endswith("(+840)")
