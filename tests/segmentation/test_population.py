"""A population against its definitions: who changes, why, in one chain, whatever is lost and read again."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

import pytest

from segmentation.account import Account, Reason, Standing, entry_id_of
from segmentation.events import MICROSECONDS_PER_DAY, Purchase
from segmentation.order_index import Basis, Share
from segmentation.policy import Policy
from segmentation.population import CauseKind, Change, Direction, Population
from segmentation.segments import Segment, Stage
from segmentation.transfers import Told
from segmentation.what_if import what_if
from tests.segmentation.brute_force import position
from tests.segmentation.reference_population import (
    Chains,
    Expected,
    ReferencePopulation,
    copy_of,
    snapshot,
)

BOUNDARIES = (3000, 8000)
NOON_US = MICROSECONDS_PER_DAY // 2

Log = list[tuple[list[Standing], int]]
"""Batches of standings, each with its clock."""


class World:
    """Accounts that live as accounts do: sign up, buy, graduate, lapse, come back; each step is a standing."""

    def __init__(self, rng: random.Random, size: int, revenue_max: int) -> None:
        self.rng = rng
        self.size = size
        self.revenue_max = revenue_max
        self.day = 1_000
        self.standings: dict[str, Standing] = {}

    @property
    def clock_us(self) -> int:
        return self.day * MICROSECONDS_PER_DAY

    def batch(self) -> list[Standing]:
        """Some accounts' next standings, now and then several of one, or an old one again."""
        rng = self.rng
        if rng.random() < 0.3:
            self.day += rng.choice((1, 1, 5))
        batch = []
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8, rng.randint(1, self.size)))):
            account_id = f"account-{rng.randrange(self.size)}"
            old = self.standings.get(account_id)
            if old is not None and rng.random() < 0.1:
                batch.append(old._replace(version=old.version - rng.randint(0, 1), day=old.day - 1))
                continue
            batch.append(self._next(account_id, old))
        return batch

    def _next(self, account_id: str, old: Standing | None) -> Standing:
        rng = self.rng
        stage, revenue = (old.stage, old.revenue_minor) if old else (Stage.PROSPECT, 0)
        reason, is_event = Reason.ENGAGEMENT, True
        chance = rng.random()
        if old is None and chance < 0.3:
            reason = rng.choice((Reason.SIGNUP, Reason.ENGAGEMENT, Reason.REFUND))
        elif stage == Stage.PROSPECT:
            stage, reason = rng.choice((Stage.NEW_START, Stage.ESTABLISHED)), Reason.PURCHASE
            revenue = rng.randint(0, self.revenue_max)
        elif stage == Stage.NEW_START and chance < 0.5:
            stage, reason, is_event = Stage.ESTABLISHED, Reason.GRADUATED, False
        elif chance < 0.15:
            revenue, reason, is_event = 0, Reason.WINDOW_EXPIRY, False
        elif chance < 0.3:
            revenue, reason, is_event = revenue // 2, Reason.WINDOW_EXPIRY, False
        elif chance < 0.4:
            revenue, reason = revenue - rng.randint(0, self.revenue_max), Reason.REFUND
        elif chance < 0.6:
            revenue, reason = revenue + rng.choice((0, 1, 1, 2)), Reason.PURCHASE
        else:
            revenue, reason = revenue + rng.randint(0, self.revenue_max), Reason.PURCHASE
        version = (old.version if old else 0) + (1 if is_event else 0)
        if not is_event and old is not None and old.day == self.day:
            version += 1  # it was advanced to the day by an event that changed nothing
        occurred_at_us = self.clock_us + rng.choice((-NOON_US, 0, NOON_US, 3 * NOON_US))
        standing = Standing(
            account_id,
            str(stage),
            revenue,
            max(1, version),
            self.day,
            str(reason),
            f"event-{rng.randrange(10**9)}" if is_event else None,
            occurred_at_us if is_event else None,
        )
        self.standings[account_id] = standing
        return standing


def new_population(basis: Basis, band: int, like: Population | None = None) -> Population:
    """An empty population, or one that starts again from what another one's members are."""
    members = [copy_of(member) for member in like.members.values()] if like else []
    return Population("all", basis=basis, boundaries=BOUNDARIES, band=band, members=members)


