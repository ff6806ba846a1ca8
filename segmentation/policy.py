"""The policy: every rule, threshold and strategy, in one validated document.

Shares and the band are percentages with at most two decimals in the document and basis points (`int`) in the
code, rates are decimals: no rule depends on a binary fraction.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, tzinfo
from decimal import Decimal
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from itertools import pairwise
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from segmentation.money import MINOR_DIGITS, Converter
from segmentation.purchase_model import BuyingModel, SpendModel
from segmentation.segments import SEGMENTS, Segment
from segmentation.strategy import ROLES, Need, Owners, Playbook, Playbooks, Role, RoleName, as_tuple, with_defaults

ALL = "all"
"""The population that every account is ranked in, where no attribute says another one."""

WHOLE_BP = 10_000
"""100 % in basis points."""

ENGAGEMENT_KIND_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
ENGAGEMENT_WEIGHT_MAX = 1_000_000
FACTOR_MIN, FACTOR_MAX = 0.01, 100.0
"""What the odds of no purchase may be multiplied by."""
PARAMETER_MIN, PARAMETER_MAX = 1e-6, 1e9
"""What a parameter of the model may be: no real log is best described by one outside."""

ATTRIBUTE_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
"""The same as of the attributes that a signup may state: a rule on any other name would never hold."""
BAND_PATTERN = r"^[a-z][a-z0-9_]{0,31}$"
BANDED_ATTRIBUTES_MAX = 64
BANDS_MAX = 16
BAND_FROM_MAX = 10**12
CLASS_ATTRIBUTES_MAX = 4
"""Of a class: each one more parts the accounts further, and nothing can be said of a class of a few."""
ICP_RULES_MAX = 64
ICP_VALUES_MAX = 64
"""Of one rule."""
ICP_VALUE_CHARACTERS_MAX = 256
"""As of an attribute's value."""
POINTS_MAX = 100
NEEDS_MAX = 32
PRIORITY_MAX = 100.0
NUMBER_DIGITS_MAX = 15
"""Decimals of so many digits are the same ones again after they were a binary fraction, as they are in JSON."""
ALERTS_MAX = 64
"""Rules of alerts."""
CONDITIONS_MAX = 16
"""Of one rule of alerts."""
PEOPLE_MAX = 10_000
NAME_CHARACTERS_MAX = 128
ADDRESS_CHARACTERS_MAX = 256
TEMPLATE_CHARACTERS_MAX = 10_000
ALERT_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"
GRACE_MINUTES_MAX = 1_440
MINUTES_A_DAY = 1_440
UNKNOWN = "unknown"
"""The class, and the population, of accounts that do not say it."""

Basis = Literal["revenue", "accounts"]

_TIERS = ["key", "enterprise", "commercial"]
_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,2}0*)?")
_RATE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?")
_PARAMETER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ATTRIBUTE = re.compile(ATTRIBUTE_PATTERN)
_BETWEEN_WORDS = re.compile(r"[\s_.-]+")
_LIKENESS = {"likeness", "customerlikeness", "similarity", "lookalike"}
"""Attributes that no rule may rest on, without what is between their words."""
_ENGAGEMENT_WEIGHTS = {"login": 1, "feature_use": 1, "meeting": 3, "support_ticket": 1, "cancel_request": 5}
_BANDS = {"employees": {"small": 0, "mid": 100, "large": 1_000}}


class Problem(NamedTuple):
    """One thing that is wrong with a policy."""

    field: str
    """Path of the field (`tiers.key`); empty where the document as a whole is wrong."""
    found: str
    """What the document says there."""
    expected: str
    """What would be right."""

    def __str__(self) -> str:
        said = f"found {self.found}, expected {self.expected}"
        return f"{self.field}: {said}" if self.field else said


class Difference(NamedTuple):
    """A field of which two policies say different things."""

    field: str
    """Its path (`tiers.key`)."""
    before: str
    """What the one says; `nothing` where it has no such field."""
    after: str
    """What the other says."""

    def __str__(self) -> str:
        return f"{self.field}: {self.before} -> {self.after}"


class PolicyError(ValueError):
    """The policy cannot be used. Mend the document as each line says; nothing was changed."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {problem}" for problem in self.problems)


def _basis_points(value: object) -> int:
    """A percentage, as a TOML number or a string, in basis points, exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("not a percentage")
    # As text, whose form bounds it: arithmetic on decimals rounds, and 1e999999999 is a long number.
    text = str(value)
    if not _PERCENT.fullmatch(text):
        raise ValueError("not a percentage with at most two decimals")
    return int(Decimal(text) * 100)


def _rate(value: object) -> Decimal:
    text = str(value) if type(value) is int else value
    if not (isinstance(text, str) and _RATE.fullmatch(text)) or not Decimal(text):
        raise ValueError("not a decimal above zero")
    # One form for equal rates, so that "1.080" and "1.08" are one policy.
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def _parameter(value: object) -> float:
    """A parameter of the model, as a TOML number or a string. A float: it was estimated, not agreed upon."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("not a number")
    text = str(value)
    if not _PARAMETER.fullmatch(text) or not isfinite(float(text)):
        raise ValueError("not a number above zero")
    return float(text)


def _number(value: object) -> int | Decimal:
    """A number of the document, exactly as it is written there: an integer where it is a whole one."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("not a number")
    # Of a float, the shortest decimal that means it: 0.1 and not what is nearest to it in binary.
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError("not a number")
    _, digits, exponent = number.as_tuple()
    # Only then arithmetic on it, which rounds, and 1e999999999 is a long number.
    if len(digits) > NUMBER_DIGITS_MAX or abs(int(exponent)) > NUMBER_DIGITS_MAX:
        raise ValueError("a number with too many digits")
    return int(number) if number == number.to_integral_value() else number.normalize()


def _value(value: object) -> str | int | Decimal:
    """A value that an attribute may have: a number, or a text as texts are compared."""
    if not isinstance(value, str):
        return _number(value)
    text = comparable(value)
    # Looked at as it is compared, because some letters become two: what was taken once is taken again.
    if not (0 < len(text) <= ICP_VALUE_CHARACTERS_MAX and text.isprintable()):
        raise ValueError("not a text")
    return text


def comparable(text: str) -> str:
    """A text as texts of attributes are compared: ` EMEA` is `emea`."""
    return text.strip().casefold()


