"""The topics: their names, what they must be like, and how they are made and checked."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from segmentation.policy import Policy
from streams.settings import Settings

DAY_MS = 86_400_000
DEAD_LETTER_BYTES_MAX = 4 * 1024 * 1024
"""A dead letter holds the record as it came, headers included."""

KNOWN_SECONDS_MAX = 30.0
KNOWN_LOOK_SECONDS = 0.05


class Topic(StrEnum):
    """The topics, without the installation's prefix."""

    PURCHASES = "purchases"
    SIGNUPS = "signups"
    ENGAGEMENTS = "engagements"
    TICKS = "ticks"
    STANDINGS = "standings"
    HAND_OVERS = "hand-overs"
    SEGMENT_CHANGES = "segment-changes"
    SEGMENTS = "segments"
    CHURN_RISK = "churn-risk"
    RISKS = "risks"
    DEAD_LETTERS = "dead-letters"


EVENT_TOPICS = (Topic.PURCHASES, Topic.SIGNUPS, Topic.ENGAGEMENTS)
ACCOUNT_INPUTS = (*EVENT_TOPICS, Topic.TICKS)
TOLD_TOPICS = (Topic.SEGMENTS, Topic.RISKS, Topic.HAND_OVERS)
"""What was told last of each account, the world or another population: compacted, and read by whoever claims a ranking
shard."""
SHARDED = (*ACCOUNT_INPUTS, Topic.STANDINGS)
"""Read by shards: all with the same number of partitions."""


def place_name(topic: str, partition: int) -> str:
    """One text for a partition of a topic."""
    return f"{topic}/{partition}"


def place_of(name: str) -> tuple[Topic, int]:
    """What `place_name` made a text of."""
    topic, _, partition = name.rpartition("/")
    return Topic(topic), int(partition)


def told_places(told: Mapping[str, int], partition_count: Callable[[Topic], int]) -> dict[tuple[Topic, int], int]:
    """Every partition of TOLD_TOPICS, with the offset that is told of it (by `place_name`), or 0."""
    return {
        (topic, number): told.get(place_name(topic, number), 0)
        for topic in TOLD_TOPICS
        for number in range(partition_count(topic))
    }


_TIMESTAMP_TYPE = "message.timestamp.type"


