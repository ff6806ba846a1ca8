"""Alerts: of which changes somebody is told, whom, when, and why not.

What is decided is a function of the rules, the ledger of what was decided before, the change, and the time; and time is
what the ticks say. A decision is a value. The ledger takes it in (`Ledger.record`), and whoever keeps the ledger writes
it down; nothing here sends anything.

An alert waits for its grace. What is undone before it was handed over is dropped, and so is the change that undid it.
Then it is handed over, as a message of its own or, where the person has had enough for an hour, in the next digest;
both not in quiet hours. Of an account a person is told in the order of the changes: what was told last is what holds.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from segmentation.classification import holds, owner_of
from segmentation.events import AttributeValue
from segmentation.policy import MINUTES_A_DAY, AlertRule, CalmTable, Person, Policy, comparable, time_zone
from segmentation.risk import LEVELS
from segmentation.segments import TIERS

K = TypeVar("K")

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
DAY_US = MINUTES_A_DAY * MINUTE_US
TOLD_DAYS = 3
"""For so many days it is remembered that somebody was told: local days begin up to a day apart."""

LIVE = "live"
"""The mode of changes that somebody is to act upon."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class News(NamedTuple):
    """A change of segment or of risk, as far as alerts go by it."""

    kind: Literal["move", "risk"]
    account_id: str
    sequence: int
    """Of the account's changes of this kind."""
    mode: str
    at_us: int
    """When it was announced."""
    before: str
    """All that the change is about, as it was; a later change that has it as its `after` undoes this one."""
    after: str
    previous: str | None
    """Segment, or level of risk."""
    current: str
    segment: str
    """The account's segment now."""
    population: str
    direction: str
    """Empty for a change of risk."""
    cause: str
    revenue_minor: int
    """Rolling revenue, before or after, whichever is more: one who has left has none."""
    at_risk_minor: int
    team: str
    """Of the playbook; empty where there is none."""

    @property
    def chain(self) -> str:
        """The changes that it is one of: those of an account and a kind have sequences without gaps."""
        return f"{self.kind}/{self.account_id}"


class Status(StrEnum):
    """What has become of an alert."""

    WAITING = "waiting"
    """For the end of its grace."""
    QUIET = "quiet"
    """Held back for the end of quiet hours."""
    DIGEST = "digest"
    """Merged: waits for the person's next digest."""
    HANDED_OVER = "handed_over"
    """Part of a message, which is delivered until it arrives or is given up."""
    SENT = "sent"
    """The channel has taken it."""
    UNDELIVERED = "undelivered"
    """Given up, until somebody says to try again."""
    DROPPED = "dropped"


OPEN = (Status.WAITING, Status.QUIET, Status.DIGEST)


class Recipient(NamedTuple):
    """Who is told, and by what."""

    person: str
    """A name of the policy's `[people]`, or else the address."""
    channel: str
    address: str
    timezone: str
    """Of the days, digests and quiet hours."""


