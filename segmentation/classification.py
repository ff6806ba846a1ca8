"""Classes and fit: what an account's attributes say of it, by the policy's `[bands]`, `[classes]` and `[[icp]]`.

They describe and route: whom an account is compared with, how well it fits the ideal customer profile, whose it is.
They decide nothing about tiers. What other accounts are like is no input.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

from segmentation.account import Profile
from segmentation.events import AttributeValue
from segmentation.policy import ALL, UNKNOWN, Condition, IcpRule, Policy, comparable, number_text

CLASS_CHARACTERS_MAX = 64
OWNER_CHARACTERS_MAX = 128
FIT_MAX = 100
SHARED_TRAITS_MAX = 100_000
"""More different ones than any installation should have: a bound, in case an attribute is as good as random."""

_ATTRIBUTES = "attributes."
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)


class Traits(NamedTuple):
    """What an account's attributes say of it: they describe and route, and decide nothing about tiers."""

    class_path: tuple[str, ...]
    """One value for each attribute of `classes.by`, the coarsest first: text as it is compared, the name of its band
    where the attribute has bands, `unknown` where it says nothing, or no number that is in a band."""
    fit: int
    """0 to 100: the points of the rules of the ideal customer profile that hold, together, cut to that."""
    owner: str
    """Whose the account is; empty where nobody's."""
    region: str
    """As a class is called; empty where there is none."""
    needs: tuple[str, ...] = ()
    """Of the policy's needs, those that it states, in the order in which it does."""


NO_TRAITS = Traits((), 0, "", "")
"""Of an account that has stated nothing: its class is that of all accounts, by whatever attributes others are made."""


class Classifier:
    """Makes traits of attributes, by one policy. Equal traits are one object: many accounts have the same."""

    __slots__ = ("_bands", "_by", "_needs", "_population", "_rules", "_shared", "home")

    def __init__(
        self,
        by: tuple[str, ...],
        bands: Mapping[str, Mapping[str, int]],
        icp: tuple[IcpRule, ...],
        needs: Iterable[str] = (),
        population: str | None = None,
    ) -> None:
        self._by = by
        self._population = population
        self.home = ALL if population is None else UNKNOWN
        """The population of an account that has stated nothing."""
        used = {*by, population}
        self._bands = {name: (tuple(its.values()), tuple(its)) for name, its in bands.items() if name in used}
        self._rules = tuple(map(_Rule.of, icp))
        self._needs = frozenset(needs)
        self._shared: dict[Traits, Traits] = {}

    @classmethod
    def of(cls, policy: Policy) -> "Classifier":
        """From a policy. Keep it: what it shares is its own."""
        return cls(policy.classes.by, policy.bands, policy.icp, policy.needs, policy.population)

    @property
    def has_populations(self) -> bool:
        """Whether attributes say whom an account is ranked against."""
        return self._population is not None

    def population(self, profile: Profile) -> str:
        """The population of an account: all of one value, or band, of the policy's attribute. O(1)."""
        if self._population is None:
            return ALL
        stated = profile.fields.get(_ATTRIBUTES + self._population)
        return self._class_of(self._population, None if stated is None else stated[0])

    def traits(self, attributes: Mapping[str, AttributeValue]) -> Traits:
        """The traits of an account with these attributes. O(attributes of a class + rules)."""
        points = sum(rule.points for rule in self._rules if rule.holds(attributes))
        traits = Traits(
            tuple([self._class_of(attribute, attributes.get(attribute)) for attribute in self._by]),
            max(0, min(FIT_MAX, points)),
            owner_of(attributes),
            _class_text(attributes.get("region")),
            self._needs_of(attributes.get("needs")),
        )
        if len(self._shared) < SHARED_TRAITS_MAX:
            return self._shared.setdefault(traits, traits)
        return self._shared.get(traits, traits)

    def fit_reasons(self, attributes: Mapping[str, AttributeValue]) -> list[tuple[str, int]]:
        """("industry is software", 40) for each rule that holds, in the policy's order. O(rules)."""
        held = [rule for rule in self._rules if rule.holds(attributes)]
        return [(rule.reason(attributes[rule.attribute]), rule.points) for rule in held]

    def _needs_of(self, value: AttributeValue | None) -> tuple[str, ...]:
        if value is None or not self._needs:
            return ()
        stated = value if isinstance(value, list) else str(value).split(",")
        return tuple(dict.fromkeys(need for text in stated if (need := _need(text)) in self._needs))

    def _class_of(self, attribute: str, value: AttributeValue | None) -> str:
        bands = self._bands.get(attribute)
        if bands is None:
            return _class_text(value) or UNKNOWN
        number = None if value is None else number_of(value)
        if number is None:
            return UNKNOWN
        begin_at, names = bands
        # A number is in the last band that begins at it or below; below the first one it is in none.
        place = bisect_right(begin_at, number)
        return names[place - 1] if place else UNKNOWN


