"""Hand-overs from population to population: one holder at any moment, whatever comes twice, late or out of order."""

import random
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from segmentation.account import Standing
from segmentation.order_index import Basis
from segmentation.population import Change, Population
from segmentation.segments import Segment
from segmentation.transfers import Departure, HandOver, Told, Transfers

CLOCK_US = 20_000 * 86_400_000_000
HOME = "unknown"
NAMES = (HOME, "north", "south")

Message = Standing | Departure | HandOver


class World:
    """One account, populations that rank it in turn, and what is on its way to each of them."""

    def __init__(self, stays: list[str]) -> None:
        self.populations = {
            name: Population(name, basis=Basis.REVENUE, boundaries=(3000, 8000), band=0) for name in NAMES
        }
        self.told: list[Change] = []
        self.queues: dict[str, list[Message]] = {name: [] for name in NAMES}
        self.last = stays[-1]
        before = HOME
        for transfer, population in enumerate(stays):
            if transfer:
                self.queues[before].append(Departure("a", transfer, before, population))
            for version in (2 * transfer + 1, 2 * transfer + 2):
                revenue = 100 * version
                standing = Standing("a", "established", revenue, version, 20_000, "purchase", "e", None)
                self.queues[population].append(standing._replace(population=population, transfer=transfer))
            before = population
        for name, rival in (("north", 350), ("south", 50), (HOME, 10_000)):
            other = Standing(f"other {name}", "established", rival, 1, 20_000, "purchase", "e", None)
            # where it begins no account needs a hand-over
            self.take(name, other._replace(population=name))

    def take(self, name: str, message: Message) -> None:
        """Let a population take a message."""
        population, leaving, standings = self.populations[name], list[str](), list[Standing]()
        sent: HandOver | Standing | None = None
        if isinstance(message, Departure):
            sent, is_member = population.depart(message)
            leaving = [message.account_id] * is_member
        elif isinstance(message, HandOver):
            sent = population.arrive(message)
        else:
            standings = [message]
        if isinstance(sent, HandOver):
            self.queues[sent.to].append(sent)
        elif sent is not None:
            standings = [sent]
        changes, _ = population.apply(standings, CLOCK_US, leaving)
        self.told += [change for change in changes if change.account_id == "a"]

    @property
    def here(self) -> list[str]:
        """The populations of which it is a member."""
        return [name for name, population in self.populations.items() if "a" in population.members]


def stays() -> st.SearchStrategy[list[str]]:
    """Where an account is in turn, never twice in a row in the same population."""
    return st.lists(st.sampled_from(NAMES), max_size=7).map(
        lambda names: [HOME, *(name for name, before in zip(names, [HOME, *names], strict=False) if name != before)]
    )


def some_order(world: World, chance: random.Random) -> Iterator[tuple[str, Message]]:
    """Each population's messages in their order, one population now and then another one; some come twice."""
    taken: dict[str, list[Message]] = {name: [] for name in NAMES}
    while waiting := [name for name in NAMES if world.queues[name]]:
        name = chance.choice(waiting)
        message = world.queues[name].pop(0)
        taken[name].append(message)
        yield name, message
        if chance.random() < 0.3:
            yield name, chance.choice(taken[name])


@given(stays(), st.integers(0, 2**32))
def test_an_account_has_one_holder_and_its_changes_one_chain(names: list[str], seed: int) -> None:
    """In the end it is where it was moved last, and the world was told so."""
    world = World(names)
    for name, message in some_order(world, random.Random(seed)):
        world.take(name, message)
        assert len(world.here) <= 1
    assert world.here == [world.last]
    assert [change.sequence for change in world.told] == list(range(1, len(world.told) + 1))
    before: Change | None = None
    for change in world.told:
        assert change.previous_segment == (before.current_segment if before else None)
        was_in = before.population if before and before.population != change.population else None
        assert change.previous_population == was_in
        assert was_in or change.current_segment != change.previous_segment
        before = change
    assert before is not None and before.population == world.last
    member = world.populations[world.last].members["a"]
    assert member.is_told and member.revenue_minor == 100 * 2 * len(names)
    assert not any(population.transfers.under_way for population in world.populations.values())


def test_of_whom_nothing_was_told_little_is_remembered() -> None:
    """Most accounts say to whom they belong before they buy: for each of them the first population keeps one number."""
    transfers = Transfers(HOME)
    for number in range(3):
        given_ = transfers.depart(Departure(f"a{number}", 1, HOME, "north"), None, Told())
        assert given_ == HandOver(f"a{number}", 1, HOME, "north", Told())
    assert len({id(transfer) for _, transfer in transfers}) == 1
    assert not transfers.takes(Standing("a0", "prospect", 0, 1, 20_000, "purchase", "e", None, population=HOME), None)


def test_a_departure_that_is_told_again_sends_the_same_hand_over() -> None:
    """The first one may be lost with the store's newest writes."""
    transfers, departure = Transfers(HOME), Departure("a", 1, HOME, "north")
    first = transfers.depart(departure, None, Told(HOME, 3, Segment.KEY, CLOCK_US))
    assert transfers.depart(departure, None, Told()) == first
    assert first is not None and first.told.sequence == 3


def test_what_was_handed_over_is_announced_no_more() -> None:
    """The store went back to before the departure; the log says what came of it."""
    population = World([HOME]).populations[HOME]
    standing = Standing("a", "established", 100, 1, 20_000, "purchase", "e", None, population=HOME)
    assert population.apply([standing], CLOCK_US)[0]
    assert population.learn(HandOver("a", 1, HOME, "north", population.told_of("a")))
    assert not population.learn(HandOver("a", 1, HOME, "north", population.told_of("a")))
    population.muted = True
    assert population.apply([standing._replace(revenue_minor=90_000, version=2)], CLOCK_US)[0] == []
    hand_over, is_member = population.depart(Departure("a", 1, HOME, "north"))
    assert is_member and hand_over is not None and hand_over.told.sequence == 1
