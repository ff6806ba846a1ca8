"""Whether the broker lets this user do all that a worker does.

Asked before a worker begins: later, what may not be read or written would look like a fault that goes away by itself.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TransactionalIdAuthorizationFailed, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from streams.settings import Settings
from streams.topics import ACCOUNT_INPUTS, TOLD_TOPICS, Topic, TopicNames

_READ, _WRITE = 1 << 3, 1 << 4
"""Bits of Kafka's operations in what it answers."""
_TOPIC_AUTHORIZATION_FAILED = 29
_NAMES = {_READ: "Read", _WRITE: "Write"}

_READ_BY_WORKERS = {*ACCOUNT_INPUTS, Topic.STANDINGS, *TOLD_TOPICS}
_WRITTEN_BY_WORKERS = {
    Topic.STANDINGS,
    Topic.SEGMENT_CHANGES,
    Topic.CHURN_RISK,
    *TOLD_TOPICS,
    Topic.DEAD_LETTERS,
}
_PROBE_TIMEOUT_MS = 1_000
_COORDINATOR_SECONDS_MAX = 60.0
_AGAIN_SECONDS = 0.1


async def missing_rights(settings: Settings) -> list[str]:
    """What this user may not do though a worker does it, in words; empty: nothing is missing.

    Topics that are not there are left out, and a broker without transactions is not asked: it knows no rights either.
    Raises KafkaError.
    """
    if not settings.kafka_transactions:
        return []
    client = AIOKafkaClient(**settings.kafka_arguments())
    try:
        await client.bootstrap()
        return [
            *await _missing_of_topics(client, settings),
            *await _missing_of_the_group(client, settings.kafka_group),
            *await _missing_of_transactions(client, settings),
        ]
    finally:
        await client.close()


async def _missing_of_topics(client: AIOKafkaClient, settings: Settings) -> Iterable[str]:
    names = TopicNames(settings.topic_prefix)
    response = await client.send(client.get_random_node(), _AskForRights([names.name(topic) for topic in Topic]))
    missing = []
    for error_code, name, _, _, operations in response.topics:
        if error_code == _TOPIC_AUTHORIZATION_FAILED:
            operations = 0
        elif error_code:
            continue
        for operation in _needed(names.topic(name), settings):
            if not operations & operation:
                missing.append(f"{_NAMES[operation]} on topic {name}")
    return missing


def _needed(topic: Topic, settings: Settings) -> list[int]:
    written = _WRITTEN_BY_WORKERS | ({Topic.TICKS} if settings.clock == "wall" else set())
    return [_READ] * (topic in _READ_BY_WORKERS) + [_WRITE] * (topic in written)


async def _missing_of_the_group(client: AIOKafkaClient, group: str) -> Iterable[str]:
    """Asked by the heartbeat of a member that does not exist."""
    refused = await _refused(client, CoordinationType.GROUP, group, HeartbeatRequest(group, 0, "rights"))
    return [f"Read on group {group}"] if refused else []


async def _missing_of_transactions(client: AIOKafkaClient, settings: Settings) -> Iterable[str]:
    """Asked with an id of its own: a shard's own would fence who has it."""
    prefix = f"{settings.kafka_group}-{settings.topic_prefix}"
    request = InitProducerIdRequest(f"{prefix}rights", _PROBE_TIMEOUT_MS)
    refused = await _refused(client, CoordinationType.TRANSACTION, f"{prefix}rights", request)
    return [f"Write on transactional ids that begin with {prefix}"] if refused else []


async def _refused(client: AIOKafkaClient, kind: int, key: str, request: Request[Any]) -> bool:
    """Whether the coordinator of a group or a transactional id refuses a request for want of a right.

    Waits until there is one: a broker that has just begun, or moves it, has none for a while.
    """
    until = asyncio.get_running_loop().time() + _COORDINATOR_SECONDS_MAX
    while True:
        try:
            coordinator = await client.coordinator_lookup(kind, key)
            error = for_code((await client.send(coordinator, request)).error_code)
        except (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed):
            return True
        except KafkaError as lookup_error:
            error = type(lookup_error)
        if not error.retriable or asyncio.get_running_loop().time() > until:
            return error in (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed)
        await asyncio.sleep(_AGAIN_SECONDS)


# -- what aiokafka 0.14 does not speak: metadata with what the user may do -------------------------------------------


class _Rights(Response):  # type: ignore[misc]  # aiokafka has no type hints
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _AskForRights_v8(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Rights
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _AskForRights(Request[_AskForRights_v8]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._topics, False, False, True)
