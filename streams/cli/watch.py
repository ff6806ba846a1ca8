"""`resegment watch`."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis
from rich.text import Text

from segmentation.classification import attributes_of, owner_of
from segmentation.segments import SEGMENTS
from state.documents import decode_profile
from state.founding import require_founding
from state.keys import StageName
from state.shard_store import ShardStore
from streams.changes import ChangeData, RiskData, cloud_event
from streams.cli.console import err, escape, out, print_json, segment
from streams.cli.failures import CommandFailed
from streams.cli.running import parse_time_option, read_settings, store
from streams.messages import json_object
from streams.partitions import partition_of
from streams.reading import follow
from streams.settings import Settings
from streams.topics import Topic

ARROWS = {"up": "↑", "down": "↓"}


class WatchOptions(NamedTuple):
    """What is to be seen."""

    risks: bool
    followed: Sequence[str]
    """KIND=VALUE; nothing: all changes."""
    since: str | None
    from_beginning: bool
    limit: int | None
    json: bool


async def run_watch(options: WatchOptions) -> None:
    """Print changes, of segments or of risk, as they come, until there are so many of them, or Ctrl-C.

    Raises CommandFailed, KafkaError; where owners are followed RedisError and NoInstallation, too.
    """
    followed = Followed.of(options.followed)
    if options.since is not None and options.from_beginning:
        raise CommandFailed("--since and --from-beginning: one of them says where to begin")
    since_us = None if options.since is None else parse_time_option(options.since, "--since")
    shown = itertools.count(1)
    if options.limit == 0:
        return
    settings = read_settings()
    topic = Topic.CHURN_RISK if options.risks else Topic.SEGMENT_CHANGES
    since_ms = None if since_us is None else -(-since_us // 1000)
    async with owners(settings, followed) as its:
        async for record in follow(settings, topic, from_beginning=options.from_beginning, since_ms=since_ms):
            if not await followed.has(record, its):
                continue
            if options.json:
                _print_event(record)
            elif not _print_line(record, risks=options.risks):
                continue
            if next(shown) == options.limit:
                return


class Owners:
    """Whose accounts are: an attribute, so it is in the store alone. Reads it, and nothing else."""

    def __init__(self, redis: Redis, prefix: str, partitions: int) -> None:
        self._redis, self._prefix, self._partitions = redis, prefix, partitions

    async def of(self, account_id: str) -> str:
        """As of now; empty where nobody's. One round trip. Raises RedisError."""
        partition = partition_of(account_id.encode(), self._partitions)
        (profile,) = await ShardStore(self._redis, self._prefix, StageName.ACCOUNTS, partition).load(
            "profiles", [account_id]
        )
        return owner_of(attributes_of(decode_profile(profile)))


class Followed(NamedTuple):
    """Of which changes there is to be heard: with one value of each kind that has any."""

    accounts: Sequence[str] = ()
    segments: Sequence[str] = ()
    """It comes to one of them, or leaves it; of a change of risk, it is in it."""
    owners: Sequence[str] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Followed":
        """From KIND=VALUE. Raises CommandFailed."""
        values: dict[str, list[str]] = {"account": [], "segment": [], "owner": []}
        for text in texts:
            kind, _, value = text.partition("=")
            if kind not in values or not value:
                raise CommandFailed(f"--follow: {escape(text)} is not account=ID, segment=NAME or owner=NAME")
            if kind == "segment" and value not in SEGMENTS:
                raise CommandFailed(f"--follow: {escape(value)} is no segment; there are {', '.join(SEGMENTS)}")
            values[kind].append(value)
        return cls(*values.values())

    async def has(self, record: ConsumerRecord, owners: Owners | None) -> bool:
        """Whether to show a record. What is no change is always shown, as such. Raises RedisError."""
        if not any(self):
            return True
        try:
            data = json_object(record.value)
            account_id = str(data["account_id"])
        except (ValueError, KeyError):
            return True
        segments = [data.get(name) for name in ("previous_segment", "current_segment", "segment")]
        if self.accounts and account_id not in self.accounts:
            return False
        if self.segments and not any(name in self.segments for name in segments):
            return False
        return owners is None or await owners.of(account_id) in self.owners


@asynccontextmanager
async def owners(settings: Settings, followed: Followed) -> AsyncIterator[Owners | None]:
    """To ask whose accounts are; None where nobody is going to. Raises RedisError, NoInstallation."""
    if not followed.owners:
        yield None
        return
    async with store(settings) as redis:
        founding = await require_founding(redis, settings.redis_prefix)
        yield Owners(redis, settings.redis_prefix, founding.partitions)


def _print_event(record: ConsumerRecord) -> None:
    try:
        print_json(cloud_event(record.headers, record.value))
    except ValueError:
        err.print(f"not a change: {record.topic}[{record.partition}]@{record.offset}")


def _print_line(record: ConsumerRecord, *, risks: bool) -> bool:
    """Returns whether there is anything to say: what a policy changed that was applied silently is for no one."""
    line: Text
    try:
        change: ChangeData | RiskData
        if risks:
            change = RiskData.model_validate_json(record.value or b"")
            line = risk_line(change)
        else:
            change = ChangeData.model_validate_json(record.value or b"")
            line = change_line(change)
        if change.mode == "silent":
            return False
    except ValueError:
        err.print(f"not a change: {record.topic}[{record.partition}]@{record.offset}")
        return True
    if change.playbook is not None:
        line.append(f"  {escape(change.playbook.role)}: {escape(change.playbook.next_step)}")
    out.print(line)
    return True


def change_line(change: ChangeData) -> Text:
    """A change, for people."""
    line = Text(f"{escape(change.effective_at):<20.20}  ")
    line.append(f"{escape(change.account_id):<20} ", "bold")
    line.append(f"{ARROWS.get(change.direction, '·')} ")
    if change.previous_segment is not None:
        line.append_text(segment(change.previous_segment)).append(" → ")
    line.append_text(segment(change.current_segment))
    if change.previous_population is not None:
        line.append(f" ({escape(change.previous_population)} → {escape(change.population)})")
    if change.lapsed:
        line.append(" (lapsed)", "dim")
    line.append(f"  {money(change.rolling_revenue_minor)}  because of {escape(change.cause.kind)}", "dim")
    return line


def risk_line(change: RiskData) -> Text:
    """A change of risk, for people."""
    line = Text(f"{escape(change.effective_at):<20.20}  ")
    line.append(f"{escape(change.account_id):<20} ", "bold")
    line.append(f"{escape(change.previous_level)} → ")
    line.append(
        escape(change.current_level), {"high": "bold red", "watch": "yellow"}.get(change.current_level, "green")
    )
    line.append(f"  {change.score:.0f} %, {money(change.revenue_at_risk_minor)} at risk: ")
    line.append(escape("; ".join(change.reasons)), "dim")
    return line


def money(amount_minor: int) -> str:
    """Minor units with a point, for people; the currency is the policy's."""
    sign, digits = ("-" if amount_minor < 0 else ""), abs(amount_minor)
    return f"{sign}{digits // 100:,}.{digits % 100:02}"
