"""Strategies: what is done for the accounts of each segment, by whom, and how much of it a quarter.

They decide nothing about segments, so they may differ from one start of a worker to the next.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from segmentation.segments import Segment

ROLE_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
WORDS_CHARACTERS_MAX = 64
NEXT_STEP_CHARACTERS_MAX = 200
LISTED_MAX = 8
"""Channels or offers of a playbook: each change carries all of them."""
TOUCHES_MAX = MINUTES_MAX = 10_000
PEOPLE_MAX = 100_000
HOURS_MAX = 2_208
"""A quarter has no more: 92 days."""
OWNED_ACCOUNTS_MAX = 10_000_000

_MODEL = ConfigDict(frozen=True, extra="forbid", strict=True)


def _line(characters_max: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not (0 < len(value) <= characters_max and value.isprintable() and value == value.strip()):
            raise ValueError("not a line of text")
        return value

    return check


def as_tuple(value: object) -> object:
    """A list of the document as a value that cannot change; anything else as it is, for others to refuse."""
    return tuple(value) if isinstance(value, list) else value


RoleName = Annotated[str, Field(pattern=ROLE_PATTERN)]
Words = Annotated[str, AfterValidator(_line(WORDS_CHARACTERS_MAX))]
NextStep = Annotated[str, AfterValidator(_line(NEXT_STEP_CHARACTERS_MAX))]
Listed = Annotated[tuple[Words, ...], BeforeValidator(as_tuple)]

# A field's description is what an error says would be right there.
_NEXT_STEP = (
    f"text in quotes of 1 to {NEXT_STEP_CHARACTERS_MAX} characters that can be seen, without blanks at its ends"
)
_WORDS = f"text in quotes of 1 to {WORDS_CHARACTERS_MAX} characters that can be seen, without blanks at its ends"
_LISTED = f'a list of up to {LISTED_MAX} texts like ["phone", "email"], each of 1 to {WORDS_CHARACTERS_MAX} characters'


class Need(BaseModel):
    """What is done in addition for accounts that state a need, whatever their segment is."""

    model_config = _MODEL

    offers: Listed = Field(default=(), max_length=LISTED_MAX, description=_LISTED)
    """Put before the segment's."""
    next_step: NextStep | None = Field(default=None, description=_NEXT_STEP)
    """Instead of the segment's; of several needs the first one's that has any."""

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return {"offers": list(self.offers)} | ({} if self.next_step is None else {"next_step": self.next_step})


class Playbook(BaseModel):
    """What is done for each account of a segment."""

    model_config = _MODEL

    role: RoleName = Field(description='a role of [team], in lower case ("account_manager")')
    """Who does it: a role of `Policy.team`."""
    team: Words = Field(description=_WORDS)
    channels: Listed = Field(max_length=LISTED_MAX, description=_LISTED)
    motion: Words = Field(description=_WORDS)
    touches_a_quarter: int = Field(ge=0, le=TOUCHES_MAX, description=f"a whole number from 0 to {TOUCHES_MAX}")
    """How often somebody or something turns to the account."""
    minutes_a_touch: int = Field(
        ge=0, le=MINUTES_MAX, description=f"a whole number of minutes from 0 (nobody's time) to {MINUTES_MAX}"
    )
    """Of the role's working time, preparation included; 0 where no person does it."""
    offers: Listed = Field(max_length=LISTED_MAX, description=_LISTED)
    next_step: NextStep = Field(description=_NEXT_STEP)

    def with_needs(self, needs: Iterable[Need]) -> "Playbook":
        """The playbook of an account with these needs, in the order in which it states them."""
        offers, next_step = dict[str, None](), None
        for need in needs:
            offers |= dict.fromkeys(need.offers)
            next_step = next_step or need.next_step
        changes = {"offers": tuple(offers | dict.fromkeys(self.offers)), "next_step": next_step or self.next_step}
        return self.model_copy(update=changes)

    @property
    def minutes_a_quarter(self) -> int:
        """Of the role's working time that one account takes."""
        return self.touches_a_quarter * self.minutes_a_touch

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self}


