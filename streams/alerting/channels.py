"""Channels: what a message is delivered by. Their addresses are secrets, and come from the environment alone."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, unquote

from pydantic import SecretStr

ADDRESS = "{address}"
"""Where the recipient's address goes in a channel's URL."""
HIDDEN = "***"
SECRET_CHARACTERS_MIN = 3
"""Parts of a URL as short as that are hidden nowhere: everything would be."""
START_SECONDS_MAX = 60.0
"""How long the process that sends may take until it is ready, on a busy machine."""
LINE_BYTES_MAX = 1024 * 1024


class Outgoing(NamedTuple):
    """A message as a channel gets it."""

    id: str
    """The same each time that it is tried."""
    address: str
    subject: str
    body: str


class Channel:
    """Delivers messages one after the other, in a process of its own that is ended when it takes too long."""

    def __init__(self, name: str, url: SecretStr | None, *, timeout_seconds: float) -> None:
        self.name = name
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._process: asyncio.subprocess.Process | None = None

    async def send(self, message: Outgoing) -> str | None:
        """Returns what went wrong, without any part of the URL; None: the channel has taken it.

        Cancelled, it does not know.
        """
        if self._url is None:
            return f"the channel {self.name} has no address: {variable_of(self.name)} is not set"
        url = self._url.get_secret_value().replace(ADDRESS, quote(message.address, safe=""))
        request = {"id": message.id, "url": url, "subject": message.subject, "body": message.body}
        try:
            # the time of loading libraries is none that the channel took
            async with asyncio.timeout(START_SECONDS_MAX):
                process = await self._started()
            async with asyncio.timeout(self._timeout_seconds):
                answer = await _ask(process, json.dumps(request).encode() + b"\n")
        except TimeoutError:
            await self.close()
            return f"no answer within {self._timeout_seconds:g} s"
        except (OSError, ValueError, EOFError) as error:
            await self.close()
            return f"the process that sends has ended ({type(error).__name__})"
        except BaseException:
            await self.close()
            raise
        return None if answer["ok"] else without_secrets(str(answer["error"]), url, message.address)

    async def _started(self) -> asyncio.subprocess.Process:
        """The process, ready for a message."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streams.alerting.sender"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if not name.startswith("RESEGMENT_")},
                limit=LINE_BYTES_MAX,
                start_new_session=True,  # Ctrl-C is for us: what it is sending it finishes
            )
            await _ask(self._process, b"")
        return self._process

    async def close(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _ask(process: asyncio.subprocess.Process, request: bytes) -> Mapping[str, object]:
    """The next line of its answer. Raises EOFError where it has ended."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(request)
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        raise EOFError
    answer: Mapping[str, object] = json.loads(line)
    return answer


def variable_of(channel: str) -> str:
    """The variable of the environment that has a channel's URL."""
    return f"RESEGMENT_ALERTS_URL_{channel.upper()}"


def without_secrets(text: str, url: str, address: str) -> str:
    """A text in which nothing of a URL is left but its scheme, and the address of who is told."""
    scheme, _, rest = url.partition("://")
    parts = {part for text_ in (rest, unquote(rest)) for part in re.split(r"[/?#&=:@,;+\s]+", text_)}
    kept = {address, scheme}
    for part in sorted(parts - kept, key=len, reverse=True):
        if len(part) >= SECRET_CHARACTERS_MIN and part not in address:
            text = text.replace(part, HIDDEN)
    return text
