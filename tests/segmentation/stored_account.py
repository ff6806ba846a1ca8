"""An account kept as the account stage keeps it, and what it ought to be by its definition alone."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from segmentation.account import EVIDENCE_TOLD, NEVER, NO_DAY, Account, Profile, Reason, entry_id_of
from segmentation.buying import PurchaseDays
from segmentation.events import MICROSECONDS_PER_DAY, Engagement, Event, Purchase, Signup
from segmentation.ledger import Ledger
from segmentation.policy import Policy
from segmentation.segments import Stage
from tests.segmentation.block_store import BlockStore

ACCOUNT_ID = "acme"


class Standing(NamedTuple):
    """What an account is on a day."""

    stage: Stage
    revenue_minor: int
    first_purchase_day: int


def by_definition(events: Iterable[Event], day: int, policy: Policy) -> Standing:
    """The standing on a day of the clock of an account that has these events, each told once or more often."""
    purchases = {event.event_id: event for event in events if isinstance(event, Purchase)}.values()
    revenue = sum(event.amount_minor for event in purchases if day - policy.window_days < event.day <= day)
    first_purchase_day = min((event.day for event in purchases if not event.is_refund), default=NEVER)
    if first_purchase_day > day:
        stage = Stage.PROSPECT
    elif day - first_purchase_day < policy.new_start_days:
        stage = Stage.NEW_START
    else:
        stage = Stage.ESTABLISHED
    return Standing(stage, revenue, first_purchase_day)


def rhythm_by_definition(events: Iterable[Event], day: int) -> tuple[int, int] | None:
    """How often the account had bought by a day, counted by days, and the last of them; None if it had not."""
    days = {e.day for e in events if isinstance(e, Purchase) and not e.is_refund and e.day <= day}
    return (len(days), max(days)) if days else None


def evidence_by_definition(events: Iterable[Event]) -> tuple[int, ...]:
    """The last day of each kind of evidence that the account stage tells."""
    days = dict.fromkeys(EVIDENCE_TOLD, 0)
    for event in events:
        name = None
        if isinstance(event, Engagement):
            name = event.kind
        elif isinstance(event, Purchase) and event.is_refund:
            name = "refund"
        if name in days:
            days[name] = max(days[name], event.occurred_at_us // MICROSECONDS_PER_DAY)
    return tuple(days.values())


class StoredAccount:
    """Takes batches and days; loads the blocks that the account asks for, no others."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.day = NO_DAY
        self.account = Account(ACCOUNT_ID)
        self.history = BlockStore()
        self.engagements = BlockStore()
        self.account.engagements = Ledger()
        self.account.profile = Profile()
        self.advances = 0
        """How often the account was loaded because it was due."""

    def take(self, events: Sequence[Event]) -> list[bool]:
        """A batch of events, on the day of the clock. Returns which were new."""
        account, engagements = self.account, self.account.engagements
        assert engagements is not None
        entry_ids = [entry_id_of(event) for event in events]
        self.history.load(
            account.history,
            account.blocks_needed(
                self.day,
                self.policy,
                [id_ for event, id_ in zip(events, entry_ids, strict=True) if not _is_engagement(event)],
            ),
        )
        self.engagements.load(engagements, {number for id_ in entry_ids for number in engagements.blocks_for_id(id_)})
        account.advance(self.day, self.policy)
        new = [account.apply(event, id_, self.policy) for event, id_ in zip(events, entry_ids, strict=True)]
        self._save()
        return new

    def tick(self, day: int) -> Reason | None:
        """The clock comes to a day: the account is looked at only if it is due."""
        self.day = day
        account = self.account
        if account.due_day > day:
            return None
        self.advances += 1
        self.history.load(account.history, account.blocks_needed(day, self.policy, []))
        reason = account.advance(day, self.policy)
        assert account.due_day > day, "due work would never end"
        self._save()
        return reason

    def switch(self, policy: Policy) -> None:
        """Go by another policy from now on."""
        account, old_window_days = self.account, self.policy.window_days
        self.policy = policy
        self.history.load(account.history, account.blocks_needed(self.day, policy, [], is_policy_new=True))
        reason = account.advance(self.day, policy, old_window_days=old_window_days)
        assert reason is (Reason.POLICY_CHANGED if self.day != NO_DAY else None)
        assert account.due_day > self.day, "due work would never end"
        self._save()

    def reopen(self) -> None:
        """Forget what is in memory and read what is stored."""
        old = self.account
        self.account = Account(
            ACCOUNT_ID,
            day=old.day,
            first_purchase_day=old.first_purchase_day,
            revenue_minor=old.revenue_minor,
            due_day=old.due_day,
            version=old.version,
            announced=old.announced,
            evidence_days=old.evidence_days,
            policy_parity=old.policy_parity,
            purchase_days=PurchaseDays(old.purchase_days.first_day, old.purchase_days.bits),
            history=self.history.reopen(),
        )
        assert old.profile is not None
        self.account.engagements = self.engagements.reopen()
        self.account.profile = Profile(dict(old.profile.fields))

    @property
    def standing(self) -> Standing:
        """What the account says it is, however long ago it was looked at."""
        account = self.account
        return Standing(account.stage(self.policy.new_start_days), account.revenue_minor, account.first_purchase_day)

    @property
    def rhythm(self) -> tuple[int, int] | None:
        """As `rhythm_by_definition`, of what the account knows, as of the day that it was looked at."""
        history = self.account.purchase_days.history(self.account.day)
        return (history.repeats + 1, self.account.day - history.silent_days) if history else None

    def _save(self) -> None:
        assert self.account.engagements is not None
        self.history.save(self.account.history)
        self.engagements.save(self.account.engagements)


def _is_engagement(event: Event) -> bool:
    return isinstance(event, Engagement)


def day_of(text: str) -> int:
    """The day number of a date like 2028-02-29."""
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def instant_of(text: str) -> int:
    """The instant of a time like 2028-02-29T23:59:59, in UTC."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def purchase(event_id: str, day: int, amount_minor: int = 100, *, refund: bool = False) -> Purchase:
    """A purchase at noon; a refund takes the amount away."""
    at_us = day * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
    return Purchase(ACCOUNT_ID, event_id, at_us, day, -amount_minor if refund else amount_minor, refund)


def signup(event_id: str, day: int) -> Signup:
    """A signup that states nothing."""
    return Signup(ACCOUNT_ID, event_id, day * MICROSECONDS_PER_DAY, None, {})


def engagement(event_id: str, day: int, kind: str = "login", weight: int | None = None) -> Engagement:
    """An engagement at the beginning of a day."""
    return Engagement(ACCOUNT_ID, event_id, day * MICROSECONDS_PER_DAY, kind, weight)