_PLAYBOOKS: dict[str, dict[str, Any]] = {
    Segment.KEY: {
        "role": "key_account_team",
        "team": "dedicated account team",
        "channels": ["in person", "phone", "email"],
        "motion": "priority access",
        "touches_a_quarter": 12,
        "minutes_a_touch": 60,
        "offers": ["priority access", "executive briefing"],
        "next_step": "Agree the plan of the quarter with the sponsor",
    },
    Segment.ENTERPRISE: {
        "role": "account_manager",
        "team": "assigned account managers",
        "channels": ["phone", "email"],
        "motion": "cross-sell",
        "touches_a_quarter": 4,
        "minutes_a_touch": 45,
        "offers": ["cross-sell bundle", "annual agreement"],
        "next_step": "Review what is used and offer the next product",
    },
    Segment.COMMERCIAL: {
        "role": "program_manager",
        "team": "automated programs",
        "channels": ["email", "in app"],
        "motion": "automated, volume and loyalty",
        "touches_a_quarter": 6,
        "minutes_a_touch": 0,
        "offers": ["volume discount", "loyalty points"],
        "next_step": "Enrol in the loyalty program",
    },
    Segment.NEW_START: {
        "role": "onboarding_specialist",
        "team": "onboarding",
        "channels": ["phone", "email", "in app"],
        "motion": "onboard, watch for growth or churn",
        "touches_a_quarter": 6,
        "minutes_a_touch": 20,
        "offers": ["starter kit", "training"],
        "next_step": "See that the first order went well and plan the second",
    },
    Segment.PROSPECT: {
        "role": "sales_development",
        "team": "sales development",
        "channels": ["email", "phone"],
        "motion": "nurture to a first purchase",
        "touches_a_quarter": 3,
        "minutes_a_touch": 10,
        "offers": ["trial", "first-order discount"],
        "next_step": "Find the need and offer a first purchase",
    },
}


class Playbooks(BaseModel):
    """A playbook for each segment. What a document leaves out, a table or a field, is as it is by default."""

    model_config = _MODEL

    key: Playbook = Field(description="a table [segments.key]")
    enterprise: Playbook = Field(description="a table [segments.enterprise]")
    commercial: Playbook = Field(description="a table [segments.commercial]")
    new_start: Playbook = Field(description="a table [segments.new_start]")
    prospect: Playbook = Field(description="a table [segments.prospect]")

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, document: object) -> object:
        return with_defaults(document, _PLAYBOOKS) if isinstance(document, Mapping) else document

    def of(self, segment: Segment) -> Playbook:
        """The playbook of a segment."""
        found: Playbook = getattr(self, segment)
        return found

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return {name: playbook.document() for name, playbook in self}


class Role(BaseModel):
    """The people who do what playbooks ask of a role."""

    model_config = _MODEL

    people: int = Field(ge=0, le=PEOPLE_MAX, description=f"a whole number from 0 to {PEOPLE_MAX}")
    hours_a_quarter: int = Field(
        default=400, ge=1, le=HOURS_MAX, description=f"a whole number of hours from 1 to {HOURS_MAX}"
    )
    """That each of them has for touches."""

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return dict(self)


ROLES: dict[str, dict[str, Any]] = {
    "key_account_team": {"people": 4, "hours_a_quarter": 400},
    "account_manager": {"people": 6, "hours_a_quarter": 400},
    "program_manager": {"people": 1, "hours_a_quarter": 400},
    "onboarding_specialist": {"people": 3, "hours_a_quarter": 400},
    "sales_development": {"people": 3, "hours_a_quarter": 400},
}
"""The roles of the default playbooks, as in a document."""


class Owners(BaseModel):
    """What one owner of accounts (the attribute `owner`) can carry."""

    model_config = _MODEL

    accounts_max: int = Field(
        default=150, ge=1, le=OWNED_ACCOUNTS_MAX, description=f"a whole number from 1 to {OWNED_ACCOUNTS_MAX}"
    )
    hours_a_quarter_max: int = Field(
        default=400, ge=1, le=HOURS_MAX, description=f"a whole number of hours from 1 to {HOURS_MAX}"
    )
    """For the touches of all the owner's accounts, whichever role they are meant for."""

    def document(self) -> dict[str, Any]:
        """As in the policy's TOML document."""
        return dict(self)


def with_defaults(document: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tables of a document, each with the fields that it leaves out; then the tables that the document leaves out."""
    given = {
        name: {**defaults.get(name, {}), **table} if isinstance(table, Mapping) else table
        for name, table in document.items()
    }
    return {**defaults, **given}
