"""Whom to work on: every account of a population in its place, and what the classes add up to.

The places are kept, not worked out when somebody asks. An account is assessed again after anything has happened to it,
and once a week where nothing has: in the background, as it announces nothing. Prospects of a class differ in their fit
alone, so they are listed by class and fit, and what their class is worth is worked out when somebody asks: the purchase
of one account moves all prospects of its class, and none of them is touched.
"""

from collections.abc import Iterator
from typing import NamedTuple

from segmentation.classification import Traits
from segmentation.policy import Policy
from segmentation.population import Member, Population
from segmentation.potential import Buyer, ClassEstimates, ClassFigures, ClassPath, Potential, PotentialRules
from segmentation.priority import Priority, PriorityRules, priority
from segmentation.risk import RiskRules
from segmentation.segments import TIERS, Segment, Stage

Rises = tuple[int | None, ...]
"""Of each tier, the revenue with which an account in it rises to the next one; None where none does."""

SEPARATOR = "\0"
"""Between the parts of an entry's name: nothing that is smaller is in any of them."""
BETWEEN_CLASSES = "\x1f"

WORKLISTS = (*(f"worklist_{segment}" for segment in Segment), "owners")
"""The names of the lists."""

Placement = tuple[str, str, int | None]
"""A list, an entry of it, and the entry's score; None: it is not in the list any more."""


class Assessment(NamedTuple):
    """What there is to say of one account that somebody may work on."""

    potential: Potential | None
    """None: no account of the population is established yet, so nobody knows."""
    odds: float | None
    """That it buys nothing in the risk's horizon; None: it has not purchased."""
    revenue_at_risk_minor: int
    to_next_tier_minor: int | None
    """The revenue that is missing to the next tier up; None where there is none above, or it is not ranked."""
    priority: Priority


class Assessor:
    """Assesses accounts, by one policy."""

    def __init__(self, policy: Policy) -> None:
        self.potential = PotentialRules.of(policy)
        self.risk = RiskRules.of(policy)
        self.priority = PriorityRules.of(policy)

    def assess(self, member: Member, traits: Traits, day: int, estimates: ClassEstimates, rises: Rises) -> Assessment:
        """As of a day. Complexity: `purchase_model.expected_purchases`."""
        buyer, odds, at_risk_minor, risk = None, None, 0, member.risk
        if risk is not None and risk.days_bought:
            day = max(day, risk.last_day)
            odds, history = risk.odds(self.risk, day), risk.history(day)
            at_risk_minor = self.risk.revenue_at_risk_minor(history, member.revenue_minor, odds)
            buyer = Buyer(history, member.revenue_minor, risk.bought_in_window)
        potential = self._potential(member.stage, buyer, traits.class_path, estimates)
        to_next_minor = None
        if member.tier:
            needed = rises[member.tier]
            to_next_minor = None if needed is None else max(0, needed - member.revenue_minor)
        score = priority(
            self.priority,
            potential,
            revenue_at_risk_minor=at_risk_minor,
            fit=traits.fit,
            revenue_minor=member.revenue_minor,
            to_next_tier_minor=to_next_minor,
        )
        return Assessment(potential, odds, at_risk_minor, to_next_minor, score)

    def _potential(
        self, stage: str, buyer: Buyer | None, path: ClassPath, estimates: ClassEstimates
    ) -> Potential | None:
        if buyer is not None and stage == Stage.ESTABLISHED:
            return self.potential.of_buyer(buyer)
        of_class = estimates.potential(path, self.potential, is_prospect=stage == Stage.PROSPECT)
        if of_class is None and buyer is not None:
            return self.potential.of_buyer(buyer)
        return of_class


class _Entry:
    """What the worklist knows of an account."""

    __slots__ = ("path", "revenue_minor", "segment", "stage", "traits")

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.segment: Segment | None = None
        """In whose list it is; None: nobody knows, it may be in one."""
        self.path: ClassPath | None = None
        """Of the class that it is counted in; None: in none yet."""
        self.stage = ""
        self.revenue_minor = 0
        """As which it is counted."""


