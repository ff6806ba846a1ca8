"""A store in memory that answers as Redis does: the commands and the scripts of `state`, and nothing else.

Every command is carried out whole, at once, as Redis does; what lies between a caller and it is the network's.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

import state
from tests.simulation.network import Network, Troubles

Value = dict[bytes, Any] | list[bytes]
"""A hash, a sorted set (member -> score) or a list."""

_SCRIPTS = Path(state.__path__[0])


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class SimulatedRedis:
    """The commands that `state` uses, by their names in redis-py."""

    def __init__(self, network: Network | None = None) -> None:
        self.network = network or Network(Random(0), RedisConnectionError, Troubles())
        self.keyspace: dict[str, Value] = {}
        self.watchers: list[Callable[[str], None]] = []
        """Called with the key of a shard's meta hash after each script that wrote it."""

    # -- as a server -------------------------------------------------------------------------------------------------

    def copy(self, keys: Callable[[str], bool] = lambda key: True) -> dict[str, Value]:
        """What it holds of these keys, to take it back there."""
        return {key: value.copy() for key, value in self.keyspace.items() if keys(key)}

    def take_back(self, held: Mapping[str, Value], keys: Callable[[str], bool] = lambda key: True) -> None:
        """Of these keys it holds what it held, and has forgotten what came since."""
        for key in [key for key in self.keyspace if keys(key)]:
            del self.keyspace[key]
        self.keyspace.update({key: value.copy() for key, value in held.items() if keys(key)})

    def stored(self, key: str, field: bytes) -> bytes | None:
        """A field of a hash, at once."""
        return self._hash(key).get(field)

    def _hash(self, key: str) -> dict[bytes, Any]:
        found = self.keyspace.get(key, {})
        assert isinstance(found, dict), f"{key} is no hash"
        return found

    def _list(self, key: str) -> list[bytes]:
        found = self.keyspace.get(key, [])
        assert isinstance(found, list), f"{key} is no list"
        return found

    def _write(self, command: str, key: str, arguments: list[Any]) -> None:
        if command == "RPUSH":
            self.keyspace[key] = [*self._list(key), *map(_bytes, arguments)]
            return
        if command == "LTRIM":
            assert arguments[1] == -1
            left = self._list(key)[arguments[0] :]
            self.keyspace.pop(key, None)
            if left:
                self.keyspace[key] = left
            return
        held = self.keyspace.setdefault(key, {})
        assert isinstance(held, dict)
        if command == "HSET":
            held.update(zip(map(_bytes, arguments[::2]), map(_bytes, arguments[1::2]), strict=True))
        elif command == "ZADD":
            held.update(zip(map(_bytes, arguments[1::2]), map(float, arguments[::2]), strict=True))
        else:
            assert command in ("HDEL", "ZREM"), command
            for argument in arguments:
                held.pop(_bytes(argument), None)
        if not held:
            del self.keyspace[key]

    def _hmget(self, key: str, fields: Iterable[str]) -> list[bytes | None]:
        held = self._hash(key)
        return [held.get(_bytes(field)) for field in fields]

    def _zrange(self, key: str) -> list[tuple[bytes, float]]:
        return sorted(self._hash(key).items(), key=lambda item: (item[1], item[0]))

    # -- the scripts ---------------------------------------------------------------------------------------------------

    def _claim(self, keys: list[str], args: list[Any]) -> Any:
        if keys[0] not in self.keyspace:
            return None
        self._write("HSET", keys[0], ["owner", args[0]])
        return self._hmget(keys[0], ["progress", "state", "told", "commits", "trimmed"])

    def _commit(self, keys: list[str], args: list[Any]) -> int:
        owner, progress, commits = self._hmget(keys[0], ["owner", "progress", "commits"])
        if (owner, progress, commits or b"0") != tuple(map(_bytes, args[:3])):
            return 0
        at = 3
        while at < len(args):
            command, key, count = args[at : at + 3]
            self._write(command, keys[key - 1], args[at + 3 : at + 3 + count])
            at += 3 + count
        return 1

    def _outbox(self, keys: list[str], args: list[Any]) -> Any:
        owner, commits, trimmed = self._hmget(keys[0], ["owner", "commits", "trimmed"])
        if owner != _bytes(args[0]) or int(trimmed or 0) < int(args[1]):
            return None
        found, size = [], 0
        for record in self._list(keys[1])[: int(args[2])]:
            if size >= int(args[3]):
                break
            found.append(record)
            size += len(record)
        return [commits or b"0", trimmed or b"0", found]

    def _trim(self, keys: list[str], args: list[Any]) -> int:
        owner, commits, trimmed_before = self._hmget(keys[0], ["owner", "commits", "trimmed"])
        if owner != _bytes(args[0]) or int(commits or 0) < int(args[1]):
            return 0
        trimmed, before, count = int(trimmed_before or 0), int(args[2]), int(args[3])
        if trimmed != before:
            return int(trimmed == before + count)
        self._write("LTRIM", keys[1], [count, -1])
        self._write("HSET", keys[0], ["trimmed", before + count])
        if args[4]:
            self._write("HSET", keys[0], ["told", args[4]])
        return 1

    def register_script(self, text: str) -> Callable[..., Any]:
        """What a script does is written down here once more: it must be one of those that `state` has."""
        name = _script_names()[text]
        operation = getattr(self, f"_{name}")

        def run(keys: list[str], args: list[Any]) -> Any:
            answer = operation(keys, args)
            for watcher in self.watchers:
                watcher(keys[0])
            return answer

        run.__name__ = name

        async def script(*, keys: list[str], args: list[Any]) -> Any:
            return await self.network.call(run, keys, args)

        return script

    # -- commands ------------------------------------------------------------------------------------------------------

    async def hmget(self, key: str, fields: Iterable[str]) -> list[bytes | None]:
        """HMGET."""
        return await self.network.call(self._hmget, key, list(fields))

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        """HGETALL."""
        return await self.network.call(lambda: dict(self._hash(key)))

    async def hset(self, key: str, mapping: Mapping[str, str]) -> None:
        """HSET."""
        await self.network.call(self._write, "HSET", key, [part for pair in mapping.items() for part in pair])

    async def hlen(self, key: str) -> int:
        """HLEN."""
        return await self.network.call(lambda: len(self._hash(key)))

    async def hscan(self, key: str, cursor: int = 0, count: int = 0) -> tuple[int, dict[bytes, bytes]]:
        """HSCAN, in one round trip."""
        assert not cursor
        return 0, await self.network.call(lambda: dict(self._hash(key)))

    async def zrange(
        self,
        key: str,
        start: str | int | bytes,
        end: int | str | bytes,
        *,
        desc: bool = False,
        byscore: bool = False,
        bylex: bool = False,
        offset: int = 0,
        num: int = 0,
        withscores: bool = False,
    ) -> list[Any]:
        """ZRANGE: by score up to an end, or from the greatest down; all of it; or by name, from the last down."""

        def run() -> list[Any]:
            if byscore and not desc:
                assert (start, withscores) == ("-inf", True) and isinstance(end, int)
                return [item for item in self._zrange(key) if item[1] <= end][offset : offset + num]
            entries = [entry for entry, _ in self._zrange(key)]
            if not desc:
                assert (start, end) == (0, -1)
                return entries
            if byscore:
                assert (start, end) == ("+inf", "-inf")
                return entries[::-1][offset : offset + num]
            assert (
                bylex and isinstance(start, bytes) and isinstance(end, bytes) and (start[:1], end[:1]) == (b"(", b"[")
            )
            return [entry for entry in reversed(entries) if end[1:] <= entry < start[1:]][offset : offset + num]

        return await self.network.call(run)

    async def zcount(self, key: str, start: str, end: int) -> int:
        """ZCOUNT -inf end."""
        assert start == "-inf"
        return await self.network.call(lambda: sum(score <= end for score in self._hash(key).values()))

    async def llen(self, key: str) -> int:
        """LLEN."""
        return await self.network.call(lambda: len(self._list(key)))

    async def lrange(self, key: str, start: int, end: int) -> list[bytes]:
        """LRANGE of the whole list."""
        assert (start, end) == (0, -1)
        return await self.network.call(lambda: list(self._list(key)))

    async def unlink(self, *keys: str) -> None:
        """UNLINK."""
        await self.network.call(lambda: [self.keyspace.pop(key, None) for key in keys])

    async def keys(self) -> list[bytes]:
        """KEYS *."""
        return await self.network.call(lambda: [key.encode() for key in self.keyspace])

    async def dump(self, key: bytes) -> Any:
        """DUMP, readable."""
        return self.keyspace[key.decode()].copy()

    async def restore(self, key: bytes, ttl: int, dump: Any) -> None:
        """RESTORE."""
        self.keyspace[key.decode()] = dump.copy()

    async def flushdb(self) -> None:
        """FLUSHDB."""
        self.keyspace.clear()

    async def aclose(self) -> None:
        """Nothing is open."""

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        """MULTI ... EXEC."""
        assert transaction
        return _Pipeline(self)