def assert_on_allowed_sides(population: Population, basis: Basis, band: int) -> None:
    """Every ranked account is where its position allows it to be; without a band that is one place."""
    ranked = [member for member in population.members.values() if member.tier is not None]
    revenues = [member.revenue_minor for member in ranked]
    for member in ranked:
        above, total = position(revenues, member.revenue_minor, basis)
        assert member.tier is not None
        for number, boundary in enumerate(BOUNDARIES):
            if member.tier <= number:
                assert above * 10_000 < (boundary + band) * total
            else:
                assert above * 10_000 >= (boundary - band) * total


CONFIGURATIONS = [*product(Basis, (0, 200, 900), (2, 12, 40), (4, 60, 10**15))]


@pytest.mark.parametrize(("basis", "band", "size", "revenue_max"), CONFIGURATIONS)
def test_a_population_is_what_its_definitions_say(basis: Basis, band: int, size: int, revenue_max: int) -> None:
    """After every batch: segments, tiers, exactly the changes that follow, their causes and their numbers."""
    world = World(random.Random(f"{basis} {band} {size} {revenue_max}"), size, revenue_max)
    population, reference = new_population(basis, band), ReferencePopulation(basis, BOUNDARIES, band)
    chains = Chains()
    for _ in range(80):
        if world.rng.random() < 0.1:
            population = new_population(basis, band, population)
        batch = world.batch()
        stored, cutoffs = snapshot(population), reference.tiers.cutoffs()
        tiers = {account_id: reference.tiers.tier(account_id) for account_id in reference.latest}
        expected = reference.apply(batch)
        changes, written = population.apply(batch, world.clock_us)
        chains.tell(changes)
        assert [
            Expected(
                change.account_id,
                change.previous_segment,
                change.current_segment,
                change.cause.kind,
                change.cause.event_id,
                change.cause.own_change_minor,
                change.lapsed,
            )
            for change in changes
        ] == expected
        for change in changes:
            account_id = change.account_id
            assert change.population == "all"
            assert change.rolling_revenue_minor == reference.latest[account_id].revenue_minor
            assert change.position_revenue == reference.share(account_id, Basis.REVENUE)
            assert change.position_accounts == reference.share(account_id, Basis.ACCOUNTS)
            assert change.cutoffs_minor == reference.tiers.cutoffs()
            was, now = tiers.get(account_id), reference.tiers.tier(account_id)
            if was is not None and now is not None:
                crossed = now if now < was else now - 1
                old, new = cutoffs[crossed], change.cutoffs_minor[crossed]
                moved = None if old is None or new is None else new - old
                assert change.cause.cutoff_change_minor == moved
            else:
                assert change.cause.cutoff_change_minor is None
        now_stored = snapshot(population)
        different = {account_id for account_id in now_stored if now_stored[account_id] != stored.get(account_id)}
        assert different <= {member.account_id for member in written}, "a member changed and is not written"
        assert len({member.account_id for member in written}) == len(written)
        for account_id, member in population.members.items():
            assert member.segment == member.current_segment == reference.segment(account_id)
            assert member.tier == reference.tiers.tier(account_id)
            assert member.lapsed == reference.is_lapsed(account_id)
        population.tiers._check()
        assert_on_allowed_sides(population, basis, band)


def test_the_configurations_see_every_cause() -> None:
    """The accounts above live full lives: no cause is left untried."""
    seen: Counter[CauseKind] = Counter()
    for basis, band in product(Basis, (0, 200)):
        world = World(random.Random(f"{basis} {band}"), 12, 60)
        population = new_population(basis, band)
        for _ in range(400):
            changes, _ = population.apply(world.batch(), world.clock_us)
            seen.update(change.cause.kind for change in changes)
    untried = set(CauseKind) - set(seen)
    assert untried <= {
        CauseKind.BACKFILL,
        CauseKind.RECOVERED,
        CauseKind.REVENUE_DUE,
        CauseKind.POLICY_CHANGED,
        CauseKind.POPULATION_CHANGED,
    }


