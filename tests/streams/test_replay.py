"""Replaying a log: where its lines go, how its time passes, and that nothing is left behind."""

import asyncio
import csv
import json
import os
import random
import signal
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams.embedded import Embedded
from streams.instants import parse_instant
from streams.log import LogReader
from streams.messages import decode_tick
from streams.replay import ReplayLine, read_line
from streams.settings import Settings
from streams.topics import Topic
from tests.streams.command_line import POLICY, environment, finish, resegment, start, until_said

AT = "2024-05-01T12:00:00Z"
AT_US = parse_instant(AT)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"type": "purchase", "account_id": "a", "occurred_at": AT}, ReplayLine(Topic.PURCHASES, b"a", AT_US)),
        ({"type": "signup", "account_id": "a", "occurred_at": AT}, ReplayLine(Topic.SIGNUPS, b"a", AT_US)),
        ({"type": "engagement", "account_id": "a", "occurred_at": AT}, ReplayLine(Topic.ENGAGEMENTS, b"a", AT_US)),
        ({"type": "signup", "account_id": 7, "occurred_at": AT}, ReplayLine(Topic.SIGNUPS, None, AT_US)),
        ({"type": "signup", "account_id": "a", "occurred_at": "now"}, ReplayLine(Topic.SIGNUPS, b"a", None)),
        ({"type": "signup", "account_id": "a"}, ReplayLine(Topic.SIGNUPS, b"a", None)),
        ({"type": "refund", "account_id": "a", "occurred_at": AT}, ReplayLine(Topic.PURCHASES, b"a", AT_US)),
        ({"type": ["signup"], "account_id": "a"}, ReplayLine(Topic.PURCHASES, b"a", None)),
        ({"account_id": "a", "occurred_at": AT}, ReplayLine(Topic.PURCHASES, b"a", AT_US)),
        ([1], ReplayLine(Topic.PURCHASES, None, None)),
        ("text", ReplayLine(Topic.PURCHASES, None, None)),
    ],
)
def test_a_line_goes_to_the_topic_of_its_type(line: object, expected: ReplayLine) -> None:
    """With the account as its key; what fits nowhere goes to `purchases`, whose stage says what is wrong with it."""
    assert read_line(json.dumps(line).encode()) == expected


@pytest.mark.parametrize("line", [b"not JSON", b"\xff", b"{", b'{"amount_minor": 1E+1000000}', b"[" * 10_000])
def test_a_line_that_is_not_json_goes_somewhere_too(line: bytes) -> None:
    """Nothing that a file holds stops a replay."""
    assert read_line(line) == ReplayLine(Topic.PURCHASES, None, None)


def generated(days: int, seed: int = 1) -> list[dict[str, object]]:
    """A log over so many days: purchases, refunds, signups and engagements of 60 accounts, in order."""
    chance = random.Random(seed)
    begin = datetime(2022, 1, 1, tzinfo=UTC)
    events: list[dict[str, object]] = []
    for number in range(900):
        at = begin + timedelta(seconds=number * days * 86_400 / 900)
        kind = chance.choices(["purchase", "signup", "engagement"], [8, 1, 1])[0]
        event: dict[str, object] = {
            "type": kind,
            "event_id": f"e{number}",
            "account_id": f"account-{min(int(chance.expovariate(0.06)), 59)}",
            "occurred_at": at.isoformat(),
        }
        if kind == "purchase":
            event |= {"amount_minor": chance.choice([100, 999, 25_000, 400_000]), "currency": "USD"}
            event |= {"kind": "refund"} if chance.random() < 0.1 else {}
        if kind == "engagement":
            event["kind"] = "login"
        events.append(event)
    return events


def written(path: Path, events: list[dict[str, object]]) -> Path:
    """As a replay file."""
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def fields(out: str) -> dict[str, float]:
    """The last line of a replay."""
    return {name: float(value) for name, value in (pair.split("=") for pair in out.splitlines()[-1].split())}


@pytest.mark.parametrize("options", [[], ["--as-fast-as-possible"]], ids=["by event time", "as fast as possible"])
def test_an_embedded_replay_is_right_and_leaves_nothing_behind(tmp_path: Path, options: list[str]) -> None:
    """0 mismatches, until the window is empty; exported; then no process and no temporary file is there any more."""
    policy = tmp_path / "policy.toml"
    rules = POLICY.read_text()
    policy.write_text(
        rules.replace("window_days = 365", "window_days = 50").replace("start_days = 90", "start_days = 9")
    )
    events = generated(days=60)
    lines = written(tmp_path / "log.jsonl", [*events, *events[-50:]])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start(
        *("replay", lines, "--embedded", "--verify", "--until", "2022-04-25", "--policy", policy),
        *("--export", tmp_path / "export"),
        *options,
        values={"TMPDIR": str(temporary)},
    )
    done = finish(process)
    assert done.status == 0, done
    found = fields(done.out)
    assert list(found) == [
        *("events", "applied", "duplicates", "dead_letters", "accounts", "changes", "mismatches", "seconds")
    ]
    assert (found["events"], found["applied"], found["duplicates"]) == (950, 900, 50)
    assert (found["dead_letters"], found["mismatches"]) == (0, 0)
    assert not list(temporary.iterdir())
    accounts = (tmp_path / "export" / "accounts.csv").read_text().splitlines()
    assert len(accounts) == 1 + found["accounts"]
    changes = (tmp_path / "export" / "changes.jsonl").read_text().splitlines()
    assert len(changes) == found["changes"]
    rows = list(csv.DictReader(accounts))
    assert {row["rolling_revenue_minor"] for row in rows} == {"0"}
    assert {row["lapsed"] for row in rows if row["stage"] == "established"} == {"true"}


