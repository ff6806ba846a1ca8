"""The names of the stages and segments."""

from enum import StrEnum


class Stage(StrEnum):
    """How far an account has come, known from the account alone."""

    PROSPECT = "prospect"
    """Has never purchased."""
    NEW_START = "new_start"
    """First purchase less than the policy's `new_start_days` ago."""
    ESTABLISHED = "established"
    """Every other account; those with revenue in the window are ranked."""


class Segment(StrEnum):
    """What an account is to the people who work with it: its stage, or the tier of an established account."""

    PROSPECT = "prospect"
    NEW_START = "new_start"
    KEY = "key"
    ENTERPRISE = "enterprise"
    COMMERCIAL = "commercial"


TIERS = (Segment.KEY, Segment.ENTERPRISE, Segment.COMMERCIAL)
"""The tiers from the best down. A tier is handled as its index here."""

SEGMENTS = (*TIERS, Segment.NEW_START, Segment.PROSPECT)
"""The segments as people list them: the best tier first, then the stages from the last to the first."""