@pytest.mark.parametrize(("basis", "band"), [*product(Basis, (0, 200))])
@pytest.mark.parametrize("compacted", [False, True])
def test_after_a_rollback_the_chains_go_on(basis: Basis, band: int, compacted: bool) -> None:
    """The store goes back, the log does not: what was told is learnt, read again in silence, and then told on."""
    rng = random.Random(f"{basis} {band} {compacted}")
    for _ in range(30):
        world = World(rng, rng.choice((2, 10, 25)), 60)
        population, chains = new_population(basis, band), Chains()
        log: Log = []
        _live(population, world, chains, log, rng.randint(0, 10))
        saved, saved_at, told_then = new_population(basis, band, population), len(log), len(chains.changes)
        _live(population, world, chains, log, rng.randint(0, 10))
        expected = population.members
        population = saved
        newer = chains.changes[told_then:]
        if compacted:
            newer = list({change.account_id: change for change in newer}.values())
        for change in chains.changes[max(0, told_then - 5) : told_then] + newer:
            stored = snapshot(population)
            is_news = population.was_told(change.account_id, 0, told_of(change))
            assert is_news == (snapshot(population) != stored) or change.account_id not in population.members
        population.muted = True
        for batch, clock_us in _cut_again(log[saved_at:], rng):
            changes, _ = population.apply(batch, clock_us)
            assert changes == []
        stored = snapshot(population)
        written = population.unmute()
        untold = population.untold()
        changes = []
        for first in range(0, len(untold), 3):
            some, members = population.announce(untold[first : first + 3], world.clock_us)
            changes += some
            written += members
        chains.tell(changes)
        assert {change.account_id for change in changes} <= {member.account_id for member in written}
        now = snapshot(population)
        assert {name for name in now if now[name] != stored[name]} <= {member.account_id for member in written}
        assert {change.cause.kind for change in changes} <= {CauseKind.RECOVERED, CauseKind.BACKFILL}
        if band == 0:
            assert changes == [], "everything had been told"
            assert {name: m.tier for name, m in expected.items()} == {
                name: m.tier for name, m in population.members.items()
            }
        _live(population, world, chains, log, rng.randint(1, 10))
        for account_id, member in population.members.items():
            assert member.segment == member.current_segment == chains.last[account_id].current_segment
            assert member.sequence == chains.last[account_id].sequence
        assert_on_allowed_sides(population, basis, band)


def told_of(change: Change) -> Told:
    """What the world was told by a change."""
    fall_day = change.effective_at_us // MICROSECONDS_PER_DAY if change.direction is Direction.DOWN else 0
    return Told(change.population, change.sequence, change.current_segment, change.effective_at_us, fall_day)


def _live(population: Population, world: World, chains: Chains, log: Log, count: int) -> None:
    """So many batches happen, are logged and told."""
    for _ in range(count):
        log.append((world.batch(), world.clock_us))
        chains.tell(population.apply(*log[-1])[0])


def _cut_again(log: Log, rng: random.Random) -> Iterable[tuple[list[Standing], int]]:
    """The same standings in other batches: some joined, and some told twice."""
    at = 0
    while at < len(log):
        count = rng.choice((1, 1, 2, 4))
        joined = [standing for batch, _ in log[at : at + count] for standing in batch]
        clock_us = log[min(at + count, len(log)) - 1][1]
        yield joined, clock_us
        if rng.random() < 0.3:
            yield joined, clock_us
        at += count


def standing(
    account_id: str,
    revenue_minor: int,
    version: int,
    *,
    stage: Stage = Stage.ESTABLISHED,
    reason: Reason = Reason.PURCHASE,
    day: int = 1_000,
    occurred_at_us: int | None = 1_000 * MICROSECONDS_PER_DAY,
) -> Standing:
    """An established account's standing after a purchase, unless said otherwise."""
    is_event = reason in (Reason.PURCHASE, Reason.REFUND, Reason.SIGNUP, Reason.ENGAGEMENT)
    return Standing(
        account_id,
        str(stage),
        revenue_minor,
        version,
        day,
        str(reason),
        f"{account_id}-{version}" if is_event else None,
        occurred_at_us if is_event else None,
    )


CLOCK_US = 1_000 * MICROSECONDS_PER_DAY


def test_nobody_with_revenue_is_a_population_of_none() -> None:
    """With a total of 0 there are no positions and no cutoffs; established accounts are lapsed."""
    population = new_population(Basis.REVENUE, 0)
    changes, _ = population.apply([standing("a", 0, 1), standing("b", -5, 1)], CLOCK_US)
    assert [(c.current_segment, c.lapsed, c.position_revenue) for c in changes] == [
        (Segment.COMMERCIAL, True, None)
    ] * 2
    assert changes[0].cutoffs_minor == (None, None)
    assert changes[0].to_next_tier_up_minor is changes[0].to_next_tier_down_minor is None
    assert population.apply([], CLOCK_US) == ([], [])