def _attribute(name: str) -> str:
    if _BETWEEN_WORDS.sub("", name.casefold()) in _LIKENESS:
        raise PydanticCustomError("likeness", "customer likeness is no input")
    if not _ATTRIBUTE.fullmatch(name):
        raise ValueError("not the name of an attribute")
    return name


def _points(value: int) -> int:
    if not value:
        raise ValueError("no points")
    return value


def _day(value: str) -> str:
    if not _DAY.fullmatch(value):
        raise ValueError("not a day")
    date.fromisoformat(value)
    return value


def _time_of_day(value: object) -> int:
    """Minutes after midnight."""
    found = _TIME_OF_DAY.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("not a time of day")
    return int(found[1]) * 60 + int(found[2])


def _time_text(minutes: int | None) -> str | None:
    return None if minutes is None else f"{minutes // 60:02}:{minutes % 60:02}"


def _zone(value: str) -> str:
    time_zone(value)
    return value


def time_zone(name: str) -> tzinfo:
    """A time zone by its name. Raises ValueError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError("not a time zone") from error


def _shown_text(characters_max: int, *, lines: bool = False) -> Callable[[str], str]:
    def check(value: str) -> str:
        text = value.replace("\n", "") if lines else value
        if not (0 < len(value) <= characters_max and text.isprintable() and (lines or value == value.strip())):
            raise ValueError("not a text")
        return value

    return check


def _currency(value: str) -> str:
    if value not in MINOR_DIGITS:
        raise ValueError("not a currency")
    return value


_MODEL = ConfigDict(frozen=True, extra="forbid", strict=True)

BasisPoints = Annotated[int, BeforeValidator(_basis_points)]
Currency = Annotated[str, AfterValidator(_currency)]
Rate = Annotated[Decimal, BeforeValidator(_rate)]
EngagementKind = Annotated[str, Field(pattern=ENGAGEMENT_KIND_PATTERN)]
Weight = Annotated[int, Field(ge=0, le=ENGAGEMENT_WEIGHT_MAX)]
Parameter = Annotated[float, BeforeValidator(_parameter)]
Attribute = Annotated[str, AfterValidator(_attribute)]
BandName = Annotated[str, Field(pattern=BAND_PATTERN)]
BandFrom = Annotated[int, Field(ge=0, le=BAND_FROM_MAX)]
Bands = Annotated[Mapping[BandName, BandFrom], Field(min_length=1, max_length=BANDS_MAX)]
Number = Annotated[int | Decimal, BeforeValidator(_number)]
Value = Annotated[str | int | Decimal, BeforeValidator(_value)]
TimeOfDay = Annotated[int, BeforeValidator(_time_of_day)]
ZoneName = Annotated[str, AfterValidator(_zone)]
PersonName = Annotated[str, AfterValidator(_shown_text(NAME_CHARACTERS_MAX))]
Address = Annotated[str, AfterValidator(_shown_text(ADDRESS_CHARACTERS_MAX))]
Template = Annotated[str, AfterValidator(_shown_text(TEMPLATE_CHARACTERS_MAX, lines=True))]
SegmentName = Literal["key", "enterprise", "commercial", "new_start", "prospect"]
ChannelName = Annotated[str, Field(pattern=BAND_PATTERN)]
Points = Annotated[int, Field(ge=-POINTS_MAX, le=POINTS_MAX), AfterValidator(_points)]

# A field's description is what an error says would be right there.
_SHARE = "a percentage above 0 and below 100 with at most 2 decimals"
_DAYS = "a whole number of days from 1 to 3650"
_SCORE = "a whole number of percent from 1 to 99"
_FACTOR = "a number from 0.01 to 100 (1 changes nothing)"
_ABOVE_ZERO = "a number from 0.000001 to 1e9"
_WEIGHT = f"a number from 0 (counts nothing) to {PRIORITY_MAX:g}"
_NUMBER = f"a number without quotes, of up to {NUMBER_DIGITS_MAX} digits (250 or 0.5)"
_ATTRIBUTE_NAME = "an attribute's name in lower case: a letter, then up to 63 letters, digits or _"
_BANDED = f"up to {BANDED_ATTRIBUTES_MAX} tables like [bands.employees] with lines like small = 0"
_BY = f'a list of up to {CLASS_ATTRIBUTES_MAX} attributes like ["industry", "region"], the coarsest first'
_CONDITIONS = "any_of, at_least or at_most, or some of them"
_MINUTES = f"a whole number of minutes from 0 to {GRACE_MINUTES_MAX}"
_TIME = 'a local time in quotes ("08:00")'
_ZONE = 'a time zone in quotes ("Europe/Berlin")'
_ADDRESS = f"text in quotes of 1 to {ADDRESS_CHARACTERS_MAX} characters that can be seen"
_CHANNEL = "a channel's name in lower case: a letter, then up to 31 letters, digits or _"
_TEMPLATE = f"text in quotes of 1 to {TEMPLATE_CHARACTERS_MAX} characters"
_OVER = "a whole number of minor units from 0 up"
_ALERTS = f"up to {ALERTS_MAX} tables [[alerts]], each with name, on, and to or address"
_PEOPLE = f"up to {PEOPLE_MAX} tables like [people.kim] with address"
_SEGMENTS = f"a list of segments: {', '.join(SEGMENTS)}"
_ICP = f"up to {ICP_RULES_MAX} tables [[icp]], each with attribute, points, and {_CONDITIONS}"


class Tiers(BaseModel):
    """The tiers' shares of the population's weight, in basis points, the best first; together WHOLE_BP."""

    model_config = _MODEL

    key_bp: BasisPoints = Field(alias="key", gt=0, lt=WHOLE_BP, description=_SHARE)
    enterprise_bp: BasisPoints = Field(alias="enterprise", gt=0, lt=WHOLE_BP, description=_SHARE)
    commercial_bp: BasisPoints = Field(alias="commercial", gt=0, lt=WHOLE_BP, description=_SHARE)

    @model_validator(mode="after")
    def _together_whole(self) -> Self:
        total_bp = self.key_bp + self.enterprise_bp + self.commercial_bp
        if total_bp != WHOLE_BP:
            raise _refused(Problem("tiers", f"shares of {_percent(total_bp)} together", "100 together"))
        return self


class Model(BaseModel):
    """What `resegment fit` estimated: how the accounts buy, and what they spend. See `purchase_model`."""

    model_config = _MODEL

    r: Parameter = Field(ge=PARAMETER_MIN, le=PARAMETER_MAX, description=_ABOVE_ZERO)
    alpha_days: Parameter = Field(ge=PARAMETER_MIN, le=PARAMETER_MAX, description=f"{_ABOVE_ZERO}, in days")
    a: Parameter = Field(ge=PARAMETER_MIN, le=PARAMETER_MAX, description=_ABOVE_ZERO)
    b: Parameter = Field(ge=PARAMETER_MIN, le=PARAMETER_MAX, description=_ABOVE_ZERO)
    p: Parameter = Field(ge=PARAMETER_MIN, le=PARAMETER_MAX, description=_ABOVE_ZERO)
    q: Parameter = Field(gt=1, le=PARAMETER_MAX, description="a number above 1, up to 1e9")
    gamma_minor: Parameter = Field(
        ge=PARAMETER_MIN, le=PARAMETER_MAX, description=f"{_ABOVE_ZERO}, in minor units of the base currency"
    )
    fitted_at: Annotated[str, AfterValidator(_day)] = Field(description='a day in quotes ("2026-11-22")')
    """The last day (UTC) that it was estimated from."""
    accounts: int = Field(ge=1, le=2**53, description="a whole number from 1 up")
    """How many it was estimated from."""

    @property
    def buying(self) -> BuyingModel:
        """The part that says when accounts buy."""
        return BuyingModel(self.r, self.alpha_days, self.a, self.b)

    @property
    def spend(self) -> SpendModel:
        """The part that says for how much."""
        return SpendModel(self.p, self.q, self.gamma_minor)

    def document(self) -> dict[str, str | int]:
        """As in `Policy.document`: each number in the shortest form that gives the same one again."""
        return {name: str(value) if isinstance(value, float) else value for name, value in self}


class EvidenceTable(BaseModel):
    """By what the odds that an account buys nothing are multiplied, for some days after something happened to it."""

    model_config = _MODEL

    days: int = Field(default=30, ge=1, le=3650, description=_DAYS)
    """For so many days, that of the event included."""
    cancel_request: Parameter = Field(default=4.0, ge=FACTOR_MIN, le=FACTOR_MAX, description=_FACTOR)
    support_ticket: Parameter = Field(default=1.5, ge=FACTOR_MIN, le=FACTOR_MAX, description=_FACTOR)
    refund: Parameter = Field(default=1.5, ge=FACTOR_MIN, le=FACTOR_MAX, description=_FACTOR)
    tier_fall: Parameter = Field(default=1.5, ge=FACTOR_MIN, le=FACTOR_MAX, description=_FACTOR)
    engagement_fall: Parameter = Field(default=1.5, ge=FACTOR_MIN, le=FACTOR_MAX, description=_FACTOR)
    """While the account engages less than half as often as in its own past, however many days that is."""

    def document(self) -> dict[str, str | int]:
        """As in `Model.document`."""
        return {name: str(value) if isinstance(value, float) else value for name, value in self}


class RiskTable(BaseModel):
    """When an account is in danger of leaving. See `risk`."""

    model_config = _MODEL

    horizon_days: int = Field(default=90, ge=1, le=3650, description=_DAYS)
    """The score is the probability of no purchase in so many days."""
    watch: int = Field(default=75, ge=1, le=99, description=_SCORE)
    """From this score on, in percent, an account is watched."""
    high: int = Field(default=90, ge=1, le=99, description=_SCORE)
    """From this score on it is in danger."""
    band: int = Field(default=5, ge=0, le=98, description="a whole number of percentage points from 0 up, below watch")
    """An account falls back only when its score is lower than where it rose by more than this."""
    evidence: EvidenceTable = Field(
        default_factory=EvidenceTable,
        description="a table [risk.evidence] with days, cancel_request, support_ticket, refund, tier_fall and "
        "engagement_fall",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.high <= self.watch:
            raise _refused(Problem("risk.high", str(self.high), f"more than risk.watch, which is {self.watch}"))
        if self.band >= self.watch:
            raise _refused(Problem("risk.band", str(self.band), f"less than risk.watch, which is {self.watch}"))
        return self

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return {**dict(self), "evidence": self.evidence.document()}


class ClassesTable(BaseModel):
    """By which attributes accounts are put into classes, whose accounts are compared with each other."""

    model_config = _MODEL

    by: Annotated[tuple[Attribute, ...], BeforeValidator(as_tuple)] = Field(
        default=("industry", "employees", "region"), max_length=CLASS_ATTRIBUTES_MAX, description=_BY
    )
    """The coarsest first; none: all accounts are one class."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        problems = [
            Problem(f"classes.by.{place}", f'"{attribute}"', "each attribute once")
            for place, attribute in enumerate(self.by)
            if attribute in self.by[:place]
        ]
        if problems:
            raise _refused(*problems)
        return self

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return {"by": list(self.by)}