def holds(condition: Condition, attributes: Mapping[str, AttributeValue]) -> bool:
    """Whether an account with these attributes is as a condition asks. Of an attribute that is missing none holds."""
    any_of = None if condition.any_of is None else frozenset(condition.any_of)
    return _Rule(condition.attribute, any_of, condition.at_least, condition.at_most, 0).holds(attributes)


class _Rule(NamedTuple):
    """A rule of the ideal customer profile, made to be asked often."""

    attribute: str
    any_of: frozenset[str | int | Decimal] | None
    at_least: int | Decimal | None
    at_most: int | Decimal | None
    points: int

    @classmethod
    def of(cls, rule: IcpRule) -> "_Rule":
        """From the policy's."""
        any_of = None if rule.any_of is None else frozenset(rule.any_of)
        return cls(rule.attribute, any_of, rule.at_least, rule.at_most, rule.points)

    def holds(self, attributes: Mapping[str, AttributeValue]) -> bool:
        """Whether each condition does. Of an attribute that is missing none does. O(1)."""
        value = attributes.get(self.attribute)
        if value is None:
            return False
        if self.any_of is not None and not any(_compared(v) in self.any_of for v in _each(value)):
            return False
        if self.at_least is None and self.at_most is None:
            return True
        number = number_of(value)
        return (
            number is not None
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
        )

    def reason(self, value: AttributeValue) -> str:
        """Why it holds, for people."""
        said = f"{self.attribute} is {_class_text(value)}"
        if self.at_least is not None and self.at_most is not None:
            return f"{said} ({number_text(self.at_least)} to {number_text(self.at_most)})"
        if self.at_least is not None:
            return f"{said} (at least {number_text(self.at_least)})"
        return said if self.at_most is None else f"{said} (at most {number_text(self.at_most)})"


def attributes_of(profile: Profile) -> dict[str, AttributeValue]:
    """The attributes that a profile states, by their names. O(fields)."""
    return {
        field.removeprefix(_ATTRIBUTES): value
        for field, (value, _) in profile.fields.items()
        if field.startswith(_ATTRIBUTES)
    }


def _need(text: str) -> str:
    """As needs are named: `Data migration` is `data_migration`."""
    return re.sub(r"[\s-]+", "_", comparable(text))


def number_of(value: AttributeValue) -> int | Decimal | None:
    """The number that a value is, or that its text is written as ("250"); exact, None for any other text. O(1)."""
    if isinstance(value, int):
        return value
    if isinstance(value, list):
        return None
    if isinstance(value, float):
        # The shortest decimal that means it, as in the policy: 0.1 is at least 0.1.
        return Decimal(repr(value)) if isfinite(value) else None
    text = value.strip()
    return Decimal(text) if _PLAIN_NUMBER.fullmatch(text) else None


def _each(value: AttributeValue) -> Iterable[str | int | float]:
    """The values of a list; any other one is alone."""
    return value if isinstance(value, list) else (value,)


def _compared(value: str | int | float) -> str | int | Decimal | None:
    """A value as `any_of` has it: texts and numbers are never equal."""
    return comparable(value) if isinstance(value, str) else number_of(value)


def _class_text(value: AttributeValue | None) -> str:
    """A value as a class is called; empty where it says nothing. Equal numbers are one class: 5.0 is 5."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _cut(comparable(_visible(value, CLASS_CHARACTERS_MAX)), CLASS_CHARACTERS_MAX)


def owner_of(attributes: Mapping[str, AttributeValue]) -> str:
    """Whose an account is, as `Traits.owner` has it; empty where nobody's."""
    return _visible(attributes.get("owner"), OWNER_CHARACTERS_MAX)


def _visible(value: AttributeValue | None, characters_max: int) -> str:
    """A value as a line of text: blanks for what is blank, a replacement for what cannot be seen."""
    text = "" if value is None else (", ".join(value) if isinstance(value, list) else str(value)).strip()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return _cut(text, characters_max)


def _cut(text: str, characters_max: int) -> str:
    return text[:characters_max].rstrip()
