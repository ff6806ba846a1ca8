"""`resegment fit` and `resegment backtest`: what they print, and how they end."""

import json
from pathlib import Path

import pytest

from segmentation.policy import parse_policy
from streams.cdnow import data_file, read_lines
from streams.embedded import Embedded
from streams.replay import read_line
from streams.sending import EventWriter
from streams.settings import Settings
from tests.streams.command_line import POLICY, ROOT, Here, environment, in_this_process, is_one_line, resegment


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay file: one in twenty of CDNOW's accounts."""
    lines = [line.payload + b"\n" for line in read_lines(data_file())]
    path = tmp_path_factory.mktemp("model") / "log.jsonl"
    path.write_bytes(b"".join(line for line in lines if int(json.loads(line)["account_id"][-5:]) % 20 == 7))
    return path


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs a command in this process: a new one takes a second to import all that these need."""
    return in_this_process(capsys)


def test_fit_prints_a_table_for_the_policy(here: Here, log: Path, tmp_path: Path) -> None:
    """What it prints, comments and all, may be appended to a policy; the second run takes that policy, too."""
    done = here("fit", log, "--at", "1997-06-30")
    assert (done.status, done.err) == (0, "")
    policy = parse_policy(POLICY.read_text() + done.out, "printed")
    assert policy.model is not None and policy.model.fitted_at == "1997-06-30"
    assert f"of {policy.model.accounts:,} accounts bought again" in done.out
    assert "USD on average" in done.out and "log-likelihood of MBG/NBD -" in done.out
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.read_text() + done.out)
    assert here("fit", log, "--at", "1997-06-30", "--policy", path).out == done.out


def test_fit_for_programs(here: Here, log: Path) -> None:
    """One object, with the model as the policy has it and how well it fits; by default of the last purchase's day."""
    done = here("fit", log, "--json")
    assert done.status == 0, done
    found = json.loads(done.out)
    assert found["model"]["fitted_at"] == "1998-06-30"
    assert found["model"]["accounts"] == found["statistics"]["accounts"] > found["statistics"]["repeat_buyers"] > 0
    assert found["statistics"]["log_likelihood"] < 0


def test_what_a_worker_would_not_apply_is_left_out_and_told(here: Here, log: Path, tmp_path: Path) -> None:
    """On standard error, with the reasons; the estimates are the same without it."""
    untidy = tmp_path / "untidy.jsonl"
    untidy.write_bytes(
        log.read_bytes() + b'not json\n{"type":"purchase","event_id":"1"}\n\n' + log.read_bytes()[:5_000]
    )
    done = here("fit", untidy, "--at", "1997-06-30")
    assert done.out == here("fit", log, "--at", "1997-06-30").out
    assert "records that no worker would apply are left out" in done.err
    assert "missing_field 1" in done.err and "not_json" in done.err


def test_backtest_ends_with_its_fields(here: Here, log: Path) -> None:
    """In this order, after tables that people read."""
    done = here("backtest", log, "--at", "1997-06-15", "--horizon", "60d", "--revenue-horizon", "120d")
    assert done.status == 0, done
    fields = dict(field.split("=") for field in done.out.splitlines()[-1].split(" "))
    assert list(fields) == [
        "accounts",
        "churned",
        "auc",
        "auc_recency",
        "auc_frequency",
        "auc_overdue",
        "auc_quiet",
        "brier",
    ]
    assert int(fields["accounts"]) > int(fields["churned"]) > 0
    assert all(0 < float(value) < 1 for name, value in fields.items() if name.startswith(("auc", "brier")))
    for said in (
        "who would buy nothing",
        "is the probability what it says",
        "at risk",
        "revenue of the 120 days",
        "new_start",
    ):
        assert said in done.out
    as_json = here("backtest", log, "--at", "1997-06-15", "--horizon", "60", "--revenue-horizon", "120", "--json")
    found = json.loads(as_json.out)
    assert f"{found['scores'][0]['auc']:.4f}" == fields["auc"]
    assert (found["churned"], len(found["calibration"])) == (int(fields["churned"]), 10)
    assert found["revenue"]["forecasts"][0]["name"] == "planned"


def test_backtest_says_what_the_log_is_too_short_for(here: Here, log: Path) -> None:
    """The longer horizon is left out; without the first one there is nothing to say."""
    short = here("backtest", log, "--at", "1998-02-01", "--revenue-horizon", "365d", "--json")
    assert short.status == 0, short
    assert json.loads(short.out)["revenue"] is None
    assert "no forecast over 365 days is checked" in short.err
    refused = here("backtest", log, "--at", "1998-06-01")
    assert (refused.status, refused.out) == (2, "")
    assert is_one_line(refused.err) and "the log ends on 1998-06-30" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fit",), "--from-log"),
        (("fit", "LOG", "--from-log"), "one of the two"),
        (("fit", "LOG", "--at", "yesterday"), "not a day like"),
        (("fit", "LOG", "--at", "1996-12-31"), "too few to estimate from"),
        (("fit", "/dev/null"), "no purchase"),
        (("fit", "/does/not/exist"), "/does/not/exist"),
        (("fit", "LOG", "--policy", "/does/not/exist"), "no readable file"),
        (("backtest", "LOG"), "--at"),
        (("backtest", "LOG", "--at", "1997-13-01"), "not a day like"),
        (("backtest", "LOG", "--at", "1997-02-01", "--horizon", "3 months"), "--horizon"),
        (("backtest", "LOG", "--at", "1997-02-01", "--horizon", "0d"), "from 1d"),
        (("backtest", "LOG", "--at", "1997-02-01", "--revenue-horizon", "3651d"), "--revenue-horizon"),
        (("backtest", "/dev/null", "--at", "1997-02-01"), "the log is empty"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(here: Here, log: Path, arguments: tuple[str, ...], said: str) -> None:
    """What was typed wrongly, or cannot be done, is said in one line on standard error."""
    done = here(*(log if argument == "LOG" else argument for argument in arguments))
    assert (done.status, done.out) == (2, ""), done
    assert is_one_line(done.err) and said in done.err


@pytest.mark.parametrize("arguments", [("fit", "LOG"), ("backtest", "LOG", "--at", "1997-02-01")])
def test_without_the_extra_it_is_named(log: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One line says what to install."""
    (tmp_path / "scipy.py").write_text("")  # hides the real one
    done = resegment(
        *(log if argument == "LOG" else argument for argument in arguments),
        values={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert (done.status, done.out) == (2, "")
    assert is_one_line(done.err) and "pip install 'resegment[model]'" in done.err


async def test_the_log_on_the_broker_gives_what_the_file_gives(embedded: Embedded, log: Path) -> None:
    """`--from-log` reads the topic, each partition of it."""
    values = environment(embedded)
    without_topics = resegment("fit", "--from-log", values=values)
    assert without_topics.status == 2 and "resegment topics create" in without_topics.err
    assert resegment("topics", "create", "--partitions", "2", values=values).status == 0
    settings = Settings(
        kafka_bootstrap_servers=embedded.kafka, kafka_transactions=False, topic_prefix=values["RESEGMENT_TOPIC_PREFIX"]
    )
    async with EventWriter(settings) as writer:
        for payload in log.read_bytes().splitlines():
            line = read_line(payload)
            await writer.write(line.topic, line.key, payload)
        await writer.flush()
    from_file = resegment("fit", log, values=values)
    assert from_file.status == 0, from_file
    assert resegment("fit", "--from-log", values=values) == from_file
