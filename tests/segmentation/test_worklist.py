"""Whom to work on: every account in its place, whatever happens to it and whoever keeps the list."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from segmentation.account import Reason, Standing
from segmentation.classification import Traits
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.population import Member, Population
from segmentation.potential import Buyer, ClassEstimates, ClassFigures, ClassPath, Potential
from segmentation.risk import Risk
from segmentation.segments import TIERS, Segment, Stage
from segmentation.worklist import (
    WORKLISTS,
    Assessment,
    Assessor,
    Placement,
    Worklist,
    account_of,
    class_name,
    class_path,
    owner_entry,
    prospect_entry,
    rises_of,
)

ASSESSOR = Assessor(Policy.default())
NO_TRAITS = Traits(("unknown", "unknown"), 0, "", "")
SOFTWARE = Traits(("software", "mid"), 60, "Kim", "emea")
DAY = 1_000

paths = st.tuples(st.sampled_from(["finance", "software", "unknown"]), st.sampled_from(["mid", "unknown"]))
traits_ = st.builds(
    Traits, paths, st.sampled_from([0, 7, 60, 100]), st.sampled_from(["", "Kim", "Kim B", "Lee"]), st.just("")
)
account_ids = st.sampled_from([f"account-{n}" for n in range(8)])


def population_of(basis: Basis = Basis.ACCOUNTS, band: int = 0) -> Population:
    """Without accounts."""
    return Population("all", basis=basis, boundaries=(3000, 8000), band=band)


def standing(account_id: str, stage: str, revenue_minor: int, version: int, day: int = DAY) -> Standing:
    """Of an account that has bought twice unless it is a prospect, half a year ago and a month ago."""
    bought = (day - 180, day - 30, 2) if stage != Stage.PROSPECT else (0, 0, 0)
    reason, recent = str(Reason.PURCHASE), bought[2]
    return Standing(
        account_id, stage, revenue_minor, version, day, reason, None, None, *bought, bought_in_window=recent
    )


class Store:
    """What a shard has stored: sorted sets, traits, and what the classes add up to."""

    def __init__(self) -> None:
        self.lists: dict[str, dict[str, int]] = {name: {} for name in WORKLISTS}
        self.traits: dict[str, Traits] = {}
        self.figures: dict[ClassPath, tuple[int, ...]] = {}

    def put(self, placements: Iterable[Placement]) -> None:
        """Carry them out in their order."""
        for name, entry, score in placements:
            if score is None:
                self.lists[name].pop(entry, None)
            else:
                self.lists[name][entry] = score

    def put_figures(self, worklist: Worklist) -> None:
        """Those that are other ones than are stored."""
        for path in worklist.changed:
            if path in worklist.figures:
                self.figures[path] = worklist.figures[path].numbers()
            else:
                del self.figures[path]
        worklist.changed.clear()

    def places(self) -> list[tuple[str, str]]:
        """Every entry of every list."""
        return sorted((name, entry) for name, entries in self.lists.items() for entry in entries)


class WorklistMachine(RuleBasedStateMachine):
    """Random lives, each step followed by a comparison with where everybody ought to be."""

    @initialize(basis=st.sampled_from(Basis), band=st.sampled_from([0, 500]))
    def begin(self, basis: Basis, band: int) -> None:
        self.population = population_of(basis, band)
        self.store = Store()
        self.worklist = Worklist(ASSESSOR)
        self.touched: set[str] = set()
        """To be counted and placed."""
        self.version = 0
        self.day = DAY

    @rule(
        batch=st.lists(
            st.tuples(
                account_ids,
                st.sampled_from([*Stage, Stage.ESTABLISHED, Stage.ESTABLISHED]),
                st.integers(-5, 60) | st.sampled_from([0, 10**6]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def something_happens(self, batch: list[tuple[str, Stage, int]]) -> None:
        standings = []
        for account_id, stage, revenue_minor in batch:
            self.version += 1
            standings.append(standing(account_id, stage, revenue_minor, self.version, self.day))
        _, members = self.population.apply(standings, self.day * MICROSECONDS_PER_DAY)
        self.touched.update(member.account_id for member in members)

    @rule(account_id=account_ids, traits=traits_)
    def describe(self, account_id: str, traits: Traits) -> None:
        self.know(account_id)
        self.store.put(self.worklist.describe(account_id, traits))
        self.store.traits[account_id] = traits
        if account_id in self.population.members:
            self.touched.add(account_id)

    @rule(days=st.integers(1, 400))
    def time_passes(self, days: int) -> None:
        self.day += days

    @precondition(lambda self: self.touched)
    @rule(count=st.integers(1, 3), backwards=st.booleans())
    def bring_some(self, count: int, backwards: bool) -> None:
        self.bring(sorted(self.touched, reverse=backwards)[:count])

    @rule(backwards=st.booleans())
    def bring_all(self, backwards: bool) -> None:
        self.bring(sorted(self.touched, reverse=backwards))
        assert self.store.figures == {path: figures.numbers() for path, figures in self.figures().items()}
        assert {path: figures.numbers() for path, figures in self.worklist.figures.items()} == self.store.figures

    @rule()
    def claim(self) -> None:
        """Another worker keeps the list, and knows nothing: it counts all, and then places all again."""
        self.worklist = Worklist(ASSESSOR)
        for account_id in self.population.members:
            self.know(account_id)
            self.worklist.count(self.population.members[account_id])
        self.touched.update(self.population.members)
        stored = self.store.figures
        self.store.figures = {path: numbers for path, numbers in stored.items() if path in self.worklist.figures}
        self.store.put_figures(self.worklist)

    @rule()
    def claim_of_what_is_up_to_date(self) -> None:
        self.touched.update(self.population.members)
        self.bring_all(False)
        places, lists, figures = self.store.places(), {**self.store.lists}, self.store.figures
        self.claim()
        self.bring_all(True)
        assert self.store.places() == places
        assert self.store.figures == figures
        for name, entries in lists.items():
            assert self.store.lists[name] == pytest.approx(entries, abs=1, rel=1e-9)

    def know(self, account_id: str) -> None:
        """As a worker does before anything else."""
        if not self.worklist.knows(account_id):
            self.worklist.know(account_id, self.store.traits.get(account_id, NO_TRAITS))

    def bring(self, account_ids: list[str]) -> None:
        """Count these accounts, then place them, and see what they are worth."""
        members = [self.population.members[account_id] for account_id in account_ids]
        for member in members:
            self.know(member.account_id)
            self.worklist.count(member)
        for member in members:
            self.worklist.refresh_estimates()
            self.store.put(self.worklist.place(member, self.day, rises_of(self.population)))
        self.store.put_figures(self.worklist)
        self.touched.difference_update(account_ids)
        if self.touched:
            return
        estimates = ClassEstimates(self.figures())
        for member in members:
            name, entry = self.place_of(member)
            score = self.store.lists[name][entry]
            if member.current_segment is Segment.PROSPECT:
                assert score == 0
                continue
            traits = self.store.traits.get(member.account_id, NO_TRAITS)
            found = ASSESSOR.assess(member, traits, self.day, estimates, rises_of(self.population))
            assert score == pytest.approx(found.priority.score_minor, abs=1, rel=1e-9)

    def figures(self) -> dict[ClassPath, ClassFigures]:
        """What the classes add up to, from every account."""
        classes: dict[ClassPath, list[Member]] = {}
        for member in self.population.members.values():
            classes.setdefault(self.store.traits.get(member.account_id, NO_TRAITS).class_path, []).append(member)
        found = {}
        for path, members in classes.items():
            brought = [max(0, member.revenue_minor) for member in members if member.stage == Stage.ESTABLISHED]
            found[path] = ClassFigures(
                len(members),
                sum(member.stage != Stage.PROSPECT for member in members),
                len(brought),
                sum(brought),
                sum(revenue_minor**2 for revenue_minor in brought),
            )
        return found

    def place_of(self, member: Member) -> tuple[str, str]:
        """The list that an account ought to be in, and its entry there."""
        segment, traits = member.current_segment, self.store.traits.get(member.account_id, NO_TRAITS)
        is_prospect = segment is Segment.PROSPECT
        return f"worklist_{segment}", prospect_entry(traits, member.account_id) if is_prospect else member.account_id

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        """Who is not touched is in its own one; others may still be where they were, but nowhere else beside it."""
        places = self.store.places()
        owners = [owner_entry(traits, account_id) for account_id, traits in self.store.traits.items() if traits.owner]
        assert [entry for name, entry in places if name == "owners"] == sorted(owners)
        listed = [(account_of(entry), name, entry) for name, entry in places if name != "owners"]
        accounts = [account_id for account_id, _, _ in listed]
        assert len(set(accounts)) == len(accounts)
        members = self.population.members
        assert set(accounts) <= set(members)
        settled = {account_id: self.place_of(members[account_id]) for account_id in members.keys() - self.touched}
        assert {
            account_id: (name, entry) for account_id, name, entry in listed if account_id not in self.touched
        } == settled


def test_everybody_is_in_their_place_whatever_happens() -> None:
    """Hypothesis chooses what happens, and shrinks what fails to the fewest steps of it."""
    often = settings(max_examples=150, stateful_step_count=30)
    run_state_machine_as_test(WorklistMachine, settings=often)


def new_worklist(**traits: Traits) -> tuple[Population, Worklist, Store]:
    """Of a prospect, a new start, and three established accounts; all are counted and placed."""
    population, store = population_of(Basis.REVENUE), Store()
    worklist = Worklist(ASSESSOR)
    stages = {"prospect": Stage.PROSPECT, "new": Stage.NEW_START}
    names = ("prospect", "new", "big", "middle", "small")
    for name, revenue_minor in zip(names, (0, 10, 500, 400, 100), strict=True):
        population.apply([standing(name, stages.get(name, Stage.ESTABLISHED), revenue_minor, 1)], 0)
        store.traits[name] = traits.get(name, SOFTWARE)
        worklist.know(name, NO_TRAITS)
        store.put(worklist.describe(name, store.traits[name]))
    bring(population, worklist, store)
    return population, worklist, store


def bring(population: Population, worklist: Worklist, store: Store) -> None:
    """Count and place all."""
    for member in population.members.values():
        worklist.count(member)
    for member in population.members.values():
        worklist.refresh_estimates()
        store.put(worklist.place(member, DAY, rises_of(population)))
    store.put_figures(worklist)


def test_a_list_for_each_segment_and_one_for_the_owners() -> None:
    """A prospect is listed by its class and fit, everybody else by what is at stake."""
    _, _, store = new_worklist()
    assert {name: [*entries] for name, entries in store.lists.items()} == {
        "worklist_key": ["big"],
        "worklist_enterprise": ["middle"],
        "worklist_commercial": ["small"],
        "worklist_new_start": ["new"],
        "worklist_prospect": ["software\x1fmid\x00060\x00prospect"],
        "owners": ["Kim\x00" + name for name in ("prospect", "new", "big", "middle", "small")],
    }
    assert all(store.lists[f"worklist_{segment}"].popitem()[1] > 0 for segment in (*TIERS, Segment.NEW_START))
    assert store.figures == {("software", "mid"): (5, 4, 3, 1_000, 500**2 + 400**2 + 100**2)}


def test_a_prospect_that_is_described_is_in_its_new_place_at_once() -> None:
    """It does not wait until it is placed; nor does its new owner."""
    _, worklist, store = new_worklist()
    store.put(worklist.describe("prospect", SOFTWARE._replace(fit=100, owner="Lee")))
    assert [*store.lists["worklist_prospect"]] == ["software\x1fmid\x00100\x00prospect"]
    assert "Lee\x00prospect" in store.lists["owners"]
    assert "Kim\x00prospect" not in store.lists["owners"]
    store.put(worklist.describe("prospect", NO_TRAITS))
    assert [*store.lists["worklist_prospect"]] == ["unknown\x1funknown\x00000\x00prospect"]
    assert not [entry for entry in store.lists["owners"] if account_of(entry) == "prospect"]


def test_a_description_that_says_nothing_new_changes_nothing() -> None:
    """What it takes out it puts in again."""
    _, worklist, store = new_worklist()
    places = store.places()
    for account_id, traits in store.traits.items():
        store.put(worklist.describe(account_id, traits))
    assert store.places() == places


def test_after_a_claim_a_described_account_leaves_its_old_place() -> None:
    """Nobody knows where it is listed: its entry as a prospect goes at once, and it is put where it belongs later."""
    population, _, store = new_worklist()
    worklist = Worklist(ASSESSOR)
    for account_id, traits in store.traits.items():
        worklist.know(account_id, traits)
    for account_id in store.traits:
        store.put(worklist.describe(account_id, NO_TRAITS))
    assert store.lists["worklist_prospect"] == store.lists["owners"] == {}
    bring(population, worklist, store)
    assert [*store.lists["worklist_prospect"]] == ["unknown\x1funknown\x00000\x00prospect"]
    assert len(store.places()) == 5


def test_the_first_purchase_moves_an_account_from_the_prospects_to_the_new_starts() -> None:
    """Also where its traits changed in between."""
    population, worklist, store = new_worklist()
    population.apply([standing("prospect", Stage.NEW_START, 50, 2)], 0)
    store.put(worklist.describe("prospect", SOFTWARE._replace(fit=0)))
    bring(population, worklist, store)
    assert [*store.lists["worklist_new_start"]] == ["new", "prospect"]
    assert store.lists["worklist_prospect"] == {}


def test_the_figures_of_a_class_without_accounts_are_gone() -> None:
    """And the class is among those that changed, so that whoever stores them takes it out. One left behind stays."""
    population, worklist, store = new_worklist(small=NO_TRAITS)
    assert set(store.figures) == {("software", "mid"), ("unknown", "unknown")}
    store.put(worklist.describe("small", SOFTWARE))
    assert worklist.changed == set()
    worklist.count(population.members["small"])
    assert worklist.changed == {("software", "mid"), ("unknown", "unknown")}
    assert set(worklist.figures) == {("software", "mid")}
    store.put(worklist.describe("new", NO_TRAITS))
    worklist.count(population.members["new"])
    assert {path: figures.accounts for path, figures in worklist.figures.items()} == {
        ("software", "mid"): 4,
        ("unknown", "unknown"): 1,
    }


def test_an_account_that_is_as_it_was_changes_no_figures() -> None:
    """So nothing is to be stored; an account is counted once, however often that is asked."""
    population, worklist, store = new_worklist()
    bring(population, worklist, store)
    for member in population.members.values():
        worklist.count(member)
    assert worklist.changed == set()
    assert store.figures[("software", "mid")][0] == 5
    population.apply([standing("small", Stage.ESTABLISHED, 101, 2)], 0)
    worklist.count(population.members["small"])
    assert worklist.changed == {("software", "mid")}


# The names of entries.


names = st.text(st.characters(min_codepoint=0x20, blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(st.lists(names, max_size=3).map(tuple), st.integers(0, 100), names, names)
def test_an_entry_says_whose_it_is(path: ClassPath, fit: int, owner: str, account_id: str) -> None:
    """And a class is made again from its name."""
    traits = Traits(path, fit, owner, "")
    assert class_path(class_name(path)) == path
    assert account_of(prospect_entry(traits, account_id)) == account_id
    assert account_of(owner_entry(traits, account_id)) == account_id
    assert account_of(account_id) == account_id


described = st.builds(
    Traits,
    st.tuples(st.text("ab-~", min_size=1, max_size=3), st.text("ab", min_size=1)),
    st.integers(0, 100),
    st.just(""),
    st.just(""),
)


@given(st.lists(st.tuples(described, st.text("ab~", min_size=1, max_size=3)), max_size=12))
def test_prospects_are_listed_by_class_and_fit(prospects: list[tuple[Traits, str]]) -> None:
    """As bytes are ordered: a class's prospects are together, the ones that fit best last."""
    by_entry = sorted(prospects, key=lambda one: prospect_entry(*one).encode())
    assert by_entry == sorted(prospects, key=lambda one: (class_name(one[0].class_path), one[0].fit, one[1]))


