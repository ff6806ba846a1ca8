"""What another policy may change where accounts go on: which rules can be applied to what is kept of them.

An account is kept as a sum, a few days and the entries of its window. So a rule can be applied if what is kept says all
that it asks for. What was decided once, when a record arrived, cannot be decided again; and since a record may be read
just before or just after the switch, the same record would count in two ways.
"""

from segmentation.policy import Policy

ON_ARRIVAL = ("base_currency", "rates", "future_days", "engagement_weights", "population", "bands")
"""Fields that decide about a record when it arrives; of the bands those of the attribute that makes populations."""
NOT_LARGER = ("window_days", "engagement_days")
"""Spans of days before which everything is forgotten."""
OF_ACCOUNTS = ("window_days", "new_start_days", "engagement_days")
"""Fields by which each account has to be worked out anew; the others only rank accounts in another way."""


def refusals(present: Policy, asked: Policy) -> list[str]:
    """Why accounts that were kept by the present policy cannot go on by the asked one, in words; empty: they can."""
    before, after = present.document(), asked.document()
    arrival = [
        f"{difference}: this is decided when a record arrives, and is not decided again"
        for difference in asked.field_differences(present.canonical())
        if difference.field.split(".")[0] in ON_ARRIVAL
    ]
    larger = [
        f"{name}: {before[name]} -> {after[name]}: what is older than {before[name]} days is forgotten"
        for name in NOT_LARGER
        if after[name] > before[name]
    ]
    return arrival + larger


def touches_accounts(present: Policy, asked: Policy) -> bool:
    """Whether what is told of an account itself, its revenue or its stage, may be different by the asked policy."""
    before, after = present.document(), asked.document()
    return any(before[name] != after[name] for name in OF_ACCOUNTS)
