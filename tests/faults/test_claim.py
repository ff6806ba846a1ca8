"""Taking a shard over: in which order an earlier owner loses the broker and the store."""

from random import Random
from typing import cast

import pytest
from aiokafka.errors import ProducerFenced
from redis.asyncio import Redis

from segmentation.policy import Policy
from state.keys import StageName
from state.shard_store import ShardStore
from streams.accounts import AccountShard
from streams.messages import Outgoing
from streams.topics import Topic
from tests.simulation.log import SimulatedLog, SimulatedPublisher
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedRedis
from tests.simulation.test_shard import Reading, always


def test_who_claims_a_shard_reads_it_when_nobody_else_can_publish_any_more() -> None:
    """What an earlier owner published after that nobody would know of who goes on from what was read."""
    redis, log = SimulatedRedis(), SimulatedLog(1, Random(0))

    def publisher() -> SimulatedPublisher:
        return SimulatedPublisher(log, Random(0), transactional_id="shard")

    shard = AccountShard(
        ShardStore(cast(Redis, redis), "test", StageName.ACCOUNTS, 0),
        publisher(),
        Reading(),
        policy_of=always(Policy.default()),
        partitions=1,
        cache_accounts=1,
        due_chunk_accounts=1,
        ranking=lambda number: ShardStore(cast(Redis, redis), "test", StageName.RANKING, number),
        ranking_of=lambda name: 0,
        wall_clock=lambda: 0,
        relay_interval_ms=1,
        outbox_records_max=100,
        failed=lambda error: None,
    )
    epochs: list[int] = []
    seen = 0

    def claimed(key: str) -> None:
        nonlocal seen
        seen += 1
        with pytest.raises(ProducerFenced):
            record = Outgoing([Topic.SEGMENTS], b"acme", b"late", [], 0)
            log.append_in_transaction("shard", epochs[0], 1, (Topic.SEGMENTS, 0), [record])

    async def test() -> None:
        await shard.store.create()
        earlier = publisher()
        await earlier.claim()
        assert earlier._epoch is not None
        epochs.append(earlier._epoch)
        redis.watchers.append(claimed)
        await shard.claim()
        redis.watchers.clear()
        await shard.close()

    SimulatedLoop(0).run(test())
    assert seen
