"""The commands on an installation with a worker: a process as an operator starts it, in real time."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from streams.embedded import Embedded
from streams.topics import Topic
from tests.streams.command_line import POLICY, environment, finish, is_one_line, resegment, start, until_said


@asynccontextmanager
async def worker(values: dict[str, str], log: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """A worker that has its shards."""
    process = start("worker", values=values, log=log)
    try:
        await until_said(process, log, "claimed 4 shards")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def values(embedded: Embedded) -> dict[str, str]:
    """The environment of an installation with topics."""
    values = environment(embedded, RESEGMENT_TICK_SECONDS="0.1")
    assert resegment("topics", "create", "--partitions", "2", values=values).status == 0
    return values


def documents(text: str) -> list[dict[str, object]]:
    """One JSON object a line."""
    return [json.loads(line) for line in text.splitlines()]


async def test_a_worker_drains_on_sigterm_and_listens_nowhere(values: dict[str, str], tmp_path: Path) -> None:
    """No port is open that nobody asked for; asked to leave, it leaves the group and ends well."""
    async with worker(values, tmp_path / "log") as process:
        running = psutil.Process(process.pid)
        connections = running.net_connections()
        assert connections, "it talks to broker and store"
        assert not [at for at in connections if at.status == psutil.CONN_LISTEN]
        process.send_signal(signal.SIGTERM)
        done = finish(process)
    said = (tmp_path / "log").read_text()
    assert done.status == 0, said
    assert "SIGTERM" in said and json.loads(said.splitlines()[-1])["event"] == "left"
    assert "nothing fences a second worker" in said


async def test_a_second_signal_ends_a_worker_at_once(values: dict[str, str], tmp_path: Path) -> None:
    """Whoever cannot wait for the drain does not have to, and no file is left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    async with worker({**values, "TMPDIR": str(temporary)}, tmp_path / "log") as process:
        # frozen, so that both signals are there before it can have left
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        assert finish(process).status in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert not [*temporary.iterdir()]


async def test_a_worker_refuses_another_policy(values: dict[str, str], tmp_path: Path) -> None:
    """It says what differs, and doctor says the same."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.read_text().replace("window_days = 365", "window_days = 300"))
    async with worker(values, tmp_path / "log"):
        refused = resegment("worker", "--policy", policy, values=values)
        assert refused.status == 2
        assert "window_days" in refused.err and "Traceback" not in refused.err
        checked = resegment("doctor", "--policy", policy, values=values)
        assert checked.status == 1
        assert "window_days" in checked.out


async def test_doctor_warns_of_strategies_that_workers_do_not_have(values: dict[str, str], tmp_path: Path) -> None:
    """A policy that was edited and not given to the workers yet is usable: status 0, and what differs."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.read_text().replace("touches_a_quarter = 12 ", "touches_a_quarter = 9 "))
    async with worker(values, tmp_path / "log"):
        checked = resegment("doctor", "--policy", policy, "--json", values=values)
        assert checked.status == 0, checked
        warnings = [entry["text"] for entry in json.loads(checked.out)["found"] if entry["status"] == "warning"]
        assert [text for text in warnings if "segments.key.touches_a_quarter: 12 -> 9" in text]
        assert "decide no segment" not in resegment("doctor", values=values).out


