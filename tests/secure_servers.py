"""Apache Kafka and Redis as they are to be run in production: TLS, passwords, and rights for each user alone.

What each user may do is read from docs/security.md: a right that is missing there is missing here.
"""

import asyncio
import re
import secrets
import shlex
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

from streams.server_process import LOOPBACK
from tests.certificates import Authority
from tests.servers import KafkaServer, RedisCluster, RedisServer

DOCUMENT = Path(__file__).parents[1] / "docs" / "security.md"

ROOT = "tests"
"""The user that may do everything, on both servers."""
NODE = "kafka-node"
USERS = ("resegment-admin", "resegment-worker", "resegment-sender", "resegment-reader")

_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_RESOURCES = {"--topic": 2, "--group": 3, "--transactional-id": 5}
_PATTERNS = {"literal": 3, "prefixed": 4}
_ALLOW = 3


# -- what the documentation says -------------------------------------------------------------------------------------


class KafkaRight(NamedTuple):
    """One line of an access control list."""

    user: str
    operation: str
    resource: str
    """The option that names it: --topic, --group or --transactional-id."""
    name: str
    pattern: str

    def wire(self) -> tuple[int, str, int, str, str, int, int]:
        """As Kafka's protocol has it."""
        principal = f"User:{self.user}"
        return (
            *(_RESOURCES[self.resource], self.name, _PATTERNS[self.pattern]),
            *(principal, "*", _OPERATIONS[self.operation], _ALLOW),
        )

    def __str__(self) -> str:
        return f"{self.operation} {self.resource.removeprefix('--')} {self.name}"


def kafka_rights(user: str) -> list[KafkaRight]:
    """What docs/security.md lets a user do: the lines that begin with `acls`."""
    rights: list[KafkaRight] = []
    for line in _documented(r"^acls .*"):
        found = _parsed(shlex.split(line)[1:])
        (principal,) = found.pop("--allow-principal")
        (pattern,) = found.pop("--resource-pattern-type", ["literal"])
        operations = found.pop("--operation")
        rights += [
            KafkaRight(principal.removeprefix("User:"), operation, resource, name, pattern)
            for resource, names in found.items()
            for name in names
            for operation in operations
        ]
    return [right for right in rights if right.user == user]


def _parsed(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        assert option.startswith("--"), words
        found.setdefault(option, []).append(value)
    return found


def redis_user(user: str) -> list[str]:
    """The words of a user's line in docs/security.md, without its name and its password."""
    (line,) = _documented(rf"^user {user} .*")
    return [word for word in line.split()[2:] if not word.startswith(("#", ">"))]


def _documented(line: str) -> list[str]:
    text = DOCUMENT.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [found for block in blocks for found in re.findall(line, block, re.M)]


# -- Kafka -----------------------------------------------------------------------------------------------------------


class SecureKafka(KafkaServer):
    """Apache Kafka that speaks SASL_SSL with SCRAM to clients, and gives nobody a right that nobody gave."""

    protocol = "SASL_SSL"

    def __init__(self, authority: Authority) -> None:
        node = authority.issue(NODE)
        self.authority = authority
        self.passwords = {user: secrets.token_urlsafe(18) for user in (ROOT, *USERS)}
        self.format_arguments = [
            argument
            for user, password in self.passwords.items()
            for argument in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
        ]
        login = f'username="{ROOT}" password="{self.passwords[ROOT]}"'
        super().__init__(
            {
                "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
                "inter.broker.listener.name": "SASL_SSL",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                    f"org.apache.kafka.common.security.scram.ScramLoginModule required {login};"
                ),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(node.both),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(authority.file),
                # a node knows another one by its certificate
                "listener.name.controller.ssl.client.auth": "required",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "allow.everyone.if.no.acl.found": "false",
                "super.users": f"User:{ROOT};User:CN={NODE}",
            }
        )

    def answers(self, port: int, cluster_id: str) -> bool:
        """Whether the broker lets ROOT in and counts itself as alive."""
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1):
                pass
        except OSError:
            return False
        # in a thread: whoever starts the server may be in an event loop
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, self._answers(port)).result()

    async def _answers(self, port: int) -> bool:
        client = AIOKafkaAdminClient(**self.arguments(ROOT) | {"bootstrap_servers": f"{LOOPBACK}:{port}"})
        try:
            await client.start()
            return bool((await client.describe_cluster())["brokers"])
        except Exception:
            return False
        finally:
            await client.close()

    def arguments(self, user: str) -> dict[str, Any]:
        """What a client of aiokafka needs to be this user."""
        return {
            "bootstrap_servers": self.address,
            "security_protocol": "SASL_SSL",
            "ssl_context": ssl.create_default_context(cafile=self.authority.file),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": user,
            "sasl_plain_password": self.passwords[user],
        }

    def settings(self, user: str) -> dict[str, Any]:
        """The program's settings to be this user."""
        return {
            "kafka_bootstrap_servers": self.address,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_username": user,
            "kafka_sasl_password": self.passwords[user],
            "kafka_ca_file": self.authority.file,
            "kafka_transactions": True,
        }

    async def allow(self, *rights: KafkaRight) -> None:
        """Give rights, and return when they are in force."""
        await self._change(CreateAclsRequest, rights)

    async def forbid(self, *rights: KafkaRight) -> None:
        """Take rights away, and return when that is in force."""
        await self._change(DeleteAclsRequest, rights)

    async def _change(self, change: type, rights: Sequence[KafkaRight]) -> None:
        client = AIOKafkaClient(**self.arguments(ROOT))
        await client.bootstrap()
        try:
            for right in rights:
                response = await client.send(client.get_random_node(), change(*right.wire()))
                results = response.creation_responses if change is CreateAclsRequest else response.filter_responses
                assert [result[0] for result in results] == [0], results
            for right in rights:
                while await _in_force(client, right) is not (change is CreateAclsRequest):
                    await asyncio.sleep(0.01)
        finally:
            await client.close()


