"""From a compacted topic to the topic of all changes: nothing is lost between the two, and nothing comes twice."""

import json
import os
from collections.abc import AsyncGenerator
from typing import Any

from aiokafka import AIOKafkaConsumer

SERVERS = os.environ.get("RESEGMENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
PREFIX = os.environ.get("RESEGMENT_TOPIC_PREFIX", "")

Change = dict[str, Any]


async def follow(latest: str, changes: str) -> AsyncGenerator[tuple[Change | None, bool], None]:
    """Each account's latest change in the compacted topic, then every later one, once; and whether it is a later one.

    None for a change: for now there is no new one. Holds one integer for each account.
    """
    committed = AIOKafkaConsumer(bootstrap_servers=SERVERS, isolation_level="read_committed", group_id=None)
    written = AIOKafkaConsumer(PREFIX + latest, PREFIX + changes, bootstrap_servers=SERVERS, group_id=None)
    async with committed:
        async with written:
            of_latest = [place for place in written.assignment() if place.topic == PREFIX + latest]
            of_changes = [place for place in written.assignment() if place.topic == PREFIX + changes]
            # In this order: what is before `begins` was written before `ends`. Written, not committed: for a moment a
            # transaction may be seen in one topic and not yet in the other.
            begins = await committed.end_offsets(of_changes)
            ends = await written.end_offsets(of_latest)
        sequences: dict[str, int] = {}

        async def new_ones() -> list[Change]:
            polled = await committed.getmany(timeout_ms=1000)
            found = []
            for change in [json.loads(record.value) for records in polled.values() for record in records]:
                if change["sequence"] > sequences.get(change["account_id"], 0):
                    sequences[change["account_id"]] = change["sequence"]
                    found.append(change)
            return found

        committed.assign(of_latest)
        await committed.seek_to_beginning(*of_latest)
        while any([await committed.position(place) < ends[place] for place in of_latest]):
            for change in await new_ones():
                yield change, False
        committed.assign(of_changes)
        for place, begin in begins.items():
            committed.seek(place, begin)
        while True:
            found = await new_ones()
            for change in found:
                yield change, True
            if not found:
                yield None, True
