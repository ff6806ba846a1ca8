"""Connecting to Redis."""

import asyncio
import builtins
from collections.abc import Iterable

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import TimeoutError
from redis.typing import EncodableT

RETRIES = 3
RETRY_SECONDS_BASE, RETRY_SECONDS_MAX = 0.05, 1.0
"""A command is tried again for about two seconds before the caller hears of the error. A commit that was carried out
although its answer got lost is refused the second time, and the shard claimed again: never written twice."""


class _Packed(AbstractConnection):
    """What redis-py's asyncio connections do too slowly, or wrongly before Python 3.12."""

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """In C: redis-py packs in Python even where hiredis is there, at 1.5 us an argument pair."""
        name, *rest = args
        words = name.split() if isinstance(name, str) else [name]  # redis-py writes "SCRIPT LOAD" as one
        return [hiredis.pack_command((*words, *rest))]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Without `asyncio.wait_for`, which redis-py puts around each write where there is a timeout.

        It costs a task a command, and before Python 3.12 it swallows a cancellation that comes in the same turn of the
        loop as the write: whoever cancelled a relay would wait for it for ever.
        """
        seconds, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(seconds):
                await super().send_packed_command(command, check_health)
        except builtins.TimeoutError:
            raise TimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = seconds


class PackedConnection(_Packed, Connection):
    """Plain TCP."""


class PackedSSLConnection(_Packed, SSLConnection):
    """TLS."""


class PackedSocketConnection(_Packed, UnixDomainSocketConnection):
    """Unix domain socket."""


_CLASSES: dict[type, type] = {
    Connection: PackedConnection,
    SSLConnection: PackedSSLConnection,
    UnixDomainSocketConnection: PackedSocketConnection,
}


def connect(url: str) -> Redis:
    """A client for redis://, rediss:// (TLS) and unix:// addresses, as redis-py reads them; connects when first used.

    Raises ValueError for an address that is none of these.
    """
    pool = ConnectionPool.from_url(
        url,
        retry=Retry(ExponentialWithJitterBackoff(base=RETRY_SECONDS_BASE, cap=RETRY_SECONDS_MAX), RETRIES),
        socket_connect_timeout=5,
        socket_timeout=30,
    )
    pool.connection_class = _CLASSES.get(pool.connection_class, pool.connection_class)
    return Redis(connection_pool=pool)
