"""Alerts on Apache Kafka and Redis: transaction markers among the changes, and a second process that stands by."""

from collections import Counter
from pathlib import Path

from tests.alerting import World, count_is, world_at_work
from tests.kafka.conftest import RealServers
from tests.pipeline import CommandProcess, until
from tests.receivers import mailbox, webhook

CHANGES = {"kafka_transactions": True, "kafka_session_timeout_seconds": 6.0, "relay_interval_ms": 20}


async def test_who_stands_by_takes_over_after_kill_9(servers: RealServers, tmp_path: Path) -> None:
    """And goes on from the ledger: nobody is missing, and one mail is there twice at most."""
    accounts = [f"a{number}" for number in range(30)]
    with mailbox() as box, webhook() as hook:
        async with world_at_work(servers, box, hook, **CHANGES) as world:
            await world.sign_up(*accounts, owner="kim")
            values = world.variables(tmp_path) | {"RESEGMENT_ALERTS_RETRY_SECONDS": "0.05"}
            box.delay_seconds = 0.1
            with (
                CommandProcess(world.installation, tmp_path, "first", "alerts", variables=values) as first,
            ):
                await first.until_said("claimed the ledger")
                with CommandProcess(world.installation, tmp_path, "second", "alerts", variables=values) as second:
                    await second.until_said("standing by")
                    await world.buy(*accounts)
                    await world.received(5)
                    first.kill()
                    await second.until_said("claimed the ledger")
                    await _all_sent(world, 2 * len(accounts))
            await until(count_is(hook, len(accounts)), "the other channel's")
            for receiver in (box, hook):
                counts = Counter(message.id for message in receiver.messages)
                assert len(counts) == len(accounts)
                assert sum(counts.values()) <= len(accounts) + 1


async def _all_sent(world: World, count: int) -> None:
    async def all_sent() -> bool:
        return [entry["status"] for entry in await world.log()].count("sent") == count

    await until(all_sent, "all sent")
