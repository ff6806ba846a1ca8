"""What another policy would make of an installation's state."""

from segmentation.account import Account
from segmentation.policy import Policy
from segmentation.what_if import WhatIf, what_if
from streams.snapshot import Snapshot

ANSWERED_FIELDS = ("basis", "band", "tiers", "new_start_days")
"""Those of the policy that the state knows enough for; the others stay as they are."""


def what_if_of(snapshot: Snapshot, present: Policy, asked: Policy) -> WhatIf:
    """What the asked policy would make of a snapshot, in the fields of which the state knows enough. O(n log n)."""
    document = asked.document()
    other = present.with_changes(**{name: document[name] for name in ANSWERED_FIELDS})
    populations = {
        name: members.values() for shard in snapshot.ranking_shards for name, members in shard.populations.items()
    }
    stages = {}
    if other.new_start_days != present.new_start_days:
        stages = {
            account.account_id: str(_on(shard.day, account).stage(other.new_start_days))
            for shard in snapshot.account_shards
            for account in shard.accounts.values()
        }
    return what_if(populations, present, other, stages=stages)


def _on(day: int, account: Account) -> Account:
    """The account with the day of its shard's clock: its own is that of its last event, or of what was due."""
    return Account(account.account_id, day=day, first_purchase_day=account.first_purchase_day)
