"""A Redis Cluster behind the interface of the one client that the rest of the program knows.

redis-py's own `asyncio.RedisCluster` would not do: it queues each command of a transaction in a thread with an event
loop of its own, sends ASKING on another connection than the command it is for, raises errors that are no RedisError,
closes everybody's connections when a node is away, and wants rights to ask for COMMAND and CLUSTER SLOTS. What is
needed here is less: every call of `state` is about the keys of one shard, and those have one slot.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import AsyncScript
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    MaxConnectionsError,
    MovedError,
    NoScriptError,
    TimeoutError,
    TryAgainError,
)

T = TypeVar("T")

REDIRECTIONS_MAX = 5
"""How often one command is sent elsewhere, or again: about two seconds, as long as a plain client keeps trying."""


class _Cursor(int):
    """Of a scan, and the node on which it goes on."""

    node: Redis

    def __new__(cls, value: int, node: Redis) -> Self:
        cursor = super().__new__(cls, value)
        cursor.node = node
        return cursor


class ClusterRedis(Redis):
    """A client of all nodes of a cluster: each command goes to the node that has its key.

    Which node that is, the nodes say: one that does not have a slot names the one that does, and is believed until
    that one says otherwise or cannot be reached. Nothing is asked for beforehand, and no right is needed to ask.

    Errors are those of a plain client. CLUSTERDOWN, TRYAGAIN and redirections come out only where they do not end
    within REDIRECTIONS_MAX, and are transient, as RedisErrors are.
    """

    def __init__(self, seeds: Sequence[ConnectionPool]) -> None:
        """`seeds`: of some of the nodes; the others are connected to in the same way."""
        super().__init__(connection_pool=seeds[0])
        self._nodes = {_address(pool): Redis(connection_pool=pool) for pool in seeds}
        """All that were heard of. The first ones are asked where nobody is known to have a slot."""
        self._owners: dict[int, Redis] = {}
        """Slot -> the node that has it."""
        self._scripts: dict[object, str | bytes] = {}
        self._backoff = ExponentialWithJitterBackoff(base=0.05, cap=1.0)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to all nodes."""
        await asyncio.gather(*(node.aclose(close_connection_pool) for node in self._nodes.values()))

    async def masters(self) -> dict[str, Redis]:
        """The nodes that have slots, by their addresses. Raises RedisError."""

        async def ask(node: Redis, _: bool) -> dict[str, Redis]:
            ranges = await node.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            found = [self._node(host.decode() if host else "", port, node) for _, _, (host, port, *_), *_ in ranges]
            return {address: node for address, node in self._nodes.items() if node in found}

        return await self._routed(None, ask)

    # -- commands ----------------------------------------------------------------------------------------------------

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry a command out where its key is; one without a key, on any node. At most two round trips more."""

        async def run(node: Redis, asking: bool) -> Any:
            try:
                return await _run(node, asking, args, options)
            except NoScriptError:
                # each node has a memory of scripts of its own
                if (script := self._scripts.get(args[1])) is None:
                    raise
                await node.script_load(script)
                return await _run(node, asking, args, options)

        return await self._routed(_slot_of(args), run)

    # redis-py's own bases do not agree on the types of these two
    def register_script(self, script: str | bytes) -> AsyncScript:  # type: ignore[override]
        """As every client's; which node has to know it is seen when it is called."""
        registered = super().register_script(script)
        self._scripts[registered.sha] = script
        return registered

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":
        """As every client's, for commands whose keys have one slot."""
        return ClusterPipeline(self, transaction)

    async def hscan(
        self,
        name: Any,
        cursor: int = 0,
        match: Any = None,
        count: int | None = None,
        no_values: bool | None = None,
    ) -> tuple[int, Any]:
        """As every client's. A cursor leads back to the node that gave it: it means nothing to another.

        Raises MovedError or AskError where the hash went to another one meanwhile; what was seen is not all then.
        """

        async def scan(node: Redis, asking: bool) -> tuple[int, Any]:
            if asking:
                raise TryAgainError("the hash is on its way to another node")
            following, found = await node.hscan(name, int(cursor), match, count, no_values)
            return _Cursor(following, node), found

        if isinstance(cursor, _Cursor):
            return await scan(cursor.node, False)
        return await self._routed(key_slot(_bytes(name)), scan)

    # -- where they go -----------------------------------------------------------------------------------------------

    async def _routed(self, slot: int | None, run: Callable[[Redis, bool], Awaitable[T]]) -> T:
        """Run on the node that has a slot; None: on any. `run` is told whether the node has to be asked for it."""
        asked: Redis | None = None
        attempt = 0
        while True:
            attempt += 1
            node = asked or (None if slot is None else self._owners.get(slot))
            is_guess = node is None
            node = node or next(iter(self._nodes.values()))
            try:
                return await run(node, asked is not None)
            except MaxConnectionsError:
                raise  # nothing is wrong with the node
            except (ConnectionError, TimeoutError):
                self._forget(node)
                if not is_guess or attempt >= len(self._nodes):
                    raise
                continue  # it was asked for the way only: another one knows it, too
            except ClusterDownError:
                self._forget(node)  # it may have left the cluster
                asked = None
                if attempt > REDIRECTIONS_MAX:
                    raise
            except (AskError, TryAgainError) as error:  # MOVED is an AskError, too
                asked = None
                if attempt > REDIRECTIONS_MAX:
                    raise
                if isinstance(error, MovedError):
                    self._owners[error.slot_id] = self._node(error.host, error.port, node)
                elif isinstance(error, AskError):
                    asked = self._node(error.host, error.port, node)
            if attempt > 1:
                await asyncio.sleep(self._backoff.compute(attempt - 1))

    def _node(self, host: str, port: int, told_by: Redis) -> Redis:
        """The node with this address; one without a host is where the one that told of it is."""
        pool = told_by.connection_pool
        arguments = pool.connection_kwargs | {"host": host or pool.connection_kwargs["host"], "port": port}
        new = ConnectionPool(connection_class=pool.connection_class, **arguments)  # connects when first used
        return self._nodes.setdefault(_address(new), Redis(connection_pool=new))

    def _forget(self, node: Redis) -> None:
        """It has no slot as far as is known, and is asked last."""
        self._owners = {slot: owner for slot, owner in self._owners.items() if owner is not node}
        self._nodes = dict(sorted(self._nodes.items(), key=lambda item: item[1] is node))


