"""Kafka and Redis as docs/security.md says: all goes with exactly these rights, and without one, one line says so."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from segmentation.policy import Policy
from state import rights as store_rights
from streams import rights as broker_rights
from streams.cli.failures import UNUSABLE
from streams.cli.running import store
from streams.event_loop import fast_loop
from streams.settings import Settings
from tests.certificates import Authority
from tests.kafka.conftest import RealServers
from tests.pipeline import CommandProcess, Installation, Load, chains
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
from tests.servers import MissingPrerequisite
from tests.streams.command_line import Done, is_one_line, resegment

PARTITIONS = 2
WORKER, SENDER, READER = "resegment-worker", "resegment-sender", "resegment-reader"


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
    try:
        authority = Authority(directory)
        new_redis, new_kafka = SecureRedis(authority), SecureKafka(authority)
    except MissingPrerequisite as missing:
        pytest.skip(str(missing))
    with new_redis as redis, new_kafka as kafka:
        asyncio.run(kafka.allow(*(right for user in USERS for right in kafka_rights(user))))
        found = Secure(kafka, redis, Authority(directory, "stranger"))
        made = resegment("topics", "create", "--partitions", str(PARTITIONS), values=found.variables("resegment-admin"))
        assert (made.status, made.err) == (0, ""), made
        yield found


@pytest.fixture(autouse=True)
def _connections_end_soon() -> None:
    """As in the program."""
    fast_loop()


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
    variables = secure.variables(WORKER, log_level="DEBUG")
    with CommandProcess(installation, tmp_path, "worker", "worker", variables=variables) as process:
        await process.until_said("claimed 4 shards")
        await load.run(20)
        sent = await asyncio.to_thread(
            resegment,
            "send",
            "purchase",
            "acme",
            "12.50",
            "--at",
            "2024-04-01T00:00:00Z",
            values=secure.variables(SENDER),
        )
        assert sent.status == 0, sent
        await installation.send(load.some(1)[0]._replace(value=b"not JSON"))
        await load.finish()
        await installation.rest()
        chains(await installation.changes())
        read = secure.variables(READER)
        verified = await asyncio.to_thread(resegment, "verify", values=read)
        assert verified.status == 0, verified
        assert " mismatches=0 " in verified.out and " dead_letters=1 " in verified.out, verified.out
        assert "not_json" in resegment("dead-letters", values=read).out
        assert "acme is " in resegment("explain", "acme", values=read).out
        assert "undone within 7 days" in resegment("report", values=read).out
        process.check()
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        said = process.said()
    assert "WARNING" not in said and "ERROR" not in said, said
    assert not any(secret in said for secret in secure.secrets())


# -- rights taken away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", kafka_rights(WORKER), ids=str)
async def test_every_documented_right_of_a_worker_at_the_broker_is_needed(secure: Secure, right: KafkaRight) -> None:
    """Without any one of them a worker would not begin, and says which."""
    settings = Settings(**secure.kafka.settings(WORKER))
    await secure.kafka.forbid(right)
    try:
        (missing,) = await broker_rights.missing_rights(settings)
    finally:
        await secure.kafka.allow(right)
    assert missing.startswith(f"{right.operation} on ") and right.name in missing
    assert await broker_rights.missing_rights(settings) == []


@pytest.mark.parametrize("word", [word for word in redis_user(WORKER) if word[0] in "+~"])
async def test_every_documented_right_of_a_worker_at_the_store_is_needed(secure: Secure, word: str) -> None:
    """Without any one of them a worker would not begin, and hears which."""
    async with lacking(secure, word) as url:
        try:
            async with store(Settings(redis_url=SecretStr(url))) as redis:
                missing = ", ".join(await store_rights.missing_rights(redis, "resegment"))
        except NoPermissionError as error:  # of the greeting
            missing = str(error)
    assert missing
    wanted = "no permissions to access" if word[0] == "~" else word.removeprefix("+").replace("|", " ")
    assert wanted.lower() in missing.replace("|", " ").lower()


@asynccontextmanager
async def lacking(secure: Secure, *words: str) -> AsyncIterator[str]:
    """The address for a user of the store like the worker, but for these words."""
    password = "canary-of-the-store"
    async with Redis.from_url(secure.redis.url) as root:
        await acl(root, "SETUSER", "lacking", "reset", f">{password}", *without(redis_user(WORKER), *words))
        try:
            yield secure.redis.url_of("lacking", password)
        finally:
            await acl(root, "DELUSER", "lacking")


async def acl(root: Redis, *words: str) -> None:
    """Change what users of the store may do."""
    await root.execute_command("ACL", *words)  # type: ignore[no-untyped-call]


async def test_a_worker_without_a_right_at_the_store_does_not_begin(secure: Secure, installation: Installation) -> None:
    """Two rights are missing: one line names both, status 2, and nothing is written."""
    before = await installation.redis.dbsize()
    async with lacking(secure, "+zrem", "+hdel") as url:
        done = await asyncio.to_thread(resegment, "worker", values=secure.variables(WORKER, redis_url=url))
    refused(secure, done, "the store does not let this user", "ZREM on ", "HDEL on ")
    assert await installation.redis.dbsize() == before


async def test_a_worker_without_a_right_at_the_broker_does_not_begin(secure: Secure) -> None:
    """One right of each kind is missing: one line names all, status 2."""
    gone = [
        right
        for right in kafka_rights(WORKER)
        if right.name in ("ticks", "resegment-", "resegment") or (right.operation, right.name) == ("Read", "purchases")
    ]
    await secure.kafka.forbid(*gone)
    try:
        done = await asyncio.to_thread(resegment, "worker", values=secure.variables(WORKER))
    finally:
        await secure.kafka.allow(*gone)
    refused(
        *(secure, done, "the broker does not let this user", "Read on topic purchases", "Write on topic ticks"),
        *("Read on group resegment", "Write on transactional ids that begin with resegment-"),
    )


async def test_a_right_that_is_lost_under_a_worker_leaves_nothing_half_done(
    secure: Secure, installation: Installation, tmp_path: Path
) -> None:
    """Without ZREM in the middle of a load nothing is written any more; given back, all goes on and is right."""
    load = Load(installation, random.Random(2), accounts=20)
    load.day = 400
    with CommandProcess(installation, tmp_path, "worker", "worker", variables=secure.variables(WORKER)) as process:
        await process.until_said("claimed 4 shards")
        await load.run(3)
        await acl(installation.redis, "SETUSER", WORKER, "-zrem")
        try:
            load.day += 400
            await load.tick()  # nothing is in the window any more, so nobody is due: that is a ZREM
            await process.until_said("nothing was written: no right to ZREM")
        finally:
            await acl(installation.redis, "SETUSER", WORKER, "+zrem")
        await load.run(3)
        await load.finish()
        await installation.rest()
        verified = await asyncio.to_thread(resegment, "verify", values=secure.variables(READER))
        assert verified.status == 0, verified
        process.check()


async def test_workers_that_may_not_be_in_their_group_any_more_end(
    secure: Secure, installation: Installation, tmp_path: Path
) -> None:
    """Also the one that has no shards: it would wait for the group for ever."""
    gone = [right for right in kafka_rights(WORKER) if right.resource == "--group"]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                CommandProcess(installation, tmp_path, name, "worker", variables=secure.variables(WORKER))
            )
            for name in ("one", "another", "without-shards")
        ]
        for worker in workers:
            await worker.until_said("claimed ")
        assert any("claimed 0 shards" in worker.said() for worker in workers)
        await secure.kafka.forbid(*gone)
        try:
            assert [await worker.ended() for worker in workers] == [UNUSABLE] * 3
        finally:
            await secure.kafka.allow(*gone)
        for worker in workers:
            assert "the broker: GroupAuthorizationFailedError" in worker.said().splitlines()[-1]


# -- passwords and certificates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["worker", "doctor"])
@pytest.mark.parametrize("wrong", ["password", "authority"])
@pytest.mark.parametrize("server", ["broker", "store"])
def test_a_wrong_password_and_a_strange_authority_are_said(
    secure: Secure, command: str, wrong: str, server: str
) -> None:
    """One line says which server, and what is the matter, and nothing that is a secret."""
    changes = {
        ("broker", "password"): {"kafka_sasl_password": "canary-1"},
        ("broker", "authority"): {"kafka_ca_file": str(secure.stranger.file)},
        ("store", "password"): {"redis_url": secure.redis.url_of(WORKER, "canary-1")},
        ("store", "authority"): {"redis_url": secure.redis.url_of(WORKER, authority=secure.stranger)},
    }[server, wrong]
    done = resegment(command, values=secure.variables(WORKER, **changes))
    said = {
        ("broker", "password"): "it refuses the user or the password",
        ("broker", "authority"): "its certificate is not trusted",
        ("store", "password"): "invalid username-password pair",
        ("store", "authority"): "certificate verify failed",
    }[server, wrong]
    if command == "worker":
        refused(secure, done, server, said)
    else:
        (line,) = (line for line in done.out.splitlines() if line.startswith("unreachable"))
        assert server in line and said in line
        refused(secure, done, "something cannot be reached")


def test_doctor_finds_the_documented_users_fit_for_what_they_are(secure: Secure) -> None:
    """A worker's user passes; the reader's is told that no worker would begin as it, and what is missing."""
    done = resegment("doctor", values=secure.variables(WORKER))
    assert (done.status, done.err) == (0, ""), done
    assert "may lose what was committed" not in done.out  # not with the Kafka of these tests
    done = resegment("doctor", values=secure.variables(READER))
    assert done.status == 1
    wrong = [line for line in done.out.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 2 and all("no worker would begin" in line for line in wrong)
    assert "Write on topic segments" in wrong[0] and "evalsha" in wrong[1]


@pytest.mark.parametrize("factory", [fast_loop(), None], ids=["fast", "asyncio"])
def test_a_client_lets_go_of_a_tls_connection_soon(secure: Secure, factory: Any) -> None:
    """Also while the broker holds an answer back, and does not say farewell: a claim, and who leaves, wait for this."""

    async def stopping() -> float:
        consumer = AIOKafkaConsumer(**secure.kafka.arguments("tests"), fetch_max_wait_ms=10_000)
        await consumer.start()
        consumer.assign([TopicPartition("purchases", 0)])
        await consumer.seek_to_end()
        await consumer.getmany(timeout_ms=500)  # a fetch is on its way now
        began = time.monotonic()
        await consumer.stop()
        return time.monotonic() - began

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(stopping()) < 5


def test_nobody_listens_beyond_what_was_asked_for(secure: Secure) -> None:
    """On the loopback alone: Kafka's two listeners, and of Redis the one that speaks TLS."""
    for pid, ports in ((secure.kafka.pid, 2), (secure.redis.pid, 1)):
        listening = {
            (at.laddr.ip.removeprefix("::ffff:"), at.laddr.port)
            for at in psutil.Process(pid).net_connections()
            if at.status == psutil.CONN_LISTEN
        }
        assert {ip for ip, _ in listening} == {"127.0.0.1"} and len(listening) == ports, listening


def refused(secure: Secure, done: Done, *said: str) -> None:
    """Status 2, and one line with these words and no secret."""
    assert done.status == 2, done
    assert is_one_line(done.err), done.err
    for words in said:
        assert words in done.err, done.err
    for secret in ("canary", *secure.secrets()):
        assert secret not in done.err + done.out
