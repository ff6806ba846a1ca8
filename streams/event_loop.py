"""The fast event loop, and what aiokafka has to be taught: to run on it, and to let go of TLS connections."""

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

TLS_CLOSE_SECONDS = 0.2
"""How long a TLS connection that is closed waits for the broker to say that it has heard."""


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where it is installed; else None: asyncio's own."""
    _do_not_wait_for_farewells()
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


def _do_not_wait_for_farewells() -> None:
    """Cut a closed TLS connection off soon.

    Both loops wait 30 s for the peer's part of the farewell, which Kafka does not send while it answers a fetch. Nobody
    needs it: whatever matters has been answered before. But whoever stops a client waits for it, and so would each
    claim of a shard, and each worker that leaves.
    """
    close = AIOKafkaConnection.close
    if hasattr(close, "__wrapped__"):
        return

    @wraps(close)
    def closing(self: Any, *arguments: Any, **named: Any) -> Any:
        writer = self._writer
        closed = close(self, *arguments, **named)
        if writer is not None and writer.get_extra_info("sslcontext") is not None:
            self._loop.call_later(TLS_CLOSE_SECONDS, writer.transport.abort)
        return closed

    AIOKafkaConnection.close = closing