async def test_what_is_sent_is_seen(values: dict[str, str], tmp_path: Path) -> None:
    """A purchase is watched, explained, exported and verified."""
    async with worker(values, tmp_path / "log"):
        watching = start("watch", "--json", "--from-beginning", "--limit", "2", values=values)
        for account in ("acme", "umbrella"):
            assert resegment("send", "purchase", account, "100", "--event-id", "e1", values=values).status == 0
        watched = finish(watching)
        assert watched.status == 0, watched
        events = documents(watched.out)
        assert {str(event["subject"]) for event in events} == {"acme", "umbrella"}
        assert {event["data"]["current_segment"] for event in events} == {"new_start"}  # type: ignore[index]
        shown = resegment("watch", "--from-beginning", "--limit", "2", values=values)
        assert "acme" in shown.out and "new_start" in shown.out
        assert "onboarding_specialist: See that the first order went well" in shown.out

        explained = resegment("explain", "acme", "--json", values=values)
        assert explained.status == 0, explained
        assert json.loads(explained.out)["rolling_revenue_minor"] == 10_000
        said = resegment("explain", "acme", values=values).out
        assert "acme is new_start" in said and "See that the first order went well and plan the second" in said
        unknown = resegment("explain", "nobody", values=values)
        assert unknown.status == 2 and is_one_line(unknown.err)

        exported = resegment("export", tmp_path / "export", values=values)
        assert exported.status == 0, exported
        assert len((tmp_path / "export" / "accounts.csv").read_text().splitlines()) == 3
        verified = resegment("verify", values=values)
        assert verified.status == 0, verified
        assert "events=2 applied=2 duplicates=0 dead_letters=0 accounts=2 changes=2 mismatches=0" in verified.out

        assert resegment("send", "engagement", "acme", "cancel_request", values=values).status == 0
        flagged = resegment("watch", "--risks", "--from-beginning", "--limit", "1", values=values)
        assert "low → high  91 %" in flagged.out and "asked to cancel today" in flagged.out
        said = resegment("explain", "acme", values=values).out
        assert "high: 91 % that nothing is bought in 90 days, uncalibrated" in said


async def test_a_replay_into_the_present_is_refused(values: dict[str, str], tmp_path: Path) -> None:
    """Past and present do not mix: one line, status 2, nothing published."""
    async with worker(values, tmp_path / "log"):
        watching = start("watch", "--limit", "1", "--from-beginning", values=values)
        resegment("send", "signup", "acme", values=values)
        assert finish(watching).status == 0  # so the worker has ticked
        log = tmp_path / "log.jsonl"
        log.write_text('{"type":"signup","event_id":"e","account_id":"x","occurred_at":"2020-01-01T00:00:00Z"}\n')
        done = resegment("replay", log, values=values)
        assert done.status == 2
        assert is_one_line(done.err) and "real time" in done.err
        assert resegment("explain", "x", values=values).status == 2


async def test_dead_letters_are_listed_and_sent_again(embedded: Embedded, tmp_path: Path) -> None:
    """Payloads come back as they were, hostile ones escaped; a retry publishes them again, and only them."""
    values = environment(embedded, RESEGMENT_CLOCK="replay")
    assert resegment("topics", "create", "--partitions", "2", values=values).status == 0
    log = tmp_path / "log.jsonl"
    bad = [b"\xff\xfe not text", "\u202e\x1b[31m[bold]not JSON".encode(), b'{"type":"signup","account_id":"a"}']
    good = b'{"type":"signup","event_id":"e","account_id":"a","occurred_at":"2020-01-01T00:00:00Z"}'
    log.write_bytes(b"\n".join([*bad, good]) + b"\n")
    async with worker(values, tmp_path / "worker"):
        replayed = resegment("replay", log, values=values)
        assert replayed.status == 0, replayed
        assert "events=4 applied=1 duplicates=0 dead_letters=3 accounts=1 changes=1" in replayed.out

        listed = resegment("dead-letters", values=values)
        assert listed.status == 0
        assert "\x1b" not in listed.out and "\u202e" not in listed.out
        assert "\\u202e\\x1b[31m[bold]not JSON" in listed.out and "\\xff\\xfe not text" in listed.out
        found = documents(resegment("dead-letters", "--json", values=values).out)
        assert {entry["reason"] for entry in found} == {"not_utf8", "not_json", "missing_field"}
        assert [entry["payload_base64"] for entry in found if "payload_base64" in entry] == ["//4gbm90IHRleHQ="]
        only = documents(resegment("dead-letters", "--json", "--reason", "missing_field", values=values).out)
        assert [(entry["topic"], entry["key"]) for entry in only] == [("signups", "a")]
        assert only[0]["payload"] == bad[2].decode()

        retried = resegment("dead-letters", "--retry", "--reason", "missing_field", "--json", values=values)
        assert (retried.status, json.loads(retried.out)) == (0, {"retried": 1, "left_out": 0})
        async with asyncio.timeout(30):
            while len(found := documents(resegment("dead-letters", "--json", values=values).out)) < 4:
                pass
        again = [entry for entry in found if entry["reason"] == "missing_field"]
        assert [entry["payload"] for entry in again] == [bad[2].decode()] * 2
        assert {entry["topic"] for entry in again} == {Topic.SIGNUPS}