def test_one_account_with_everything_is_key() -> None:
    """Alone it is at position 0, and so it is beside any number of small ones."""
    for basis in Basis:
        population = new_population(basis, 200)
        changes, _ = population.apply([standing("giant", 10**18, 1)], CLOCK_US)
        assert [(c.current_segment, c.position_revenue) for c in changes] == [(Segment.KEY, Share(0, 10**18))]
    population = new_population(Basis.REVENUE, 0)
    changes, _ = population.apply(
        [standing("giant", 10**18, 1), *(standing(f"small-{n}", 1 + n, 1) for n in range(9))], CLOCK_US
    )
    assert {c.account_id: c.current_segment for c in changes} == {
        "giant": Segment.KEY,
        **{f"small-{n}": Segment.COMMERCIAL for n in range(9)},
    }


def test_equal_accounts_are_in_one_tier() -> None:
    """No tie-break exists: all are at position 0, and one cent lifts one of them above all others."""
    population = new_population(Basis.ACCOUNTS, 0)
    changes, _ = population.apply([standing(f"a{n}", 100, 1) for n in range(10)], CLOCK_US)
    assert {c.current_segment for c in changes} == {Segment.KEY}
    changes, _ = population.apply([standing(f"a{n}", 101, 2) for n in range(8)], CLOCK_US)
    assert [(c.account_id, c.current_segment, c.cause.kind) for c in changes] == [
        ("a8", Segment.COMMERCIAL, CauseKind.BOUNDARY_MOVED),
        ("a9", Segment.COMMERCIAL, CauseKind.BOUNDARY_MOVED),
    ]


def test_a_displaced_account_that_leaves_in_the_same_batch_moves_once() -> None:
    """The boundary passes it by while it lapses: it lapsed, and nothing else happened to it."""
    population = new_population(Basis.REVENUE, 0)
    population.apply([standing("a", 100, 1), standing("b", 60, 1), standing("c", 10, 1)], CLOCK_US)
    assert population.members["b"].segment is Segment.ENTERPRISE
    changes, _ = population.apply(
        [
            standing("a", 10_000, 2),
            standing("b", 0, 1, reason=Reason.WINDOW_EXPIRY, day=1_001),
        ],
        CLOCK_US,
    )
    assert [(c.account_id, c.cause.kind, c.lapsed) for c in changes] == [("b", CauseKind.LAPSED, True)]
    assert changes[0].cause.own_change_minor == -60
    assert changes[0].direction is Direction.DOWN


def test_of_two_standings_of_an_account_the_newer_counts() -> None:
    """In whatever order they stand in the batch, and there is one change."""
    first = standing("a", 0, 1, stage=Stage.PROSPECT, reason=Reason.SIGNUP)
    second = standing("a", 70, 2, stage=Stage.NEW_START)
    for batch in ([first, second], [second, first]):
        population = new_population(Basis.REVENUE, 0)
        changes, _ = population.apply(batch, CLOCK_US)
        assert [(c.current_segment, c.cause.kind, c.cause.event_id) for c in changes] == [
            (Segment.NEW_START, CauseKind.FIRST_PURCHASE, "a-2")
        ]
        assert changes[0].cause.own_change_minor == 70


def test_there_and_back_in_one_batch_is_no_change() -> None:
    """A batch is one instant: what was undone within it never was."""
    population = new_population(Basis.REVENUE, 0)
    population.apply([standing("a", 100, 1), standing("b", 60, 1), standing("c", 10, 1)], CLOCK_US)
    changes, _ = population.apply([standing("b", 1_000, 2), standing("b", 60, 3, reason=Reason.REFUND)], CLOCK_US)
    assert changes == []
    assert population.members["b"].version == 3


@pytest.mark.parametrize(("version", "day"), [(1, 1_000), (2, 999), (1, 999), (2, 1_000)])
def test_a_standing_that_is_no_news_is_skipped(version: int, day: int) -> None:
    """A sender that went back comes to the newer ones again; until then it knows less than was told."""
    population = new_population(Basis.REVENUE, 0)
    population.apply([standing("a", 100, 2), standing("b", 1, 1)], CLOCK_US)
    stored = snapshot(population)
    stale = standing("a", 0, version, stage=Stage.PROSPECT, reason=Reason.SIGNUP, day=day)
    assert population.apply([stale], CLOCK_US) == ([], [])
    assert snapshot(population) == stored


