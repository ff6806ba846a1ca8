"""The process that talks to one channel: a message a line comes in, what became of it goes out, a line each.

A process and not a thread, because only a process can be ended: a server that sends a byte a minute keeps within the
time-out of any library. It ends when its input does, and then has finished what it was sending.

    {"ready": true}, once all libraries are loaded
    {"id": ..., "url": ..., "subject": ..., "body": ...} -> {"ok": true} or {"ok": false, "error": "..."}
"""

import json
import logging
import sys
from typing import Any

import apprise
import apprise.plugins.email.base as email
from apprise import NotifyFormat

MESSAGE_ID_HEADER = "Idempotency-Key"
"""Of channels that speak HTTP and take headers: json, form and xml. A mail has it as its Message-ID."""
ERROR_CHARACTERS_MAX = 300
ROOM = 0.9
"""Of what a channel takes: what it puts around a text, or escapes in it, counts too."""


class _Said(logging.Handler):
    """What the library says of a failure: it only returns that there was one."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING or text.startswith("Socket Exception"):
            self.lines.append(text.strip())


def deliver(message_id: str, url: str, subject: str, body: str) -> str | None:
    """Send a message. Returns what went wrong; None: the channel has taken it."""
    # The library makes a new one each time, and takes none from outside.
    vars(email)["make_msgid"] = lambda **_: f"<{message_id}@resegment>"
    said = _Said()
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(said)
    try:
        # a new one each time: it waits for seconds before it is used again
        channel = apprise.Apprise.instantiate(url, asset=apprise.AppriseAsset(app_id="resegment", async_mode=False))
        if not channel:
            return "its address is none that Apprise knows"
        headers = getattr(channel, "headers", None)
        if isinstance(headers, dict) and not url.startswith("mail"):
            headers[MESSAGE_ID_HEADER] = message_id
        fitting = shortened(body, channel.body_maxlen - len(subject))
        ok = channel.notify(title=subject, body=fitting, body_format=NotifyFormat.TEXT)
        return None if ok else " / ".join(said.lines) or "the channel refused it, and does not say why"
    except Exception as error:  # of a hundred libraries
        return f"{type(error).__name__}: {error}"
    finally:
        logger.removeHandler(said)


def shortened(body: str, characters_max: int) -> str:
    """As much of it as the channel takes, with the last line, which has the id: else it would refuse all of it."""
    if len(body) <= characters_max * ROOM:
        return body
    _, mark, end = body.rpartition("\n\n")
    end = f"\n[...]{mark}{end}"
    return body[: max(0, int(characters_max * ROOM) - len(end))] + end


def main() -> None:
    """Deliver what comes in, one after the other, until nothing more comes."""
    apprise.Apprise.instantiate("json://localhost")  # only then does it load its hundred plugins, for a second
    _say({"ready": True})
    for line in sys.stdin:
        given: dict[str, Any] = json.loads(line)
        error = deliver(given["id"], given["url"], given["subject"], given["body"])
        answer = {"id": given["id"], "ok": error is None, "error": error and error[:ERROR_CHARACTERS_MAX]}
        _say(answer)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
