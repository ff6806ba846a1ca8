"""What happened, as the rules see it: validated, in base currency, with the times as integers.

Instants are microseconds since 1970-01-01T00:00Z, days are UTC days since 1970-01-01, money is minor units of the
policy's base currency.
"""

from typing import NamedTuple

MICROSECONDS_PER_DAY = 86_400_000_000

AttributeValue = str | int | float | list[str]


class Purchase(NamedTuple):
    """A purchase, or a refund that takes revenue away again."""

    account_id: str
    event_id: str
    occurred_at_us: int
    day: int
    """The day the revenue belongs to: a refund may name the day of the purchase it takes back."""
    amount_minor: int
    """Negative or zero for a refund."""
    is_refund: bool


class Signup(NamedTuple):
    """What an account says of itself; of each field the latest statement holds."""

    account_id: str
    event_id: str
    occurred_at_us: int
    name: str | None
    attributes: dict[str, AttributeValue]


class Engagement(NamedTuple):
    """An account did something other than buying: a login, a meeting, a support ticket."""

    account_id: str
    event_id: str
    occurred_at_us: int
    kind: str
    weight: int | None
    """None: the policy's weight for this kind."""


Event = Purchase | Signup | Engagement
