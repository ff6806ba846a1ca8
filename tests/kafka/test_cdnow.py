"""The CDNOW log on Apache Kafka and Redis, with workers that come and go, checked by the oracle."""

import re
from datetime import date
from pathlib import Path

import pytest

from segmentation.policy import load_policy
from streams.cdnow import CdnowMissing, data_file, disturbed, read_lines
from streams.topics import Topic
from tests.kafka.conftest import RealServers
from tests.pipeline import CommandProcess, Installation, until

LAST_DAY = date(1997, 5, 31)
"""Day by day, so five months of it are enough, with a policy that makes as much happen in them as in a year."""
POLICY = """
version = "five-months"
base_currency = "USD"
window_days = 60
new_start_days = 30
basis = "revenue"
band = 2.0
[tiers]
key = 30
enterprise = 50
commercial = 20
"""


async def test_cdnow_is_right_though_workers_die_and_join(servers: RealServers, tmp_path: Path) -> None:
    """Replayed by event time to two workers, one killed with -9 in the middle and a third joining: no mismatch."""
    try:
        path = data_file()
    except CdnowMissing as missing:
        pytest.skip(str(missing))
    lines = disturbed(
        [line for line in read_lines(path) if line.occurred_at.date() <= LAST_DAY], shuffle_days=3, duplicates_percent=5
    )
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    file = tmp_path / "cdnow.jsonl"
    file.write_bytes(b"".join(line.payload + b"\n" for line in lines))
    async with Installation(
        servers,
        partitions=4,
        policy=load_policy(policy),
        kafka_transactions=True,
        kafka_session_timeout_seconds=6.0,
        relay_interval_ms=5,
        due_chunk_accounts=500,
    ) as installation:
        # each command reads the policy that the environment names
        installation.settings = installation.settings.model_copy(update={"policy": policy})
        with (
            CommandProcess(installation, tmp_path, "first", "worker") as first,
            CommandProcess(installation, tmp_path, "second", "worker") as second,
        ):
            await first.until_said("claimed 4 shards")
            await second.until_said("claimed 4 shards")
            with CommandProcess(installation, tmp_path, "replay", "replay", str(file), "--verify") as replay:

                async def told() -> bool:
                    replay.check()
                    bounds = await installation.reader.bounds([(Topic.SEGMENT_CHANGES, n) for n in range(4)])
                    return sum(bound.end for bound in bounds.values()) > 20_000

                await until(told, "many changes", seconds=120)
                second.kill()
                with CommandProcess(installation, tmp_path, "third", "worker") as third:
                    await third.until_said("claimed")

                    async def ended() -> bool:
                        return replay.status() is not None

                    await until(ended, "the end of the replay", seconds=240)
                    first.check()
                    third.check()
                said = replay.said()
                assert replay.status() == 0, said
    (fields,) = re.findall(r"events=(\d+) applied=(\d+) duplicates=(\d+) dead_letters=0 .* mismatches=0 ", said)
    events, applied, duplicates = map(int, fields)
    assert events == len(lines) == applied + duplicates
    assert duplicates == round(len(lines) / 21)
