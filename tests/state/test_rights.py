"""A user of the store that may not do everything: what is missing is named, and nothing is half written."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from state.client import connect
from state.founding import found
from state.rights import FOUNDING_COMMANDS, SHARD_COMMANDS, missing_rights
from state.shard_store import ShardStore
from tests.state.conftest import PREFIX
from tests.state.keyspace import keyspace
from tests.state.test_shard_store import PROGRESS, full_commit

KEYS = ("~{test:*", "~{test}:founding")
EVERYTHING = (*KEYS, "+@all")

# who may do what is not simulated
pytestmark = pytest.mark.parametrize("redis", ["valkey"], indirect=True)

UserWith = Callable[..., AbstractAsyncContextManager[Redis]]


@pytest.fixture
def user_with(redis: Redis, valkey_url: str) -> UserWith:
    """Makes a user with just these rights, and a client that is this user."""

    @asynccontextmanager
    async def made(*words: str) -> AsyncIterator[Redis]:
        await redis.acl_setuser("limited", reset=True, enabled=True, passwords=["+p"])
        await redis.execute_command("ACL", "SETUSER", "limited", *words)  # type: ignore[no-untyped-call]
        client = connect(valkey_url.replace("redis://", "redis://limited:p@"))
        try:
            yield client
        finally:
            await client.aclose()
            await redis.acl_deluser("limited")

    return made


async def test_nothing_is_missing_of_who_may_do_everything(redis: Redis, user_with: UserWith) -> None:
    """Neither for a store without users, nor for a user with all rights to the installation's keys alone."""
    assert await missing_rights(redis, PREFIX) == []
    async with user_with(*EVERYTHING) as limited:
        assert await missing_rights(limited, PREFIX) == []
    assert await keyspace(redis) == {}


@pytest.mark.parametrize("command", [*SHARD_COMMANDS, *FOUNDING_COMMANDS, "EVALSHA", "SCRIPT|LOAD"])
async def test_a_missing_command_is_named(user_with: UserWith, command: str) -> None:
    """Each one of those that a worker needs."""
    async with user_with(*EVERYTHING, f"-{command}") as limited:
        missing = await missing_rights(limited, PREFIX)
    assert any(command.lower() in text.lower().replace(" load", "|load") for text in missing), missing


@pytest.mark.parametrize("pattern", ["~{test:accounts:*", "~{test:*", "%R~*", "~{another:*"])
async def test_keys_that_may_not_be_used_are_noticed(user_with: UserWith, pattern: str) -> None:
    """Of one stage only, without the founding document, for reading only, of another installation."""
    async with user_with(pattern, "+@all") as limited:
        assert await missing_rights(limited, PREFIX)


@pytest.mark.parametrize("command", ["HSET", "HDEL", "ZADD", "ZREM", "RPUSH"])
async def test_a_commit_without_a_right_writes_nothing(
    redis: Redis, store: ShardStore, user_with: UserWith, command: str
) -> None:
    """A right that is lost under a worker: the script stops before its first write, not between two."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    async with user_with(*EVERYTHING) as limited:
        shard = ShardStore(limited, PREFIX, store.stage, store.partition)
        await shard.claim("two")
        held = await keyspace(redis)
        await redis.acl_setuser("limited", enabled=True, commands=[f"-{command}"])
        with pytest.raises(NoPermissionError, match=f"nothing was written: no right to {command} "):
            await shard.commit(full_commit(PROGRESS | {"ticks": 9}, "y"))
        assert await keyspace(redis) == held
        await redis.acl_setuser("limited", enabled=True, commands=[f"+{command}"])
        await shard.commit(full_commit(PROGRESS | {"ticks": 9}, "y"))
        assert (await shard.peek()).progress["ticks"] == 9  # type: ignore[union-attr]


@pytest.mark.parametrize("command", ["HSET", "LTRIM"])
async def test_a_trim_without_a_right_drops_nothing(
    redis: Redis, store: ShardStore, user_with: UserWith, command: str
) -> None:
    """Neither the records nor the count of them: both, or none."""
    async with user_with(*EVERYTHING) as limited:
        shard = ShardStore(limited, PREFIX, store.stage, store.partition)
        await shard.claim("one")
        await shard.commit(full_commit(PROGRESS))
        await shard.outbox()
        held = await keyspace(redis)
        await redis.acl_setuser("limited", enabled=True, commands=[f"-{command}"])
        with pytest.raises(NoPermissionError, match="nothing was dropped"):
            await shard.trim(1, {"0": 1})
        assert await keyspace(redis) == held


async def test_an_installation_is_founded_with_these_rights_alone(redis: Redis, user_with: UserWith) -> None:
    """What is asked for is all that is needed."""
    words = [f"+{command}" for command in {*SHARD_COMMANDS, *FOUNDING_COMMANDS, "EVALSHA", "SCRIPT|LOAD"}]
    async with user_with(*KEYS, "-@all", *words) as limited:
        assert await missing_rights(limited, PREFIX) == []
        await found(limited, PREFIX, "policy", "hash", 1)
        assert await keyspace(redis)