class _Pipeline:
    """Commands that are carried out together."""

    def __init__(self, redis: SimulatedRedis) -> None:
        self._redis = redis
        self._commands: list[Callable[[], Any]] = []

    async def __aenter__(self) -> "_Pipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def hsetnx(self, key: str, field: str, value: Any) -> None:
        """HSETNX."""

        def run() -> int:
            if _bytes(field) in self._redis._hash(key):
                return 0
            self._redis._write("HSET", key, [field, value])
            return 1

        self._commands.append(run)

    def hmget(self, key: str, fields: list[str]) -> None:
        """HMGET."""
        self._commands.append(lambda: self._redis._hmget(key, fields))

    def hgetall(self, key: str) -> None:
        """HGETALL."""
        self._commands.append(lambda: dict(self._redis._hash(key)))

    def llen(self, key: str) -> None:
        """LLEN."""
        self._commands.append(lambda: len(self._redis._list(key)))

    def zrange(self, key: str, start: int, end: int, *, withscores: bool) -> None:
        """ZRANGE start end WITHSCORES, by rank."""
        assert withscores
        self._commands.append(lambda: self._redis._zrange(key)[start : end + 1])

    async def execute(self) -> list[Any]:
        """EXEC."""
        return await self._redis.network.call(lambda: [command() for command in self._commands])


def _script_names() -> Mapping[str, str]:
    if not _NAMES:
        _NAMES.update({path.read_text(): path.stem for path in _SCRIPTS.glob("*.lua")})
    return _NAMES


_NAMES: dict[str, str] = {}
