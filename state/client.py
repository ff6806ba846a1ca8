"""Connecting to Redis."""

import asyncio
import builtins
import re
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
from redis.exceptions import ConnectionError, RedisError, TimeoutError
from redis.typing import EncodableT

from state.cluster import ClusterRedis

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

    redis+cluster:// and rediss+cluster:// are a cluster's, with some of its nodes: host:port, comma separated.
    Raises ValueError for an address that is none of these. The message repeats nothing that may be a password.
    """
    addresses = server_addresses(url)
    for address in addresses:
        _check(address)
    if not is_cluster(url):
        return Redis(connection_pool=_pool(url))
    # a node that is silent may have been replaced: it is not asked again
    pools = [_pool(address, (ConnectionError,)) for address in addresses]
    if any(pool.connection_kwargs.get("db") for pool in pools):
        raise ValueError("a cluster has no databases but 0")
    return ClusterRedis(pools)


def is_cluster(url: str) -> bool:
    """Whether it is a cluster's address."""
    return url.partition("://")[0] in _CLUSTER_SCHEMES


def server_addresses(url: str) -> list[str]:
    """The address of each server that an address names: one, but for a cluster's."""
    if not is_cluster(url):
        return [url]
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    tail = rest.removeprefix(authority)
    return [f"{scheme.partition('+')[0]}://{user}{at}{host.strip()}{tail}" for host in hosts.split(",")]


def _pool(url: str, retried: tuple[type[RedisError], ...] = (ConnectionError, TimeoutError)) -> ConnectionPool:
    backoff = ExponentialWithJitterBackoff(base=RETRY_SECONDS_BASE, cap=RETRY_SECONDS_MAX)
    pool = ConnectionPool.from_url(
        url,
        retry=Retry(backoff, RETRIES, retried),
        socket_connect_timeout=5,
        socket_timeout=30,
    )
    pool.connection_class = _CLASSES.get(pool.connection_class, pool.connection_class)
    return pool


def _check(url: str) -> None:
    """Say what is wrong with an address before redis-py does: its words repeat what may be a part of the password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"what should be its port is no number from 0 to 65535; {_ESCAPE}") from None
    if parts.scheme not in _SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in (*_SCHEMES, *_CLUSTER_SCHEMES))
        raise ValueError(f"it does not begin with {schemes}")
    if any("@" in part for part in (parts.path, parts.query, parts.fragment)):
        raise ValueError(f"it has an @ behind a /, ? or #; {_ESCAPE}")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        for file in parse_qs(parts.query).get(name, []):
            if not Path(file).is_file():
                raise ValueError(f"{name}: there is no file {file}")


_SCHEMES = ("redis", "rediss", "unix")
_CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
_ESCAPE = "in user and password / is written %2F, ? %3F, # %23, @ %40 and : %3A"