# One account.


def estimates_of(*revenues_minor: int, prospects: int = 0, path: ClassPath = ("software", "mid")) -> ClassEstimates:
    """Of a population of one class."""
    figures = ClassFigures()
    for revenue_minor in revenues_minor:
        figures.count(Stage.ESTABLISHED, revenue_minor)
    for _ in range(prospects):
        figures.count(Stage.PROSPECT, 0)
    return ClassEstimates({path: figures})


def risk_of(bought: int = 5) -> Risk:
    """Bought on so many days, 21 days apart, the last time ten days ago."""
    risk = Risk()
    last_day = DAY - 10
    risk.know(last_day - 21 * (bought - 1), last_day, bought, bought)
    return risk


class Case(NamedTuple):
    """An account and its surroundings; assess it with `assessed`."""

    stage: Stage = Stage.ESTABLISHED
    revenue_minor: int = 10_000
    tier: int | None = 1
    risk: Risk | None = None
    traits: Traits = SOFTWARE
    estimates: ClassEstimates = estimates_of(20_000, 30_000, 40_000, prospects=9)
    rises: tuple[int | None, ...] = (None, 12_000, 10_500)
    day: int = DAY

    def assessed(self, **changes: Any) -> Assessment:
        """With these changes."""
        stage, revenue_minor, tier, risk, traits, estimates, rises, day = self._replace(**changes)
        member = Member("acme", stage=stage, revenue_minor=revenue_minor, tier=tier, risk=risk)
        return ASSESSOR.assess(member, traits, day, estimates, rises)


