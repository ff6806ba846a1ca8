"""The publisher on the embedded broker, which knows no producer ids."""

import asyncio

from streams.embedded import Embedded
from streams.messages import Outgoing
from streams.relay import KafkaPublisher
from streams.topics import Topic
from tests.pipeline import Installation

RECORD = Outgoing([Topic.DEAD_LETTERS], b"acme", b"{}", [], 1_700_000_000_000)


async def test_publishers_take_turns(embedded: Embedded) -> None:
    """While one writes the others wait: of two records written at once to a partition, readers could miss one."""
    async with Installation(embedded, partitions=1) as installation:
        arguments, turns = installation.settings.kafka_arguments(), asyncio.Lock()
        patient = KafkaPublisher(arguments, installation.names, turns=turns)
        free = KafkaPublisher(arguments, installation.names)
        await patient.claim()
        await free.claim()
        async with turns:
            publishing = asyncio.create_task(patient.publish([RECORD]))
            await free.publish([RECORD])
            assert not publishing.done()
            assert len(await installation.records(Topic.DEAD_LETTERS)) == 1
        await publishing
        assert len(await installation.records(Topic.DEAD_LETTERS)) == 2
        await patient.close()
        await free.close()