async def until_replaying(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until days pass in an embedded replay. Returns its processes: broker, store, their guards and the worker."""
    async with asyncio.timeout(60):
        while True:
            assert process.poll() is None, process.communicate()
            children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
            if len(children) == 5 and await has_ticked(children):
                return children
            await asyncio.sleep(0.02)


async def has_ticked(children: list[psutil.Process]) -> bool:
    """Whether the account stage on the store among these processes lives in a replay's time."""
    for store in (child for child in children if "valkey" in child.name()):
        for at in store.net_connections():
            if at.status == psutil.CONN_LISTEN:
                async with Redis(port=at.laddr.port) as redis:
                    with suppress(RedisError):
                        state = await redis.hget("{resegment:accounts:0}:meta", "state")
                        return state is not None and b'"mode":"replay"' in state
    return False


async def test_an_interrupted_replay_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the days ends broker, store and worker, and removes their files."""
    lines = written(tmp_path / "log.jsonl", generated(days=3_000))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start("replay", lines, "--embedded", values={"TMPDIR": str(temporary)})
    children = await until_replaying(process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 128 + signal.SIGINT, done
    assert "Traceback" not in done.err
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not list(temporary.iterdir())


async def test_a_killed_replay_leaves_no_process_behind(tmp_path: Path) -> None:
    """Even by kill -9: the servers have guards, and the worker sees its input end."""
    lines = written(tmp_path / "log.jsonl", generated(days=3_000))
    process = start("replay", lines, "--embedded", values={"TMPDIR": str(tmp_path)})
    children = await until_replaying(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=45)
    assert not alive


async def test_time_passes_midnight_by_midnight(embedded: Embedded, tmp_path: Path) -> None:
    """One tick for each midnight, in order, each after all events before it; and each event on its own day."""
    values = environment(embedded, RESEGMENT_CLOCK="replay")
    assert resegment("topics", "create", "--partitions", "2", values=values).status == 0
    days = ["2024-02-27", "2024-02-28", "2024-03-02"]
    events: list[dict[str, object]] = [
        {
            "type": "purchase",
            "event_id": f"e{number}",
            "account_id": f"a{number % 4}",
            "occurred_at": f"{day}T{hour:02}:00:00+00:00",
            "amount_minor": 100,
            "currency": "USD",
        }
        for number, (day, hour) in enumerate((day, hour) for day in days for hour in (0, 9, 15, 23))
    ]
    log = tmp_path / "worker"
    worker = start("worker", values=values, log=log)
    try:
        await until_said(worker, log, "claimed 4 shards")
        done = resegment("replay", written(tmp_path / "log.jsonl", events), "--until", "2024-03-04", values=values)
        assert done.status == 0, done
        assert "events=12 applied=12 duplicates=0 dead_letters=0 accounts=4 " in done.out
    finally:
        worker.kill()
        worker.communicate()
    ticks, purchases, changes = await records(embedded, values)
    midnights = [parse_instant(f"{day}T00:00:00Z") for day in (
        "2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04",
    )]  # fmt: skip
    for partition in range(2):
        mine = [decode_tick(tick.value) for tick in ticks if tick.partition == partition]
        assert [tick.at_us for tick in mine] == midnights
        assert {tick.mode for tick in mine} == {"replay"}
        for tick in mine:
            before = [record for record in purchases if record.partition == partition and at(record) < tick.at_us]
            assert tick.ends[Topic.PURCHASES] == len(before)
    caused = {json.loads(change.value)["cause"]["event_id"]: json.loads(change.value) for change in changes}
    for event in events[:4]:  # each account's first purchase is applied on its own day, so it is the cause
        assert caused[event["event_id"]]["effective_at"] == str(event["occurred_at"]).replace("+00:00", "Z")
        assert caused[event["event_id"]]["current_segment"] == "new_start"


def at(record: ConsumerRecord) -> int:
    """When the event in a record happened."""
    return parse_instant(json.loads(record.value)["occurred_at"])


async def records(servers: Embedded, values: dict[str, str]) -> tuple[list[ConsumerRecord], ...]:
    """What is in the topics of ticks, purchases and changes, in order by partition."""
    settings = Settings(kafka_bootstrap_servers=servers.kafka, topic_prefix=values["RESEGMENT_TOPIC_PREFIX"])
    found: dict[Topic, list[ConsumerRecord]] = {Topic.TICKS: [], Topic.PURCHASES: [], Topic.SEGMENT_CHANGES: []}
    async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        async for topic, record in reader.read({(topic, number): 0 for topic in found for number in range(2)}):
            found[topic].append(record)
    return found[Topic.TICKS], found[Topic.PURCHASES], found[Topic.SEGMENT_CHANGES]


def test_until_leaves_later_events_out(tmp_path: Path) -> None:
    """The replay ends at that time, with the events up to there."""
    events = generated(days=90)
    until = "2022-01-31"
    expected = sum(str(event["occurred_at"]) <= f"{until}T00:00:00+00:00" for event in events)
    lines = written(tmp_path / "log.jsonl", events)
    done = resegment("replay", lines, "--embedded", "--as-fast-as-possible", "--until", until)
    assert done.status == 0, done
    assert fields(done.out)["events"] == expected