@pytest.mark.parametrize("days", [(0, 0, 5, 9), (3, 11, 11, 11), (9, 9, 9, 9), (0, 0, 0, 0)])
@pytest.mark.parametrize("step", [1, 4, 100])
@pytest.mark.parametrize("told", range(1, 10))
def test_a_sender_that_went_back_and_reads_in_another_order_ends_at_the_same_revenue(
    days: tuple[int, ...], step: int, told: int
) -> None:
    """Purchases in their order, but days pass elsewhere between them, or several at once: what is told last holds."""
    policy = Policy.default().with_changes(window_days=10, new_start_days=0, band=0)
    purchases = [(985, 500), (986, 200), (987, -200), (994, 500)]
    """The last one is dated ahead. When it has come the first three leave, which together are as much."""

    def history(advance_before: Sequence[int], step: int) -> list[Standing]:
        """The account's standings, if the clock reaches day 990 and so many before these purchases, in such steps."""
        account, standings = Account("a"), []

        def advance_to(day: int) -> None:
            while account.day < day:
                if account.advance(min(day, max(account.day, 990) + step), policy) is not None:
                    standings.append(_standing_of(account))

        account.advance(990, policy)
        for (day, amount), days in zip(purchases, advance_before, strict=True):
            advance_to(990 + days)
            event = Purchase("a", f"{day}", 985 * MICROSECONDS_PER_DAY, day, amount, amount < 0)
            account.apply(event, entry_id_of(event), policy)
            standings.append(_standing_of(account))
        advance_to(1_001)
        return standings

    before, after = history((0, 2, 2, 2), 1), history(days, step)
    population = new_population(Basis.REVENUE, 0)
    for batch in (*before[:told], *after):
        population.apply([batch], CLOCK_US)
    member = population.members["a"]
    assert (member.revenue_minor, member.stage) == (after[-1].revenue_minor, after[-1].stage)
    assert before[-1].revenue_minor == after[-1].revenue_minor == 500


def _standing_of(account: Account) -> Standing:
    stage = account.stage(0)
    return Standing("a", stage, account.revenue_minor, account.version, account.day, Reason.PURCHASE, None, None)


def test_a_change_is_effective_when_its_own_event_happened() -> None:
    """Where that is not before the clock nor on a later day than the clock's; others' changes are at the clock."""
    noon = CLOCK_US + NOON_US
    cases = {
        noon: noon,
        CLOCK_US: CLOCK_US,
        CLOCK_US - 1: CLOCK_US,
        CLOCK_US + MICROSECONDS_PER_DAY - 1: CLOCK_US + MICROSECONDS_PER_DAY - 1,
        CLOCK_US + MICROSECONDS_PER_DAY: CLOCK_US,
    }
    for occurred_at_us, effective_at_us in cases.items():
        population = new_population(Basis.REVENUE, 0)
        changes, _ = population.apply([standing("a", 1, 1, occurred_at_us=occurred_at_us)], CLOCK_US)
        assert [change.effective_at_us for change in changes] == [effective_at_us]
    population = new_population(Basis.ACCOUNTS, 0)
    population.apply([standing("a", 5, 1)], CLOCK_US)
    changes, _ = population.apply([standing("b", 9, 1, occurred_at_us=noon)], CLOCK_US)
    assert {c.account_id: c.effective_at_us for c in changes} == {"a": CLOCK_US, "b": noon}


def test_the_effective_instant_of_an_account_never_goes_back() -> None:
    """A change at the clock after one at its event's own instant, later that day, is as late as that."""
    noon = CLOCK_US + NOON_US
    population = new_population(Basis.ACCOUNTS, 0)
    population.apply([standing("a", 5, 1, occurred_at_us=noon)], CLOCK_US)
    changes, _ = population.apply([standing("b", 9, 1, occurred_at_us=CLOCK_US)], CLOCK_US)
    assert {c.account_id: c.effective_at_us for c in changes} == {"a": noon, "b": CLOCK_US}