class PotentialTable(BaseModel):
    """How far ahead an account's potential looks."""

    model_config = _MODEL

    horizon_days: int = Field(default=365, ge=1, le=3650, description=_DAYS)

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return dict(self)


class PriorityTable(BaseModel):
    """What one unit of money of each kind counts in an account's priority."""

    model_config = _MODEL

    potential: Parameter = Field(default=1.0, ge=0, le=PRIORITY_MAX, description=_WEIGHT)
    revenue_at_risk: Parameter = Field(default=2.0, ge=0, le=PRIORITY_MAX, description=_WEIGHT)
    fit: Parameter = Field(default=0.5, ge=0, le=PRIORITY_MAX, description=_WEIGHT)
    closeness: Parameter = Field(default=0.5, ge=0, le=PRIORITY_MAX, description=_WEIGHT)

    def document(self) -> dict[str, str]:
        """As in `Model.document`."""
        return {name: str(value) for name, value in self}


class Condition(BaseModel):
    """What an attribute must be: each condition holds that it has."""

    model_config = _MODEL

    attribute: Attribute = Field(description=_ATTRIBUTE_NAME)
    any_of: Annotated[tuple[Value, ...] | None, BeforeValidator(as_tuple)] = Field(
        default=None,
        max_length=ICP_VALUES_MAX,
        description=f"a list of 1 to {ICP_VALUES_MAX} texts of 1 to {ICP_VALUE_CHARACTERS_MAX} characters that can be "
        f"seen, or numbers of up to {NUMBER_DIGITS_MAX} digits",
    )
    """The attribute is one of these; texts as they are compared (`comparable`), each value once."""
    at_least: Number | None = Field(default=None, description=_NUMBER)
    at_most: Number | None = Field(default=None, description=_NUMBER)

    @field_validator("any_of", mode="after")
    @classmethod
    def _each_value_once(cls, values: tuple[str | int | Decimal, ...] | None) -> tuple[str | int | Decimal, ...] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("no value")
        return tuple(dict.fromkeys(values))

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document, without the conditions that it does not have."""
        conditions = {
            "any_of": None if self.any_of is None else [_plain(value) for value in self.any_of],
            "at_least": _plain(self.at_least),
            "at_most": _plain(self.at_most),
        }
        held = {name: value for name, value in conditions.items() if value is not None}
        return {"attribute": self.attribute, **held}

    def problems(self, field: str) -> Iterator[Problem]:
        """What is wrong with the conditions together of the rule that a document has at this field."""
        if self.any_of is None and self.at_least is None and self.at_most is None:
            yield Problem(field, "a rule without a condition", _CONDITIONS)
        if self.at_least is not None and self.at_most is not None and self.at_most < self.at_least:
            expected = f"at_least or more, which is {number_text(self.at_least)}"
            yield Problem(f"{field}.at_most", number_text(self.at_most), expected)


class IcpRule(Condition):
    """A rule of the ideal customer profile: points for accounts of which each condition holds that it has."""

    points: Points = Field(description=f"a whole number from -{POINTS_MAX} to {POINTS_MAX}, but not 0")

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document, without the conditions that it does not have."""
        return {**super().document(), "points": self.points}


