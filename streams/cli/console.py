"""What commands print: plain text for people, JSON for programs, and nothing that a payload could take over."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

SHORT_CHARACTERS = 160

SEGMENT_STYLES = {
    "key": "bold magenta",
    "enterprise": "bold blue",
    "commercial": "cyan",
    "new_start": "green",
    "prospect": "yellow",
}

out = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
"""Everything else: progress, remarks, errors."""


def escape(text: str) -> str:
    """The text with all characters escaped that are not seen, or change how others are seen.

    Control characters, marks of text direction, separators, everything of no width, what no font has.
    """
    if text.isprintable() and not _BLANK(text):
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode("ascii")
        if not character.isprintable() or character in _BLANK_LETTERS
        else character
        for character in text
    )


_BLANK_LETTERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks that nobody sees."""
_BLANK = re.compile(f"[{_BLANK_LETTERS}]").search


def escape_lines(text: str) -> str:
    """As `escape`, but the text may have several lines."""
    return "\n".join(escape(line) for line in text.splitlines())


def shortened(text: str, characters: int = SHORT_CHARACTERS) -> str:
    """At most this many characters, and how many were left out."""
    left_out = len(text) - characters
    return text if left_out <= 0 else f"{text[:characters]}… (+{left_out})"


def readable(payload: bytes | None) -> str:
    """Any bytes as one short line."""
    if payload is None:
        return "(none)"
    return shortened(escape(payload.decode("utf-8", "backslashreplace")))


def segment(name: str | None) -> Text:
    """A segment in its colour."""
    return Text(escape(name or "-"), SEGMENT_STYLES.get(name or "", "dim"))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line, at once: another program may be waiting for it. ASCII: it may be a terminal, too."""
    text = json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
