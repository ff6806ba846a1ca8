"""`resegment report` and `resegment policy`: what they print, and how they end."""

import json
from pathlib import Path

import pytest

from segmentation.policy import Policy, parse_policy
from streams.embedded import Embedded
from tests.streams.command_line import POLICY, Here, environment, in_this_process, is_one_line, resegment
from tests.streams.installation import GROWN, Installed, installed


@pytest.fixture
def installation(embedded: Embedded) -> Installed:
    """One at rest, with a band of 0, by revenue."""
    return installed(embedded)[0, "revenue"]


@pytest.fixture
def here(installation: Installed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs a command on the installation, in this process: a new one takes a second to import all that it needs."""
    settings = installation.settings
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TRANSACTIONS": "false",
        "TOPIC_PREFIX": settings.topic_prefix,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "REDIS_PREFIX": settings.redis_prefix,
    }.items():
        monkeypatch.setenv(f"RESEGMENT_{name}", value)
    return in_this_process(capsys)


@pytest.fixture
def alone(capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs a command that needs no installation."""
    return in_this_process(capsys)


def toml(policy: Policy) -> str:
    """The policy as a file has it."""
    document = policy.document()
    lines = []
    for name in [*(n for n, v in document.items() if not isinstance(v, dict)), "tiers", "rates", "engagement_weights"]:
        value = document[name]
        if isinstance(value, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(held)}" for key, held in value.items())]
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    text = "\n".join(lines)
    assert parse_policy(text, "test") == policy
    return text


# -- report ------------------------------------------------------------------------------------------------------------


def test_a_report_is_of_the_last_thirty_days(here: Here) -> None:
    """Up to the day of the state's clock; for people it is tables and sentences."""
    found = json.loads(here("report", "--json").out)
    assert (found["from"], found["to"]) == ("2025-05-26", "2025-06-24")
    assert found["as_of"] == "2025-06-24T00:00:01.500000Z"
    assert found["undone"]["within_days"] == 7
    assert found["warnings"] == []
    done = here("report")
    assert (done.status, done.err) == (0, "")
    for said in ("2025-05-26 to 2025-06-24", "moves, from (rows) to (columns)", "undone within 7 days", "key"):
        assert said in done.out


def test_a_report_for_programs_holds_everything(here: Here) -> None:
    """Over all time, what is there is what entered; the accounts asked for are told one by one."""
    done = here(
        "report", "--from", "2024-01-01", "--to", "2025-12-31", "--undone-within", "30", "--account", GROWN, "--json"
    )
    assert done.status == 0, done
    found = json.loads(done.out)
    (told,) = found["timelines"]
    assert told["account_id"] == GROWN and told["at_begin"] is None
    sequence = [change["sequence"] for change in told["changes"]]
    assert sequence == list(range(1, len(sequence) + 1)) and len(sequence) >= 3
    assert told["changes"][0]["from"] is None and told["changes"][-1]["to"] == told["now"]
    assert told["rolling_revenue_minor"] == 400_000
    assert found["placed"] == found["accounts"] == sum(part["accounts"] for part in found["segments"])
    assert sum(cell["moves"] for cell in found["moves"]) == found["move_count"] == sum(found["causes"].values()) > 50
    assert sum(cell["accounts"] for cell in found["migration"]) == found["accounts"]
    assert {cell["from"] for cell in found["migration"]} == {None}
    assert all(part["net"] == part["accounts"] for part in found["segments"])
    assert sum(sum(day[name] for name in ("entered", "advanced", "up", "down")) for day in found["days"]) == (
        found["placed"] + found["move_count"]
    )
    assert abs(sum(part["share_of_revenue"] for part in found["segments"]) - 1) < 1e-6
    assert found["displaced"]["moves"] == found["causes"]["boundary_moved"]
    assert 0 <= found["undone"]["undone"] <= found["undone"]["moves"]


def test_a_report_as_a_page(here: Here, tmp_path: Path) -> None:
    """One file, which replaces the one before it; with --json both."""
    path = tmp_path / "report.html"
    path.write_text("old")
    done = here("report", "--html", path, "--account", GROWN)
    assert (done.status, done.err) == (0, "")
    assert str(path) in done.out
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and GROWN in text
    assert json.loads(here("report", "--html", path, "--json").out)["accounts"] > 0
    assert GROWN not in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday"), "--from"),
        (("--to", "2025-02-30"), "--to"),
        (("--from", "2025-03-02", "--to", "2025-03-01"), "ends before it begins"),
        (("--account", "nobody"), "nobody"),
        (("--account", "\x1b[31m"), "\\x1b"),
        (("--undone-within", "0"), "--undone-within"),
        (("--html", "/does/not/exist/x.html"), "/does/not/exist"),
    ],
)
def test_a_report_asked_for_wrongly_is_one_line_and_status_2(here: Here, arguments: tuple[str, ...], said: str) -> None:
    """What cannot be had is said in one line on standard error."""
    done = here("report", *arguments)
    assert (done.status, done.out) == (2, ""), done
    assert is_one_line(done.err) and said in done.err


def test_before_there_is_anything_it_is_said(embedded: Embedded) -> None:
    """No topics, and no state: one line each, status 2."""
    values = environment(embedded)
    no_topics = resegment("report", values=values)
    assert no_topics.status == 2 and "resegment topics create" in no_topics.err
    assert resegment("topics", "create", "--partitions", "1", values=values).status == 0
    for command in (("report",), ("policy", "diff", POLICY)):
        done = resegment(*command, values=values)
        assert (done.status, done.out) == (2, ""), done
        assert is_one_line(done.err) and "start a worker first" in done.err


# -- policy check ------------------------------------------------------------------------------------------------------


