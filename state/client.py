"""Connecting to Redis."""

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.typing import EncodableT

RETRIES = 3
RETRY_SECONDS_BASE, RETRY_SECONDS_MAX = 0.05, 1.0
"""A command is tried again for about two seconds before the caller hears of the error. A commit that was carried out
although its answer got lost is refused the second time, and the shard claimed again: never written twice."""


class _PackedInC:
    """redis-py's asyncio connections pack commands in Python even where hiredis is there: 1.5 us an argument pair."""

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        name, *rest = args
        words = name.split() if isinstance(name, str) else [name]  # redis-py writes "SCRIPT LOAD" as one
        return [hiredis.pack_command((*words, *rest))]  # type: ignore[arg-type]


class PackedConnection(_PackedInC, Connection):
    """Plain TCP."""


class PackedSSLConnection(_PackedInC, SSLConnection):
    """TLS."""


class PackedSocketConnection(_PackedInC, UnixDomainSocketConnection):
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
