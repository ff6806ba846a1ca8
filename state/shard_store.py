"""What one shard keeps in Redis, and the only ways to change it.

A shard belongs to whoever claimed it last. Every write names its owner, and the progress and the number of commits it
goes on from, and is refused where any of them differs, so two workers, or one worker and a store that went back in
time, can never mix their writes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import orjson
from redis.asyncio import Redis

from state.keys import LedgerName, ShardKeys, StageName, shard_keys

SCHEMA_VERSION = 4
"""Of everything this package stores. A worker refuses a store with another one."""

PAGE_FIELDS = 5_000
"""Of a hash, looked for at once: others wait for it for some 7 ms."""
OUTBOX_READ_MAX = 2_000
OUTBOX_READ_BYTES = 4 * 1024 * 1024
"""Outgoing records read at once: so many at most, and none after so many bytes."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / f"{name}.lua").read_text()


class Refused(Exception):
    """Another worker owns the shard, or the store went back in time: drop what is cached, claim again and seek."""


class NoSuchShard(Exception):
    """The store holds nothing of a shard that the installation was founded with: state is lost, stop."""


class Claim(NamedTuple):
    """What a shard was when it was claimed."""

    progress: dict[str, int]
    """Next offset of each input topic; a topic without one has not been read."""
    state: dict[str, Any]
    """The stage's own small state."""
    told: dict[str, int]
    """Partition of an output topic -> offset up to which this shard knows what it told the world."""


class Commit:
    """The writes of one batch, gathered to be carried out at once or not at all. Of a field the last word counts."""

    def __init__(self, progress: Mapping[str, int], state: Mapping[str, Any]) -> None:
        self.progress = dict(progress)
        self.state = state
        self.sets: dict[str, dict[str, bytes]] = {}
        self.deletes: dict[str, set[str]] = {}
        """Carried out before what is set."""
        self.scores: dict[str, dict[str, int | None]] = {}
        """Sorted set (a name in ShardKeys) -> entry -> its score; None: it is taken out."""
        self.outbox: list[bytes] = []
        self.trim = 0
        """So many of the oldest outgoing records are dropped, before these are added."""

    def set(self, name: str, field: str, value: bytes) -> None:
        """Write a field of one of the shard's hashes (a name in ShardKeys)."""
        self.sets.setdefault(name, {})[field] = value

    def delete(self, name: str, field: str) -> None:
        """Delete a field of one of the shard's hashes."""
        self.sets.get(name, {}).pop(field, None)
        self.deletes.setdefault(name, set()).add(field)

    def score(self, name: str, entry: str, score: int | None) -> None:
        """Put an entry into one of the shard's sorted sets, where it is once; None: take it out."""
        self.scores.setdefault(name, {})[entry] = score


