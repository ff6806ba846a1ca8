"""Kafka and Redis as docs/security.md says: everything goes with exactly these rights, and without one, one line says so."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from segmentation.policy import Policy
from tests.certificates import Authority
from tests.kafka.conftest import RealServers
from tests.pipeline import CommandProcess, Installation, Load, chains, environment_of
from tests.secure_servers import (
    USERS,
    KafkaRight,
    SecureKafka,
    SecureRedis,
    environment,
    kafka_rights,
    redis_user,
    without,
)
from tests.streams.command_line import Done, resegment

PARTITIONS = 2
WORKER = "resegment-worker"


class Secure(NamedTuple):
    """Both servers, and an authority that issued no certificate of theirs."""

    kafka: SecureKafka
    redis: SecureRedis
    stranger: Authority

    def variables(self, user: str, **changes: str) -> dict[str, str]:
        """The environment in which the program is this user."""
        values = environment(self.kafka.settings(user))
        if user in self.redis.passwords:
            values["RESEGMENT_REDIS_URL"] = self.redis.url_of(user)
        return values | {f"RESEGMENT_{name.upper()}": value for name, value in changes.items()}

    def secrets(self) -> list[str]:
        """What nobody may ever see."""
        return [*self.kafka.passwords.values(), *self.redis.passwords.values()]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """Both servers with the users and the rights of the documentation, and the topics, made by its admin."""
    directory = tmp_path_factory.mktemp("authority")
    authority = Authority(directory)
    with SecureRedis(authority) as redis, SecureKafka(authority) as kafka:
        asyncio.run(kafka.allow(*(right for user in USERS for right in kafka_rights(user))))
        found = Secure(kafka, redis, Authority(directory, "stranger"))
        made = resegment("topics", "create", "--partitions", str(PARTITIONS), values=found.variables("resegment-admin"))
        assert (made.status, made.err) == (0, ""), made
        yield found


@pytest.fixture
async def installation(secure: Secure) -> AsyncIterator[Installation]:
    """To send and to look, as somebody who may do everything; under the names of the documentation."""
    async with Installation(
        RealServers(secure.kafka.address, secure.redis.url, secure.kafka, secure.redis),
        policy=Policy.default(),
        partitions=PARTITIONS,
        topic_prefix="",
        kafka_group="resegment",
        redis_prefix="resegment",
        kafka_session_timeout_seconds=6.0,
        relay_interval_ms=20,
        due_chunk_accounts=20,
        **secure.kafka.settings("tests"),
    ) as new:
        yield new


async def test_everything_goes_with_the_documented_rights(
    secure: Secure, installation: Installation, tmp_path: Path
) -> None:
    """A load, bad records too, through a worker that may do what is documented and no more; the reader verifies it."""
    load = Load(installation, random.Random(1))
    variables = secure.variables(WORKER)
    with CommandProcess(installation, tmp_path, "worker", "worker", variables=variables) as process:
        await process.until_said("claimed 4 shards")
        await load.run(20)
        await installation.send(load.some(1)[0]._replace(value=b"not JSON"))
        await load.finish()
        await installation.rest()
        chains(await installation.changes())
        read = secure.variables("resegment-reader")
        verified = resegment("verify", values=read)
        assert verified.status == 0, verified
        assert " mismatches=0 " in verified.out and " dead_letters=1 " in verified.out, verified.out
        assert "not_json" in resegment("dead-letters", values=read).out
        explained = resegment("explain", "a1", values=read)
        assert explained.status == 0, explained
        process.check()
        said = process.said()
    assert "trying again" not in said and "WARNING" not in said, said
    for secret in secure.secrets():
        assert secret not in said