class Alert(NamedTuple):
    """What a rule makes of a change."""

    id: str
    """The same for the same rule and change, whoever works it out, and when."""
    rule: str
    account_id: str
    kind: str
    sequence: int
    before: str
    after: str
    current: str
    at_us: int
    day: int
    """The recipient's local day, since 1970."""
    recipient: Recipient
    due_us: int
    """When it is looked at again."""
    status: Status
    why: str
    """What brought it there, in words."""
    message_id: str = ""
    """Of the message that it is part of."""
    repeats: bool = False
    """Whether the same was said of the account on this day already."""

    @property
    def reason(self) -> str:
        """What it says, without when: the same is said of an account once a day."""
        return f"{self.rule}/{self.account_id}/{self.current}"

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided about."""
        return self.status in OPEN


class Handover(NamedTuple):
    """One message to one recipient, to be delivered."""

    id: str
    recipient: Recipient
    alerts: tuple[str, ...]
    """Ids, the oldest first."""
    is_digest: bool


class Seen(NamedTuple):
    """The newest change of an account and kind about which anything was decided: the log may have it twice."""

    sequence: int
    day: int
    """Since 1970, UTC: when it was announced."""


class Decision(NamedTuple):
    """What has become of some alerts, all at once."""

    at_us: int
    alerts: tuple[Alert, ...]
    handover: Handover | None = None
    seen: tuple[str, Seen] | None = None
    """Of the change, if it is one that decided, by `News.chain`."""


class AlertRules:
    """The policy's rules of alerts, made to be asked often."""

    def __init__(self, rules: Sequence[AlertRule], people: Mapping[str, Person], calm: CalmTable) -> None:
        self.rules = tuple(rules)
        self.calm = calm
        self._people = {comparable(name): (name, person) for name, person in people.items()}

    @classmethod
    def of(cls, policy: Policy) -> "AlertRules":
        """From a policy."""
        return cls(policy.alerts, policy.people, policy.calm)

    def wanted(self, news: News) -> list[AlertRule]:
        """The rules that a change is for, whatever the account's attributes are. O(rules)."""
        return [rule for rule in self.rules if _is_for(rule, news)]

    def recipient(self, rule: AlertRule, news: News, attributes: Mapping[str, AttributeValue]) -> Recipient | None:
        """Whom a rule tells; None where it finds nobody. O(1)."""
        sought = {"owner": owner_of(attributes), "team": news.team}.get(rule.to or "", rule.to)
        return (self._person(sought, rule.channel) if sought else None) or self._at_address(rule)

    def recipient_now(self, recipient: Recipient, rule_name: str) -> Recipient:
        """Who was to be told, as the policy has them now: an address may have been put right. O(rules)."""
        rule = next((rule for rule in self.rules if rule.name == rule_name), None)
        found = self._person(recipient.person, rule.channel if rule else recipient.channel)
        if found is None and rule is not None and recipient.person == recipient.address:
            found = self._at_address(rule)
        return found or recipient

    def _person(self, sought: str, channel: str) -> Recipient | None:
        """Who has this name in `[people]`; by that channel, if they have none of their own."""
        found = self._people.get(comparable(sought))
        if found is None:
            return None
        name, person = found
        return Recipient(name, person.channel or channel, person.address, person.timezone or self.calm.timezone)

    def _at_address(self, rule: AlertRule) -> Recipient | None:
        if rule.address is None:
            return None
        return Recipient(rule.address, rule.channel, rule.address, self.calm.timezone)

    def grace_us(self, rule: AlertRule) -> int:
        """How long an alert of this rule waits."""
        return MINUTE_US * (self.calm.grace_minutes if rule.grace_minutes is None else rule.grace_minutes)


def _is_for(rule: AlertRule, news: News) -> bool:
    """Whether each condition holds that is not on attributes."""
    return (
        rule.on == news.kind
        and _in(news.previous, rule.from_segments)
        and _in(news.current, rule.into)
        and _in(news.direction, rule.direction)
        and _in(news.current, rule.level)
        and _in(news.segment, rule.segment)
        and _in(news.cause, rule.cause)
        and _in(news.population, rule.population)
        and (rule.revenue_over_minor is None or news.revenue_minor > rule.revenue_over_minor)
        and (rule.at_risk_over_minor is None or news.at_risk_minor > rule.at_risk_over_minor)
    )


def _in(value: str | None, wanted: Sequence[str]) -> bool:
    return not wanted or value in wanted


class Forgotten(NamedTuple):
    """Keys of a ledger that count no more."""

    told: list[str]
    handed: list[str]
    seen: list[str]


