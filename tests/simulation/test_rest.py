"""An installation is at rest when everything that it told can be read, in each partition."""

from random import Random
from typing import cast

import pytest
from redis.asyncio import Redis

from segmentation.policy import Policy
from state.founding import found
from state.keys import StageName
from state.shard_store import ShardStore
from streams.log import LogReader
from streams.messages import Outgoing
from streams.rest import unrest
from streams.settings import Settings
from streams.topics import Topic, place_name
from tests.simulation.log import SimulatedLog, SimulatedPublisher, SimulatedReader
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedRedis


@pytest.mark.parametrize(
    ("stage", "topic"),
    [
        (StageName.RANKING, Topic.RISKS),
        (StageName.RANKING, Topic.CHURN_RISK),
        (StageName.RANKING, Topic.SEGMENT_CHANGES),
        (StageName.ACCOUNTS, Topic.DEAD_LETTERS),
    ],
)
def test_what_cannot_be_read_yet_is_not_done(stage: StageName, topic: Topic) -> None:
    """The markers of a transaction come after its end, one partition after the other: some may be open for longer."""
    settings, policy = Settings(redis_prefix="test"), Policy.default()
    redis, log = cast(Redis, SimulatedRedis()), SimulatedLog(1, Random(0))
    reader, record = cast(LogReader, SimulatedReader(log)), Outgoing([topic], b"a", b"", [], 0)

    async def test() -> None:
        await found(redis, "test", policy.canonical(), policy.hash, 1)
        publisher = SimulatedPublisher(log, Random(0), transactional_id="shard")
        await publisher.claim()
        told = await publisher.publish([record])
        other = log.claim("another shard")
        log.append_in_transaction("another shard", other, 1, (topic, 0), [record])
        told |= await publisher.publish([record])
        store = ShardStore(redis, "test", stage, 0)
        await store.claim("worker")
        await store.trim(0, told)
        reason = f"the newest records of {topic} in partition 0 are not visible yet"
        assert (await unrest(redis, reader, settings)) == reason
        log.commit("another shard", other)
        assert (await unrest(redis, reader, settings)) is None
        assert place_name(topic, 0) in told

    SimulatedLoop(0).run(test())
