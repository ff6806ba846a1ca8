"""Connecting to Redis."""

import asyncio
import builtins
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

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

    Raises ValueError for an address that is none of these. The message repeats nothing that may be a password.
    """
    _check(url)
    pool = ConnectionPool.from_url(
        url,
        retry=Retry(ExponentialWithJitterBackoff(base=RETRY_SECONDS_BASE, cap=RETRY_SECONDS_MAX), RETRIES),
        socket_connect_timeout=5,
        socket_timeout=30,
    )
    pool.connection_class = _CLASSES.get(pool.connection_class, pool.connection_class)
    return Redis(connection_pool=pool)


def _check(url: str) -> None:
    """Say what is wrong with an address before redis-py does: its words repeat what may be a part of the password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"what should be its port is no number from 0 to 65535; {_ESCAPE}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"it does not begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if any("@" in part for part in (parts.path, parts.query, parts.fragment)):
        raise ValueError(f"it has an @ behind a /, ? or #; {_ESCAPE}")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        for file in parse_qs(parts.query).get(name, []):
            if not Path(file).is_file():
                raise ValueError(f"{name}: there is no file {file}")


_SCHEMES = ("redis", "rediss", "unix")
_ESCAPE = "in user and password / is written %2F, ? %3F, # %23, @ %40 and : %3A"
