"""What the program really writes is what the contracts say, and the CloudEvents SDK reads it."""

import asyncio
import json
import random
from collections import defaultdict

import pytest
from aiokafka.structs import ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft7Validator, FormatChecker

from streams.changes import CHANGE_TYPE, RISK_SOURCE, RISK_TYPE, SOURCE, TRANSFER
from streams.contracts import MESSAGES, schemas
from streams.embedded import Embedded
from streams.instants import parse_instant
from streams.topics import Topic
from tests.pipeline import PURE, Installation, Load, moment, purchase

PARTITIONS = 2
formats = FormatChecker(formats=())


def is_instant(value: object) -> bool:
    """As the program reads it."""
    return not isinstance(value, str) or parse_instant(value) > 0


formats.checks("date-time", raises=ValueError)(is_instant)
VALIDATORS = {name: Draft7Validator(schema, format_checker=formats) for name, schema in schemas().items()}
MESSAGES_ON = {
    Topic.SEGMENT_CHANGES: "segment-change",
    Topic.SEGMENTS: "segment-change",
    Topic.CHURN_RISK: "risk-change",
    Topic.RISKS: "risk-change",
    Topic.DEAD_LETTERS: "dead-letter",
}
EVENTS = {Topic.SEGMENT_CHANGES: (CHANGE_TYPE, SOURCE), Topic.CHURN_RISK: (RISK_TYPE, RISK_SOURCE)}
COMPACTED = {Topic.SEGMENT_CHANGES: Topic.SEGMENTS, Topic.CHURN_RISK: Topic.RISKS}

Written = dict[Topic, list[ConsumerRecord]]


@pytest.fixture(scope="module")
def written(embedded: Embedded) -> Written:
    """All records of an installation in which much happened.

    Populations, a silent policy, amounts beyond 64 bits, records that break their contract.
    """
    return asyncio.run(run(embedded))


async def run(embedded: Embedded) -> Written:
    """Let it happen."""
    policy = PURE.with_changes(population="region")
    async with Installation(embedded, policy=policy, partitions=PARTITIONS) as installation, installation.worker():
        load = Load(installation, random.Random(8), bad_share=0.05)
        await installation.send(*(purchase("giant", f"{n}", moment(1), 2**53 - 1) for n in range(1_100)))
        await load.run(12)
        await load.finish()
        await installation.rest()
        await installation.apply(policy.with_changes(new_start_days=20, version="2"), is_silent=True)
        await load.run(6)
        await load.finish()
        await installation.rest()
        found: Written = defaultdict(list)
        for topic, record in await installation.records(*Topic):
            found[topic].append(record)
        return found


def headers_of(record: ConsumerRecord) -> dict[str, bytes]:
    """Of headers with one name the first, as `messages.header` has it."""
    return dict(reversed([*record.headers]))


def test_records_keep_their_contracts(written: Written) -> None:
    """Values and headers, in each topic that others read."""
    for topic, name in MESSAGES_ON.items():
        assert written[topic], topic
        message = MESSAGES[name]
        for record in written[topic]:
            assert record.value is not None, "a tombstone: docs/contracts.md says that there are none"
            if message.payload is not None:
                VALIDATORS[message.payload].validate(json.loads(record.value))
            if message.headers is not None:
                headers = {key: value.decode("utf-8", "replace") for key, value in headers_of(record).items()}
                VALIDATORS[message.headers].validate(headers)


def test_all_that_can_be_written_was(written: Written) -> None:
    """Else the test above would prove less than it seems to."""
    changes = [json.loads(record.value) for record in written[Topic.SEGMENT_CHANGES]]
    assert {"replay", "silent"} <= {change["mode"] for change in changes}
    assert any(change["rolling_revenue_minor"] > 2**63 for change in changes)
    for name, kind in (("previous_population", str), ("previous_segment", str), ("position_revenue", float)):
        assert {type(change[name]) for change in changes} == {kind, type(None)}, name
    assert any(TRANSFER in dict(record.headers) for record in written[Topic.SEGMENT_CHANGES])
    assert any("tombstone" in dict(record.headers) for record in written[Topic.DEAD_LETTERS])


def test_ticks_keep_their_contract(written: Written) -> None:
    """The program's own, but anybody may have written one."""
    names = ["policy-switch" if b'"policy"' in record.value else "tick" for record in written[Topic.TICKS]]
    assert {*names} == {"policy-switch", "tick"}
    for name, record in zip(names, written[Topic.TICKS], strict=True):
        VALIDATORS[name].validate(json.loads(record.value))


def test_changes_are_cloud_events(written: Written) -> None:
    """The official SDK reads each in binary mode, and would write it just so."""
    for topic in (*EVENTS, *COMPACTED.values()):
        for record in written[topic]:
            headers = dict(record.headers)
            assert len(headers) == len(record.headers), "a header twice"
            event = from_kafka_event(KafkaMessage(headers, record.key, record.value))
            assert isinstance(event, CloudEvent)
            data = event.get_data()
            assert isinstance(data, dict)
            account = data["account_id"]
            assert event.get_datacontenttype() == "application/json"
            assert (event.get_id(), event.get_subject()) == (f"{account}:{data['sequence']}", account)
            assert record.key == account.encode() == event.get_extension("partitionkey").encode()
            at = event.get_time()
            assert at is not None and parse_instant(at.isoformat()) == parse_instant(data["effective_at"])
            again = to_binary_event(event, key_mapper=lambda event: event.get_subject())
            assert {k: v for k, v in again.headers.items() if k not in ("ce_partitionkey", "ce_time")} == {
                k: v for k, v in headers.items() if k != "ce_time"
            }


@pytest.mark.parametrize("topic", EVENTS)
def test_an_id_is_one_event_of_its_source(written: Written, topic: Topic) -> None:
    """Source and id together name one event: both topics have it, byte for byte the same."""
    ids: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
    for record in [*written[topic], *written[COMPACTED[topic]]]:
        headers = dict(record.headers)
        assert (headers["ce_type"].decode(), headers["ce_source"].decode()) == EVENTS[topic]
        same = record.key, record.value
        assert ids.setdefault((headers["ce_source"], headers["ce_id"]), same) == same
    assert SOURCE != RISK_SOURCE, "the ids are the same in both"
    assert len(ids) == len({(record.key, json.loads(record.value)["sequence"]) for record in written[topic]})
