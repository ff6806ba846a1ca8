"""`resegment alerts` in a schedule: one process, which is killed and frozen too, and whoever receives what it sends.

    python -m tests.faults.alerts

is that process: the program, but to it a change was announced when it took effect. In the time of a schedule days pass
within a second, and in that of the machine, which else is on the change, nothing would ever be due.
"""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from aiokafka.errors import KafkaError
from jiter import from_json

from segmentation.alerts import LIVE, Alert, News, Status, alert_of
from state.keys import LedgerName
from state.shard_store import ShardStore
from streams.alerting import ledger
from streams.alerting.ledger import ABOUT_ACCOUNTS
from streams.alerting.news import read_change
from streams.alerting.reading import read_log, read_messages
from streams.cli import main
from streams.instants import parse_instant
from streams.shard import LogPosition
from streams.topics import Topic, place_name
from tests.alerting import policy_text
from tests.faults.crew import WATCH_SECONDS, Crew
from tests.faults.harm import SESSION_SECONDS
from tests.pipeline import CommandProcess, Installation, Told, until
from tests.receivers import Webhook, webhook

RULE = "moves"
_POLICY = policy_text(
    f"""
[calm]
grace_minutes = 0
an_hour_max = 1000

[[alerts]]
name = "{RULE}"
on = "move"
address = "desk"
channel = "chat"
"""
)
_TOLD_AGAIN = {"store killed", "store set back", "store emptied"}
"""Faults after which the ledger may know less than has been sent."""


class _Process(CommandProcess):
    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.faults.alerts", *arguments]


