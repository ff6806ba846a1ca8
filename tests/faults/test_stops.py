"""Where the system must stop instead of going on: one clear line, an exit status, and nothing written anywhere."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

import segmentation
from segmentation.policy import Policy
from state.keys import StageName, founding_key, shard_keys
from state.shard_store import SCHEMA_VERSION
from streams.embedded import Embedded
from streams.log import LogReader
from streams.topics import Topic
from tests.pipeline import CommandProcess, Installation, moment, purchase, until

PARTITIONS = 2


@pytest.fixture
async def installation(embedded: Embedded) -> AsyncIterator[Installation]:
    """One that has announced changes, at rest, without a worker; and events that wait for one."""
    async with Installation(
        embedded, policy=Policy.default(), partitions=PARTITIONS, kafka_session_timeout_seconds=6.0
    ) as new:
        async with new.worker(kafka_session_timeout_seconds=2.0):
            await new.send(*(purchase(f"a{number}", "1", moment(0), 100 + number) for number in range(20)))
            await new.tick(moment(100))
            await new.rest()
        await new.send(*(purchase(f"a{number}", "2", moment(100), 1_000) for number in range(20)))
        await new.tick(moment(101))
        yield new


class World(NamedTuple):
    """Everything that a worker could write, but who owns a shard: to learn that, it may have to claim it."""

    store: dict[bytes, Any]
    ends: dict[tuple[Topic, int], int]

    @classmethod
    async def of(cls, installation: Installation, topic_prefix: str | None = None) -> "World":
        """As it is now, with the topics of another prefix if one is given."""
        redis, settings = installation.redis, installation.settings
        store: dict[bytes, Any] = {}
        async for key in redis.scan_iter(match=f"*{settings.redis_prefix}*"):
            kind = await redis.type(key)
            if kind == b"hash":
                store[key] = {field: value for field, value in (await redis.hgetall(key)).items() if field != b"owner"}
            elif kind == b"zset":
                store[key] = await redis.zrange(key, 0, -1, withscores=True)
            else:
                store[key] = await redis.lrange(key, 0, -1)
        prefix = settings.topic_prefix if topic_prefix is None else topic_prefix
        async with LogReader(settings.kafka_arguments(), prefix) as reader:
            await reader.refresh()
            places = [(topic, number) for topic in Topic for number in range(reader.partition_count(topic))]
            return cls(store, {place: bound.end for place, bound in (await reader.bounds(places)).items()})


class Spoil(Protocol):
    """Makes an installation one that no worker may go on with, or gives it such an environment."""

    __name__: str

    async def __call__(self, installation: Installation, variables: dict[str, str], directory: Path) -> None:
        """Do it."""


async def lose_everything(installation: Installation, variables: dict[str, str], directory: Path) -> None:
    """The store is empty."""
    await installation.redis.delete(*(await World.of(installation)).store)


async def lose_one_shard(installation: Installation, variables: dict[str, str], directory: Path) -> None:
    """A part of the store is gone."""
    keys = shard_keys(installation.settings.redis_prefix, StageName.ACCOUNTS, 1)
    await installation.redis.delete(*keys)


async def change_the_policy(installation: Installation, variables: dict[str, str], directory: Path) -> None:
    """Other rules than those that the state was made with."""
    policy = directory / "policy.toml"
    text = (Path(segmentation.__path__[0]) / "default_policy.toml").read_text()
    policy.write_text(text.replace("window_days = 365", "window_days = 300"))
    variables["RESEGMENT_POLICY"] = str(policy)


async def write_a_later_schema(installation: Installation, variables: dict[str, str], directory: Path) -> None:
    """A newer program has been here."""
    await installation.redis.hset(founding_key(installation.settings.redis_prefix), "schema_version", "99")


async def cut_the_log(installation: Installation, variables: dict[str, str], directory: Path) -> None:
    """The log ends before what was applied of it: it was made anew, with the same names or not."""
    variables["RESEGMENT_TOPIC_PREFIX"] = f"{installation.settings.topic_prefix}new-"
    async with Installation(
        _SameServers(installation),
        policy=installation.policy,
        partitions=PARTITIONS,
        topic_prefix=variables["RESEGMENT_TOPIC_PREFIX"],
    ):
        pass


async def cut_a_partition(installation: Installation, variables: dict[str, str], directory: Path) -> None:
    """Topics with another number of partitions than the state was made for."""
    variables["RESEGMENT_TOPIC_PREFIX"] = f"{installation.settings.topic_prefix}one-"
    async with Installation(
        _SameServers(installation),
        policy=installation.policy,
        partitions=1,
        topic_prefix=variables["RESEGMENT_TOPIC_PREFIX"],
    ):
        pass


class _SameServers:
    def __init__(self, installation: Installation) -> None:
        self.kafka = installation.settings.kafka_bootstrap_servers
        self.redis = installation.settings.redis_url.get_secret_value()


CASES: list[tuple[Spoil, int, list[str]]] = [
    (lose_everything, 1, ["lost its data", "--rebuild"]),
    (lose_one_shard, 1, ["the store lost data", "accounts shard 1"]),
    (change_the_policy, 2, ["the policy differs", "window_days: 365 -> 300"]),
    (write_a_later_schema, 2, ["schema 99", f"this program reads {SCHEMA_VERSION}"]),
    (cut_the_log, 1, ["but the log ends at 0", "--rebuild"]),
    (cut_a_partition, 2, ["made for 2 partitions, the topics have 1"]),
]


@pytest.mark.parametrize(("spoil", "status", "words"), CASES, ids=[spoil.__name__ for spoil, *_ in CASES])
async def test_a_worker_stops_says_why_and_writes_nothing(
    installation: Installation, tmp_path: Path, spoil: Spoil, status: int, words: list[str]
) -> None:
    """What would come of going on nobody could take back."""
    variables: dict[str, str] = {}
    await spoil(installation, variables, tmp_path)
    topic_prefix = variables.get("RESEGMENT_TOPIC_PREFIX")
    before = await World.of(installation, topic_prefix)
    with CommandProcess(installation, tmp_path, "worker", "worker", variables=variables) as process:

        async def has_ended_or_begun() -> bool:
            return process.status() is not None or "claimed" in process.said()

        await until(has_ended_or_begun, "its end")
        assert process.status() == status
        said = process.said()
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    reason = [line for line in said.splitlines() if line.startswith("resegment: ")]
    assert len(reason) == 1, said
    assert await World.of(installation, topic_prefix) == before
