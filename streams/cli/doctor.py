"""`resegment doctor`."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError
from redis.asyncio import Redis
from redis.exceptions import MovedError, NoPermissionError, RedisError
from rich.text import Text

from segmentation.policy import Policy, PolicyError
from state.client import server_addresses
from state.cluster import ClusterRedis, masters
from state.founding import read_founding
from state.rights import missing_rights
from state.shard_store import SCHEMA_VERSION
from streams import rights
from streams.applying import behind
from streams.cli.console import escape, out, print_json
from streams.cli.failures import CHECK_FAILED, IS_A_CLUSTER, UNUSABLE, CommandFailed
from streams.cli.overheard import why_not_connected
from streams.cli.running import admin, read_policy, read_settings, store
from streams.rest import look
from streams.settings import Settings
from streams.topics import Topic, check_topics, partition_counts

STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unreachable": "bold red"}

SHARE_FETCH, CONSUMER_GROUP_HEARTBEAT, DESCRIBE_LOG_DIRS, PRODUCE = 78, 68, 35, 0
"""Keys of Kafka's protocol by which its releases can be told apart: a broker does not say its version."""

_LOSES_COMMITTED = (
    "Apache Kafka 4.3.0 to 4.4.0, and later ones without the fix of KAFKA-20734, may lose what was committed, where a "
    "partition has no leader for a moment, as when the only broker is started again: use 4.2 (docs/reliability.md)"
)


class Found(NamedTuple):
    """What one look found."""

    about: str
    status: Literal["ok", "warning", "wrong", "unreachable"]
    text: str


async def run_doctor(*, policy: Path | None, as_json: bool) -> None:
    """Look at everything and say what is wrong. Raises CommandFailed."""
    settings = read_settings(policy=policy)
    found = [Found("program", "ok", f"resegment {_version()}")]
    rules = _policy(settings, found)
    partitions = await _broker(settings, rules, found)
    await _store(settings, rules, partitions, found)
    if as_json:
        print_json({"found": [entry._asdict() for entry in found]})
    else:
        for entry in found:
            line = Text(f"{entry.status:<11} ", STYLES[entry.status])
            out.print(line.append(f"{entry.about:<8} {escape(entry.text)}", "default"))
    statuses = {entry.status for entry in found}
    if "unreachable" in statuses:
        raise CommandFailed("something cannot be reached", UNUSABLE)
    if "wrong" in statuses:
        raise CommandFailed("something is wrong", CHECK_FAILED)


def _version() -> str:
    try:
        return version("resegment")
    except PackageNotFoundError:
        return "(run from its source, not installed)"


def _policy(settings: Settings, found: list[Found]) -> Policy | None:
    try:
        policy = read_policy(settings)
    except (PolicyError, OSError) as error:
        found.append(Found("policy", "wrong", str(error)))
        return None
    source = str(settings.policy or "the default")
    found.append(Found("policy", "ok", f"version {policy.version} ({source})"))
    return policy


async def _broker(settings: Settings, policy: Policy | None, found: list[Found]) -> int:
    """Returns how many partitions there are; 1 where nobody knows."""
    try:
        async with admin(settings) as client:
            cluster = await client.describe_cluster()
            brokers = len(cluster["brokers"])
            spoken = _spoken(client)
            found.append(
                Found("broker", "ok", f"{settings.kafka_bootstrap_servers}: {brokers} broker(s), {_protocol(spoken)}")
            )
            if settings.kafka_transactions and may_forget(spoken):
                found.append(Found("broker", "warning", _LOSES_COMMITTED))
            found.extend(_in_the_clear("broker", "SSL" in settings.kafka_security_protocol, _broker_hosts(settings)))
            findings = await check_topics(client, settings, policy or Policy.default())
            counts = await partition_counts(client, settings)
            missing = await rights.missing_rights(settings)
    except (KafkaError, OSError) as error:
        why = (why_not_connected() if isinstance(error, KafkaConnectionError) else "") or error
        found.append(Found("broker", "unreachable", f"{settings.kafka_bootstrap_servers}: {why}"))
        return 1
    if missing:
        found.append(Found("broker", "wrong", f"{_NO_WORKER}; missing: {', '.join(missing)}"))
    found.extend(Found("topics", "wrong" if entry.is_error else "warning", entry.text) for entry in findings)
    if not findings:
        found.append(Found("topics", "ok", f"{len(counts)} topics, {counts[Topic.PURCHASES]} partitions"))
    return counts.get(Topic.PURCHASES) or 1


def _spoken(client: AIOKafkaAdminClient) -> dict[int, tuple[int, int]]:
    """Which versions of each call of the protocol the broker speaks: the lowest and the highest."""
    versions: dict[int, tuple[int, int]] = {}
    for connection in client._client._conns.values():
        versions.update(connection._versions or {})
    return versions


def may_forget(spoken: dict[int, tuple[int, int]]) -> bool:
    """Whether the broker is of a release that may lose what was committed: those know one version more of a call."""
    return DESCRIBE_LOG_DIRS in spoken and spoken[DESCRIBE_LOG_DIRS][1] >= 5


