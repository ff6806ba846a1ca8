"""What docs/operations.md tells an operator to do, done."""

import random
from dataclasses import dataclass

from streams.embedded import Embedded
from streams.topics import EVENT_TOPICS
from tests.pipeline import Installation, Load, Sent, check, moment


@dataclass
class Moved:
    """What an installation holds of each account."""

    segments: dict[str, str]
    revenues: dict[str, int]

    @classmethod
    async def of(cls, installation: Installation) -> "Moved":
        """At rest."""
        members = await installation.members()
        return cls(
            await installation.segments(), {account: member.revenue_minor for account, member in members.items()}
        )


async def test_an_installation_moves_to_more_partitions(embedded: Embedded) -> None:
    """A second one beside it, its inputs copied by key while senders write to both: every account is what it was."""
    async with (
        Installation(embedded, partitions=2, kafka_group="v1") as old,
        Installation(embedded, partitions=5, kafka_group="v2") as new,
    ):
        load = Load(old, random.Random(5))
        async with old.worker():
            await load.run(6)
            await old.rest()
            written_to_both = load.some(100)
            await old.send(*written_to_both)
            await new.send(*written_to_both)
            for topic, record in await old.records(*EVENT_TOPICS):
                await new.send(Sent(topic, record.key, record.value))
            end = moment(load.day + 1)
            await old.tick(end)
            await check(old)
            async with new.worker():
                await new.tick(end)
                chains = await check(new)
                assert await Moved.of(new) == await Moved.of(old)
                assert {chain[0].data["mode"] for chain in chains.values()} == {"replay"}
                assert {len(chain) for chain in chains.values()} == {1}, "history is told as what has come of it"