RANKED = Case(risk=risk_of())
NEW_START = Case(Stage.NEW_START, 3_000, None, risk_of(2))
PROSPECT = Case(Stage.PROSPECT, 0, None)


def test_what_is_missing_to_the_next_tier() -> None:
    """Above the best tier there is none, nor is there for who is not ranked or where no revenue is enough."""
    assert [RANKED.assessed(tier=tier).to_next_tier_minor for tier in (0, 1, 2, None)] == [None, 2_000, 500, None]
    assert RANKED.assessed(revenue_minor=12_345).to_next_tier_minor == 0
    assert RANKED.assessed(rises=(None, None, 10_500)).to_next_tier_minor is None
    assert NEW_START.assessed().to_next_tier_minor is PROSPECT.assessed().to_next_tier_minor is None
    assert RANKED.assessed(tier=1).priority.closeness_minor == (10_000 - 2_000) / 2
    assert RANKED.assessed(tier=0).priority.closeness_minor == 0


@pytest.mark.parametrize("band", [0, 500])
def test_what_is_missing_to_the_next_tier_takes_an_account_there(band: int) -> None:
    """And a cent less does not: with the band that holds it where it is."""
    for name in (f"a{n}" for n in range(20)):
        for short_minor in (0, 1):
            population = population_of(Basis.ACCOUNTS, band)
            population.apply([standing(f"a{n}", Stage.ESTABLISHED, 100 + 10 * n, 1) for n in range(20)], 0)
            member = population.members[name]
            before, rises = member.tier, rises_of(population)
            needed = ASSESSOR.assess(member, NO_TRAITS, DAY, estimates_of(100), rises).to_next_tier_minor
            assert before is not None
            assert (needed is None) == (before == 0)
            if needed is not None:
                population.apply([standing(name, Stage.ESTABLISHED, member.revenue_minor + needed - short_minor, 2)], 0)
                assert member.tier is not None
                assert (member.tier < before) == (not short_minor), f"{name} from {before}"