class Worklist:
    """Of one population. Costs O(1) for an account that is counted and placed, and 200 bytes."""

    def __init__(self, assessor: Assessor) -> None:
        self._assessor = assessor
        self._entries: dict[str, _Entry] = {}
        self.figures: dict[ClassPath, ClassFigures] = {}
        """By the finest classes; one without accounts has none."""
        self.changed: set[ClassPath] = set()
        """Classes whose figures are other ones than were stored; whoever stores them takes them out."""
        self._estimates = ClassEstimates({})
        self._are_estimates_old = True

    def knows(self, account_id: str) -> bool:
        """Whether the account's stored traits were looked up."""
        return account_id in self._entries

    def traits(self, account_id: str) -> Traits:
        """Of an account whose stored traits were looked up."""
        return self._entries[account_id].traits

    def know(self, account_id: str, traits: Traits) -> None:
        """The traits that are stored of an account, before anything else is done with it."""
        self._entries[account_id] = _Entry(traits)

    def describe(self, account_id: str, traits: Traits) -> Iterator[Placement]:
        """Take other traits of an account. Yields what that changes at once; it is to be counted and placed again."""
        entry = self._entries[account_id]
        before, entry.traits = entry.traits, traits
        if entry.segment in (None, Segment.PROSPECT):
            yield "worklist_prospect", prospect_entry(before, account_id), None
        if entry.segment is Segment.PROSPECT:
            yield "worklist_prospect", prospect_entry(traits, account_id), 0
        if before.owner:
            yield "owners", owner_entry(before, account_id), None
        if traits.owner:
            yield "owners", owner_entry(traits, account_id), 0

    def count(self, member: Member) -> None:
        """Let a class's figures hold the account as it is. O(1)."""
        entry = self._entries[member.account_id]
        path, before = entry.traits.class_path, entry.path
        if path == before and entry.stage == member.stage and entry.revenue_minor == member.revenue_minor:
            return
        self._uncount(entry)
        if path not in self.figures:
            self.figures[path] = ClassFigures()
        self.figures[path].count(member.stage, member.revenue_minor)
        entry.path, entry.stage, entry.revenue_minor = path, member.stage, member.revenue_minor
        self.changed.add(path)
        self._are_estimates_old = True

    def forget(self, account_id: str) -> Iterator[Placement]:
        """The account, whose stored traits were looked up, is none of this population any more. O(1)."""
        entry = self._entries.pop(account_id)
        self._uncount(entry)
        for segment in Segment if entry.segment is None else (entry.segment,):
            name = prospect_entry(entry.traits, account_id) if segment is Segment.PROSPECT else account_id
            yield f"worklist_{segment}", name, None

    def _uncount(self, entry: _Entry) -> None:
        before = entry.path
        if before is not None:
            left = self.figures[before]
            left.count(entry.stage, entry.revenue_minor, -1)
            if not left.accounts:
                del self.figures[before]
            self.changed.add(before)
            self._are_estimates_old = True

    def refresh_estimates(self) -> None:
        """What is to be expected of each class, from its figures as they are. O(classes) where any is another one."""
        if self._are_estimates_old:
            self._estimates, self._are_estimates_old = ClassEstimates(self.figures), False

    def place(self, member: Member, day: int, rises: Rises) -> Iterator[Placement]:
        """Put an account that is counted into its place, as of a day, by the estimates as they were refreshed last.

        Complexity: `Assessor.assess`.
        """
        account_id, entry, segment = member.account_id, self._entries[member.account_id], member.current_segment
        if entry.segment is not segment:
            for other in Segment if entry.segment is None else (entry.segment,):
                if other is not segment:
                    name = prospect_entry(entry.traits, account_id) if other is Segment.PROSPECT else account_id
                    yield f"worklist_{other}", name, None
            entry.segment = segment
        if segment is Segment.PROSPECT:
            yield "worklist_prospect", prospect_entry(entry.traits, account_id), 0
            return
        assessment = self._assessor.assess(member, entry.traits, day, self._estimates, rises)
        yield f"worklist_{segment}", account_id, assessment.priority.score_minor


def class_name(path: ClassPath) -> str:
    """A class as one text, from which `class_path` makes the class again."""
    return BETWEEN_CLASSES.join(path)


def class_path(name: str) -> ClassPath:
    """What `class_name` was made of."""
    return tuple(name.split(BETWEEN_CLASSES)) if name else ()


def prospect_entry(traits: Traits, account_id: str) -> str:
    """A prospect in its list: by class, then by fit."""
    return SEPARATOR.join((class_name(traits.class_path), f"{traits.fit:03}", account_id))


def owner_entry(traits: Traits, account_id: str) -> str:
    """An account in the list of its owner's."""
    return f"{traits.owner}{SEPARATOR}{account_id}"


def account_of(entry: str) -> str:
    """The account of an entry of any list."""
    return entry.rpartition(SEPARATOR)[2]


def rises_of(population: Population) -> Rises:
    """As the cutoffs are now. O(1)."""
    return None, *(population.tiers.gates(tier)[tier - 1] for tier in range(1, len(TIERS)))
