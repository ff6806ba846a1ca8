"""The worklists of a ranking shard's populations, kept up to date in the background: what is announced comes first.

Nothing of it is kept in memory only: after a claim every account is counted, and then placed, again.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from segmentation.classification import SHARED_TRAITS_MAX, Traits
from segmentation.policy import Policy
from segmentation.population import Member, Population
from segmentation.potential import ClassEstimates, ClassFigures, ClassPath
from segmentation.segments import TIERS
from segmentation.transfers import Departure
from segmentation.worklist import (
    SEPARATOR,
    Assessment,
    Assessor,
    Placement,
    Rises,
    Worklist,
    class_name,
    class_path,
    owner_entry,
    rises_of,
)
from state.documents import decode_traits, encode_traits, transfer_of_traits
from state.shard_store import Commit, ShardStore
from streams.messages import Description, json_bytes

T = TypeVar("T")

ESTIMATES_SHARE = 0.05
"""Of the time, for estimates: there may be many classes."""
COUNTED_AT_ONCE = 500
PLACED_AT_ONCE = 100
DAYS_BETWEEN = 7
"""An account to which nothing happens is assessed again after so many days: silence goes on, and cutoffs move."""


def figures_field(population: str, path: ClassPath) -> str:
    """The field of the hash `figures` with `ClassFigures.numbers` of a class."""
    return SEPARATOR.join(("class", population, class_name(path)))


def rises_field(population: str) -> str:
    """The field of the hash `figures` that says where the tiers begin."""
    return SEPARATOR.join(("rises", population))


class Classes:
    """What one ranking shard has stored: what its classes add up to, and where its tiers begin."""

    def __init__(self, figures: Mapping[str, Mapping[ClassPath, ClassFigures]], rises: Mapping[str, Rises]) -> None:
        self.figures = figures
        """Population -> the finest classes -> their figures."""
        self.rises = rises
        """By population."""
        self._estimates: dict[str, ClassEstimates] = {}

    def estimates(self, population: str) -> ClassEstimates:
        """O(classes), the first time."""
        if population not in self._estimates:
            self._estimates[population] = ClassEstimates(self.figures.get(population, {}))
        return self._estimates[population]

    def assess(self, assessor: Assessor, member: Member, traits: Traits, population: str, day: int) -> Assessment:
        """An account, as of a day."""
        rises = self.rises.get(population, (None,) * len(TIERS))
        return assessor.assess(member, traits, day, self.estimates(population), rises)

    def with_prospects(self) -> list[ClassPath]:
        """The classes that have prospects, in order."""
        classes = (found for figures in self.figures.values() for found in figures.items())
        return sorted({path for path, figures in classes if figures.prospects})


async def read_classes(store: ShardStore) -> Classes:
    """What a ranking shard has stored. One round trip, O(classes)."""
    figures: dict[str, dict[ClassPath, ClassFigures]] = {}
    rises: dict[str, Rises] = {}
    async for field, document in store.scan("figures"):
        kind, population, *rest = field.split(SEPARATOR)
        numbers = json.loads(document)  # not orjson, to which a sum of squares is a float
        if kind == "rises":
            rises[population] = tuple(numbers)
        else:
            figures.setdefault(population, {})[class_path(rest[0])] = ClassFigures(*numbers)
    return Classes(figures, rises)


class Worklists:
    """Of all populations of one shard."""

    def __init__(
        self, store: ShardStore, policy: Policy, populations: Mapping[str, Population], stored_fields: Iterable[str]
    ) -> None:
        """populations: as they are and will be; their accounts are to be counted and placed.

        stored_fields: of the hash `figures`. Some may be of classes that have no account any more.
        """
        self._store, self._populations = store, populations
        self._assessor = Assessor(policy)
        self._lists: dict[str, Worklist] = {}
        self._traits: dict[bytes | None, Traits] = {}
        """By their documents, as they are stored."""
        self._uncounted = [(population, list(population.members.values())) for population in populations.values()]
        """Until all are counted, nobody is placed: what a class is worth would rest on a part of it."""
        self._stored_fields = set(stored_fields)
        self._rises: dict[str, Rises] = {}
        """As stored."""
        self._touched: dict[Member, Population] = {}
        self._to_place: list[tuple[Member, Population]] = []
        """Who was touched before those that are touched now."""
        self._swept_day = 0
        self._refresh_at = 0.0

    @property
    def waiting(self) -> int:
        """Accounts that are to be placed, of some more than once; where there are none, classes of who has left."""
        uncounted = sum(len(members) for _, members in self._uncounted)
        return uncounted + len(self._touched) + len(self._to_place) or len(self._stored_fields)

    def touch(self, population: Population, members: Iterable[Member]) -> None:
        """Something happened to these accounts. O(members)."""
        self._touched.update(dict.fromkeys(members, population))

    def sweep(self, day: int) -> None:
        """A day has begun: a part of all accounts is looked at again. O(n), 0.1 us for each account."""
        if day <= self._swept_day:
            return
        since, self._swept_day = self._swept_day or day, day  # in the beginning all are to be placed as it is
        parts = {past % DAYS_BETWEEN for past in range(max(since + 1, day - DAYS_BETWEEN + 1), day + 1)}
        for population in self._populations.values():
            members = list(population.members.values())
            for part in parts:
                self.touch(population, members[part::DAYS_BETWEEN])

    async def describe(self, descriptions: Iterable[Description], commit: Commit) -> None:
        """Take what attributes say of accounts, and put it into the commit."""
        of_population: dict[str, dict[str, Description]] = {}
        latest = {description.account_id: description for description in descriptions}
        for description in latest.values():
            of_population.setdefault(description.population, {})[description.account_id] = description
        for name, news in of_population.items():
            worklist = await self._know(name, news)
            for account_id, (_, _, transfer, traits) in news.items():
                _put(worklist.describe(account_id, traits), commit)
                commit.set("traits", account_id, encode_traits(traits, transfer))
                population = self._populations.get(name)
                if population is not None and account_id in population.members:
                    self.touch(population, (population.members[account_id],))
                if transfer:
                    await self._describe_where_it_was(name, account_id, traits, commit)

    async def _describe_where_it_was(self, name: str, account_id: str, traits: Traits, commit: Commit) -> None:
        """An account that is on its way is still a member where it was, and placed there by what attributes say.

        If it was placed by what they said before, which is stored no more, the next owner would not find it there.
        """
        for population in self._populations.values():
            member = population.members.get(account_id)
            if member is not None and population.name != name:
                worklist = await self._know(population.name, (account_id,))
                _put(worklist.describe(account_id, traits), commit)
                self.touch(population, (member,))

    async def depart(self, departures: Sequence[Departure], commit: Commit) -> None:
        """Forget accounts that leave populations, and, unless they stay in the shard, what attributes say of them."""
        fields = [departure.account_id for departure in departures]
        documents = dict(zip(fields, await self._store.load("traits", fields), strict=True))
        for account_id, transfer, name, _ in departures:
            worklist = await self._know(name, (account_id,))
            _put(worklist.forget(account_id), commit)
            document = commit.sets.get("traits", {}).get(account_id, documents[account_id])
            if document is not None and transfer_of_traits(document) < transfer:
                commit.delete("traits", account_id)
                if (traits := decode_traits(document)).owner:
                    commit.score("owners", owner_entry(traits, account_id), None)
        if not self._uncounted:
            self._store_classes(commit)

    async def needs(self, population: Population, account_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What accounts need, of those that have stated anything. One round trip where their traits are not known."""
        names = [*dict.fromkeys(account_ids)]
        worklist = await self._know(population.name, names)
        return {name: needs for name in names if (needs := worklist.traits(name).needs)}

    async def bring(self, day: int, commit: Commit) -> bool:
        """Count one chunk of the accounts, or place one, as of a day, and put that into the commit.

        Returns whether there is anything in it to carry out.
        """
        if self._uncounted:
            population, members = self._uncounted[-1]
            chunk = _taken_off(members, COUNTED_AT_ONCE)
            await self._count((member, population) for member in chunk)
            self.touch(population, chunk)
            if not members:
                self._uncounted.pop()
            return False
        if not self._to_place:
            self._to_place, self._touched = [*self._touched.items()], {}
        placed = _taken_off(self._to_place, PLACED_AT_ONCE)
        await self._count(placed)
        self._refresh_estimates()
        rises = {name: rises_of(population) for name, population in self._populations.items()}
        for member, population in placed:
            if population.members.get(member.account_id) is member:  # else it has left in the meantime
                _put(self._lists[population.name].place(member, day, rises[population.name]), commit)
        self._store_figures(rises, commit)
        return True

    async def _count(self, members: Iterable[tuple[Member, Population]]) -> None:
        of_population: dict[Population, list[Member]] = {}
        for member, population in members:
            of_population.setdefault(population, []).append(member)
        for population, its in of_population.items():
            here = [member for member in its if population.members.get(member.account_id) is member]
            worklist = await self._know(population.name, [member.account_id for member in here])
            for member in here:
                worklist.count(member)

    async def _know(self, population: str, account_ids: Iterable[str]) -> Worklist:
        """A population's worklist, with the stored traits of these accounts."""
        worklist = self._lists.get(population)
        if worklist is None:
            worklist = self._lists[population] = Worklist(self._assessor)
            self._refresh_at = 0.0
        unknown = [account_id for account_id in account_ids if not worklist.knows(account_id)]
        for account_id, document in zip(unknown, await self._store.load("traits", unknown), strict=True):
            worklist.know(account_id, self._shared_traits(document))
        return worklist

    def _refresh_estimates(self) -> None:
        """Of all classes, where any figure is another one; if that takes long, only every now and then."""
        clock = asyncio.get_running_loop().time
        began = clock()
        if began >= self._refresh_at:
            for worklist in self._lists.values():
                worklist.refresh_estimates()
            self._refresh_at = clock() + (clock() - began) / ESTIMATES_SHARE

    def _shared_traits(self, document: bytes | None) -> Traits:
        """One object for equal ones: many accounts have the same."""
        traits = self._traits.get(document)
        if traits is None:
            traits = decode_traits(document)
            if len(self._traits) < SHARED_TRAITS_MAX:
                self._traits[document] = traits
        return traits

    def _store_figures(self, rises: Mapping[str, Rises], commit: Commit) -> None:
        """What the classes add up to, and where the tiers begin, as far as that is other than what is stored."""
        self._store_classes(commit)
        for name, of_tiers in rises.items():
            if self._rises.get(name) != of_tiers:
                commit.set("figures", rises_field(name), json_bytes(of_tiers))
            self._stored_fields.discard(rises_field(name))
        self._rises = dict(rises)
        for field in self._stored_fields:
            commit.delete("figures", field)
        self._stored_fields.clear()

    def _store_classes(self, commit: Commit) -> None:
        for name, worklist in self._lists.items():
            for path in worklist.changed:
                figures, field = worklist.figures.get(path), figures_field(name, path)
                if figures is None:
                    commit.delete("figures", field)
                else:
                    commit.set("figures", field, json_bytes(figures.numbers()))
                    self._stored_fields.discard(field)
            worklist.changed.clear()


def _taken_off(members: list[T], count: int) -> list[T]:
    """The last so many, which are not in the list any more. O(count)."""
    taken = members[-count:]
    del members[-count:]
    return taken


def _put(placements: Iterable[Placement], commit: Commit) -> None:
    for name, entry, score in placements:
        commit.score(name, entry, score)