class Person(BaseModel):
    """Somebody who is told: an owner, a team, a desk."""

    model_config = _MODEL

    address: Address = Field(description=_ADDRESS)
    """What `{address}` is in the channel's URL."""
    channel: ChannelName | None = Field(default=None, description=_CHANNEL)
    """Instead of the rule's."""
    timezone: ZoneName | None = Field(default=None, description=_ZONE)
    """Instead of `calm.timezone`."""

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return _held(dict(self))


class CalmTable(BaseModel):
    """How alerts leave people in peace."""

    model_config = _MODEL

    grace_minutes: int = Field(default=15, ge=0, le=GRACE_MINUTES_MAX, description=_MINUTES)
    """An alert waits for so long; what is undone meanwhile is never sent."""
    an_hour_max: int = Field(default=5, ge=0, le=1_000, description="a whole number from 0 (digests alone) to 1000")
    """Messages to one person in any 60 minutes, digests apart; what comes beyond waits for the digest."""
    digest_at: TimeOfDay = Field(default="08:00", validate_default=True, description=_TIME)
    """Local time of the digest."""
    quiet_from: TimeOfDay | None = Field(default=None, description=_TIME)
    quiet_until: TimeOfDay | None = Field(default=None, description=_TIME)
    """Between these local times nothing is sent; neither: there are no quiet hours."""
    timezone: ZoneName = Field(default="UTC", description=_ZONE)

    @model_validator(mode="after")
    def _quiet_hours_whole(self) -> Self:
        if (self.quiet_from is None) != (self.quiet_until is None):
            missing = "quiet_from" if self.quiet_from is None else "quiet_until"
            raise _refused(Problem(f"calm.{missing}", "nothing", f"{_TIME}, beside the other end of the quiet hours"))
        if self.quiet_from is not None and self.quiet_from == self.quiet_until:
            raise _refused(
                Problem("calm.quiet_until", str(_time_text(self.quiet_until)), "another time than quiet_from")
            )
        return self

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        times = {name: _time_text(getattr(self, name)) for name in ("digest_at", "quiet_from", "quiet_until")}
        return _held({**dict(self), **times})