def test_a_muted_population_tells_everything_at_once_later() -> None:
    """What happened in silence is one change for each account, from what was told to what is."""
    population = new_population(Basis.ACCOUNTS, 0)
    population.apply([standing("a", 5, 1)], CLOCK_US)
    population.muted = True
    for n in range(3):
        changes, written = population.apply([standing("b", 9 + n, 1 + n)], CLOCK_US)
        assert changes == []
        assert "b" in {member.account_id for member in written}
    population.unmute()
    assert population.untold() == ["a", "b"]
    changes, members = population.announce(population.untold(), CLOCK_US)
    assert [member.account_id for member in members] == ["a", "b"]
    assert [(c.account_id, c.sequence, c.previous_segment, c.current_segment) for c in changes] == [
        ("a", 2, Segment.KEY, Segment.ENTERPRISE),
        ("b", 1, None, Segment.KEY),
    ]
    assert [c.cause.kind for c in changes] == [CauseKind.RECOVERED, CauseKind.BACKFILL]
    assert (population.unmute(), population.untold()) == ([], [])


def test_what_was_told_of_an_account_that_is_not_known_yet_waits_for_its_standing() -> None:
    """The store lost the account, the log did not: nothing is announced for it until its standing is back."""
    population = new_population(Basis.REVENUE, 0)
    population.muted = True
    assert population.was_told("a", 0, Told("all", 4, Segment.KEY, CLOCK_US))
    assert not population.was_told("a", 0, Told("all", 3, Segment.COMMERCIAL, CLOCK_US))
    assert (population.unmute(), population.untold()) == ([], [])
    changes, _ = population.apply([standing("a", 5, 1)], CLOCK_US)
    assert changes == []
    changes, _ = population.apply([standing("a", 0, 2, reason=Reason.REFUND)], CLOCK_US)
    assert [(c.sequence, c.previous_segment) for c in changes] == [(5, Segment.KEY)]


@pytest.mark.parametrize("seed", range(60))
def test_another_policy_moves_whom_the_preview_says(seed: int) -> None:
    """What `policy diff` says is what applying does: the same accounts, to the same segments, and nobody else."""
    rng = random.Random(seed)
    world, basis, band = World(rng, 30, 60), rng.choice(list(Basis)), rng.choice((0, 200))
    population = new_population(basis, band)
    for _ in range(60):
        population.apply(world.batch(), world.clock_us)
    present = Policy.default().with_changes(basis=str(basis), band=band // 100)
    other = Policy.default().with_changes(
        basis=str(rng.choice(list(Basis))),
        band=rng.choice((0, 1, 3)),
        tiers=rng.choice(
            ({"key": 10, "enterprise": 60, "commercial": 30}, {"key": 40, "enterprise": 50, "commercial": 10})
        ),
    )
    expected = what_if({"all": population.members.values()}, present, other)
    before = {name: member.segment for name, member in population.members.items()}
    population.muted = True
    population.adopt(basis=Basis(other.basis), boundaries=other.boundaries, band=other.band_bp)
    population.blame_policy()
    population.tiers._check()
    changes, _ = population.announce(population.untold(), world.clock_us)
    assert {(c.account_id, c.previous_segment, c.current_segment) for c in changes} == {
        (shift.account_id, shift.previous, shift.current) for shift in expected.shifts
    }
    assert {change.cause.kind for change in changes} <= {CauseKind.POLICY_CHANGED}
    assert all(before[change.account_id] is change.previous_segment for change in changes)
    assert not population.displaced_by_policy


def test_what_happens_before_a_policy_is_told_is_told_with_it() -> None:
    """An account that is bought from while its change by the policy waits to be told has one change, by the policy."""

    def standing(name: str, revenue_minor: int, version: int) -> Standing:
        return Standing(name, "established", revenue_minor, version, 1, "purchase", f"{name}{version}", None)

    population = new_population(Basis.ACCOUNTS, 0)
    population.apply([standing(name, 100 * n, 1) for n, name in enumerate("abcdefghij", 1)], 1)
    population.muted = True
    population.adopt(basis=Basis.ACCOUNTS, boundaries=(1_000, 2_000), band=0)
    population.blame_policy()
    waiting = set(population.displaced_by_policy)
    assert "h" in waiting
    changes, _ = population.apply([standing("h", 790, 2)], 2)
    assert [(c.account_id, c.cause.kind, c.cause.event_id) for c in changes] == [("h", CauseKind.POLICY_CHANGED, None)]
    assert population.displaced_by_policy == waiting - {"h"}
    changes, _ = population.apply([standing("a", 5_000, 3)], 3)
    assert [c.cause.kind for c in changes if c.account_id == "a"] == [CauseKind.PURCHASE]