def _protocol(spoken: dict[int, tuple[int, int]]) -> str:
    if SHARE_FETCH in spoken or (PRODUCE in spoken and spoken[PRODUCE][0] >= 3):
        return "protocol of Apache Kafka 4"
    return (
        "protocol of Apache Kafka 3.7 or newer" if CONSUMER_GROUP_HEARTBEAT in spoken else "protocol of Apache Kafka 3"
    )


async def _store(settings: Settings, policy: Policy | None, partitions: int, found: list[Found]) -> None:
    try:
        async with store(settings) as redis:
            try:
                nodes = await masters(redis)
                infos = {address: await node.info() for address, node in nodes.items()}
            except NoPermissionError:
                found.append(Found("store", "ok", "it answers"))
                found.append(Found("store", "warning", _NOT_LOOKED_AT))
            else:
                for address, info in infos.items():
                    about = f"{address}: " if isinstance(redis, ClusterRedis) else ""
                    looked_at = [Found("store", "ok", _product(info)), *_durability(info)]
                    found.extend(entry._replace(text=about + entry.text) for entry in looked_at)
            servers = [urlsplit(server) for server in server_addresses(settings.redis_url.get_secret_value())]
            is_private = servers[0].scheme in ("rediss", "unix")
            found.extend(_in_the_clear("store", is_private, [server.hostname or "localhost" for server in servers]))
            if missing := await missing_rights(redis, settings.redis_prefix, partitions):
                found.append(Found("store", "wrong", f"{_NO_WORKER}; missing: {', '.join(missing)}"))
            found.extend(await _state(redis, settings, policy))
    except MovedError:
        found.append(Found("store", "wrong", IS_A_CLUSTER))
    except (RedisError, OSError) as error:
        found.append(Found("store", "unreachable", str(error)))


_NO_WORKER = "as this user no worker would begin (docs/security.md says what it needs)"
_NOT_LOOKED_AT = (
    "this user may not ask for INFO (and, of a cluster, CLUSTER SLOTS): see yourself that maxmemory-policy is "
    "noeviction, and appendonly yes"
)


def _broker_hosts(settings: Settings) -> list[str]:
    return [server.strip().rpartition(":")[0] for server in settings.kafka_bootstrap_servers.split(",")]


def _in_the_clear(about: str, is_private: bool, hosts: list[str]) -> list[Found]:
    """A warning where records and passwords go over a network that others may listen to."""
    if is_private or set(hosts) <= {"127.0.0.1", "localhost", "::1", "[::1]"}:
        return []
    return [Found(about, "warning", "no TLS: whoever is on the way reads and changes what is sent, passwords too")]


def _product(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def _durability(info: dict[str, Any]) -> list[Found]:
    eviction = info.get("maxmemory_policy", "unknown")
    if eviction == "noeviction":
        entry = Found("store", "ok", "nothing is evicted when memory is short (maxmemory-policy noeviction)")
    else:
        entry = Found("store", "wrong", f"maxmemory-policy is {eviction}: state would be lost; set noeviction")
    if info.get("aof_enabled"):
        return [entry, Found("store", "ok", "writes are kept over a restart (appendonly yes)")]
    return [
        entry,
        Found(
            "store", "warning", "appendonly is off: after a restart the state is gone and must be rebuilt from the log"
        ),
    ]


async def _state(redis: Redis, settings: Settings, policy: Policy | None) -> list[Found]:
    founding = await read_founding(redis, settings.redis_prefix)
    if founding is None:
        return [Found("state", "ok", f"nothing under {settings.redis_prefix!r} yet: the first worker begins it")]
    if founding.schema_version != SCHEMA_VERSION:
        return [Found("state", "wrong", f"schema {founding.schema_version}, this program reads {SCHEMA_VERSION}")]
    if policy is not None and founding.policy_hash != policy.hash:
        differences = "; ".join(policy.differences(founding.policy))
        return [Found("state", "wrong", f"made with another policy (state -> this one): {differences}")]
    found = [Found("state", "ok", f"schema {founding.schema_version}, {founding.partitions} partitions, this policy")]
    if policy is not None and policy.model is None:
        found.append(
            Found(
                "risk",
                "warning",
                "the policy has no [model], so churn risk is scored by what others' accounts do; once yours have "
                "bought for a while: `resegment fit --from-log`",
            )
        )
    if late := behind(founding, await look(redis, settings.redis_prefix, founding.partitions)):
        number, shards = founding.number, ", ".join(map(str, late))
        text = f"policy {number} is applied, and account shards {shards} have not taken it: does a worker run?"
        found.append(Found("state", "warning", f"{text} If it stays so, `resegment policy apply` again"))
    theirs = founding.rest
    if policy is not None and theirs is not None and theirs != policy.canonical_rest():
        differences = "; ".join(policy.rest_differences(theirs))
        found.append(
            Found(
                "state",
                "warning",
                f"workers go by other rules where these decide no segment (theirs -> this policy): {differences}",
            )
        )
    return found
