"""One account: what its events add up to, on the day its clock shows.

An account is advanced to a day, never back. What it is on a day is a function of the set of its events and of the day
alone: order, duplicates and how the events were cut into batches change nothing.
"""

from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from segmentation.buying import PurchaseDays
from segmentation.engagement import EngagedDays
from segmentation.events import MICROSECONDS_PER_DAY, AttributeValue, Engagement, Event, Purchase, Signup
from segmentation.ledger import ID_SIZE, Ledger
from segmentation.policy import ALL, Policy
from segmentation.segments import Stage

NO_DAY = 0
"""The day of a clock that no tick has set yet. Every event lies after it."""

NEVER = 65_535
"""A due day that does not come: valid days are smaller."""


class Reason(StrEnum):
    """Why an account's standing is what it now is: the account's own part of a change's cause."""

    PURCHASE = "purchase"
    REFUND = "refund"
    SIGNUP = "signup"
    ENGAGEMENT = "engagement"
    POPULATION_CHANGED = "population_changed"
    """A signup moved it to another population."""
    WINDOW_EXPIRY = "window_expiry"
    """Revenue left the window."""
    REVENUE_DUE = "revenue_due"
    """Revenue dated ahead was reached by the clock."""
    GRADUATED = "graduated"
    """No longer a new start."""
    BACKFILL = "backfill"
    """The first tick of a shard: all that happened before it counts at once."""
    POLICY_CHANGED = "policy_changed"
    """The account goes by another policy from now on."""


EVIDENCE_TOLD = ("cancel_request", "support_ticket", "refund")
"""What happens to an account and may say that it is about to leave: two kinds of engagement, and refunds."""


class Standing(NamedTuple):
    """What the ranking stage has to know of an account: absolute, so that it may be told twice."""

    account_id: str
    stage: str
    revenue_minor: int
    version: int
    """1, and 1 more for each record of purchases that this rests on, and for each policy. Those have one order each, so
    with the day it says exactly what is known: a standing that is newer in neither is no news."""
    day: int
    """The day of the account's clock."""
    reason: str
    event_id: str | None
    occurred_at_us: int | None
    """When the causing event happened; None: time was the cause."""
    first_bought_day: int = 0
    last_bought_day: int = 0
    days_bought: int = 0
    """How many days had a purchase up to `day`, and the first and the last of them; 0: none had."""
    evidence_days: tuple[int, int, int] = (0, 0, 0)
    """The latest day of each of EVIDENCE_TOLD; 0: there was none."""
    bought_in_window: int = 0
    """Of the days with a purchase, how many are in the window of rolling revenue."""
    engagement_fell: bool = False
    """Whether it engages less than half as often as in its own past: `Engaged.has_fallen`, as of `day`."""
    population: str = ALL
    transfer: int = 0
    """The number of the transfer by which it came into that population; 0: it began there."""


class Profile:
    """What an account says of itself: each field holds the latest statement, whatever order they arrive in."""

    __slots__ = ("changed", "fields")

    def __init__(self, fields: dict[str, tuple[AttributeValue, int]] | None = None) -> None:
        self.fields = fields if fields is not None else {}
        """Field ("name", or "attributes." and a name) -> its value and the instant it was stated."""
        self.changed = False

    def state(self, field: str, value: AttributeValue, occurred_at_us: int) -> None:
        """Take a statement. At the same instant the greater value holds, so that order does not matter."""
        known = self.fields.get(field)
        if known is None or (known[1], _order(known[0])) < (occurred_at_us, _order(value)):
            self.fields[field] = (value, occurred_at_us)
            self.changed = True

    def take(self, signup: Signup) -> None:
        """Take all that a signup states."""
        if signup.name is not None:
            self.state("name", signup.name, signup.occurred_at_us)
        for attribute, value in signup.attributes.items():
            self.state(f"attributes.{attribute}", value, signup.occurred_at_us)


def _order(value: AttributeValue) -> tuple[str, str]:
    return type(value).__name__, str(value)


