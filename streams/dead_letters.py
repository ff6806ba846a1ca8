"""Records that cannot be applied: kept as they came, with the reason, and never in the way of the others."""

from collections.abc import Sequence
from typing import NamedTuple

from streams.messages import Headers, Outgoing, header
from streams.topics import Topic


class DeadLetter(NamedTuple):
    """A dead letter as it is read back."""

    reason: str
    message: str
    topic: str
    """Without prefix."""
    partition: int
    offset: int
    key: bytes | None
    payload: bytes | None


def dead_letter(
    *,
    reason: str,
    message: str,
    topic: Topic,
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    payload: bytes | None,
    headers: Headers = (),
) -> Outgoing:
    """The record to publish. The key and payload are the bytes that came; a payload that was missing is said so."""
    about: Sequence[tuple[str, str]] = (
        ("reason", reason),
        ("message", message),
        ("topic", topic),
        ("partition", str(partition)),
        ("offset", str(offset)),
    )
    own = [(name, text.encode()) for name, text in about]
    if payload is None:
        own.append(("tombstone", b"1"))
    return Outgoing([Topic.DEAD_LETTERS], key, payload if payload is not None else b"", [*own, *headers], timestamp_ms)


def read_dead_letter(key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
    """A record of the dead-letters topic. Raises ValueError for one that was not written by `dead_letter`."""
    return DeadLetter(
        reason=header(headers, "reason") or "unknown",
        message=header(headers, "message") or "",
        topic=header(headers, "topic") or "",
        partition=int(header(headers, "partition") or -1),
        offset=int(header(headers, "offset") or -1),
        key=key,
        payload=None if header(headers, "tombstone") else value,
    )