def test_an_established_account_is_judged_by_its_own_purchases() -> None:
    """Whatever its class brings."""
    found = RANKED.assessed()
    buyer = Buyer(risk_of().history(DAY), 10_000, 5)
    assert found.potential == ASSESSOR.potential.of_buyer(buyer)
    assert found.potential is not None
    assert (found.potential.class_path, found.potential.conversion, found.potential.accounts) == (None, None, 1)
    assert RANKED.assessed(estimates=estimates_of(10**9)) == RANKED.assessed(estimates=estimates_of()) == found
    assert RANKED.assessed(tier=None).potential == found.potential


def test_a_new_start_is_judged_by_its_class() -> None:
    """Its own first purchases say too little, whatever they were; how likely it is to buy again is its own."""
    found = NEW_START.assessed()
    assert found.potential is not None
    assert found.potential[0] == 30_000
    assert found.potential[3:] == (None, ("software", "mid"), 3)
    assert NEW_START.assessed(revenue_minor=9 * 10**6).potential == found.potential
    assert found.odds == risk_of(2).odds(ASSESSOR.risk, DAY)
    assert found.revenue_at_risk_minor > 0


def test_a_prospect_is_judged_by_its_class_and_has_nothing_to_lose() -> None:
    """Three of twelve accounts have bought: it is worth a quarter of a buyer, and what of that fits."""
    found = PROSPECT.assessed()
    assert found.potential is not None
    assert found.potential[0] == 7_500
    assert found.potential[3:] == (0.25, ("software", "mid"), 3)
    assert (found.odds, found.revenue_at_risk_minor, found.to_next_tier_minor) == (None, 0, None)
    assert found.priority == (7_500, 0, 7_500 * 0.6 * 0.5, 0)


