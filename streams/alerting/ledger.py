"""The ledger of alerts: what was decided, handed over and confirmed, in one shard for all partitions.

One and not one for each partition: the limit of an hour and the digest are a person's, whose accounts lie in all
partitions. It is written as the stages' shards are, in one script that compares owner, progress and number of commits.

A message is in the ledger before it is sent, and leaves it after the channel has taken it. So none is lost, and one
that was on its way when this process died is sent once more, with the same id.
"""

import asyncio
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from jiter import from_json

from segmentation.alerts import (
    HOUR_US,
    LIVE,
    MINUTE_US,
    Alert,
    AlertRules,
    Decision,
    Handover,
    Ledger,
    Recipient,
    Seen,
    Status,
    alert_document,
    alert_of,
    end_of_quiet,
    release,
    take,
)
from segmentation.policy import Policy
from state.shard_store import Claim, Commit, ShardStore
from streams.alerting.channels import Channel, Outgoing
from streams.alerting.news import NO_FACTS, Facts, read_change
from streams.alerting.texts import Texts
from streams.instants import format_instant
from streams.messages import Outgoing as LogRecord
from streams.messages import decode_tick, json_bytes
from streams.settings import Settings
from streams.shard import Batch, InputLog, Record, Shard, WallClock
from streams.topics import Topic, place_name, place_of

log = logging.getLogger(__name__)

READ = (Topic.SEGMENT_CHANGES, Topic.CHURN_RISK, Topic.TICKS)
ABOUT_ACCOUNTS = (Topic.SEGMENT_CHANGES, Topic.CHURN_RISK)
DECISIONS_MAX = 20_000
"""The last so many are kept for `resegment alerts log`."""
DUE_CHUNK = 100
"""Alerts whose time has come that are decided about in one commit."""
COMMIT_AT_LEAST_US = MINUTE_US
"""Where nothing happens, ticks alone are written down so often: they would be read again otherwise."""
LOOK_SECONDS = 1.0
"""How often it is looked whether somebody wants a message to be tried again."""
CONFIRM_AGAIN_SECONDS = 0.2
CLOCK_AGAIN_SECONDS = 0.1
"""How soon it is looked again whether the account stage has come to a tick."""
RETRY, DISCARD = b"retry", b"discard"
"""What may be wanted of a message that was given up."""
RETRY_SECONDS_MAX = 900.0
GIVE_UP_US = 24 * HOUR_US
"""After a day without success a message is given up, however often it was its turn: a channel that takes long to fail
has few turns for many messages."""
CLOSE_SECONDS = 5.0
"""How long whoever takes the ledger away waits for messages that are just being sent."""


class Details(NamedTuple):
    """What a message shows of an alert."""

    change: Mapping[str, Any]
    facts: Facts


