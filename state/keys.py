"""The names of the keys. The part in braces is the hash tag: all keys of a shard live on one node of a cluster."""

from enum import StrEnum
from typing import NamedTuple


class StageName(StrEnum):
    """The two stages that keep state."""

    ACCOUNTS = "accounts"
    RANKING = "ranking"


class LedgerName(StrEnum):
    """What keeps state as a stage does and is none: no account's segment depends on it, and no worker claims it."""

    ALERTS = "alerts"


class ShardKeys(NamedTuple):
    """The keys of one shard."""

    meta: str
    """Hash: owner, progress, commits, state, told, trimmed."""
    documents: str
    """Hash: one document for each account."""
    history: str
    """Hash: closed blocks and their summaries, `account|number` and `account|index`."""
    engagements: str
    """Hash: engagement blocks, `account`, `account|number` and `account|index`."""
    profiles: str
    """Hash: what accounts say of themselves."""
    due: str
    """Sorted set: accounts by the next day on which time alone may change them."""
    outbox: str
    """List: outgoing records, oldest first."""
    traits: str
    """Hash: what accounts' attributes say of them."""
    transfers: str
    """Hash: what a population remembers of accounts that come or have gone."""
    figures: str
    """Hash: what the accounts of each class add up to, and where the tiers begin."""
    worklist_key: str
    worklist_enterprise: str
    worklist_commercial: str
    worklist_new_start: str
    """Sorted sets: the accounts of a segment by their priority."""
    worklist_prospect: str
    """Sorted set in the order of the names: the prospects by their class and fit."""
    owners: str
    """Sorted set in the order of the names: accounts by their owner."""
    alerts: str
    """Hash: alerts that are still to be decided about."""
    messages: str
    """Hash: messages that are handed over and not confirmed."""
    undelivered: str
    """Hash: messages that were given up."""
    told: str
    """Hash: what was last said, and on which day."""
    handed: str
    """Hash: when each person was told, in the last hour."""
    seen: str
    """Hash: the newest change of an account about which anything was decided."""
    decisions: str
    """Hash: what became of alerts, and why, by number."""
    requests: str
    """Hash: undelivered messages that somebody wants to be tried again. Written by anybody, not by the owner alone."""


def shard_keys(prefix: str, stage: StageName | LedgerName, partition: int) -> ShardKeys:
    """The keys of a shard; a prefix keeps two installations in one Redis apart."""
    tag = f"{{{prefix}:{stage}:{partition}}}"
    return ShardKeys(*(f"{tag}:{name}" for name in ShardKeys._fields))


def founding_key(prefix: str) -> str:
    """Hash: what the whole installation was founded with."""
    return f"{{{prefix}}}:founding"
