"""The watch over accounts' risk: who is looked at when, and the changes of level that come of it."""

import heapq
from collections.abc import Iterable

from segmentation.account import NEVER
from segmentation.population import Member
from segmentation.risk import Risk, RiskChange, RiskRules, Trigger


class RiskWatch:
    """Over the accounts of one ranking shard that have purchased.

    An account is looked at when there is news of it, and on the day on which silence may have changed its level.
    """

    def __init__(self, rules: RiskRules, members: Iterable[Member] = (), *, all_are_due: bool = False) -> None:
        """members: as an earlier instance left them, with other rules if `all_are_due`. O(n)."""
        self.rules = rules
        self._days: dict[int, list[Member]] = {}
        """Day -> whom to look at. Who is due later by now is looked at in vain."""
        for member in members:
            risk = member.risk
            # not by _queue: a restart waits for it
            if risk is None:
                continue
            day = risk.queued_day = 0 if all_are_due else risk.due_day  # an earlier watch may have had it
            if day < NEVER:
                if day in self._days:
                    self._days[day].append(member)
                else:
                    self._days[day] = [member]
        self._next_days = sorted(self._days)
        """A heap of the same days."""

    def look(self, member: Member, day: int, *, from_told: bool = False) -> float:
        """Bring the level of an account to a day, where purchases of it are known. Returns the odds of its risk.

        from_told: go on from the level that was told, not from the last one. O(1).
        """
        risk = member.risk
        if risk is None or not risk.days_bought:
            return 0.0
        day = day if day > risk.last_day else risk.last_day
        odds = risk.settle(self.rules, day, risk.told_level if from_told else risk.level)
        if risk.due_day < risk.queued_day:  # else it will be looked at before
            self._queue(member, risk)
        return odds

    def due(self, day: int, limit: int) -> list[Member]:
        """Up to limit accounts to look at on a day; they are not named again before that is done. O(limit)."""
        due: list[Member] = []
        while self._next_days and self._next_days[0] <= day and len(due) < limit:
            members = self._days[self._next_days[0]]
            while members and len(due) < limit:
                member = members.pop()
                assert member.risk is not None
                member.risk.queued_day = NEVER
                due.append(member)
            if not members:
                del self._days[heapq.heappop(self._next_days)]
        return due

    def _queue(self, member: Member, risk: Risk) -> None:
        day = risk.due_day
        if day not in self._days:
            self._days[day] = []
            heapq.heappush(self._next_days, day)
        self._days[day].append(member)
        risk.queued_day = day

    def change(
        self,
        member: Member,
        population: str,
        day: int,
        odds: float,
        *,
        trigger: Trigger,
        event_id: str | None,
        effective_at_us: int,
    ) -> RiskChange:
        """The change from the level that was told of an account to the one that it has. `odds` as of the day."""
        risk = member.risk
        assert isinstance(risk, Risk)
        previous, risk.told_level = risk.told_level, risk.level
        risk.sequence += 1
        risk.effective_at_us = max(risk.effective_at_us, effective_at_us)
        day = max(day, risk.last_day)
        history = risk.history(day)
        return RiskChange(  # by position, as a change of segment
            member.account_id,
            population,
            risk.sequence,
            previous,
            risk.level,
            trigger,
            event_id,
            odds,
            risk.parts(self.rules, day, odds),
            history,
            member.revenue_minor,
            self.rules.revenue_at_risk_minor(history, member.revenue_minor, odds),
            member.current_segment,
            risk.effective_at_us,
            member.transfer,
        )