class Message(NamedTuple):
    """What is handed over to a channel, word by word: the same each time that it is tried."""

    id: str
    """Of the hand-over."""
    message_id: str
    """What the receiver sees of it: the same for the same alerts, and no other's."""
    recipient: Recipient
    subject: str
    body: str
    alerts: tuple[tuple[str, str, str], ...]
    """(id, rule, account) of each."""
    handed_over_us: int
    attempts: int = 0
    error: str = ""
    """Of the last attempt."""
    next_us: int = 0
    """When it is tried again, by the wall clock."""
    failed_us: int = 0
    """When it failed first, by the wall clock; 0: not yet."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self._asdict(), "recipient": self.recipient._asdict()}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Message":
        """What `document` made."""
        fields = {name: document[name] for name in cls._fields if name in document}
        alerts = tuple((id_, rule, account) for id_, rule, account in document["alerts"])
        return cls(**fields | {"recipient": Recipient(**document["recipient"]), "alerts": alerts})

    @property
    def outgoing(self) -> Outgoing:
        """As its channel gets it."""
        return Outgoing(
            self.message_id, self.recipient.address, self.subject, f"{self.body}\n\n-- \nresegment {self.message_id}"
        )


class _Barrier(NamedTuple):
    """A time that it is once all is read that was announced by then."""

    at_us: int
    ends: Mapping[str, int]
    ticks: Mapping[str, int]
    """Where the ticks stand that said so."""


class NoPublisher:
    """Of a shard that announces nothing in the log."""

    is_atomic = False

    async def claim(self) -> None:
        """Nothing to fence."""

    async def publish(self, records: list[LogRecord]) -> dict[str, int]:
        """There is nothing."""
        assert not records
        return {}

    async def close(self) -> None:
        """Nothing to let go."""


ClockOf = Callable[[], Awaitable[int]]
"""The time up to which the account stage has applied everything, in microseconds. Raises RedisError."""
FactsOf = Callable[[Sequence[str]], Awaitable[Mapping[str, Facts]]]
"""What accounts say of themselves. Raises RedisError."""


class AlertShard(Shard):
    """Takes changes and ticks in, decides, and delivers what was decided."""

    def __init__(
        self,
        store: ShardStore,
        input_log: InputLog,
        *,
        settings: Settings,
        policy: Policy,
        partitions: int,
        facts_of: FactsOf,
        clock_of_accounts: ClockOf,
        channel_of: Callable[[str], Channel],
        wall_clock: WallClock,
        failed: Callable[[BaseException], None],
    ) -> None:
        """Raises BadTemplate."""
        super().__init__(
            store,
            NoPublisher(),
            input_log,
            wall_clock=wall_clock,
            relay_interval_ms=0,
            outbox_records_max=settings.outbox_records_max,
            failed=failed,
        )
        numbers = range(partitions)
        self._change_places = [place_name(topic, number) for topic in ABOUT_ACCOUNTS for number in numbers]
        self._tick_places = [place_name(Topic.TICKS, number) for number in numbers]
        # A shard asks no more of the name of an input than that it is a text; here it is that of a partition.
        self.inputs = cast(Sequence[Topic], [*self._change_places, *self._tick_places])
        self._settings = settings
        self._rules = AlertRules.of(policy)
        self._texts = Texts(policy)
        self._facts_of = facts_of
        self._clock_of_accounts = clock_of_accounts
        self._channel_of = channel_of
        self._outcomes: dict[str, str | None] = {}
        """Of messages that were sent, until that is written down: also while the store is away."""
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        """By channel. One that the policy no longer has is tried for what waits for it, and that is given up."""
        self._looking: asyncio.Task[None] | None = None
        self._is_closing = False
        self._has_room = asyncio.Event()
        self._has_messages = asyncio.Condition()

    # -- the state ---------------------------------------------------------------------------------------------------

    async def load(self, claim: Claim) -> None:
        """Begin anew from what is stored."""
        state = claim.state
        self.clock_us: int = state.get("clock_us", 0)
        self._number: int = state.get("number", 0)
        self._skipped = Counter[str](state.get("skipped", {}))
        self._details: dict[str, Details] = {}
        alerts = []
        async for id_, value in self.store.scan("alerts"):
            document = from_json(value)
            alerts.append(alert_of(document))
            self._details[id_] = Details(document["change"], Facts(*document["facts"]))
        told = {reason: int(day) async for reason, day in self.store.scan("told")}
        handed = {person: from_json(instants) async for person, instants in self.store.scan("handed")}
        seen = {chain: Seen(*from_json(value)) async for chain, value in self.store.scan("seen")}
        self.ledger = Ledger(alerts, told, handed, seen)
        self.messages = {id_: Message.of(from_json(value)) async for id_, value in self.store.scan("messages")}
        self._newest_tick_us = 0
        self._barrier: _Barrier | None = None
        self._ticked = {place: self.progress[place] for place in self._tick_places}
        self._committed_us = self.clock_us
        self._note_room()
        self._is_closing = False
        if self._looking is None:
            self._looking = asyncio.create_task(self._watched(self._look()))
        for message in self.messages.values():
            self._serve(message.recipient.channel)

    def _new_commit(self) -> Commit:
        state = {"clock_us": self.clock_us, "number": self._number, "skipped": self._skipped}
        read = {place: self.position[place] for place in self._change_places}
        return Commit({**read, **self._ticked}, state)

    async def _write(self, commit: Commit) -> None:
        commit.state = {"clock_us": self.clock_us, "number": self._number, "skipped": self._skipped}
        await self.commit(commit, [])
        self._committed_us = self.clock_us
        self._note_room()
        async with self._has_messages:
            self._has_messages.notify_all()

    def _note_room(self) -> None:
        if len(self.messages) > self._settings.alerts_messages_max:
            self._has_room.clear()
        else:
            self._has_room.set()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def offer(self, topic: Topic, batch: Batch) -> None:
        """As a shard does, but no faster than the channels in the end."""
        await super().offer(topic, batch)
        await self._has_room.wait()

    async def pace(self) -> None:
        """The same for what time alone decides."""
        await super().pace()
        await self._has_room.wait()

    async def watch_reading(self) -> None:
        """As a shard does, but nobody stands still who waits for the channels."""
        if self._has_room.is_set():
            await super().watch_reading()

    async def take(self, topic: Topic, records: Sequence[Record], end: int) -> None:
        """Take changes, or ticks, of one partition in."""
        of, _ = place_of(topic)
        if of is Topic.TICKS:
            self._hear(records)
            return
        changes = []
        for record in records:
            try:
                changes.append(read_change(of, record.value))
            except ValueError:
                self._skipped["unreadable"] += 1
                log.warning("not a change: %s@%d", topic, record.offset)
        live = [news for news, _ in changes if news.mode == LIVE and self._rules.wanted(news)]
        facts = await self._facts_of([*dict.fromkeys(news.account_id for news in live)])
        commit = self._new_commit()
        for news, change in changes:
            if news.mode != LIVE:
                self._skipped[news.mode] += 1
            details = Details(change, facts.get(news.account_id, NO_FACTS))
            for decision in take(self._rules, self.ledger, news, details.facts.attributes, self.clock_us):
                for alert in decision.alerts:
                    self._details.setdefault(alert.id, details)
                self._record(commit, decision)
        await self._write(commit)
        if self._barrier is not None:
            self.due_work.set()

    def _hear(self, records: Iterable[Record]) -> None:
        for record in records:
            with suppress(ValueError):
                tick = decode_tick(record.value)  # a policy to apply is none
                if tick.mode == LIVE and tick.at_us > self._newest_tick_us:
                    self._newest_tick_us = tick.at_us
                    self.due_work.set()

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def due(self) -> bool:
        """Let it be as late as the newest tick says, once all is read that was announced by then."""
        await self._let_time_go_on()
        commit, count = self._new_commit(), 0
        for decision in release(self._rules, self.ledger, self.clock_us):
            self._record(commit, decision)
            count += 1
            if count == DUE_CHUNK:
                break
        is_requested = await self._take_requests(commit)
        if count or is_requested or self.clock_us - self._committed_us >= COMMIT_AT_LEAST_US:
            self._forget(commit)
            await self._write(commit)
        if self._barrier is None and self._newest_tick_us > self.clock_us:
            asyncio.get_running_loop().call_later(CLOCK_AGAIN_SECONDS, self.due_work.set)
        return count == DUE_CHUNK

    async def _let_time_go_on(self) -> None:
        """Without the barrier, one who comes back late would hand over what was undone long ago.

        And a worker that comes back late ticks before it has applied what came meanwhile, which may undo something.
        """
        newest_us = self._newest_tick_us
        if self._barrier is None and newest_us > self.clock_us:
            newest_us = min(newest_us, await self._clock_of_accounts())
        is_newest = newest_us == self._newest_tick_us
        if self._barrier is None and newest_us > self.clock_us:
            bounds = await self.input_log.bounds(self.partition, cast(Sequence[Topic], self._change_places))
            self._barrier = _Barrier(
                newest_us,
                {place: bound.end for place, bound in bounds.items()},
                # one that is not reached yet has to be read again by whoever goes on from here
                {place: self.position[place] for place in self._tick_places} if is_newest else self._ticked,
            )
        barrier = self._barrier
        if barrier is not None and all(self.position[place] >= end for place, end in barrier.ends.items()):
            self.clock_us, self._ticked, self._barrier = barrier.at_us, dict(barrier.ticks), None

    def _record(self, commit: Commit, decision: Decision) -> None:
        """Take a decision into the ledger, and into what is written."""
        self.ledger.record(decision)
        if decision.seen is not None:
            chain, seen = decision.seen
            commit.set("seen", chain, json_bytes([*seen]))
        handover = decision.handover
        if handover is not None:
            message = self._message(handover, decision)
            self.messages[message.id] = message
            self._serve(message.recipient.channel)
            commit.set("messages", message.id, json_bytes(message.document()))
            person = handover.recipient.person
            if person in self.ledger.handed:
                commit.set("handed", person, json_bytes([*self.ledger.handed[person]]))
        for alert in decision.alerts:
            if alert.is_open:
                details = self._details[alert.id]
                document = {**alert_document(alert), "change": details.change, "facts": [*details.facts]}
                commit.set("alerts", alert.id, json_bytes(document))
            else:
                self._details.pop(alert.id, None)
                commit.delete("alerts", alert.id)
            if (day := self.ledger.told.get(alert.reason)) is None:
                commit.delete("told", alert.reason)
            else:
                commit.set("told", alert.reason, b"%d" % day)
            self._log(commit, decision.at_us or alert.at_us, alert, alert.status, alert.why)

    def _message(self, handover: Handover, decision: Decision) -> Message:
        parts = [(alert, *self._details[alert.id]) for alert in decision.alerts]
        several = handover.is_digest or len(parts) > 1
        text = self._texts.digest(parts) if several else self._texts.one(*parts[0])
        return Message(
            handover.id,
            message_id(self._settings.redis_prefix, handover.id),
            handover.recipient,
            text.subject,
            text.body,
            tuple((alert.id, alert.rule, alert.account_id) for alert in decision.alerts),
            decision.at_us,
        )

    def _forget(self, commit: Commit) -> None:
        for name, keys in self.ledger.forget(self.clock_us)._asdict().items():
            for key in keys:
                commit.delete(name, key)

    def _log(self, commit: Commit, at_us: int, alert: Alert, status: Status, why: str) -> None:
        recipient = alert.recipient
        self._log_entry(
            commit,
            at=format_instant(at_us),
            alert=alert.id,
            rule=alert.rule,
            account=alert.account_id,
            status=status,
            why=why,
            person=recipient.person,
            channel=recipient.channel,
            message_id=message_id(self._settings.redis_prefix, alert.message_id) if alert.message_id else None,
        )

    def _log_message(self, commit: Commit, message: Message, status: Status, why: str) -> None:
        for id_, rule, account in message.alerts:
            self._log_entry(
                commit,
                at=format_instant(self.wall_clock()),
                alert=id_,
                rule=rule,
                account=account,
                status=status,
                why=why,
                person=message.recipient.person,
                channel=message.recipient.channel,
                message_id=message.message_id,
            )

    def _log_entry(self, commit: Commit, **entry: Any) -> None:
        self._number += 1
        commit.set("decisions", f"{self._number:012}", json_bytes(entry))
        if self._number > DECISIONS_MAX:
            commit.delete("decisions", f"{self._number - DECISIONS_MAX:012}")

    async def _take_requests(self, commit: Commit) -> bool:
        """Messages that were given up and that somebody wants to be tried again, or to be forgotten."""
        if not await self.store.count("requests"):
            return False
        requests = {id_: value async for id_, value in self.store.scan("requests")}
        for id_, value in zip(requests, await self.store.load("undelivered", [*requests]), strict=True):
            commit.delete("requests", id_)
            if value is None:
                continue
            commit.delete("undelivered", id_)
            message = Message.of(from_json(value))
            if requests[id_] == DISCARD:
                self._log_message(commit, message, Status.DROPPED, "discarded, as somebody wants it")
                continue
            recipient = self._rules.recipient_now(message.recipient, message.alerts[0][1])
            message = message._replace(recipient=recipient, attempts=0, next_us=0, failed_us=0)
            self.messages[id_] = message
            self._serve(recipient.channel)
            commit.set("messages", id_, json_bytes(message.document()))
            self._log_message(commit, message, Status.HANDED_OVER, "tried again, as somebody wants it")
        return True

    # -- delivering --------------------------------------------------------------------------------------------------

    def _serve(self, channel: str) -> None:
        """Deliver what there is for a channel from now on."""
        if channel not in self._deliveries and not self._is_closing:
            work = self._deliver_by(self._channel_of(channel))
            self._deliveries[channel] = asyncio.create_task(self._watched(work))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.due_work.set()

    async def _deliver_by(self, channel: Channel) -> None:
        """One message of a channel after the other, for as long as this process has the ledger.

        A channel waits for no other one, and a message that failed holds up no other one of its channel.
        """
        try:
            while not self._is_closing:
                message = self._next_message(channel.name)
                if message is not None and await self._may_send(message):
                    if message.id not in self._outcomes:
                        self._outcomes[message.id] = await channel.send(message.outgoing)
                    await self._confirm(message.id)
                elif not self._is_closing:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._wait_seconds(channel.name)), self._has_messages:
                            await self._has_messages.wait()
        finally:
            await channel.close()

    def _next_message(self, channel: str) -> Message | None:
        if not self.owned:
            return None
        now_us = self.wall_clock()
        ready = [
            message
            for message in self.messages.values()
            if message.recipient.channel == channel and message.next_us <= now_us
        ]
        zones = {message.recipient.timezone for message in ready}
        quiet = {zone for zone in zones if end_of_quiet(self._rules.calm, now_us, zone) is not None}
        ready = [message for message in ready if message.recipient.timezone not in quiet]
        # a new one does not go before one that has waited for its next turn longer
        return min(ready, key=lambda message: max(message.next_us, message.handed_over_us), default=None)

    def _wait_seconds(self, channel: str) -> float:
        """Until the next message may be due."""
        now_us = self.wall_clock()
        nexts = [message.next_us for message in self.messages.values() if message.recipient.channel == channel]
        return min([LOOK_SECONDS, *((next_us - now_us) / 1e6 for next_us in nexts if next_us > now_us)])

    async def _may_send(self, message: Message) -> bool:
        """Whether the ledger is still this process's, which may have been asleep for long."""
        async with self.lock:
            if not self.owned or self.messages.get(message.id) != message:
                return False
            is_current = await self._guarded(self.store.is_current())
            if is_current is False:
                await self._lost("another process has the ledger, or the store went back in time")
            return bool(is_current)

    async def _confirm(self, id_: str) -> None:
        """Write down what became of a message, however long the store is away."""
        while True:
            async with self.lock:
                if self.owned:
                    if id_ not in self.messages:
                        del self._outcomes[id_]
                        return
                    if await self._guarded(self._write_outcome(self.messages[id_], self._outcomes[id_])):
                        del self._outcomes[id_]
                        return
            await asyncio.sleep(CONFIRM_AGAIN_SECONDS)

    async def _write_outcome(self, message: Message, error: str | None) -> bool:
        commit = self._new_commit()
        settings, channel = self._settings, message.recipient.channel
        if error is None:
            self._drop(commit, message)
            self._log_message(commit, message, Status.SENT, f"taken by {channel}")
        else:
            attempts, now_us = message.attempts + 1, self.wall_clock()
            message = message._replace(attempts=attempts, error=error, failed_us=message.failed_us or now_us)
            log.warning("%s did not take message %s, attempt %d: %s", channel, message.message_id, attempts, error)
            if attempts >= settings.alerts_attempts_max or now_us - message.failed_us >= GIVE_UP_US:
                self._drop(commit, message)
                commit.set("undelivered", message.id, json_bytes(message.document()))
                self._log_message(commit, message, Status.UNDELIVERED, f"given up after {attempts} attempts: {error}")
            else:
                seconds = min(RETRY_SECONDS_MAX, settings.alerts_retry_seconds * 2.0 ** min(attempts - 1, 30))
                wait_us = round(seconds * random.uniform(0.5, 1.0) * 1e6)
                message = message._replace(next_us=now_us + wait_us)
                self.messages[message.id] = message
                commit.set("messages", message.id, json_bytes(message.document()))
        await self._write(commit)
        return True

    def _drop(self, commit: Commit, message: Message) -> None:
        del self.messages[message.id]
        commit.delete("messages", message.id)

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop; what is just being sent is sent and written down first, for as long as that at most."""
        self._is_closing = True
        async with self._has_messages:
            self._has_messages.notify_all()
        deliveries, self._deliveries = [*self._deliveries.values()], {}
        if deliveries:
            await asyncio.wait(deliveries, timeout=max(drain_seconds, CLOSE_SECONDS))
        tasks = [*deliveries, *([self._looking] if self._looking else [])]
        self._looking = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._has_room.set()
        await super().close(drain_seconds=drain_seconds)


def message_id(prefix: str, handover_id: str) -> str:
    """What the receiver sees of a message, the same each time: 32 hexadecimal digits."""
    return hashlib.sha256(f"{prefix}/{handover_id}".encode()).hexdigest()[:32]
