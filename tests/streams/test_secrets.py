"""Passwords are in no text that anybody sees: not in settings that are shown, not in errors, not in logs."""

import pprint
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from segmentation.policy import Policy
from state.client import connect
from streams.cli.failures import explain_failure
from streams.embedded import Embedded
from streams.server_process import free_port
from streams.settings import Settings
from streams.worker import Worker
from tests.streams.command_line import environment, is_one_line, resegment

CANARY = "canary-4f1d"
SECRETS: dict[str, Any] = {
    "kafka_security_protocol": "SASL_PLAINTEXT",
    "kafka_sasl_username": "resegment-worker",
    "kafka_sasl_password": CANARY,
    "redis_url": f"redis://resegment-worker:{CANARY}@127.0.0.1:1/0",
}


@pytest.mark.parametrize("show", [repr, str, pprint.pformat, Settings.model_dump_json, lambda s: str(s.model_dump())])
def test_settings_that_are_shown_hide_the_passwords(show: Callable[[Settings], str]) -> None:
    """However they get into a text."""
    shown = show(Settings(**SECRETS))
    assert CANARY not in shown
    assert "resegment-worker" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"tick_seconds": "soon"},
        {"kafka_sasl_username": ""},
        {"kafka_sasl_mechanism": CANARY},
        {"kafka_session_timeout_seconds": CANARY},
        {"redis_prefix": f"{CANARY} x"},
    ],
)
def test_wrong_settings_are_refused_without_showing_any(
    wrong: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the wrong one, which may be a password in the wrong place, nor the others; not in a traceback either."""
    monkeypatch.setenv("RESEGMENT_TRACEBACK", "1")
    with pytest.raises(ValidationError) as refused:
        Settings(**SECRETS | wrong)
    assert explain_failure(refused.value) == 2
    said = capsys.readouterr().err
    assert "RESEGMENT_" in said and "Traceback" in said
    assert CANARY not in said + repr(refused.value) + str(refused.value)


def test_a_password_is_asked_for_where_it_is_needed() -> None:
    """Not found out by the first client, with an assertion."""
    done = resegment("doctor", values={"RESEGMENT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    assert done.status == 2 and is_one_line(done.err), done
    assert "RESEGMENT_KAFKA_SASL_USERNAME is missing" in done.err


@pytest.mark.parametrize("name", ["kafka_ca_file", "kafka_certificate_file"])
@pytest.mark.parametrize("content", [None, "", CANARY], ids=["missing", "empty", "no certificate"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    """With its setting, and without what is in it."""
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OSError) as refused:
        Settings.model_validate({"kafka_security_protocol": "SSL", name: file}).ssl_context()
    assert str(file) in str(refused.value) and f"RESEGMENT_{name.upper()}" in str(refused.value)
    assert CANARY not in str(refused.value)
    assert not isinstance(refused.value, ssl.SSLError)


def test_a_worker_that_is_shown_hides_the_passwords() -> None:
    """Neither it nor its application says them, as a log line or a debugger would show them."""
    worker = Worker(Settings(**SECRETS), Policy.default(), connect(SECRETS["redis_url"]))
    for shown in (repr(worker), repr(worker.app), repr(worker.app.conf.broker_credentials), repr(worker.redis)):
        assert CANARY not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker",),
        ("doctor",),
        ("doctor", "--json"),
        ("topics", "check"),
        ("verify",),
        ("explain", "acme"),
        ("dead-letters",),
        ("send", "signup", "acme"),
        ("watch", "--limit", "1"),
    ],
)
@pytest.mark.parametrize("reached", ["nothing", "the broker"])
def test_no_command_says_a_password(embedded: Embedded, arguments: tuple[str, ...], reached: str) -> None:
    """Where a server is away, or refuses: not even with a traceback, and at the lowest level of logging."""
    secrets = {f"RESEGMENT_{name.upper()}": str(value) for name, value in SECRETS.items()}
    if reached == "nothing":
        secrets["RESEGMENT_KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{free_port()}"
    else:
        secrets["RESEGMENT_KAFKA_SECURITY_PROTOCOL"] = "PLAINTEXT"
    values = environment(embedded, **secrets, RESEGMENT_TRACEBACK="1", RESEGMENT_LOG_LEVEL="DEBUG")
    done = resegment(*arguments, values=values)
    assert done.status in (1, 2), done
    assert CANARY not in done.out + done.err