class ShardStore:
    """One shard's part of Redis. Every call is one round trip."""

    def __init__(self, redis: Redis, prefix: str, stage: StageName | LedgerName, partition: int) -> None:
        self.redis = redis
        self.stage = stage
        self.partition = partition
        self.keys: ShardKeys = shard_keys(prefix, stage, partition)
        self._claim = redis.register_script(_script("claim"))
        self._commit = redis.register_script(_script("commit"))
        self._outbox = redis.register_script(_script("outbox"))
        self._trim = redis.register_script(_script("trim"))
        self._owner = ""
        self._expected = b""
        self._commits = 0
        self._commits_seen = 0
        """The most commits that the store was seen to have, also one whose answer is still on its way."""
        self.trimmed = 0
        """Outgoing records trimmed so far, by all owners, as was last heard: of a trim the answer may get lost."""

    @property
    def commits(self) -> int:
        """Commits by all owners of the shard, up to the last one here."""
        return self._commits

    async def create(self, progress: Mapping[str, int] = _NOTHING, state: Mapping[str, Any] = _NOTHING) -> bool:
        """Make the shard, without any account. Returns False, and changes nothing, where it is there already."""
        async with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.hsetnx(self.keys.meta, "progress", encode(progress))
            pipeline.hsetnx(self.keys.meta, "state", encode(state))
            is_new, _ = await pipeline.execute()
        return bool(is_new)

    async def claim(self, owner: str) -> Claim:
        """Take the shard over: from now on every other owner's writes are refused. Raises NoSuchShard."""
        found = await self._claim(keys=[self.keys.meta], args=[owner])
        if not found or found[0] is None:
            raise NoSuchShard(f"{self.stage} shard {self.partition}: nothing at {self.keys.meta}")
        *parts, commits, trimmed = found
        self._owner, self._expected, self._commits = owner, parts[0], int(commits or 0)
        self._commits_seen, self.trimmed = self._commits, int(trimmed or 0)
        return Claim(*(orjson.loads(value) if value else {} for value in parts))

    async def peek(self) -> Claim | None:
        """What the shard is now, without taking it. None where there is none."""
        found = await self.redis.hmget(self.keys.meta, ["progress", "state", "told"])
        if found[0] is None:
            return None
        return Claim(*(orjson.loads(value) if value else {} for value in found))

    async def is_current(self) -> bool:
        """Whether the shard is still as it was claimed or last written here: else a commit would be refused."""
        found = await self.redis.hmget(self.keys.meta, ["owner", "progress", "commits"])
        return [*found[:2], int(found[2] or 0)] == [self._owner.encode(), self._expected, self._commits]

    async def load(self, name: str, fields: Iterable[str]) -> list[bytes | None]:
        """Read fields of one of the shard's hashes (a name in ShardKeys), in order."""
        wanted = list(fields)
        if not wanted:
            return []
        return cast(list[bytes | None], await self.redis.hmget(getattr(self.keys, name), wanted))

    async def pages(self, name: str) -> AsyncGenerator[Mapping[bytes, bytes], None]:
        """Every field of one of the shard's hashes, some at a time; sees each at least once where nobody writes.

        While the caller works on some, the server looks for the next ones.
        """

        def ask(cursor: int) -> asyncio.Task[tuple[int, Mapping[bytes, bytes]]]:
            return asyncio.create_task(cast(Any, self.redis.hscan(getattr(self.keys, name), cursor, count=PAGE_FIELDS)))

        asked: asyncio.Task[tuple[int, Mapping[bytes, bytes]]] | None = ask(0)
        try:
            while asked is not None:
                cursor, page = await asked
                asked = ask(cursor) if cursor else None
                await asyncio.sleep(0)  # in this turn of the loop the command is written,
                await asyncio.sleep(0)  # and after it the loop sends it
                yield page
        finally:
            if asked is not None:
                asked.cancel()

    async def scan(self, name: str) -> AsyncIterator[tuple[str, bytes]]:
        """As `pages`, field by field."""
        async for page in self.pages(name):
            for field, value in page.items():
                yield field.decode(), value

    async def count(self, name: str) -> int:
        """How many fields one of the shard's hashes has. O(1)."""
        return await self.redis.hlen(getattr(self.keys, name))

    async def due(self, until_day: int, limit: int) -> list[tuple[str, int]]:
        """Up to limit (account, due day), due on the day or before it, in order of day and account."""
        found = await self.redis.zrange(
            self.keys.due, "-inf", until_day, byscore=True, offset=0, num=limit, withscores=True
        )
        return [(account.decode(), int(day)) for account, day in cast(list[tuple[bytes, float]], found)]

    async def entries(self, name: str) -> list[str]:
        """Every entry of one of the shard's sorted sets. O(n)."""
        found = await self.redis.zrange(getattr(self.keys, name), 0, -1)
        return [entry.decode() for entry in cast(list[bytes], found)]

    async def best(self, name: str, first: int, count: int) -> list[str]:
        """Entries of one of the shard's sorted sets, those with the greatest scores first, from a place on."""
        # by score: without it the client sends another command, which needs a right of its own
        found = await self.redis.zrange(
            *(getattr(self.keys, name), "+inf", "-inf"),
            desc=True,
            byscore=True,
            offset=first,
            num=count,
        )
        return [entry.decode() for entry in cast(list[bytes], found)]

    async def last(self, name: str, prefix: str, count: int, *, before: str | None = None) -> list[str]:
        """Entries that begin with this, the last in the order of the names first, or those that are before one of them.

        Of a sorted set in which all scores are equal. O(log n + count).
        """
        end = prefix.encode() + b"\xff" if before is None else before.encode()
        found = await self.redis.zrange(
            getattr(self.keys, name),
            b"(" + end,
            b"[" + prefix.encode(),
            desc=True,
            bylex=True,
            offset=0,
            num=count,
        )
        return [entry.decode() for entry in cast(list[bytes], found)]

    async def commit(self, commit: Commit) -> None:
        """Carry a batch's writes out, all or none. Raises Refused, and then nothing was written."""
        keys: list[str] = [self.keys.meta]
        progress = encode(commit.progress)
        args: list[str | bytes | int] = [self._owner, self._expected, self._commits]

        def write(command: str, key: str, arguments: list[Any]) -> None:
            if arguments:
                if key not in keys:
                    keys.append(key)
                args.extend((command, keys.index(key) + 1, len(arguments)))
                args.extend(arguments)

        commits = self._commits + 1
        meta = ["progress", progress, "state", encode(commit.state), "commits", commits]
        if commit.trim:
            meta += ["trimmed", self.trimmed + commit.trim]
            write("LTRIM", self.keys.outbox, [commit.trim, -1])
        write("HSET", self.keys.meta, meta)
        for name, deleted in commit.deletes.items():
            write("HDEL", getattr(self.keys, name), [*deleted])
        for name, values in commit.sets.items():
            write("HSET", getattr(self.keys, name), [part for pair in values.items() for part in pair])
        for name, scores in commit.scores.items():
            key = getattr(self.keys, name)
            write(
                "ZADD", key, [part for entry, score in scores.items() if score is not None for part in (score, entry)]
            )
            write("ZREM", key, [entry for entry, score in scores.items() if score is None])
        write("RPUSH", self.keys.outbox, [*commit.outbox])
        if not await self._commit(keys=keys, args=args):
            raise Refused(f"{self.stage} shard {self.partition}")
        self._expected, self._commits = progress, commits
        self._commits_seen = max(self._commits_seen, commits)
        self.trimmed += commit.trim

    async def outbox(self) -> list[bytes]:
        """The outgoing records that are not trimmed yet, oldest first, at most OUTBOX_READ_MAX. Raises Refused.

        Reading stops after OUTBOX_READ_BYTES.
        """
        found = await self._outbox(
            keys=[self.keys.meta, self.keys.outbox],
            args=[self._owner, self.trimmed, OUTBOX_READ_MAX, OUTBOX_READ_BYTES],
        )
        if found is None:
            raise Refused(f"{self.stage} shard {self.partition}")
        commits, trimmed, records = found
        self._commits_seen, self.trimmed = max(self._commits_seen, int(commits)), int(trimmed)
        return cast(list[bytes], records)

    async def oldest_outgoing(self) -> bytes | None:
        """The oldest outgoing record that is not trimmed yet, whoever owns the shard; None: there is none."""
        found = cast(list[bytes], await self.redis.lrange(self.keys.outbox, 0, 0))
        return found[0] if found else None

    async def whole_outbox(self) -> list[bytes]:
        """Every outgoing record that is not trimmed yet, oldest first: for who has claimed the shard just now."""
        return cast(list[bytes], await self.redis.lrange(self.keys.outbox, 0, -1))

    async def outbox_size(self) -> int:
        """How many outgoing records wait."""
        return await self.redis.llen(self.keys.outbox)

    async def trim(self, count: int, told: Mapping[str, int] | None = None) -> None:
        """Drop the oldest count outgoing records, which are published. Raises Refused, and then nothing was dropped."""
        if not await self._trim(
            keys=[self.keys.meta, self.keys.outbox],
            args=[self._owner, self._commits_seen, self.trimmed, count, encode(told) if told else b""],
        ):
            raise Refused(f"{self.stage} shard {self.partition}")
        self.trimmed += count


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys: the same value is always the same bytes."""
    return orjson.dumps(dict(value), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