async def masters(redis: Redis) -> dict[str, Redis]:
    """Every server that has keys, by its address: of a store that is no cluster, the one. Raises RedisError.

    It is the only call that needs the right to CLUSTER SLOTS.
    """
    return await redis.masters() if isinstance(redis, ClusterRedis) else {_address(redis.connection_pool): redis}


class ClusterPipeline(Pipeline):
    """Commands whose keys have one slot, carried out together on the node that has it."""

    def __init__(self, cluster: ClusterRedis, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster
        self._asking = False

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Carry them out. Raises RedisError; ClusterCrossSlotError where the keys have several slots."""
        commands = self.command_stack
        slots = {_slot_of(args) for args, _ in commands}
        if len(slots) > 1:
            raise ClusterCrossSlotError("the keys of one transaction have several slots")

        async def run(node: Redis, asking: bool) -> list[Any]:
            self.connection_pool, self.command_stack, self._asking = node.connection_pool, commands, asking
            return await super(ClusterPipeline, self).execute(raise_on_error)

        return await self._cluster._routed(slots.pop() if slots else None, run)

    async def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        if self._asking:  # holds to the end of the transaction
            await connection.send_command("ASKING")
            await connection.read_response()
        return await super()._execute_transaction(connection, commands, raise_on_error)


async def _run(node: Redis, asking: bool, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if not asking:
        return await node.execute_command(*args, **options)  # type: ignore[no-untyped-call]
    async with node.pipeline(transaction=False) as pipeline:  # holds for the next command of the connection
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*args, **options)
        _, answer = await pipeline.execute()
    return answer


def _slot_of(args: Sequence[Any]) -> int | None:
    """The slot of a command's key; None where it has no key, or has two words, which none on keys has."""
    name, *rest = args
    if name in ("EVALSHA", "EVAL"):
        rest = rest[2:] if int(rest[1]) else []
    return key_slot(_bytes(rest[0])) if rest and " " not in name else None


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _address(pool: ConnectionPool) -> str:
    return f"{pool.connection_kwargs.get('host', 'localhost')}:{pool.connection_kwargs.get('port', 6379)}"