class Ledger:
    """What was decided so far, as far as it counts for what comes: alerts that are open, and who was told what."""

    def __init__(
        self,
        alerts: Iterable[Alert] = (),
        told: Mapping[str, int] = MappingProxyType({}),
        handed: Mapping[str, Iterable[int]] = MappingProxyType({}),
        seen: Mapping[str, Seen] = MappingProxyType({}),
    ) -> None:
        self.open = {alert.id: alert for alert in alerts if alert.is_open}
        """By id."""
        self.told = dict(told)
        """Reason -> the last local day on which somebody was told, or will be unless it is undone."""
        self.handed = {person: deque(instants) for person, instants in handed.items()}
        """Person -> when messages were handed over, the oldest first, those of the last hour."""
        self.seen = dict(seen)
        """`News.chain` -> the newest of these changes about which anything was decided, for TOLD_DAYS."""
        self._due = [(alert.due_us, alert.id) for alert in self.open.values()]
        heapify(self._due)
        self._of_account: dict[str, set[str]] = defaultdict(set)
        self._digests: dict[Recipient, set[str]] = defaultdict(set)
        for alert in self.open.values():
            self._index(alert)

    def record(self, decision: Decision) -> None:
        """Take a decision in. O(alerts of it)."""
        for alert in decision.alerts:
            known = self.open.pop(alert.id, None)
            if known is not None:
                self._unindex(known)
            if alert.is_open:
                self.open[alert.id] = alert
                self._index(alert)
                heappush(self._due, (alert.due_us, alert.id))
                if not alert.repeats:
                    self.told[alert.reason] = max(alert.day, self.told.get(alert.reason, alert.day))
            elif known is not None and alert.status is Status.DROPPED and not alert.repeats:
                self._untell(alert)
        if decision.seen is not None:
            chain, seen = decision.seen
            self.seen[chain] = seen
        handover = decision.handover
        if handover is not None and not handover.is_digest:
            instants = self.handed.setdefault(handover.recipient.person, deque())
            instants.append(decision.at_us)
            while instants[0] <= decision.at_us - HOUR_US:
                instants.popleft()

    def forget(self, now_us: int) -> "Forgotten":
        """Drop what counts no more. Returns what that was. O(what is remembered)."""
        day = now_us // DAY_US - TOLD_DAYS
        forgotten = Forgotten(
            [reason for reason, told in self.told.items() if told < day],
            [person for person, instants in self.handed.items() if instants[-1] <= now_us - HOUR_US],
            [chain for chain, seen in self.seen.items() if seen.day < day],
        )
        for known, gone in zip((self.told, self.handed, self.seen), forgotten, strict=True):
            for key in gone:
                del known[key]  # type: ignore[attr-defined]
        return forgotten

    def has_seen(self, news: News) -> bool:
        """Whether something was decided about this change, or a later one, already. O(1)."""
        seen = self.seen.get(news.chain)
        return seen is not None and news.sequence <= seen.sequence

    def of_account(self, account_id: str, kind: str) -> list[Alert]:
        """Its open alerts about changes of this kind, in the order of the changes."""
        found = [self.open[id_] for id_ in self._of_account.get(account_id, ())]
        return sorted((alert for alert in found if alert.kind == kind), key=lambda alert: (alert.sequence, alert.id))

    def next_due(self, now_us: int) -> Alert | None:
        """The alert that has waited longest past its time; None where none has. O(log n)."""
        while self._due and self._due[0][0] <= now_us:
            due_us, id_ = self._due[0]
            alert = self.open.get(id_)
            if alert is not None and alert.due_us == due_us:
                return alert
            heappop(self._due)
        return None

    def digest_of(self, recipient: Recipient, now_us: int) -> list[Alert]:
        """What waits for this digest, the oldest first."""
        found = [self.open[id_] for id_ in self._digests.get(recipient, ())]
        return sorted((alert for alert in found if alert.due_us <= now_us), key=_order)

    def handed_since(self, person: str, since_us: int) -> int:
        """How many messages were handed over to a person after this instant."""
        return sum(at_us > since_us for at_us in self.handed.get(person, ()))

    def _untell(self, alert: Alert) -> None:
        """Nobody was told after all."""
        if self.told.get(alert.reason) == alert.day:
            del self.told[alert.reason]

    def _index(self, alert: Alert) -> None:
        self._of_account[alert.account_id].add(alert.id)
        if alert.status is Status.DIGEST:
            self._digests[alert.recipient].add(alert.id)

    def _unindex(self, alert: Alert) -> None:
        _discard(self._of_account, alert.account_id, alert.id)
        _discard(self._digests, alert.recipient, alert.id)


def _order(alert: Alert) -> tuple[int, int, str]:
    return alert.at_us, alert.sequence, alert.id


def _discard(index: dict[K, set[str]], key: K, id_: str) -> None:
    if key in index:
        index[key].discard(id_)
        if not index[key]:
            del index[key]


