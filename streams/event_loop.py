"""The fast event loop, and what aiokafka has to be taught to run on it."""

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where it is installed; else None: asyncio's own."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    _expect_closed_transports()
    return uvloop.new_event_loop


def _expect_closed_transports() -> None:
    """Make a connection that the broker has closed an error that aiokafka knows and recovers from.

    Writing to one is an OSError, or nothing at all, on asyncio's loop. On uvloop it is a RuntimeError, of which
    aiokafka 0.14's task that keeps up the metadata dies without a word, and whoever needs them then waits for ever.
    """
    send = AIOKafkaConnection.send
    if hasattr(send, "__wrapped__"):
        return

    @wraps(send)
    def expecting(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return send(self, *arguments, **named)
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    AIOKafkaConnection.send = expecting
