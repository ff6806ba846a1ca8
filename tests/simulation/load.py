"""What happens in a schedule's world: events of all kinds, some twice, late, ahead of time or spoilt, and ticks."""

import json
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.policy import Policy
from streams.instants import format_instant
from streams.messages import Outgoing, Tick, encode_tick
from streams.partitions import partition_of
from streams.topics import EVENT_TOPICS, Topic
from tests.simulation.log import Place, SimulatedLog

FIRST_DAY = 20_000
AMOUNTS_MINOR = (0, 1, 100, 100, 200, 300, 500, 500, 1_000, 2_000, 5_000, 10_000, 70_001)
"""Few different ones, so that accounts are equal now and then, and boundaries fall on them."""


class Meaning(NamedTuple):
    """A good record of an event topic, as who made it knows it."""

    account_id: str
    event_id: str
    day: int
    """For a purchase the one it counts for."""
    amount_minor: int
    """In base currency; negative for a refund. 0 for what is no purchase."""
    is_refund: bool
    occurred_day: int
    engagement: str | None
    """Its kind."""
    region: str | None = None
    """As a signup states it."""
    occurred_at_us: int = 0


class Sent(NamedTuple):
    """A record of an event topic."""

    place: Place
    record: Outgoing
    meaning: Meaning | None
    """None: it is to become a dead letter."""


class Load:
    """Makes records, and the time they happen in."""

    def __init__(self, chance: Random, policy: Policy, log: SimulatedLog, accounts: int) -> None:
        self._chance = chance
        self._policy = policy
        self._log = log
        self._accounts = [f"a{number}" for number in range(accounts)]
        self._sent: list[Sent] = []
        self._kept: list[Sent] = []
        """Made, and to be sent later."""
        self.day = FIRST_DAY + chance.random()
        """Of the newest tick."""
        self.mode = chance.choice(["live", "replay"])
        self.events = 0

    @property
    def now_us(self) -> int:
        """The instant of the newest tick."""
        return int(self.day * MICROSECONDS_PER_DAY)

    def send(self, count: int) -> None:
        """Some records: most new ones, some that were sent before or are long overdue."""
        for sent in self._some(count):
            self._sent.append(sent)
            self._log.append(sent.place, [sent.record], sent.meaning)

    def _some(self, count: int) -> Iterator[Sent]:
        chance = self._chance
        for _ in range(count):
            kind = chance.random()
            if kind < 0.1 and self._sent:
                yield chance.choice(self._sent)
            elif kind < 0.15:
                yield self._bad()
            elif kind < 0.25 and self._kept:
                yield self._kept.pop(chance.randrange(len(self._kept)))
            elif kind < 0.32:
                self._kept.append(self._event())
            else:
                yield self._event()

    def send_kept(self) -> None:
        """All that is overdue."""
        for sent in self._kept:
            self._log.append(sent.place, [sent.record], sent.meaning)
        self._kept.clear()

    def _event(self) -> Sent:
        chance = self._chance
        self.events += 1
        account = chance.choice(self._accounts)
        at = (
            self.day - chance.expovariate(1 / self._policy.window_days) + (chance.random() < 0.15) * 2 * chance.random()
        )
        occurred_at_us = int(at * MICROSECONDS_PER_DAY)
        document: dict[str, object] = {
            "event_id": f"e{self.events}",
            "account_id": account,
            "occurred_at": format_instant(occurred_at_us),
        }
        topic, amount_minor, is_refund = Topic.PURCHASES, 0, False
        day = occurred_at_us // MICROSECONDS_PER_DAY
        kind = chance.random()
        if kind < (0.15 if self._policy.population is None else 0.3):
            topic = Topic.SIGNUPS
            sayable: dict[str, list[str | int | list[str]]] = {
                "region": ["north", "South", "south ", "west", ""],
                "owner": ["ann", "bob", ""],
                "employees": [7, 150, "many"],
                "needs": [["training", "toys"], [], "training"],
            }
            document["attributes"] = {
                name: chance.choice(values) for name, values in sayable.items() if chance.random() < 0.6
            }
        elif kind < (0.35 if self._policy.population is None else 0.45):
            topic = Topic.ENGAGEMENTS
            document["kind"] = chance.choice(["login", "login", "login", "cancel_request", "support_ticket"])
        else:
            amount_minor = chance.choice(AMOUNTS_MINOR)
            document |= {"amount_minor": amount_minor, "currency": "USD"}
            if chance.random() < 0.12:
                document["kind"], is_refund = "refund", True
                amount_minor = -amount_minor
                if chance.random() < 0.5:
                    purchased_at_us = occurred_at_us - chance.randrange(3 * MICROSECONDS_PER_DAY)
                    document["purchased_at"] = format_instant(purchased_at_us)
                    day = purchased_at_us // MICROSECONDS_PER_DAY
        engagement = str(document["kind"]) if topic is Topic.ENGAGEMENTS else None
        occurred_day = occurred_at_us // MICROSECONDS_PER_DAY
        event_id = str(document["event_id"])
        stated = document.get("attributes", {})
        region = stated.get("region") if isinstance(stated, dict) else None
        meaning = Meaning(
            account, event_id, day, amount_minor, is_refund, occurred_day, engagement, region, occurred_at_us
        )
        return self._record(topic, account, json.dumps(document).encode(), meaning)

    def _bad(self) -> Sent:
        chance, sent = self._chance, self._event()
        topic, number = sent.place
        match chance.randrange(4):
            case 0:
                return sent._replace(record=sent.record._replace(value=b'{"event_id": '), meaning=None)
            case 1:
                return sent._replace(record=sent.record._replace(key=b"somebody else"), meaning=None)
            case 2:
                return sent._replace(record=sent.record._replace(value=None), meaning=None)
            case _:
                return sent._replace(place=(topic, (number + 1) % self._log.count), meaning=None)

    def _record(self, topic: Topic, account: str, value: bytes, meaning: Meaning) -> Sent:
        key = account.encode()
        place = topic, partition_of(key, self._log.count)
        return Sent(place, Outgoing([topic], key, value, [], self.now_us // 1000), meaning)

    def tick(self, days: float) -> None:
        """Let time go on by so many days, and tell the shards, or some of them; the last tick may come twice."""
        chance = self._chance
        self.day += days
        for number in range(self._log.count):
            if chance.random() < 0.85:
                self._tick(number, self.now_us)
            if chance.random() < 0.1:
                self._tick(number, self.now_us - chance.randrange(2 * MICROSECONDS_PER_DAY))
        if chance.random() < 0.03:
            place = (Topic.TICKS, chance.randrange(self._log.count))
            self._log.append(place, [Outgoing([Topic.TICKS], None, b"no tick", [], self.now_us // 1000)])

    def _tick(self, number: int, at_us: int) -> None:
        ends = {str(topic): self._log.position((topic, number)).end for topic in EVENT_TOPICS}
        tick = Tick(at_us, self.mode, ends)  # type: ignore[arg-type]
        record = Outgoing([Topic.TICKS], None, encode_tick(tick), [], self.now_us // 1000)
        self._log.append((Topic.TICKS, number), [record], tick)

    def finish(self) -> None:
        """All that is overdue, and a tick to another day, with which all clocks agree."""
        self.send_kept()
        self._tick_all(1)

    def last_tick(self) -> None:
        """A moment later, so that nobody has any due work because of it."""
        self._tick_all(0.0001)

    def _tick_all(self, days: float) -> None:
        self.day += days
        for number in range(self._log.count):
            self._tick(number, self.now_us)