class Account:
    """The state of one account. `history` and, where needed, `engagements` and `profile` are set by who loads it."""

    __slots__ = (
        "account_id",
        "announced",
        "day",
        "due_day",
        "engaged_days",
        "engagement_fell",
        "engagements",
        "evidence_days",
        "first_purchase_day",
        "history",
        "policy_parity",
        "population",
        "profile",
        "purchase_days",
        "revenue_minor",
        "transfers",
        "version",
    )

    def __init__(
        self,
        account_id: str,
        *,
        day: int = NO_DAY,
        first_purchase_day: int = NEVER,
        revenue_minor: int = 0,
        due_day: int = NO_DAY + 1,
        version: int = 0,
        announced: bool = False,
        purchase_days: PurchaseDays | None = None,
        evidence_days: tuple[int, int, int] = (0, 0, 0),
        engaged_days: EngagedDays | None = None,
        engagement_fell: bool = False,
        policy_parity: int = 0,
        history: Ledger | None = None,
        population: str = "",
        transfers: int = 0,
    ) -> None:
        self.account_id = account_id
        self.population = population
        """The one it was moved to last; empty: it is still in the one in which all begin."""
        self.transfers = transfers
        """How often it was moved, by the signups so far in the order of the log."""
        self.day = day
        """The day it was last advanced to."""
        self.first_purchase_day = first_purchase_day
        """Day of the earliest purchase of all, one dated ahead included; NEVER if there is none."""
        self.revenue_minor = revenue_minor
        """Rolling revenue on `day`."""
        self.due_day = due_day
        """The first day on which time alone may change the standing, or what is stored; NEVER if none."""
        self.version = version
        """0: new; else 1, 1 more for each record of purchases taken so far, duplicates included, and 1 more for each
        policy by which accounts were worked out anew, those before its time included."""
        self.announced = announced
        """Whether a standing was ever emitted. Until then the account is due at the first tick."""
        self.purchase_days = purchase_days if purchase_days is not None else PurchaseDays()
        """Of purchases, refunds left out; those dated ahead included."""
        self.evidence_days = evidence_days
        """The latest day, dated ahead or not, of each of EVIDENCE_TOLD; 0: there was none."""
        self.engaged_days = engaged_days if engaged_days is not None else EngagedDays()
        """Of engagements that are no evidence themselves; those dated ahead included."""
        self.engagement_fell = engagement_fell
        """As of `day`: `Engaged.has_fallen`."""
        self.policy_parity = policy_parity
        """Of the number of these policies: 0 or 1. A shard takes the next policy when all accounts go by the last one,
        so this tells whether an account does."""
        self.history = history if history is not None else Ledger()
        """Purchases, refunds and signups by the day they count for; a signup has the value 0."""
        self.engagements: Ledger | None = None
        self.profile: Profile | None = None

    def stage(self, new_start_days: int) -> Stage:
        """How far the account has come on its day."""
        if self.first_purchase_day > self.day:
            return Stage.PROSPECT
        if self.day - self.first_purchase_day < new_start_days:
            return Stage.NEW_START
        return Stage.ESTABLISHED

    def blocks_needed(
        self, day: int, policy: Policy, entry_ids: list[bytes], *, is_policy_new: bool = False
    ) -> list[int]:
        """Closed blocks of the history to load before it is advanced to the day and takes events with these ids.

        is_policy_new: the account does not go by this policy yet.
        """
        if not self.history.index:
            return []
        needed = {number for entry_id in entry_ids for number in self.history.blocks_for_id(entry_id)}
        if is_policy_new or day >= self.due_day:
            needed.update(self.history.blocks_for_advance(self.day, day, policy.window_days))
        return sorted(needed)

    def advance(self, day: int, policy: Policy, *, old_window_days: int | None = None) -> Reason | None:
        """Bring the account to a day; a day before its own changes nothing.

        old_window_days: of another policy, by which the account went until now; `application.refusals` has none.

        Returns why the standing may be another than on any of the days since, None where it is the same on each. What
        leaves the window and what enters it may cancel each other out, and yet the account may have told one without
        the other, before the store went back in time. O(1) unless the account is due.
        """
        if old_window_days is not None:
            self.policy_parity ^= 1
            self.version += 1
            if day == NO_DAY:
                return None  # nothing was worked out yet
        elif day <= self.day:
            return None
        elif day < self.due_day:
            self.day = day
            return None
        stage, revenue, from_day = self.stage(policy.new_start_days), self.revenue_minor, self.day
        window_days = policy.window_days
        change, ledger_due = self.history.advance(from_day, day, window_days, old_window_days)
        self.revenue_minor += change
        self.day = day
        graduation = self.first_purchase_day + policy.new_start_days
        leaves_day = self.purchase_days.next_after(day - window_days)
        due_days = [
            ledger_due,
            self._look_at_engagement(policy),
            self.purchase_days.next_after(day),
            leaves_day + window_days if leaves_day is not None else None,
            graduation if self.first_purchase_day < NEVER else None,
        ]
        self.due_day = min(NEVER, *(due for due in due_days if due is not None and due > day), NEVER)
        if old_window_days is not None:
            return Reason.POLICY_CHANGED
        new_stage = self.stage(policy.new_start_days)
        if new_stage != stage:
            return Reason.GRADUATED if stage is Stage.NEW_START else Reason.REVENUE_DUE
        return Reason.REVENUE_DUE if self.revenue_minor > revenue else Reason.WINDOW_EXPIRY

    def apply(self, event: Event, entry_id: bytes, policy: Policy) -> bool:
        """Take an event on the account's day. Returns whether it was new: a duplicate has no effect.

        The parts it needs must be loaded: `blocks_needed`, for an engagement `engagements`, for a signup `profile`.
        """
        self.version = max(self.version, 1) + isinstance(event, Purchase)
        if isinstance(event, Engagement):
            return self._take_engagement(event, entry_id, policy)
        if self.history.contains(entry_id):
            return False
        if isinstance(event, Purchase):
            self._take_purchase(event, entry_id, policy)
            return True
        assert self.profile is not None
        self.profile.take(event)
        day = event.occurred_at_us // MICROSECONDS_PER_DAY
        if day > self.day - policy.window_days:
            self._remember(day, 0, entry_id, policy)
        return True

    def _remember(self, day: int, value: int, entry_id: bytes, policy: Policy) -> None:
        self.history.append(day, value, entry_id)
        if not self.history.open:
            # A block was closed. It must be dropped one day, even if it holds no revenue that leaves the window.
            self.due_day = min(self.due_day, self.history.closed[-1].last_day + policy.window_days)

    def _take_purchase(self, event: Purchase, entry_id: bytes, policy: Policy) -> None:
        day, amount = event.day, event.amount_minor
        if event.is_refund:
            self._note_evidence("refund", event.occurred_at_us)
        else:
            self.purchase_days.add(day)
            if day > self.day:
                self.due_day = min(self.due_day, day)
            if day < self.first_purchase_day:
                self.first_purchase_day = day
                if self.day < day + policy.new_start_days:
                    self.due_day = min(self.due_day, day + policy.new_start_days)
        if day <= self.day - policy.window_days:
            return  # it left the window before it came
        self._remember(day, amount, entry_id, policy)
        if amount or not event.is_refund:  # a free purchase is a day with one all the same
            self.due_day = min(self.due_day, day + policy.window_days if day <= self.day else day)
        if day <= self.day:
            self.revenue_minor += amount

    def _take_engagement(self, event: Engagement, entry_id: bytes, policy: Policy) -> bool:
        ledger = self.engagements
        assert ledger is not None
        if ledger.contains(entry_id):
            return False
        horizon = self.day - policy.engagement_days
        day = event.occurred_at_us // MICROSECONDS_PER_DAY
        if event.kind in EVIDENCE_TOLD:
            self._note_evidence(event.kind, event.occurred_at_us)
        elif day > horizon and self.engaged_days.add(day) and self.day != NO_DAY:  # else the first tick makes it due
            fell, turn = self.engagement_fell, self._look_at_engagement(policy)
            if self.engagement_fell is not fell:
                # told again tomorrow: the store may go back, and who has heard of tomorrow takes no news of today
                turn = self.day + 1
            self.due_day = min(self.due_day, NEVER if turn is None else turn)
        if day > horizon:
            if not ledger.open:
                ledger.forget(horizon)
            weight = event.weight if event.weight is not None else policy.engagement_weight(event.kind)
            ledger.append(day, engagement_value(event.kind, weight), entry_id)
        return True

    def _look_at_engagement(self, policy: Policy) -> int | None:
        """Whether it has fallen by now. Returns the day on which that turns if nothing happens."""
        days, engagement_days = self.engaged_days, policy.engagement_days
        days.let_go(self.day - engagement_days)
        if not days.bits:  # most accounts have none
            self.engagement_fell = False
            return None
        self.engagement_fell = days.engaged(self.day, engagement_days).has_fallen
        return days.next_turn(self.day, engagement_days)

    def _note_evidence(self, kind: str, occurred_at_us: int) -> None:
        """The latest of a kind counts, so that order does not matter."""
        days, place = list(self.evidence_days), EVIDENCE_TOLD.index(kind)
        days[place] = max(days[place], occurred_at_us // MICROSECONDS_PER_DAY)
        self.evidence_days = (days[0], days[1], days[2])


def entry_id_of(event: Event) -> bytes:
    """Eight bytes that stand for an event within its account.

    Ids are told apart by topic: the log does not say which of two topics came first.
    """
    entry_id = _BLANK_IDS[type(event)].copy()
    entry_id.update(event.event_id.encode())
    return entry_id.digest()


_BLANK_IDS = {
    kind: blake2b(digest_size=ID_SIZE, person=kind.__name__.encode()) for kind in (Purchase, Signup, Engagement)
}
"""Copying one takes half the time of making one."""


def reason_of(event: Event) -> Reason:
    """The reason that an event gives for a change."""
    if isinstance(event, Purchase):
        return Reason.REFUND if event.is_refund else Reason.PURCHASE
    return Reason.SIGNUP if isinstance(event, Signup) else Reason.ENGAGEMENT


def engagement_value(kind: str, weight: int) -> int:
    """A kind (as four bytes of its hash) and a weight (below 2^31) in one ledger value."""
    return int.from_bytes(blake2b(kind.encode(), digest_size=4).digest()) - 2**31 << 32 | weight


def engagement_kind(value: int) -> int:
    """The part of an `engagement_value` that stands for the kind."""
    return value >> 32
