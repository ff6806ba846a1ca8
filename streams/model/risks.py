"""Risks as workers would have had them: a log lived through day by day by the rules that are theirs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from segmentation.account import Account, Standing, entry_id_of
from segmentation.events import MICROSECONDS_PER_DAY, Engagement, Purchase
from segmentation.ledger import Ledger
from segmentation.order_index import Basis
from segmentation.policy import ALL, Policy
from segmentation.population import Population, fall_day
from segmentation.risk import Risk
from streams.accounts import standing_of
from streams.model.purchases import PurchaseLog, known_on


def risks_at(log: PurchaseLog, policy: Policy, day: int) -> dict[str, Risk]:
    """What was known of each account that had purchased when a day ended: how it bought, and all evidence.

    Known are the events with an `occurred_at` before that day's end. A worker takes a day's purchases in batches as
    they come, here they are one: a fall of tier that was undone on the same day is not seen. 30 us a purchase, 5 us an
    engagement. All accounts are ranked against each other, also where the policy has populations.
    """
    known = log.known_at(day)
    purchases: dict[int, dict[str, list[Purchase]]] = defaultdict(lambda: defaultdict(list))
    for account_id, events in known.items():
        for purchase in events:
            purchases[known_on(purchase)][account_id].append(purchase)
    stages = _Stages(policy)
    for today in range(min(purchases, default=day), day + 1):
        stages.live(today, purchases.pop(today, {}))
    for account_id in known:
        engagements = log.engagements.get(account_id, ())
        stages.engage(account_id, day, [event for event in engagements if known_on(event) <= day])
    return stages.risks()


class _Stages:
    """The account stage and the ranking stage, without what makes them durable."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._accounts: dict[str, Account] = {}
        self._population = Population(ALL, basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp)
        self._due: dict[int, dict[str, None]] = defaultdict(dict)
        """Day -> whom to look at then. Who is due later by now is looked at in vain."""

    def live(self, day: int, purchases: Mapping[str, Iterable[Purchase]]) -> None:
        """Let a day come, the one after the last, and what was bought on it."""
        self._rank([self._standing(account_id, day, ()) for account_id in self._due.pop(day, ())], day)
        self._rank([self._standing(account_id, day, events) for account_id, events in purchases.items()], day)

    def engage(self, account_id: str, day: int, engagements: Iterable[Engagement]) -> None:
        """Let an account have engaged, up to the last day lived through: it moves no tier, so all at once will do."""
        risk = self._population.members[account_id].risk
        if risk is None:
            return
        standing = self._standing(account_id, day, engagements)
        risk.note(standing.evidence_days)
        risk.note_engagement(fell=standing.engagement_fell)

    def risks(self) -> dict[str, Risk]:
        """Of each account that has purchased."""
        found = {account_id: member.risk for account_id, member in self._population.members.items()}
        return {account_id: risk for account_id, risk in found.items() if risk is not None}

    def _standing(self, account_id: str, day: int, events: Iterable[Purchase | Engagement]) -> Standing:
        account, policy = self._accounts.get(account_id), self._policy
        if account is None:
            account = self._accounts[account_id] = Account(account_id)
            account.engagements = Ledger()
        advanced = account.advance(day, policy)
        for event in events:
            account.apply(event, entry_id_of(event), policy)
        self._due[account.due_day][account_id] = None
        return standing_of(account, account.stage(policy.new_start_days), advanced, None, policy.window_days, ALL)

    def _rank(self, standings: Iterable[Standing], day: int) -> None:
        changes, _ = self._population.apply(standings, day * MICROSECONDS_PER_DAY)
        for change in changes:
            risk = self._population.members[change.account_id].risk
            if risk is not None:
                risk.note_change(fall_day(change.direction, change.effective_at_us))
