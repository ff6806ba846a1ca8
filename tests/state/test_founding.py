"""An installation is founded once, and what it was founded with stays."""

import asyncio

from redis.asyncio import Redis

from state.founding import (
    AppliedPolicy,
    Beginning,
    Founding,
    agreed_beginning,
    found,
    note_applied,
    note_rest,
    read_founding,
)
from state.keys import StageName
from state.shard_store import SCHEMA_VERSION, Claim, Commit, ShardStore
from tests.state.conftest import PREFIX
from tests.state.keyspace import empty, keyspace


async def test_founding_makes_every_shard_and_the_document(redis: Redis) -> None:
    """Before, there is nothing; after, every shard can be claimed and the document says what holds."""
    assert await read_founding(redis, PREFIX) is None
    founding = await found(redis, PREFIX, '{"version":"\N{SNOWMAN}"}', "abc", 3)
    assert founding == Founding(SCHEMA_VERSION, '{"version":"\N{SNOWMAN}"}', "abc", 3)
    assert await read_founding(redis, PREFIX) == founding
    for stage in StageName:
        for partition in range(3):
            assert (await ShardStore(redis, PREFIX, stage, partition).claim("one")).progress == {}
        assert await ShardStore(redis, PREFIX, stage, 3).peek() is None


async def test_a_shard_may_begin_further_on(redis: Redis) -> None:
    """With another progress and state than nothing, where it is told so; it counts only where the shard is new."""
    beginnings = {(StageName.RANKING, 1): Beginning({"standings": 7}, {"clock_us": 5})}
    await found(redis, PREFIX, "policy", "1", 2, beginnings)
    again = {
        (StageName.RANKING, 1): Beginning({"standings": 9}, {}),
        (StageName.ACCOUNTS, 0): Beginning({"ticks": 1}, {}),
    }
    await found(redis, PREFIX, "policy", "1", 2, again)
    assert await ShardStore(redis, PREFIX, StageName.RANKING, 1).claim("one") == Claim(
        {"standings": 7}, {"clock_us": 5}, {}
    )
    assert await ShardStore(redis, PREFIX, StageName.ACCOUNTS, 0).claim("one") == Claim({}, {}, {})


async def test_founding_again_changes_nothing(redis: Redis) -> None:
    """Also not what shards hold by then, nor the policy: who comes second learns what holds."""
    first = await found(redis, PREFIX, "policy one", "1", 2)
    store = ShardStore(redis, PREFIX, StageName.ACCOUNTS, 1)
    await store.claim("one")
    await store.commit(Commit({"purchases": 5}, {"clock_us": 1}))
    held = await keyspace(redis)
    assert await found(redis, PREFIX, "policy one", "1", 2) == first
    assert await found(redis, PREFIX, "policy two", "2", 2) == first
    assert await keyspace(redis) == held


async def test_the_rest_of_the_rules_is_noted_and_nothing_else_changes(redis: Redis) -> None:
    """Nobody's are known at first; then the newest ones are, whoever founds again."""
    founding = await found(redis, PREFIX, "policy", "1", 2)
    assert founding.rest is founding.risk_hash is founding.classification_hash is None
    for rest in ("one", "\N{SNOWMAN}"):
        await note_rest(redis, PREFIX, rest, "risk", "classification")
        noted = founding._replace(rest=rest, risk_hash="risk", classification_hash="classification")
        assert await read_founding(redis, PREFIX) == noted
        assert await found(redis, PREFIX, "policy two", "2", 2) == noted


async def test_a_policy_that_is_applied_holds_and_the_first_one_is_kept(redis: Redis) -> None:
    """Under each number there is one, of two at once the first; shards that are behind find what they go by."""
    assert await note_applied(redis, PREFIX, AppliedPolicy(1, "two", "2", False)) is None
    await empty(redis)
    founding = await found(redis, PREFIX, "policy one", "1", 2)
    two, three = AppliedPolicy(1, "policy two", "2", False), AppliedPolicy(2, "policy three", "3", True)
    noted = await note_applied(redis, PREFIX, two, "rest one")
    assert noted == founding._replace(
        policy="policy two", policy_hash="2", applied=two, first_policy="policy one", rests_before={1: "rest one"}
    )
    assert noted is not None and (founding.number, noted.number) == (0, 1)
    assert await note_applied(redis, PREFIX, three._replace(number=1), "rest two") == noted
    noted = await note_applied(redis, PREFIX, three)
    assert noted is not None and noted.applied == three
    assert (noted.policy, noted.first_policy, noted.rests_before) == ("policy three", "policy one", {1: "rest one"})
    assert await read_founding(redis, PREFIX) == noted == await found(redis, PREFIX, "policy one", "1", 2)


async def test_two_who_found_at_once_agree(redis: Redis) -> None:
    """With two policies one of them holds, whole, and both are told which."""
    for _ in range(20):
        await empty(redis)
        one, two = await asyncio.gather(
            found(redis, PREFIX, "policy one", "1", 2), found(redis, PREFIX, "policy two", "2", 2)
        )
        assert one == two == await read_founding(redis, PREFIX)
        assert (one.policy, one.policy_hash) in {("policy one", "1"), ("policy two", "2")}


async def test_a_founding_that_was_cut_off_is_finished_by_the_next(redis: Redis) -> None:
    """The document comes last: without it nothing was founded, and shards that are there already stay."""
    await ShardStore(redis, PREFIX, StageName.ACCOUNTS, 0).create()
    assert await read_founding(redis, PREFIX) is None
    await found(redis, PREFIX, "policy", "1", 2)
    assert await ShardStore(redis, PREFIX, StageName.RANKING, 1).peek() is not None


async def test_a_rebuild_that_is_tried_again_means_what_the_first_one_meant(redis: Redis) -> None:
    """Half of the shards may be there already. The plan alone founds nothing, and goes when all goes."""
    assert await agreed_beginning(redis, PREFIX, b"one") == b"one"
    assert await agreed_beginning(redis, PREFIX, b"two") == b"one"
    assert await read_founding(redis, PREFIX) is None
    founding = await found(redis, PREFIX, "policy", "1", 2)
    assert await read_founding(redis, PREFIX) == founding == Founding(SCHEMA_VERSION, "policy", "1", 2)
    await empty(redis)
    assert await agreed_beginning(redis, PREFIX, b"two") == b"two"
