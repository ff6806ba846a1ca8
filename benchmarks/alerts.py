"""How much calm leaves of alerts, and how long one takes.

    python -m benchmarks.alerts count 2=out-band-2/changes.jsonl 0=out-band-0/changes.jsonl
    python -m benchmarks.alerts time

`count` runs the pure function over the changes of a replay (`resegment replay FILE --embedded --export DIR`), as if
they had been live: each move between tiers is told to one of 20 people. `time` measures from the moment a purchase is
sent to the mail in the receiver, one purchase at a time, all on this machine.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles
from zlib import crc32

from segmentation.alerts import HOUR_US, AlertRules, Decision, Ledger, Status, release, take
from segmentation.policy import Policy
from streams.alerting.news import read_change
from streams.embedded import Embedded
from streams.instants import parse_instant
from streams.topics import Topic
from tests.alerting import now, policy_of, world_at_work
from tests.pipeline import purchase
from tests.receivers import mailbox, webhook

PEOPLE = 20
ACCOUNTS = 200
DAY_US = 24 * HOUR_US
RULE = {"name": "tier", "on": "move", "direction": ["up", "down"], "to": "owner"}
NO_CALM = {"grace_minutes": 0, "an_hour_max": 1_000}


def count(changes: Path, calm: dict[str, object]) -> Counter[str]:
    """What became of the alerts about these changes, and how many messages came of them."""
    people = {f"p{number}": {"address": f"p{number}@example.com"} for number in range(PEOPLE)}
    rules = AlertRules.of(Policy.default().with_changes(people=people, alerts=[RULE], calm=calm))
    ledger, counts, statuses = Ledger(), Counter[str](), dict[str, str]()
    busiest = Counter[tuple[str, int]]()

    def note(decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            ledger.record(decision)
            for alert in decision.alerts:
                merged = statuses.get(alert.id) == Status.DIGEST
                statuses[alert.id] = "in digests" if merged and alert.status is Status.HANDED_OVER else alert.status
                if alert.status is Status.DROPPED:
                    statuses[alert.id] = "undone"
            handover = decision.handover
            if handover is not None:
                counts["messages"] += 1
                counts["digests"] += handover.is_digest
                busiest[handover.recipient.person, decision.at_us // DAY_US] += 1

    news = []
    for line in changes.read_bytes().splitlines():
        told, _ = read_change(Topic.SEGMENT_CHANGES, json.dumps(json.loads(line)["data"]).encode())
        at_us = parse_instant(json.loads(line)["time"])
        news.append(told._replace(at_us=at_us, mode="live"))
    news.sort(key=lambda told: (told.at_us, told.account_id, told.sequence))
    for told in news:
        note(release(rules, ledger, told.at_us))
        owner = {"owner": f"p{crc32(told.account_id.encode()) % PEOPLE}"}
        counts["moves"] += told.direction in ("up", "down")
        note(take(rules, ledger, told, owner, told.at_us))
    for hours in range(72):
        note(release(rules, ledger, news[-1].at_us + hours * HOUR_US))
    counts.update(statuses.values())
    counts["busiest"] = max(busiest.values())
    return counts


def print_counts(files: dict[str, Path]) -> None:
    """A table for docs/alerts.md."""
    print("| band | calm | moves between tiers | messages | digests | undone | in digests | busiest day |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for band, path in files.items():
        for name, calm in (("without", NO_CALM), ("by default", {})):
            found = count(path, dict(calm))
            columns = ("moves", "messages", "digests", "undone", "in digests", "busiest")
            print(f"| {band} | {name} | " + " | ".join(f"{found[column]:,}" for column in columns) + " |")


async def measure() -> None:
    """Prints percentiles of the time from a purchase to its mail."""
    chance, seconds = random.Random(1), []
    accounts = [f"a{number}" for number in range(ACCOUNTS)]
    with Embedded() as servers, mailbox() as box, webhook() as hook:
        async with world_at_work(servers, box, hook, tick_seconds=1.0) as world:
            await world.sign_up(*accounts)
            policy = policy_of(
                "[calm]\ngrace_minutes = 0\nan_hour_max = 1000\n"
                '[[alerts]]\nname = "first"\non = "move"\ndirection = ["advanced"]\naddress = "desk@example.com"\n'
            )
            async with world.alerts(policy):
                for account in accounts:
                    await asyncio.sleep(chance.random())
                    sent, known = time.monotonic(), len(box.messages)
                    await world.installation.send(purchase(account, f"p-{account}", now(), 1_000))
                    while len(box.messages) == known:
                        await asyncio.sleep(0.002)
                    seconds.append(time.monotonic() - sent)
    p99 = quantiles(seconds, n=100)[98]
    print(f"purchases={len(seconds)} p50={median(seconds):.2f}s p99={p99:.2f}s max={max(seconds):.2f}s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["count"]:
        print_counts({band: Path(path) for band, _, path in (given.partition("=") for given in sys.argv[2:])})
    else:
        asyncio.run(measure())
