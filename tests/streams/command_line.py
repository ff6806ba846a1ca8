"""Running `resegment` as people do: as a process, with an environment."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.cli import main
from streams.embedded import Embedded

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "examples" / "policy.toml"
PATIENCE_SECONDS = 60.0


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


Here = Callable[..., Done]
"""Runs a command in this process: a new one takes a second to import all that some need."""


def in_this_process(capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs commands with the environment of this process, and takes what they print from pytest."""

    def run(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


def environment(servers: Embedded, **values: str) -> dict[str, str]:
    """The environment of an installation of its own on shared servers."""
    name = f"c{uuid.uuid4().hex[:8]}"
    return {
        "RESEGMENT_KAFKA_BOOTSTRAP_SERVERS": servers.kafka,
        "RESEGMENT_KAFKA_TRANSACTIONS": "false",
        "RESEGMENT_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        "RESEGMENT_KAFKA_GROUP": name,
        "RESEGMENT_TOPIC_PREFIX": f"{name}-",
        "RESEGMENT_REDIS_URL": servers.redis,
        "RESEGMENT_REDIS_PREFIX": name,
        **values,
    }


def start(
    *arguments: str | Path, values: Mapping[str, str] | None = None, log: Path | None = None
) -> subprocess.Popen[str]:
    """Start a command; with `log`, standard error goes to that file."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RESEGMENT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "streams.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if log is None else log.open("w"),
        env={**own, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(values or {})},
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait until a command has ended; one that does not is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {PATIENCE_SECONDS:g} s:\n{out}\n{err}") from None
    return Done(process.returncode, out, err or "")


def resegment(*arguments: str | Path, values: Mapping[str, str] | None = None) -> Done:
    """Run a command to its end."""
    return finish(start(*arguments, values=values))


async def until_said(process: subprocess.Popen[str], log: Path, text: str) -> None:
    """Wait until a command has written this text to its log. Fails if it ends, or takes too long."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while text not in log.read_text():
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.02)


def is_one_line(text: str) -> bool:
    """Whether this is one clear line, and no traceback."""
    return text.startswith("resegment: ") and text.count("\n") == 1 and "Traceback" not in text