class TopicNames:
    """Topics to names and back, with the installation's prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def name(self, topic: Topic) -> str:
        """The name on the broker."""
        return self.prefix + topic

    def topic(self, name: str) -> Topic:
        """The topic that a name on the broker stands for. Raises ValueError for a strange one."""
        return Topic(name.removeprefix(self.prefix))


class Finding(NamedTuple):
    """Something about the topics that is not as it should be."""

    is_error: bool
    text: str


def topic_settings(topic: Topic, policy: Policy) -> dict[str, str]:
    """What a topic is made with. Inputs are kept as long as they can count, so that state can be rebuilt from them.

    What workers write has the broker's time: by their own, a machine whose clock is far behind would write records that
    are dropped as too old, and of one whose clock is ahead the broker would take none.
    """
    window_ms = str((policy.window_days + 1) * DAY_MS)
    settings = {
        Topic.PURCHASES: {"retention.ms": window_ms},
        Topic.SIGNUPS: {"retention.ms": "-1"},
        Topic.ENGAGEMENTS: {"retention.ms": window_ms},
        Topic.TICKS: {"retention.ms": str(7 * DAY_MS)},
        Topic.STANDINGS: {"retention.ms": str(7 * DAY_MS)},
        Topic.HAND_OVERS: {"cleanup.policy": "compact"},
        Topic.SEGMENT_CHANGES: {"retention.ms": window_ms},
        Topic.SEGMENTS: {"cleanup.policy": "compact"},
        Topic.CHURN_RISK: {"retention.ms": window_ms},
        Topic.RISKS: {"cleanup.policy": "compact"},
        Topic.DEAD_LETTERS: {"retention.ms": window_ms, "max.message.bytes": str(DEAD_LETTER_BYTES_MAX)},
    }[topic]
    return settings if topic in EVENT_TOPICS else settings | {_TIMESTAMP_TYPE: "LogAppendTime"}


async def create_topics(
    admin: AIOKafkaAdminClient, settings: Settings, policy: Policy, partitions: int, replication: int
) -> list[str]:
    """Make the topics that are not there, and return the names of the new ones once the broker lists them.

    Raises KafkaError; TimeoutError after KNOWN_SECONDS_MAX.
    """
    names = TopicNames(settings.topic_prefix)
    existing = set(await admin.list_topics())
    wanted = [
        NewTopic(names.name(topic), partitions, replication, topic_configs=topic_settings(topic, policy))
        for topic in Topic
        if names.name(topic) not in existing
    ]
    if not wanted:
        return []
    response = await admin.create_topics(wanted)
    for error in response.topic_errors:
        if error[1] not in (0, TopicAlreadyExistsError.errno):
            raise for_code(error[1])(f"{error[0]}: {error[2] if len(error) > 2 else ''}")
    created = [topic.name for topic in wanted]
    async with asyncio.timeout(KNOWN_SECONDS_MAX):
        # the answer comes from what the controller decided, which a broker may not have heard yet
        while not set(created) <= set(await admin.list_topics()):
            await asyncio.sleep(KNOWN_LOOK_SECONDS)
    return created


class UnfitTopics(Exception):
    """Nobody can work with the topics as they are; the message says why."""


async def partition_counts(admin: AIOKafkaAdminClient, settings: Settings) -> dict[Topic, int]:
    """How many partitions each topic has; a topic that is not there is not in the answer."""
    names = TopicNames(settings.topic_prefix)
    wanted = {names.name(topic): topic for topic in Topic}
    existing = [name for name in await admin.list_topics() if name in wanted]
    described = await admin.describe_topics(existing) if existing else []  # of none it would describe all
    return {wanted[topic["topic"]]: len(topic["partitions"]) for topic in described}


def require_fit(counts: Mapping[Topic, int], names: TopicNames, equal: Iterable[Topic] = SHARDED) -> None:
    """See that each has partitions, and some as many as each other (`equal`). Raises UnfitTopics."""
    missing = [names.name(topic) for topic, count in counts.items() if not count]
    if missing:
        raise UnfitTopics(f"topics are missing: {', '.join(missing)}; make them with `resegment topics create`")
    found = {names.name(topic): counts[topic] for topic in equal}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in found.items())
        raise UnfitTopics(f"partition counts differ, they must be equal: {listed}")


async def check_topics(admin: AIOKafkaAdminClient, settings: Settings, policy: Policy) -> list[Finding]:
    """Everything about the topics that is not as it should be, errors and warnings."""
    names = TopicNames(settings.topic_prefix)
    counts = await partition_counts(admin, settings)
    findings = [
        Finding(True, f"topic {names.name(topic)} is missing: make it with `resegment topics create`")
        for topic in Topic
        if topic not in counts
    ]
    sharded = {topic: counts[topic] for topic in SHARDED if topic in counts}
    if len(set(sharded.values())) > 1:
        listed = ", ".join(f"{names.name(topic)} {count}" for topic, count in sharded.items())
        findings.append(Finding(True, f"partition counts differ, they must be equal: {listed}"))
    configs = await _configs(admin, settings, counts)
    if hidden := [names.name(topic) for topic in Topic if topic in counts and topic not in configs]:
        text = f"without the right DescribeConfigs the settings of these cannot be looked at: {', '.join(hidden)}"
        findings.append(Finding(False, text))
    for topic, config in configs.items():
        findings.extend(_check_config(names.name(topic), config, topic_settings(topic, policy)))
    return findings


async def _configs(
    admin: AIOKafkaAdminClient, settings: Settings, topics: dict[Topic, int]
) -> dict[Topic, dict[str, str]]:
    """Of the topics whose settings this user may read."""
    names = TopicNames(settings.topic_prefix)
    found: dict[Topic, dict[str, str]] = {}
    for topic in topics:
        resource = ConfigResource(ConfigResourceType.TOPIC, names.name(topic))
        for response in await admin.describe_configs([resource]):
            for described in response.resources:
                if described[0] != TopicAuthorizationFailedError.errno:
                    found[topic] = {entry[0]: entry[1] for entry in described[4]}
    return found


def _check_config(name: str, config: dict[str, str], wanted: dict[str, str]) -> Iterator[Finding]:
    timestamp_type = config.get(_TIMESTAMP_TYPE)  # the embedded broker does not say
    if timestamp_type is not None and timestamp_type != wanted.get(_TIMESTAMP_TYPE, timestamp_type):
        text = f"topic {name}: {_TIMESTAMP_TYPE} is not {wanted[_TIMESTAMP_TYPE]}: "
        yield Finding(False, text + "records of a worker whose clock is wrong may be dropped at once, or be refused")
    compacted = "compact" in config.get("cleanup.policy", "delete")
    if wanted.get("cleanup.policy") == "compact":
        if not compacted:
            yield Finding(True, f"topic {name} is not compacted (cleanup.policy): it would forget accounts' segments")
        return
    if compacted:
        yield Finding(True, f"topic {name} is compacted (cleanup.policy): events would be lost")
    retention, needed = int(config.get("retention.ms", -1)), int(wanted.get("retention.ms", -1))
    if retention != -1 and (needed == -1 or retention < needed):
        days = "for ever" if needed == -1 else f"{needed // DAY_MS} days"
        yield Finding(
            False,
            f"topic {name} keeps {retention / DAY_MS:g} days, less than {days}: "
            "what is older is missing when state is rebuilt from the log, and `verify` cannot check it",
        )
    if "max.message.bytes" in wanted and int(config.get("max.message.bytes", 0)) < int(wanted["max.message.bytes"]):
        yield Finding(False, f"topic {name}: max.message.bytes is below {wanted['max.message.bytes']}")
