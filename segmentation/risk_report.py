"""What became of accounts' risk in a period: who was flagged, and who of them came back.

An account is *flagged* when its risk rises to `high`. Everything follows from the changes of risk that were announced.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from segmentation.period_report import Period
from segmentation.population import Member
from segmentation.risk import LEVELS, Level, Trigger


class PastRiskChange(NamedTuple):
    """An announced change of an account's risk: what a report needs of it."""

    sequence: int
    previous: Level
    current: Level
    trigger: str
    revenue_at_risk_minor: int
    effective_at_us: int

    @property
    def is_flag(self) -> bool:
        """Whether the account is flagged by it."""
        return self.current is Level.HIGH


class Flagged(NamedTuple):
    """Some flagged accounts."""

    accounts: int
    revenue_at_risk_minor: int
    """What was at stake when they were flagged, the first time in the period."""


class RiskReport(NamedTuple):
    """What became of accounts' risk in a period."""

    accounts: Mapping[Level, int]
    """Level -> accounts that have purchased, now."""
    raised: Mapping[Level, int]
    """Level -> changes up to it in the period."""
    lowered: Mapping[Level, int]
    """Level -> changes down to it in the period."""
    triggers: Mapping[str, int]
    """What raised a level -> how often, the most frequent first."""
    flagged: Flagged
    """Accounts that were flagged in the period."""
    came_back: Flagged
    """Those of them that bought afterwards, up to now, and were calmer for it."""
    calmed: Flagged
    """Those that are calmer now for another reason: a request to cancel that is long ago, for example."""

    @property
    def still_flagged(self) -> Flagged:
        """Those that nothing has calmed since."""
        parts = zip(self.flagged, self.came_back, self.calmed, strict=True)
        return Flagged(*(whole - back - calmed for whole, back, calmed in parts))


RiskChains = Mapping[str, Sequence[PastRiskChange]]
"""Account -> its changes of risk by sequence, each once, at least those from the period's begin on."""


def risk_report(chains: RiskChains, members: Iterable[Member], period: Period) -> RiskReport:
    """Work the report out. `members`: every account as it is after the last change. O(accounts + changes)."""
    accounts = Counter(
        member.risk.told_level for member in members if member.risk is not None and member.risk.days_bought
    )
    raised: Counter[Level] = Counter()
    lowered: Counter[Level] = Counter()
    triggers: Counter[str] = Counter()
    outcomes: dict[str, list[int]] = {"flagged": [], "came_back": [], "calmed": []}
    for chain in chains.values():
        for change in chain:
            if period.holds(change.effective_at_us):
                is_up = LEVELS.index(change.current) > LEVELS.index(change.previous)
                (raised if is_up else lowered)[change.current] += 1
                triggers[change.trigger] += is_up
        first = next((n for n, c in enumerate(chain) if c.is_flag and period.holds(c.effective_at_us)), None)
        if first is not None:
            at_risk_minor = chain[first].revenue_at_risk_minor
            outcomes["flagged"].append(at_risk_minor)
            after = [change for change in chain[first + 1 :] if not change.is_flag]
            if any(change.trigger == Trigger.PURCHASE for change in after):
                outcomes["came_back"].append(at_risk_minor)
            elif after and not chain[-1].is_flag:
                outcomes["calmed"].append(at_risk_minor)
    return RiskReport(
        accounts={level: accounts[level] for level in LEVELS},
        raised={level: raised[level] for level in LEVELS[1:]},
        lowered={level: lowered[level] for level in LEVELS[:-1]},
        triggers=dict(sorted(((t, n) for t, n in triggers.items() if n), key=lambda item: (-item[1], item[0]))),
        **{name: Flagged(len(amounts), sum(amounts)) for name, amounts in outcomes.items()},
    )