def test_a_valid_policy_is_told_in_words(alone: Here) -> None:
    """Version, hash, and what it means."""
    done = alone("policy", "check", POLICY)
    assert (done.status, done.err) == (0, "")
    policy = parse_policy(POLICY.read_text(), "test")
    for said in (policy.version, policy.hash, "30 % of the revenue", "the next 50 %", "2 points", "1 EUR = 1.08 USD"):
        assert said in done.out
    found = json.loads(alone("policy", "check", POLICY, "--json").out)
    assert found == {
        "valid": True, "version": policy.version, "hash": policy.hash, "policy": policy.document(), "problems": [],
    }  # fmt: skip


def test_every_problem_of_a_policy_is_told(alone: Here, tmp_path: Path) -> None:
    """With its field, what was found and what would be right; status 1."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.read_text().replace("window_days = 365", "window_days = 0\nwindow = 1").replace("30", "31"))
    done = alone("policy", "check", path)
    assert done.status == 1
    assert is_one_line(done.err) and "3 problems" in done.err and str(path) in done.err
    assert len(done.out.splitlines()) == 3
    assert "window_days: found 0, expected a whole number of days from 1 to 3650" in done.out
    as_json = alone("policy", "check", path, "--json")
    found = json.loads(as_json.out)
    assert (as_json.status, found["valid"]) == (1, False)
    assert {problem["field"] for problem in found["problems"]} == {"window_days", "window", "tiers"}
    assert all(problem["found"] and problem["expected"] for problem in found["problems"])


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"version = ", b"", b'"\\u001b[31m" = 1', b'version = "\\u001b[31m"\n[tiers]\nkey = 1']
)
def test_what_is_no_policy_is_not_valid(alone: Here, tmp_path: Path, content: bytes) -> None:
    """Nothing that a file holds gets to the terminal as it is."""
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    done = alone("policy", "check", path)
    assert done.status == 1
    assert is_one_line(done.err) and done.out
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize("path", ["/does/not/exist", "/"])
def test_a_policy_that_cannot_be_read_is_status_2(alone: Here, path: str) -> None:
    """One line names the file."""
    done = alone("policy", "check", path)
    assert (done.status, done.out) == (2, "")
    assert is_one_line(done.err) and path in done.err


# -- policy diff -------------------------------------------------------------------------------------------------------


def test_a_policy_is_compared_with_the_present_one(here: Here, installation: Installed, tmp_path: Path) -> None:
    """What differs, who would move, and where the cutoffs would be."""
    path = tmp_path / "policy.toml"
    other = installation.policy.with_changes(
        version="next", basis="accounts", tiers={"key": 10, "enterprise": 20, "commercial": 70}, window_days=100
    )
    path.write_text(toml(other))
    found = json.loads(here("policy", "diff", path, "--json").out)
    assert {field["field"]: field["effect"] for field in found["fields"]} == {
        "version": "none", "basis": "answered", "tiers.key": "answered", "tiers.enterprise": "answered",
        "tiers.commercial": "answered", "window_days": "unknown",
    }  # fmt: skip
    assert 0 < found["moved_accounts"] == sum(cell["accounts"] for cell in found["matrix"]) < found["accounts"]
    assert len(found["largest"]) == min(20, found["moved_accounts"])
    revenues = [one["revenue_minor"] for one in found["largest"]]
    assert revenues == sorted(revenues, reverse=True)
    assert [part["segment"] for part in found["cutoffs_minor"]] == ["key", "enterprise"]
    minutes = {name: playbook.minutes_a_quarter for name, playbook in other.segments}
    for side in ("present", "policy"):
        asked = sum(part[side]["accounts"] * minutes[part["segment"]] for part in found["segments"])
        assert sum(role[side]["minutes_a_quarter"] for role in found["capacity"]) == asked > 0
    assert any(role["present"]["people_needed"] != role["policy"]["people_needed"] for role in found["capacity"])
    assert found["present_policy"]["hash"] == installation.policy.hash and found["policy"]["hash"] == other.hash
    done = here("policy", "diff", path)
    assert (done.status, done.err) == (0, "")
    assert "nothing is written" in done.out and "not in these numbers: window_days: 365 -> 100" in done.out
    assert f"{found['moved_accounts']:,} of {found['accounts']:,} accounts" in done.out
    for one in found["largest"]:
        assert one["account_id"] in done.out
    assert here("report", "--json").status == 0, "the state is as it was"


def test_the_present_policy_changes_nothing(here: Here, installation: Installed, tmp_path: Path) -> None:
    """Nobody would move, and that is no failure."""
    path = tmp_path / "policy.toml"
    path.write_text(toml(installation.policy))
    done = here("policy", "diff", path)
    assert (done.status, done.err) == (0, "")
    assert "0 of " in done.out and "(0.0%) would move" in done.out
    assert json.loads(here("policy", "diff", path, "--json").out)["fields"] == []


def test_what_the_state_cannot_tell_is_refused(here: Here, installation: Installed, tmp_path: Path) -> None:
    """Where nothing else differs: one line that names each field and why."""
    path = tmp_path / "policy.toml"
    path.write_text(toml(installation.policy.with_changes(window_days=100, rates={})))
    done = here("policy", "diff", path)
    assert (done.status, done.out) == (2, "")
    assert is_one_line(done.err)
    assert "window_days: 365 -> 100" in done.err and "rates.EUR" in done.err and "resegment replay" in done.err


def test_a_policy_that_is_not_valid_is_not_compared(here: Here, tmp_path: Path) -> None:
    """Its problems are said; status 2."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.read_text().replace("key = 30", "key = 31"))
    done = here("policy", "diff", path)
    assert (done.status, done.out) == (2, "")
    assert "tiers" in done.err