@pytest.mark.parametrize("nobody", [estimates_of(), estimates_of(prospects=3), ClassEstimates({})])
def test_while_nobody_is_established_a_new_start_is_judged_by_its_own_purchases(nobody: ClassEstimates) -> None:
    """They are all that anybody knows. Of a prospect nobody knows anything, so nothing is expected of it."""
    buyer = Buyer(risk_of(2).history(DAY), 3_000, 2)
    assert NEW_START.assessed(estimates=nobody).potential == ASSESSOR.potential.of_buyer(buyer)
    found = PROSPECT.assessed(estimates=nobody)
    assert found.potential is None
    assert found.priority == (0, 0, 0, 0)


@pytest.mark.parametrize("risk", [None, Risk()])
def test_an_established_account_whose_purchases_are_not_known_yet_is_judged_by_its_class(risk: Risk | None) -> None:
    """The store has lost them, or only what was told of it is known."""
    found = RANKED.assessed(risk=risk)
    assert found.potential is not None
    assert found.potential.class_path == ("software", "mid")
    assert (found.odds, found.revenue_at_risk_minor) == (None, 0)


def test_what_may_be_lost_is_that_of_the_risk() -> None:
    """As of the day; of one before the last purchase, as of that purchase. It counts twice in the default policy."""
    risk = risk_of()
    for day, as_of in ((DAY, DAY), (DAY + 200, DAY + 200), (DAY - 50, DAY - 10)):
        found, odds = RANKED.assessed(day=day), risk.odds(ASSESSOR.risk, as_of)
        assert found.odds == odds
        at_risk_minor = ASSESSOR.risk.revenue_at_risk_minor(risk.history(as_of), 10_000, odds)
        assert found.revenue_at_risk_minor == at_risk_minor > 0
        assert found.priority.revenue_at_risk_minor == 2 * at_risk_minor


def test_a_silent_account_has_no_potential_but_may_still_be_lost() -> None:
    """What it brought in the window is at risk until it leaves it."""
    found = RANKED.assessed(day=DAY + 365)
    assert found.potential == Potential(0, 0, 0, None, None, 1)
    assert found.revenue_at_risk_minor > 0