async def _in_force(client: AIOKafkaClient, right: KafkaRight) -> bool:
    response = await client.send(client.get_random_node(), DescribeAclsRequest(*right.wire()))
    assert response.error_code == 0, response
    return bool(response.resources)


# -- Redis -----------------------------------------------------------------------------------------------------------


class SecureRedis(RedisServer):
    """Redis that speaks TLS alone, to users with passwords alone."""

    def __init__(
        self, authority: Authority, *, passwords: Mapping[str, str] | None = None, settings: Sequence[str] = ()
    ) -> None:
        self.authority = authority
        self.passwords = passwords or new_redis_passwords()
        super().__init__(append_only=True, settings=settings)

    def listening(self, port: int, directory: Path) -> list[str]:
        """TLS, no plain port."""
        node = self.authority.issue("redis-node")
        users = {ROOT: ["on", "~*", "&*", "+@all"]}
        users |= {user: redis_user(user) for user in self.passwords if user != ROOT}
        file = directory / "users.acl"
        file.write_text(
            "user default off\n"
            + "".join(f"user {user} >{self.passwords[user]} {' '.join(words)}\n" for user, words in users.items())
        )
        file.chmod(0o600)
        return [
            *("--port", "0", "--tls-port", str(port)),
            *("--tls-cert-file", str(node.certificate), "--tls-key-file", str(node.key)),
            *("--tls-ca-cert-file", str(self.authority.file), "--tls-auth-clients", "no"),
            *("--aclfile", str(file)),
        ]

    def answers(self, port: int, directory: Path) -> bool:
        """Whether it lets ROOT in and has loaded its data."""
        context = ssl.create_default_context(cafile=self.authority.file)
        try:
            with (
                socket.create_connection((LOOPBACK, port), timeout=1) as plain,
                context.wrap_socket(plain, server_hostname=LOOPBACK) as connection,
            ):
                connection.sendall(f"AUTH {ROOT} {self.passwords[ROOT]}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\n") < 2:
                    received = connection.recv(64)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"

    def url_of(self, user: str, password: str | None = None, authority: Authority | None = None) -> str:
        """The address for a user."""
        ca = (authority or self.authority).file
        return f"rediss://{user}:{password or self.passwords[user]}@{LOOPBACK}:{self._process.port}/0?ssl_ca_certs={ca}"

    @property
    def url(self) -> str:
        """The address for ROOT."""
        return self.url_of(ROOT)


class SecureRedisCluster(RedisCluster):
    """Three of those, each with the same users, who may also do what docs/security.md says of a cluster."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.passwords = new_redis_passwords()
        super().__init__()

    def new_node(self, settings: Sequence[str]) -> RedisServer:
        """TLS between them, too."""
        return SecureRedis(self.authority, passwords=self.passwords, settings=[*settings, *("--tls-cluster", "yes")])

    def __enter__(self) -> Self:
        super().__enter__()
        (more,) = set(re.findall(r"`(\+\w+)` on a cluster", DOCUMENT.read_text()))
        for user in self.passwords.keys() - {ROOT}:
            for master in self.masters:
                self.command(master, "ACL", "SETUSER", user, more)
        return self

    def url_of(self, user: str) -> str:
        """The address for a user."""
        hosts = ",".join(master.address for master in self.masters)
        return f"rediss+cluster://{user}:{self.passwords[user]}@{hosts}?ssl_ca_certs={self.authority.file}"


def new_redis_passwords() -> dict[str, str]:
    """For each user of the store."""
    return {user: secrets.token_urlsafe(18) for user in (ROOT, "resegment-worker", "resegment-reader")}


def without(words: Sequence[str], *gone: str) -> Iterator[str]:
    """A user's words without some of them, which must be there."""
    assert set(gone) <= set(words), gone
    return (word for word in words if word not in gone)


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The variables that say these settings."""
    return {f"RESEGMENT_{name.upper()}": str(value) for name, value in settings.items()}
