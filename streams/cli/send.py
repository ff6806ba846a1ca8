"""`resegment send`."""

import time
import uuid
from pathlib import Path
from typing import Any

import orjson

from segmentation.money import MINOR_DIGITS
from segmentation.policy import Policy
from streams.cli.console import escape, out, print_json
from streams.cli.failures import CommandFailed
from streams.cli.running import read_policy, read_settings
from streams.instants import format_instant
from streams.log import LogReader
from streams.sending import EventWriter
from streams.settings import Settings
from streams.topics import Topic, TopicNames
from streams.wire import BadRecord, Decoder, EventKind

TOPICS: dict[EventKind, Topic] = {
    "purchase": Topic.PURCHASES,
    "signup": Topic.SIGNUPS,
    "engagement": Topic.ENGAGEMENTS,
}


async def run_send(
    kind: EventKind,
    account: str,
    fields: dict[str, Any],
    *,
    event_id: str | None,
    at: str | None,
    policy: Path | None,
    as_json: bool,
) -> None:
    """Publish one event and say what was sent. Raises CommandFailed for one that would be a dead letter."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    event = {
        "event_id": event_id or str(uuid.uuid4()),
        "account_id": account,
        "occurred_at": at or format_instant(time.time_ns() // 1_000_000 * 1_000),
        **{name: value for name, value in fields.items() if value is not None},
    }
    try:
        value = orjson.dumps(event)
    except TypeError:
        raise CommandFailed("what was typed is not UTF-8") from None
    key = account.encode("utf-8", "replace")
    topic = TOPICS[kind]
    _check(kind, rules, key, value)
    partition, offset = await _publish(settings, topic, key, value)
    if as_json:
        print_json({"topic": topic, "partition": partition, "offset": offset, "event": event})
    else:
        out.print(f"{topic}[{partition}]@{offset} {escape(value.decode())}")


def minor_units(amount: str, currency: str) -> int:
    """An amount like 1250.50 in the currency's minor units, exactly. Raises CommandFailed."""
    digits = MINOR_DIGITS.get(currency)
    if digits is None:
        raise CommandFailed(f"--currency: {currency} is no currency code of ISO 4217")
    whole, point, fraction = amount.partition(".")
    is_number = f"{whole}{fraction}".isascii() and f"{whole}{fraction}".isdigit() and bool(whole)
    if not is_number or bool(point) != bool(fraction) or len(fraction) > digits:
        example = "1250" if digits == 0 else f"1250.{'0' * digits}"
        raise CommandFailed(f"AMOUNT: {amount} is not an amount of {currency}: write it like {example}")
    return int(whole + fraction.ljust(digits, "0"))


def currency_of(currency: str | None, policy: Path | None) -> str:
    """This one, or the policy's base currency."""
    return currency or read_policy(read_settings(policy=policy)).base_currency


def attributes_of(pairs: list[str]) -> dict[str, str | int] | None:
    """NAME=VALUE pairs; values of digits alone are numbers. Raises CommandFailed."""
    attributes: dict[str, str | int] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CommandFailed(f"--attribute: {pair} is not of the form NAME=VALUE")
        attributes[name] = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text
    return attributes or None


def _check(kind: EventKind, policy: Policy, key: bytes, value: bytes) -> None:
    try:
        Decoder(policy, 1).decode(kind, 0, time.time_ns() // 1_000_000, key, value)
    except BadRecord as bad:
        raise CommandFailed(f"this would be a dead letter ({bad.reason}): {bad.message}") from None


async def _publish(settings: Settings, topic: Topic, key: bytes, value: bytes) -> tuple[int, int]:
    async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        await reader.refresh()
        if not reader.partition_count(topic):
            name = TopicNames(settings.topic_prefix).name(topic)
            raise CommandFailed(f"topic {name} is missing; make it with `resegment topics create`")
    async with EventWriter(settings) as writer:
        partition = await writer.write(topic, key, value)
        await writer.flush()
        return partition, writer.ends[topic, partition] - 1
