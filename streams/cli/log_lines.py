"""How a worker's log lines look: for people on a terminal, else one JSON object a line.

What a line is about is in fields of their own, which its module gives as `extra`. Only those named here get into a
line, so that nothing of a record gets there by the way: no payload, no attribute, no local of a traceback.
"""

import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter

from streams.cli.console import escape_lines

FIELDS = ("shard", "topic", "first_offset", "end_offset", "records", "reason")
"""shard: which one; topic, first_offset, end_offset: which batch, or which part of the log; records: how many;
reason: the error, or what it was about."""


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Those that its module gave, as what JSON knows."""
    found = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
    return {name: value if isinstance(value, int) else str(value) for name, value in found.items()}


def formatter(*, is_terminal: bool) -> logging.Formatter:
    """What turns any library's log records into lines, our own into lines with fields."""
    if not is_terminal:
        return ProcessorFormatter(processors=[_entry, format_exc_info, JSONRenderer()])
    styles = {level.upper(): style for level, style in ConsoleRenderer.get_default_level_styles().items()}
    # the renderer's own tracebacks would show what the locals hold: records, and passwords
    renderer = ConsoleRenderer(level_styles=styles, exception_formatter=plain_traceback)
    return ProcessorFormatter(processors=[_entry, _harmless, renderer])


def _entry(_logger: Any, _method: str, found: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record: logging.LogRecord = found["_record"]
    entry = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "event": found["event"],
        **fields_of(record),
    }
    return entry | {name: found[name] for name in ("exc_info", "stack_info") if name in found}


def _harmless(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A server's error text is somebody else's: a terminal is to obey nothing of it."""
    return {name: escape_lines(value) if isinstance(value, str) else value for name, value in entry.items()}