def take(
    rules: AlertRules, ledger: Ledger, news: News, attributes: Mapping[str, AttributeValue], now_us: int
) -> list[Decision]:
    """What a change means: alerts that wait from now on, and those that it undoes. A function of its arguments.

    The ledger is not changed: `Ledger.record` does that, with each decision, before the next change is taken.
    A change that comes once more means nothing. O(rules + open alerts of the account).
    """
    if ledger.has_seen(news):
        return []
    decisions: list[Decision] = []
    seen = news.chain, Seen(news.sequence, news.at_us // DAY_US)
    undone, spared = _undone(ledger, news)
    if undone:
        by = f"undone by {news.kind} {news.sequence}"
        dropped = tuple(alert._replace(status=Status.DROPPED, why=by) for alert in undone)
        decisions.append(Decision(now_us, dropped, seen=seen))
    if news.mode != LIVE:
        return decisions  # nobody is to act upon it; but what it undoes is no longer so
    reached: dict[tuple[str, str], str] = {}
    for rule in rules.wanted(news):
        if not all(holds(condition, attributes) for condition in rule.where):
            continue
        alert = alert_for(rules, rule, news, attributes)
        to = _to(alert.recipient)
        dropped_as = None
        if not alert.recipient.address:
            dropped_as = f"nobody to tell: {rule.to} is not in [people], and the rule has no address"
        elif to in spared:
            dropped_as = f"undoes {news.kind} {spared[to]}, of which nobody was told"
        elif to in reached:
            dropped_as = f"told by the rule {reached[to]}"
        if dropped_as is not None:
            alert = alert._replace(status=Status.DROPPED, why=dropped_as)
        else:
            reached[to] = rule.name
            if ledger.told.get(alert.reason, -1) >= alert.day:
                alert = _for_another_day(rules.calm, alert)
        decisions.append(Decision(now_us, (alert,), seen=seen))
    return decisions


def _for_another_day(calm: CalmTable, alert: Alert) -> Alert:
    """The same was said today, and what came between was said, too: if it still holds next day, it is said again."""
    due_us = alert.at_us
    while local_day(due_us, alert.recipient.timezone) <= alert.day:
        due_us = next_at(calm.digest_at, due_us, alert.recipient.timezone)
    why = "said of this account today: merged into the next day's digest"
    return alert._replace(status=Status.DIGEST, due_us=due_us, why=why, repeats=True)


def _undone(ledger: Ledger, news: News) -> tuple[list[Alert], dict[tuple[str, str], int]]:
    """The open alerts about changes since the account was what it is again, or less than it is now.

    And who has heard of none of these, so that there is nothing to tell them now, with the first of the changes.
    """
    waiting = [alert for alert in ledger.of_account(news.account_id, news.kind) if alert.sequence < news.sequence]
    undone: list[Alert] = []
    spared: dict[tuple[str, str], int] = {}
    for to in dict.fromkeys(_to(alert.recipient) for alert in waiting):
        chain = [alert for alert in waiting if _to(alert.recipient) == to]
        first = next((alert.sequence for alert in chain if alert.before == news.after), None)
        if first is not None:
            spared[to] = first
        else:
            first = next((alert.sequence for alert in chain if _is_beyond(alert.before, alert.after, news.after)), None)
        if first is not None:
            undone += [alert for alert in chain if alert.sequence >= first]
    return undone, spared


def _is_beyond(before: str, after: str, now: str) -> bool:
    """Whether a move to another tier, or a change of risk, is more than undone."""
    places, names = zip(*(state.rpartition("/")[::2] for state in (before, after, now)), strict=True)
    if len(set(places)) > 1:
        return False  # tiers of one population say nothing of another's
    for order in _ORDERS:
        if all(name in order for name in names):
            was, became, is_ = map(order.index, names)
            return became < was < is_ or became > was > is_
    return False


_ORDERS: tuple[tuple[str, ...], ...] = (TIERS, LEVELS)


def _to(recipient: Recipient) -> tuple[str, str]:
    return recipient.channel, recipient.address


def alert_for(rules: AlertRules, rule: AlertRule, news: News, attributes: Mapping[str, AttributeValue]) -> Alert:
    """What a rule makes of a change that it is for; with an empty recipient where there is nobody to tell. O(1)."""
    recipient = rules.recipient(rule, news, attributes) or Recipient("", rule.channel, "", rules.calm.timezone)
    grace_us = rules.grace_us(rule)
    return Alert(
        f"{rule.name}/{news.account_id}/{news.kind}-{news.sequence}",
        rule.name,
        news.account_id,
        news.kind,
        news.sequence,
        news.before,
        news.after,
        news.current,
        news.at_us,
        local_day(news.at_us, recipient.timezone),
        recipient,
        news.at_us + grace_us,
        Status.WAITING,
        f"may be undone for {grace_us // MINUTE_US} minutes",
    )


def release(rules: AlertRules, ledger: Ledger, now_us: int) -> Iterator[Decision]:
    """What time alone decides: each alert whose time has come is handed over, or held back until another time.

    A function of its arguments; record each decision before asking for the next. O(log n) each.
    """
    while (alert := ledger.next_due(now_us)) is not None:
        yield _release(rules.calm, ledger, alert, now_us)


def _release(calm: CalmTable, ledger: Ledger, alert: Alert, now_us: int) -> Decision:
    recipient = alert.recipient
    quiet_until_us = end_of_quiet(calm, now_us, recipient.timezone)
    if quiet_until_us is not None:
        # those of a digest wait for it as they are
        status = Status.DIGEST if alert.status is Status.DIGEST else Status.QUIET
        held = alert._replace(due_us=quiet_until_us, status=status, why="quiet hours")
        return Decision(now_us, (held,))
    if (older := _still_in_grace(ledger, alert, now_us)) is not None:
        why = f"after {older.kind} {older.sequence}, which may still be undone"
        return Decision(now_us, (alert._replace(due_us=older.due_us, why=why),))
    if alert.status is Status.DIGEST:
        due = [found for found in ledger.digest_of(recipient, now_us) if not _still_in_grace(ledger, found, now_us)]
        all_due = {found.id: found for last in due for found in (*_before(ledger, last), last)}
        return _handed_over(now_us, sorted(all_due.values(), key=_order), is_digest=True)
    if ledger.handed_since(recipient.person, now_us - HOUR_US) >= calm.an_hour_max:
        due_us = next_at(calm.digest_at, now_us, recipient.timezone)
        why = f"merged into a digest: {calm.an_hour_max} messages to {recipient.person} within an hour"
        return Decision(now_us, (alert._replace(due_us=due_us, status=Status.DIGEST, why=why),))
    return _handed_over(now_us, [*_before(ledger, alert), alert], is_digest=False)


def _before(ledger: Ledger, alert: Alert) -> list[Alert]:
    """The open alerts about earlier changes of the same kind of its account, to the same recipient."""
    return [
        other
        for other in ledger.of_account(alert.account_id, alert.kind)
        if other.sequence < alert.sequence and _to(other.recipient) == _to(alert.recipient)
    ]


def _still_in_grace(ledger: Ledger, alert: Alert, now_us: int) -> Alert | None:
    """The first of those before an alert that may be undone and never said; one of a digest is said with it."""
    waiting = (other for other in _before(ledger, alert) if other.status is not Status.DIGEST)
    return next((other for other in waiting if other.due_us > now_us), None)


def _handed_over(now_us: int, alerts: Sequence[Alert], *, is_digest: bool) -> Decision:
    last = alerts[-1]
    id_ = f"digest/{last.recipient.person}/{alerts[0].id}" if is_digest else last.id
    why = f"in a digest of {len(alerts)}" if is_digest else "in a message of its own"
    if not is_digest and len(alerts) > 1:
        why = f"in one message of {len(alerts)} changes"
    handover = Handover(id_, last.recipient, tuple(alert.id for alert in alerts), is_digest)
    return Decision(
        now_us,
        tuple(alert._replace(status=Status.HANDED_OVER, why=why, message_id=id_) for alert in alerts),
        handover,
    )


# -- local time ------------------------------------------------------------------------------------------------------


def local_time(at_us: int, zone: str) -> datetime:
    """An instant as a wall clock of the time zone shows it."""
    return (_EPOCH + at_us * _MICROSECOND).astimezone(time_zone(zone))


def local_day(at_us: int, zone: str) -> int:
    """The number of the local day, since 1970."""
    return local_time(at_us, zone).date().toordinal() - _EPOCH.toordinal()


def next_at(minutes: int, now_us: int, zone: str) -> int:
    """The next instant, after now, at which a clock of the time zone shows so many minutes after midnight.

    Where the clocks skip that time, the instant at which they would have shown it.
    """
    now = local_time(now_us, zone)
    for days in range(3):
        day = now.date() + timedelta(days=days)
        at_us = _instant(datetime(day.year, day.month, day.day, *divmod(minutes, 60)), now.tzinfo or UTC)
        if at_us > now_us:
            return at_us
    raise AssertionError("a day is shorter than that")


def _instant(local: datetime, zone: tzinfo) -> int:
    return (local.replace(tzinfo=zone) - _EPOCH) // _MICROSECOND


def end_of_quiet(calm: CalmTable, now_us: int, zone: str) -> int | None:
    """When the quiet hours end that it is now; None where it is none."""
    begin, end = calm.quiet_from, calm.quiet_until
    if begin is None or end is None:
        return None
    now = local_time(now_us, zone)
    minutes = now.hour * 60 + now.minute
    is_quiet = begin <= minutes < end if begin < end else minutes >= begin or minutes < end
    return next_at(end, now_us, zone) if is_quiet else None


# -- as it is written down -------------------------------------------------------------------------------------------


def alert_document(alert: Alert) -> dict[str, Any]:
    """An alert as JSON has it."""
    return {**alert._asdict(), "recipient": alert.recipient._asdict()}


def alert_of(document: Mapping[str, Any]) -> Alert:
    """What alert_document made; other fields count nothing."""
    fields = {name: document[name] for name in Alert._fields if name in document}
    return Alert(**fields | {"recipient": Recipient(**document["recipient"]), "status": Status(document["status"])})