class AlertRule(BaseModel):
    """Of which changes somebody is told, who, and by what. Each condition holds that it has."""

    model_config = _MODEL

    name: str = Field(
        pattern=ALERT_PATTERN, description='a name of its own in lower case, of letters, digits, - and _ ("key-lost")'
    )
    on: Literal["move", "risk"] = Field(description='"move" or "risk"')
    """A change of segment, or of churn risk."""
    from_segments: Annotated[tuple[SegmentName, ...], BeforeValidator(as_tuple)] = Field(
        default=(), alias="from", description=_SEGMENTS
    )
    into: Annotated[tuple[SegmentName, ...], BeforeValidator(as_tuple)] = Field(default=(), description=_SEGMENTS)
    direction: Annotated[
        tuple[Literal["entered", "advanced", "up", "down", "moved"], ...], BeforeValidator(as_tuple)
    ] = Field(default=(), description="a list of entered, advanced, up, down, moved")
    level: Annotated[tuple[Literal["low", "watch", "high"], ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="a list of low, watch, high"
    )
    """The risk is this now."""
    segment: Annotated[tuple[SegmentName, ...], BeforeValidator(as_tuple)] = Field(default=(), description=_SEGMENTS)
    """Of an account whose risk is another one."""
    cause: Annotated[tuple[BandName, ...], BeforeValidator(as_tuple)] = Field(
        default=(), max_length=CONDITIONS_MAX, description='a list of causes or triggers like ["boundary_moved"]'
    )
    """`cause.kind` of a move, `trigger` of a risk."""
    population: Annotated[tuple[PersonName, ...], BeforeValidator(as_tuple)] = Field(
        default=(), max_length=CONDITIONS_MAX, description='a list of populations like ["emea"]'
    )
    where: Annotated[tuple[Condition, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        max_length=CONDITIONS_MAX,
        description=f"a list of up to {CONDITIONS_MAX} tables with attribute, and {_CONDITIONS}",
    )
    """What the account's attributes must be."""
    revenue_over_minor: int | None = Field(default=None, ge=0, lt=2**63, description=_OVER)
    """The rolling revenue is more, before or after."""
    at_risk_over_minor: int | None = Field(default=None, ge=0, lt=2**63, description=_OVER)
    """The revenue at risk is more."""
    to: PersonName | None = Field(
        default=None, description='"owner", "team", or the name of one of [people]; or leave it out and give an address'
    )
    address: Address | None = Field(default=None, description=_ADDRESS)
    """Who is told where `to` is nobody of [people], or is left out."""
    channel: ChannelName = Field(default="mail", description=_CHANNEL)
    """Where the person has none."""
    grace_minutes: int | None = Field(default=None, ge=0, le=GRACE_MINUTES_MAX, description=_MINUTES)
    """Instead of `calm.grace_minutes`."""
    subject: Template | None = Field(default=None, description=_TEMPLATE)
    text: Template | None = Field(default=None, description=_TEMPLATE)
    """Templates instead of those that the program brings."""

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document, without what it leaves out."""
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in self}
        given["from"] = given.pop("from_segments")
        given["where"] = [condition.document() for condition in self.where]
        return {name: value for name, value in _held(given).items() if value != []}

    def problems(self, field: str, people: Iterable[str]) -> Iterator[Problem]:
        """What is wrong with this rule, which a document has at this field, as a whole."""
        others = ("level", "segment", "at_risk_over_minor") if self.on == "move" else ("from", "into", "direction")
        document = self.document()
        for name in others:
            if name in document:
                yield Problem(f"{field}.{name}", "a condition that no such change has", 'it with another "on" alone')
        if self.to is None and self.address is None:
            yield Problem(field, "a rule that tells nobody", "to or address")
        if self.to is not None and self.to not in (*_ROUTES, *people):
            expected = '"owner", "team", or a name of [people]'
            yield Problem(f"{field}.to", f'"{self.to}"', expected)
        for place, condition in enumerate(self.where):
            yield from condition.problems(f"{field}.where.{place}")


_ROUTES = ("owner", "team")


def _held(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those that there are."""
    return {name: value for name, value in fields.items() if value is not None}


def number_text(number: int | Decimal) -> str:
    """A number in digits: never 1E+3."""
    return f"{number:f}" if isinstance(number, Decimal) else str(number)


def _plain(value: str | int | Decimal | None) -> str | int | float | None:
    """As JSON has it; `_number` makes the same decimal of the float again."""
    return float(value) if isinstance(value, Decimal) else value


class Policy(BaseModel):
    """One validated policy. Values are read-only; `with_changes` makes another one."""

    model_config = _MODEL

    version: str = Field(
        pattern=r"^[A-Za-z0-9._:+-]{1,64}$",
        description='a string in quotes of 1 to 64 letters, digits or ._:+- ("2026-11-22")',
    )
    base_currency: Currency = Field(description='a currency code of ISO 4217 ("USD")')
    window_days: int = Field(ge=1, le=3650, description=_DAYS)
    new_start_days: int = Field(ge=0, le=3650, description="a whole number of days from 0 to 3650")
    basis: Basis = Field(description='"revenue" or "accounts"')
    band_bp: BasisPoints = Field(
        alias="band",
        description="percentage points from 0 up with at most 2 decimals (0 switches the band off)",
    )
    """Hysteresis of each boundary, in basis points; 0 for none."""
    engagement_days: int = Field(default=90, ge=1, le=3650, description=_DAYS)
    """How long dated engagements are kept, and duplicates of them recognised."""
    future_days: int = Field(default=366, ge=1, le=3650, description=_DAYS)
    """How far an event's `occurred_at` may lie after the moment its record was written to the log."""
    population: Attribute | None = Field(default=None, description=f'{_ATTRIBUTE_NAME} (as in population = "region")')
    """Accounts with the same value of this attribute, or in the same band of it, are ranked against each other; None:
    all are."""
    tiers: Tiers = Field(description="a table [tiers] with key, enterprise and commercial")
    rates: Mapping[Currency, Rate] = Field(
        default_factory=dict, description='a table [rates] with lines like EUR = "1.08"'
    )
    """Units of the base currency for one unit of the other."""
    engagement_weights: Mapping[EngagementKind, Weight] = Field(
        default_factory=dict,
        validate_default=True,
        description="a table [engagement_weights] with lines like login = 1",
    )
    """What an engagement without a weight of its own counts. Kinds left out keep their default."""
    model: Model | None = Field(default=None, description="a table [model] as `resegment fit` prints it")
    """How accounts buy; None: nothing was estimated yet."""
    risk: RiskTable = Field(
        default_factory=RiskTable, description="a table [risk] with horizon_days, watch, high and band"
    )
    bands: Mapping[Attribute, Bands] = Field(default_factory=dict, validate_default=True, description=_BANDED)
    """Attribute -> name of a band -> the number it begins at, the smallest first. Attributes left out keep their
    default. (`band` is another thing: the hysteresis of the tiers.)"""
    classes: ClassesTable = Field(default_factory=ClassesTable, description="a table [classes] with by")
    potential: PotentialTable = Field(
        default_factory=PotentialTable, description="a table [potential] with horizon_days"
    )
    priority: PriorityTable = Field(
        default_factory=PriorityTable,
        description="a table [priority] with potential, revenue_at_risk, fit and closeness",
    )
    icp: Annotated[tuple[IcpRule, ...], BeforeValidator(as_tuple)] = Field(
        default=(), max_length=ICP_RULES_MAX, description=_ICP
    )
    """The ideal customer profile; without rules no account fits it better than another."""
    needs: Mapping[BandName, Need] = Field(
        default_factory=dict,
        max_length=NEEDS_MAX,
        description=f"up to {NEEDS_MAX} tables like [needs.training] with offers and next_step",
    )
    """What accounts may state in their attribute `needs`, and what is done about it."""
    segments: Playbooks = Field(
        default_factory=lambda: Playbooks.model_validate({}),
        description="tables [segments.key], [segments.enterprise], [segments.commercial], [segments.new_start] and "
        "[segments.prospect]",
    )
    """What is done for the accounts of each segment."""
    team: Mapping[RoleName, Role] = Field(
        default_factory=dict,
        validate_default=True,
        description="tables like [team.account_manager] with people and hours_a_quarter",
    )
    """The people of each role that a segment has, of all of them and of no others."""
    owners: Owners = Field(
        default_factory=Owners, description="a table [owners] with accounts_max and hours_a_quarter_max"
    )
    people: Mapping[PersonName, Person] = Field(default_factory=dict, max_length=PEOPLE_MAX, description=_PEOPLE)
    """Who may be told, by the value of the accounts' attribute `owner`, the team of a playbook, or any other name."""
    calm: CalmTable = Field(
        default_factory=CalmTable,
        description="a table [calm] with grace_minutes, an_hour_max, digest_at, quiet_from, quiet_until and timezone",
    )
    alerts: Annotated[tuple[AlertRule, ...], BeforeValidator(as_tuple)] = Field(
        default=(), max_length=ALERTS_MAX, description=_ALERTS
    )
    """Of which changes somebody is told; none: of none."""

    @field_validator("engagement_weights", mode="after")
    @classmethod
    def _with_default_weights(cls, weights: Mapping[str, int]) -> dict[str, int]:
        return {**_ENGAGEMENT_WEIGHTS, **weights}

    @field_validator("bands", mode="after")
    @classmethod
    def _with_default_bands(cls, bands: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
        together = {**_BANDS, **bands}
        if problems := [*_bands_problems(together)]:
            raise _refused(*problems)
        return together

    @field_validator("icp", mode="after")
    @classmethod
    def _rules_with_conditions(cls, rules: tuple[IcpRule, ...]) -> tuple[IcpRule, ...]:
        if problems := [problem for place, rule in enumerate(rules) for problem in rule.problems(f"icp.{place}")]:
            raise _refused(*problems)
        return rules

    @field_validator("people", mode="after")
    @classmethod
    def _people_once(cls, people: Mapping[str, Person]) -> Mapping[str, Person]:
        names: dict[str, str] = {}
        problems = []
        for name in people:
            if (other := names.setdefault(comparable(name), name)) != name:
                problems.append(Problem(f"people.{name}", f'the same name as "{other}"', "each name once"))
            if comparable(name) in _ROUTES:
                problems.append(Problem(f"people.{name}", "a name that means somebody else", "another name"))
        if problems:
            raise _refused(*problems)
        return people

    @field_validator("alerts", mode="after")
    @classmethod
    def _alerts_whole(cls, rules: tuple[AlertRule, ...], info: ValidationInfo) -> tuple[AlertRule, ...]:
        people: Mapping[str, Person] | None = info.data.get("people")
        if people is None:
            return rules
        problems = [problem for place, rule in enumerate(rules) for problem in rule.problems(f"alerts.{place}", people)]
        names = [rule.name for rule in rules]
        problems += [
            Problem(f"alerts.{place}.name", f'"{name}"', "each name once")
            for place, name in enumerate(names)
            if name in names[:place]
        ]
        if problems:
            raise _refused(*problems)
        return rules

    @field_validator("team", mode="before")
    @classmethod
    def _with_default_fields(cls, team: object) -> object:
        if not isinstance(team, Mapping):
            return team
        return with_defaults(team, {name: role for name, role in ROLES.items() if name in team})

    @field_validator("team", mode="after")
    @classmethod
    def _roles_of_the_segments(cls, team: Mapping[str, Role], info: ValidationInfo) -> Mapping[str, Role]:
        playbooks: Playbooks | None = info.data.get("segments")
        if playbooks is None:
            return team
        roles = {playbook.role: f"segments.{segment}.role" for segment, playbook in playbooks}
        problems = [
            Problem(field, f'"{role}"', f"a role of [team], or a table [team.{role}] with people and hours_a_quarter")
            for role, field in roles.items()
            if role not in team and role not in ROLES
        ] + [
            Problem(f"team.{role}", "a role that no segment has", f"one of {', '.join(roles)}")
            for role in team
            if role not in roles
        ]
        if problems:
            raise _refused(*problems)
        return {role: team[role] if role in team else Role.model_validate(ROLES[role]) for role in roles}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._base_rate_problems(), *self._band_problems()]
        if problems:
            raise _refused(*problems)
        return self

    def _base_rate_problems(self) -> Iterator[Problem]:
        if self.base_currency in self.rates:
            field = f"rates.{self.base_currency}"
            yield Problem(field, "a rate for the base currency", "none: the base currency is what rates are in")

    def _band_problems(self) -> Iterator[Problem]:
        """Bands may neither meet nor reach 0 or 100 %: each tier must be open from both sides."""
        first, second = self.boundaries
        double_limit_bp = min(2 * first, second - first, 2 * (WHOLE_BP - second))
        if 2 * self.band_bp >= double_limit_bp:
            limit = f"{Decimal(double_limit_bp) / 200:f}"
            yield Problem("band", _percent(self.band_bp), f"less than {limit}: with these tiers wider bands overlap")

    @classmethod
    @cache
    def default(cls) -> "Policy":
        """The policy that holds where nobody wrote one."""
        name = "default_policy.toml"
        return parse_policy(files("segmentation").joinpath(name).read_text(encoding="utf-8"), name)

    @classmethod
    @lru_cache(maxsize=16)  # shards ask at each claim, for the same few
    def of(cls, canonical: str, rest: str) -> "Policy":
        """The policy with these rules (`canonical`) and with all else as another one's `canonical_rest` has it.

        Raises ValueError where this version of the program would refuse it.
        """
        others = json.loads(rest)
        # canonical forms have the keys in order of their names, and the smallest band comes first
        bands = {name: dict(sorted(numbers.items(), key=itemgetter(1))) for name, numbers in others["bands"].items()}
        rules = json.loads(canonical)
        return cls.model_validate({**others, **rules, "bands": bands | rules.get("bands", {})})

    @property
    def boundaries(self) -> tuple[int, int]:
        """The positions that part the tiers, in basis points: (3000, 8000) for shares of 30, 50 and 20 %."""
        return self.tiers.key_bp, self.tiers.key_bp + self.tiers.enterprise_bp

    def playbook(self, segment: Segment, needs: Iterable[str] = ()) -> Playbook:
        """What is done for an account of a segment with these needs; those that are none of `needs` count nothing."""
        return self.segments.of(segment).with_needs(self.needs[need] for need in needs if need in self.needs)

    def converter(self) -> Converter:
        """Converts into the base currency at this policy's rates. Keep it: each call builds one, O(rates)."""
        return Converter(self.base_currency, self.rates)

    def engagement_weight(self, kind: str) -> int:
        """What an engagement of this kind counts when it brings no weight of its own."""
        return self.engagement_weights.get(kind, 1)

    def document(self) -> dict[str, Any]:
        """The policy in the terms of its TOML document: every field, equal values in equal form."""
        # `icp` and `alerts` also where they are empty; in differences an empty list would be a line beside its rules'.
        return {**self._rules(), "icp": [], "alerts": [], **self._rest()}

    def _rules(self) -> dict[str, Any]:
        """The part of the document that decides what segment an account has."""
        return {
            "version": self.version,
            "base_currency": self.base_currency,
            "window_days": self.window_days,
            "new_start_days": self.new_start_days,
            "basis": self.basis,
            "band": _percent(self.band_bp),
            "engagement_days": self.engagement_days,
            "future_days": self.future_days,
            "tiers": {
                "key": _percent(self.tiers.key_bp),
                "enterprise": _percent(self.tiers.enterprise_bp),
                "commercial": _percent(self.tiers.commercial_bp),
            },
            "rates": {currency: f"{rate:f}" for currency, rate in self.rates.items()},
            "engagement_weights": dict(self.engagement_weights),
            **self._populations(),
        }

    def _populations(self) -> dict[str, Any]:
        """Who is ranked against whom: the attribute and its bands, which are rules then; empty where there is none."""
        if self.population is None:
            return {}
        bands = {name: dict(its) for name, its in self.bands.items() if name == self.population}
        return {"population": self.population} | ({"bands": bands} if bands else {})

    def _risk(self) -> dict[str, Any]:
        """The part that decides what risk an account has; `model` only where there is one."""
        return {"risk": self.risk.document()} | ({"model": self.model.document()} if self.model else {})

    def _classification(self) -> dict[str, Any]:
        """The part that decides what class, fit and needs an account has; `icp` only where there is one."""
        return {
            "bands": {attribute: dict(bands) for attribute, bands in self.bands.items()},
            "classes": self.classes.document(),
            "needs": {name: need.document() for name, need in self.needs.items()},
        } | ({"icp": [rule.document() for rule in self.icp]} if self.icp else {})

    def _priority(self) -> dict[str, Any]:
        """The part that decides which account is turned to first."""
        return {"potential": self.potential.document(), "priority": self.priority.document()}

    def _strategies(self) -> dict[str, Any]:
        """The last part of the document: what is done about segments, and by whom."""
        return {
            "segments": self.segments.document(),
            "team": {name: role.document() for name, role in self.team.items()},
            "owners": self.owners.document(),
        }

    def _alerting(self) -> dict[str, Any]:
        """Who is told of what, and how calmly; `alerts` only where there are any."""
        return {
            "people": {name: person.document() for name, person in self.people.items()},
            "calm": self.calm.document(),
        } | ({"alerts": [rule.document() for rule in self.alerts]} if self.alerts else {})

    def _rest(self) -> dict[str, Any]:
        """The part that no account's segment depends on."""
        return {
            **self._risk(),
            **self._classification(),
            **self._priority(),
            **self._strategies(),
            **self._alerting(),
        }

    def with_changes(self, **fields: object) -> "Policy":
        """Another policy, with these fields of the document replaced: `with_changes(band=0)`.

        Raises PolicyError.
        """
        return _validate({**self.document(), **fields}, "policy")

    def canonical(self) -> str:
        """Every rule, as JSON with sorted keys: equal for policies by which each account has the same segment.

        Risk, classes and strategies are not in it: they may be edited while the state stays.
        `Policy.model_validate_json` makes a policy with the same rules of it again.
        """
        return _canonical(self._rules())

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `canonical()`, in hexadecimal."""
        return _hash(self.canonical())

    def differences(self, other_canonical: str) -> list[str]:
        """`field_differences`, as lines `field: theirs -> ours`."""
        return [str(difference) for difference in self.field_differences(other_canonical)]

    def field_differences(self, other_canonical: str) -> list[Difference]:
        """What another policy's `canonical()` says differently, by field, in the order of their names.

        Any JSON object will do, also one that this version of the program would refuse. Raises ValueError for
        anything else.
        """
        return _differences(other_canonical, self._rules())

    @cached_property
    def risk_hash(self) -> str:
        """SHA-256 of `[risk]` and `[model]`: equal for policies by which each account has the same risk."""
        return _hash(_canonical(self._risk()))

    @cached_property
    def classification_hash(self) -> str:
        """SHA-256 of bands, classes, icp and needs: equal for policies by which each account has the same traits."""
        return _hash(_canonical(self._classification()))

    def canonical_rest(self) -> str:
        """All that is not in `canonical()`, in the same form."""
        return self._canonical_rest

    @cached_property
    def _canonical_rest(self) -> str:
        return _canonical(self._rest())

    def rest_differences(self, other_canonical: str) -> list[str]:
        """As `differences`, of another policy's `canonical_rest()`."""
        return [str(difference) for difference in _differences(other_canonical, self._rest())]

    def risk_differences(self, other_canonical: str) -> list[str]:
        """Those of `rest_differences` that make an account's risk another one."""
        return [line for line in self.rest_differences(other_canonical) if line.startswith(("risk.", "model."))]


def _hash(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _differences(other_canonical: str, document: Mapping[str, Any]) -> list[Difference]:
    other = json.loads(other_canonical)
    if not isinstance(other, dict):
        raise ValueError("a canonical policy is a JSON object")
    theirs, ours = dict(_flat(other)), dict(_flat(document))
    return [
        Difference(field, *(_text(side[field]) if field in side else "nothing" for side in (theirs, ours)))
        for field in sorted(theirs.keys() | ours.keys())
        if theirs.get(field) != ours.get(field)
    ]


def load_policy(path: Path | str) -> Policy:
    """Read a policy from a TOML file. Raises PolicyError, also where the file cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        problem = Problem("", f"no readable file ({error.strerror or error})", "a TOML document")
        raise PolicyError(str(path), [problem]) from error
    except UnicodeDecodeError as error:
        raise PolicyError(str(path), [Problem("", "bytes that are not UTF-8", "a TOML document")]) from error
    return parse_policy(text, str(path))


def parse_policy(text: str, source: str) -> Policy:
    """Validate a policy's TOML text, which errors call `source`. Raises PolicyError with every problem."""
    try:
        # Decimals, because the shares are to be exactly what was written.
        document = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise PolicyError(source, [Problem("", f"text that is not TOML ({error})", "a TOML document")]) from error
    return _validate(document, source)


def _validate(document: Mapping[str, Any], source: str) -> Policy:
    problems = [*_order_problems(document.get("tiers"))]
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            problems += details.get("ctx", {}).get("problems") or [_problem(details)]
    if problems:
        raise PolicyError(source, problems)
    return policy


def _order_problems(tiers: object) -> Iterator[Problem]:
    """Whoever lists the tiers in another order may mean another order: better to ask."""
    if isinstance(tiers, Mapping) and sorted(tiers) == sorted(_TIERS) and list(tiers) != _TIERS:
        yield Problem("tiers", ", ".join(tiers), f"the best tier first: {', '.join(_TIERS)}")


def _bands_problems(bands: Mapping[str, Mapping[str, int]]) -> Iterator[Problem]:
    if len(bands) > BANDED_ATTRIBUTES_MAX:
        yield Problem("bands", f"{len(bands)} of them, {' and '.join(_BANDS)} included", _BANDED)
    for attribute, numbers in bands.items():
        if UNKNOWN in numbers:
            expected = f'another name: "{UNKNOWN}" is what an account without the number is'
            yield Problem(f"bands.{attribute}.{UNKNOWN}", "a band of this name", expected)
        for (lower, lower_from), (name, its_from) in pairwise(numbers.items()):
            if its_from <= lower_from:
                expected = f"more than {lower}, which is {lower_from}: the smallest band is written first"
                yield Problem(f"bands.{attribute}.{name}", str(its_from), expected)


def _refused(*problems: Problem) -> PydanticCustomError:
    """The error of a validator that knows by itself what to say."""
    return PydanticCustomError("policy", "inconsistent", {"problems": problems})


def _problem(details: ErrorDetails) -> Problem:
    """One of pydantic's errors in the policy's own words."""
    path = [str(part) for part in details["loc"] if part != "[key]"]
    found = "nothing" if details["type"] == "missing" else _shown(details["input"])
    if details["type"] in ("too_short", "too_long") and isinstance(details["input"], Mapping):
        found = f"a table of {len(details['input'])}" if details["input"] else "an empty table"
    if details["type"] == "likeness":
        expected = "another attribute: customer likeness is deliberately no input"
        return Problem(".".join(path), found, expected)
    if details["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in _table_of(path).model_fields.items()]
        guess = get_close_matches(path[-1], known, n=1)
        return Problem(
            ".".join(path),
            "an unknown field",
            f"{guess[0]}, perhaps" if guess else f"one of {', '.join(known)}",
        )
    return Problem(".".join(path), found, _expected(details, path))


def _table_of(path: list[str]) -> type[BaseModel]:
    """The table that a field is in."""
    match path:
        case [_]:
            return Policy
        case ["segments", _]:
            return Playbooks
        case ["segments", *_]:
            return Playbook
        case ["team", *_]:
            return Role
        case ["owners", *_]:
            return Owners
        case ["model", *_]:
            return Model
        case ["classes", *_]:
            return ClassesTable
        case ["potential", *_]:
            return PotentialTable
        case ["priority", *_]:
            return PriorityTable
        case ["people", _, *_]:
            return Person
        case ["calm", *_]:
            return CalmTable
        case ["alerts", _, "where", _, *_]:
            return Condition
        case ["alerts", _, _, *_]:
            return AlertRule
        case ["icp", _, _, *_]:
            return IcpRule
        case ["icp" | "alerts", _]:
            return Policy
        case ["risk", "evidence", _]:
            return EvidenceTable
        case ["risk", *_]:
            return RiskTable
    return Tiers


def _expected(details: ErrorDetails, path: list[str]) -> str:
    if path[0] == "rates" and len(path) > 1:
        if details["loc"][-1] == "[key]":
            return "a currency code of ISO 4217"
        if isinstance(details["input"], float | Decimal):
            return f'it as a string: {path[1]} = "{_shown(details["input"])}"'
        return 'a decimal above 0 in quotes ("1.08") with up to 12 digits before and 18 after the point'
    if path[0] == "engagement_weights" and len(path) > 1:
        if details["loc"][-1] == "[key]":
            return "a kind in lower case: a letter, then up to 63 letters, digits or _"
        return f"a whole number from 0 to {ENGAGEMENT_WEIGHT_MAX}"
    if path[0] == "team" and len(path) == 2:
        if details["loc"][-1] == "[key]":
            return "a role in lower case: a letter, then up to 63 letters, digits or _"
        return f"a table [team.{path[1]}] with people and hours_a_quarter"
    if path[0] == "people" and len(path) == 2:
        if details["loc"][-1] == "[key]":
            return f"a name of 1 to {NAME_CHARACTERS_MAX} characters that can be seen"
        return f"a table [people.{path[1]}] with address"
    if path[0] == "bands" and len(path) > 1:
        return _expected_of_bands(path, is_key=details["loc"][-1] == "[key]")
    name_given = [part for part in path if not part.isdigit()][-1]  # the others are places in lists
    for name, field in _table_of(path).model_fields.items():
        if name_given in (name, field.alias):
            return str(field.description)
    return str(details["msg"])


def _expected_of_bands(path: list[str], *, is_key: bool) -> str:
    if len(path) == 2:
        lines = f"1 to {BANDS_MAX} lines like mid = 100, the smallest first"
        return _ATTRIBUTE_NAME if is_key else f"a table [bands.{path[1]}] with {lines}"
    if is_key:
        return "a band's name in lower case: a letter, then up to 31 letters, digits or _"
    return f"a whole number from 0 to {BAND_FROM_MAX}"


def _shown(value: object) -> str:
    """What a document says, short enough for a line."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 and value.isprintable() else repr(value)[:60]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)[:60]


def _percent(share_bp: int) -> str:
    """Basis points as a percentage in its shortest form: 3000 is 30, 1250 is 12.5."""
    return f"{Decimal(share_bp).scaleb(-2).normalize():f}"


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every field that is neither a table nor a list of tables."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            yield from _flat(dict(zip(map(str, range(len(value))), value, strict=True)), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: object) -> str:
    """A field's value in a difference."""
    return ", ".join(map(str, value)) or "an empty list" if isinstance(value, list) else str(value)
