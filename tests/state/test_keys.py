"""The names of the keys: one hash slot for each shard, and nothing shared between any two."""

from itertools import product

from redis.crc import key_slot

from state.keys import StageName, founding_key, shard_keys


def test_all_keys_of_a_shard_lie_in_one_slot() -> None:
    """Redis Cluster runs a script on keys of one slot only."""
    for stage, partition in product(StageName, range(64)):
        slots = {key_slot(key.encode()) for key in shard_keys("resegment", stage, partition)}
        assert len(slots) == 1


def test_shards_are_spread_over_the_cluster() -> None:
    """The tag is the shard, not the installation: 128 shards do not fall on one node."""
    slots = {
        key_slot(shard_keys("resegment", stage, partition).meta.encode())
        for stage, partition in product(StageName, range(64))
    }
    assert len(slots) > 100


def test_no_two_shards_share_a_key() -> None:
    """Neither of two stages, nor of two partitions, nor of two installations; nor is one the founding document."""
    keys = [
        key
        for prefix, stage, partition in product(("a", "a.1", "b"), StageName, range(12))
        for key in shard_keys(prefix, stage, partition)
    ]
    keys += [founding_key(prefix) for prefix in ("a", "a.1", "b")]
    assert len(set(keys)) == len(keys)