class Alerts:
    """Keeps one process running, does harm to it, and says in the end what is wrong."""

    def __init__(
        self,
        installation: Installation,
        directory: Path,
        crew: Crew,
        chance: Random,
        counts: Counter[str],
        receiver: Webhook,
    ) -> None:
        self._is_live = installation.settings.clock == "wall"
        """Nobody is told of a replay."""
        self._installation = installation
        self._directory = directory
        self._crew = crew
        self._chance = chance
        self._counts = counts
        self._receiver = receiver
        self._process: _Process | None = None
        self._troubles_before = 0
        self._started = 0
        self._kills = 0
        self._begin: Mapping[tuple[Topic, int], LogPosition] = {}
        """Where the log ended when the first one had its ledger."""
        self.wrongs: list[str] = []

    # -- the process ---------------------------------------------------------------------------------------------------

    async def until_begun(self) -> None:
        """Return when it has its ledger."""

        async def begun() -> bool:
            return not self._is_live or bool(self._begin or self.wrongs)

        await until(begun, "a ledger of alerts")

    async def watch(self) -> None:
        """Look after it until cancelled."""
        while self._is_live:
            process = self._process
            if process is None:
                self._start()
            elif (status := process.status()) is not None:
                self._process = None
                self._judge_end(process, status)
            elif not self._begin and "claimed the ledger" in process.said():
                with suppress(KafkaError, OSError):
                    self._begin = await self._bounds()
            await asyncio.sleep(WATCH_SECONDS)

    def _start(self) -> None:
        policy = self._directory / "alerts.toml"
        policy.write_text(_POLICY)
        values = {
            "RESEGMENT_POLICY": str(policy),
            "RESEGMENT_ALERTS_URL_CHAT": self._receiver.url,
            "RESEGMENT_ALERTS_RETRY_SECONDS": "0.05",
            "RESEGMENT_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        }
        self._troubles_before = self._crew.troubles_over
        name = f"alerts-{self._started}"
        self._process = _Process(self._installation, self._directory, name, "alerts", variables=values)
        self._started += 1

    def _judge_end(self, process: CommandProcess, status: int) -> None:
        is_troubled = self._crew.is_troubled or self._crew.troubles_over != self._troubles_before
        has_claimed = "claimed the ledger" in process.said()
        if not self._crew.was_emptied and (has_claimed or not is_troubled):
            last = process.said().strip().splitlines()[-1:] or ["nothing"]
            self.wrongs.append(f"end: alerts ended with status {status}, saying {last[0]!r}")

    async def harm(self) -> None:
        """Kill it, or let it sleep beyond its session, a few times."""
        for _ in range(self._chance.choice([0, 1, 2, 3]) if self._is_live else 0):
            await asyncio.sleep(2.0 * self._chance.random())
            process = self._process
            if process is None or process.status() is not None:
                continue
            if self._chance.random() < 0.7:
                self._process = None
                process.kill()
                self._kills += 1
                self._counts["alerts killed"] += 1
            else:
                process.signal(signal.SIGSTOP)
                await asyncio.sleep(3 * SESSION_SECONDS * self._chance.random())
                process.signal(signal.SIGCONT)
                self._counts["alerts frozen"] += 1

    def kill(self) -> None:
        """The end."""
        if self._process is not None:
            self._process.kill()

    # -- what must hold ------------------------------------------------------------------------------------------------

    @property
    def _ledger(self) -> ShardStore:
        return ShardStore(self._installation.redis, self._installation.settings.redis_prefix, LedgerName.ALERTS, 0)

    async def _bounds(self) -> Mapping[tuple[Topic, int], LogPosition]:
        places = [(topic, number) for topic in ABOUT_ACCOUNTS for number in range(self._installation.partitions)]
        return await self._installation.reader.bounds(places)

    async def unrest(self) -> str | None:
        """What it has not done yet; None: it has done all."""
        if not self._is_live or self._crew.was_emptied:
            return None  # of an empty store: its ledger begins anew, at some time
        claim, bounds = await self._ledger.peek(), await self._bounds()
        if claim is None or not self._begin:
            return "alerts have not begun"
        for place, bound in bounds.items():
            if claim.progress.get(place_name(*place), 0) < bound.end:
                return f"alerts have not read {place_name(*place)}"
        late = [alert.id for alert in await self._open_alerts() if alert.due_us <= claim.state["clock_us"]]
        messages = await self._ledger.count("messages")
        return f"alerts have left {len(late)} to decide about and {messages} messages" if late or messages else None

    async def _open_alerts(self) -> list[Alert]:
        return [alert_of(from_json(value)) async for _, value in self._ledger.scan("alerts")]

    async def violations(self) -> list[str]:
        """Of a schedule that is at rest: who has not heard of a change, and who has heard of it twice."""
        if not self._is_live or self._crew.was_emptied:
            return []
        wrongs: list[str] = []
        times: Counter[str] = Counter()
        places: dict[str, str] = {}
        for topic, record in await self._installation.records(Topic.SEGMENT_CHANGES):
            told = Told.of(record)
            if told.data["mode"] == LIVE and record.offset >= self._begin[topic, record.partition].end:
                alert = f"{RULE}/{told.account}/move-{told.sequence}"
                times[alert] += 1
                places[alert] = f"offset {record.offset} of partition {record.partition}"
        # Those which wait for a digest on a day that does not come any more are not lost.
        spared = {alert.id for alert in await self._open_alerts()}
        messages: dict[str, set[str]] = {alert: set() for alert in times}
        async for entry in read_log(self._ledger):
            if entry["status"] == Status.DROPPED:
                spared.add(entry["alert"])
            elif entry["status"] == Status.HANDED_OVER and entry["alert"] in messages:
                messages[entry["alert"]].add(entry["message_id"])
        # What time brought about since all was at rest is on its way perhaps. Asked in this order: what is gone from
        # there was received.
        on_their_way = {message.message_id for message in await read_messages(self._ledger, "messages")}
        received = Counter(message.id for message in self._receiver.messages)
        wrongs += [
            f"alert lost: {alert}, {places[alert]}, handed over {len(ids)} times"
            for alert, ids in messages.items()
            if alert not in spared and not any(received[id_] or id_ in on_their_way for id_ in ids)
        ]
        # What is in the log twice, weeks apart in the time of the schedule, counts as new.
        once = {id_ for alert, ids in messages.items() if times[alert] == 1 for id_ in ids}
        doubled = sum(received[id_] - 1 for id_ in once if received[id_])
        if doubled > self._kills and not _TOLD_AGAIN & self._counts.keys():
            wrongs.append(f"{doubled} messages were doubled by {self._kills} crashes")
        return wrongs


@contextmanager
def alerts(
    installation: Installation, directory: Path, crew: Crew, chance: Random, counts: Counter[str]
) -> Iterator[Alerts]:
    """With a receiver, until the end of the context."""
    with webhook() as receiver:
        found = Alerts(installation, directory, crew, chance, counts, receiver)
        try:
            yield found
        finally:
            found.kill()


def _announced_when_effective(topic: Topic, value: bytes | None) -> tuple[News, dict[str, Any]]:
    news, change = read_change(topic, value)
    return news._replace(at_us=parse_instant(change["effective_at"])), change


if __name__ == "__main__":
    setattr(ledger, "read_change", _announced_when_effective)  # noqa: B010 (it is no name that ledger exports)
    main()
