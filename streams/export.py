"""Writing an installation's accounts and changes to files that other programs read."""

import csv
import heapq
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

from redis.asyncio import Redis

from segmentation.account import Account
from segmentation.policy import ALL, Policy
from segmentation.population import Member
from streams.applying import in_force
from streams.changes import CHANGE_TYPE, cloud_event
from streams.instants import format_instant, parse_instant
from streams.log import LogReader
from streams.messages import json_bytes
from streams.settings import Settings
from streams.snapshot import AccountShardState, Snapshot, read_snapshot
from streams.topics import Topic

log = logging.getLogger(__name__)

ACCOUNT_COLUMNS = (
    "account_id",
    "population",
    "stage",
    "segment",
    "lapsed",
    "rolling_revenue_minor",
    "position_revenue",
    "position_accounts",
    "first_purchase_on",
    "sequence",
    "as_of",
)
"""Other programs read the file by its whole header: what is new goes to a file of its own."""
RISK_COLUMNS = ("account_id", "risk_level", "sequence")

POSITION_DIGITS = 9
"""Further ones are cut off: so a printed position is below a boundary exactly where the position itself is."""

SORTED_BYTES_MAX = 64 * 1024 * 1024
"""Changes sorted in memory at once; the sorted parts are merged from files."""


class Exported(NamedTuple):
    """How much was written."""

    accounts: int
    changes: int


async def export(
    directory: Path,
    settings: Settings,
    policy: Policy,
    redis: Redis,
    reader: LogReader,
    *,
    snapshot: Snapshot | None = None,
) -> Exported:
    """Write `accounts.csv`, `risks.csv` and `changes.jsonl` into the directory; it is made, such files are replaced.

    Memory: about 1 KB an account, and SORTED_BYTES_MAX for any number of changes. Changes need about twice
    their size of room on the disk. Raises NoInstallation, StillChanging, OSError, RedisError, KafkaError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if snapshot is None:
        snapshot = await read_snapshot(redis, settings)
    accounts = write_accounts(directory / "accounts.csv", snapshot, in_force(snapshot.founding, policy))
    write_risks(directory / "risks.csv", snapshot)
    return Exported(accounts, await write_changes(directory / "changes.jsonl", reader))


# -- accounts ----------------------------------------------------------------------------------------------


def write_accounts(path: Path, snapshot: Snapshot, policy: Policy) -> int:
    """One line for each account, in the order of their ids. Returns how many. O(n log n). Raises OSError."""
    return _write_rows(path, ACCOUNT_COLUMNS, _account_rows(snapshot, policy))


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    part = path.with_name(path.name + ".part")
    count = 0
    with part.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            count += 1
    part.replace(path)
    return count


def _account_rows(snapshot: Snapshot, policy: Policy) -> Iterator[tuple[object, ...]]:
    members = snapshot.members()
    positions = {
        population: _positions(listed.values())
        for shard in snapshot.ranking_shards
        for population, listed in shard.populations.items()
    }
    accounts = ((account, shard) for shard in snapshot.account_shards for account in shard.accounts.values())
    for account, shard in sorted(accounts, key=lambda item: item[0].account_id):
        member, population = members.get(account.account_id, (None, ALL))
        by_revenue, by_accounts = "", ""
        if member is not None and member.tier is not None:
            by_revenue, by_accounts = positions[population][member.revenue_minor]
        yield (
            account.account_id,
            population,
            str(account.stage(policy.new_start_days)),
            *_told(member),
            account.revenue_minor,
            by_revenue,
            by_accounts,
            _first_purchase_on(account, shard),
            member.sequence if member is not None else 0,
            format_instant(shard.clock_us) if shard.clock_us else "",
        )


def _told(member: Member | None) -> tuple[str, str]:
    """Segment and lapsed."""
    if member is None or member.segment is None:
        return "", "false"
    return str(member.segment), "true" if member.lapsed else "false"


def write_risks(path: Path, snapshot: Snapshot) -> None:
    """One line for each account of whose risk the world was told, by their ids. O(n log n). Raises OSError."""
    _write_rows(
        path,
        RISK_COLUMNS,
        (
            (account_id, str(member.risk.told_level), member.risk.sequence)
            for account_id, (member, _) in sorted(snapshot.members().items())
            if member.risk is not None and member.risk.sequence
        ),
    )


def _first_purchase_on(account: Account, shard: AccountShardState) -> str:
    if account.first_purchase_day > shard.day:
        return ""
    return (date(1970, 1, 1) + timedelta(days=account.first_purchase_day)).isoformat()


def _positions(members: Iterable[Member]) -> dict[int, tuple[str, str]]:
    """Revenue -> its position by revenue and by accounts, of the ranked members."""
    revenues = sorted((member.revenue_minor for member in members if member.tier is not None), reverse=True)
    total_minor, above_minor, above_accounts = sum(revenues), 0, 0
    positions = {}
    for revenue_minor, equals in groupby(revenues):
        accounts = sum(1 for _ in equals)
        positions[revenue_minor] = (
            decimal_fraction(above_minor, total_minor),
            decimal_fraction(above_accounts, len(revenues)),
        )
        above_minor += accounts * revenue_minor
        above_accounts += accounts
    return positions


def decimal_fraction(part: int, whole: int) -> str:
    """A share in [0, 1) as a decimal: `decimal_fraction(2, 3)` is `0.666666666`."""
    return f"0.{part * 10**POSITION_DIGITS // whole:0{POSITION_DIGITS}d}"


# -- changes -----------------------------------------------------------------------------------------------


async def write_changes(path: Path, reader: LogReader, *, sorted_bytes_max: int = SORTED_BYTES_MAX) -> int:
    """Every change once, a CloudEvent in JSON form a line, by (effective_at, account_id, sequence).

    Since `effective_at` never goes back within an account, its changes are in the order of their sequence.
    Returns how many. O(n log n). Raises OSError, KafkaError.
    """
    await reader.refresh()
    partitions = range(reader.partition_count(Topic.SEGMENT_CHANGES))
    starts = {(Topic.SEGMENT_CHANGES, number): 0 for number in partitions}
    strangers = 0
    part = path.with_name(path.name + ".part")
    with _Sorter(path.parent, sorted_bytes_max) as sorter:
        async for _, record in reader.read(starts):
            try:
                event = cloud_event(record.headers, record.value)
                line = _sortable_line(event)
            except (ValueError, TypeError, KeyError, OverflowError):
                strangers += 1
                continue
            sorter.add(line)
        with part.open("wb") as file:
            count = 0
            for line in sorter.lines():
                file.write(line)
                count += 1
    part.replace(path)
    if strangers:
        log.warning("%d records of %s are no changes and are left out", strangers, Topic.SEGMENT_CHANGES)
    return count


def _sortable_line(event: dict[str, object]) -> bytes:
    """What to sort by, as text that sorts the same, and the JSON; a tab is less than all an account id may hold."""
    data = event["data"]
    if event["type"] != CHANGE_TYPE or not isinstance(data, dict):
        raise ValueError("not a change")
    effective_at_us = parse_instant(data["effective_at"])
    key = f"{effective_at_us:020d}\t{data['account_id']}\t{data['sequence']:012d}"
    return key.encode() + b"\t" + json_bytes(event) + b"\n"


def _new_file(directory: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory)


class _Sorter:
    """Sorts lines of any number: full parts go to files, which are merged at the end."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._lines: list[bytes] = []
        self._bytes = 0
        self._files = ExitStack()
        self._parts: list[Iterable[bytes]] = []

    def __enter__(self) -> "_Sorter":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, line: bytes) -> None:
        """Take a line that ends with a line break."""
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= self._bytes_max:
            file = self._files.enter_context(_new_file(self._directory))
            file.writelines(sorted(self._lines))
            file.seek(0)
            self._parts.append(file)
            self._lines, self._bytes = [], 0

    def lines(self) -> Iterator[bytes]:
        """Of the lines with one key the first, without the key, in the order of the keys."""
        merged = heapq.merge(*self._parts, sorted(self._lines))
        for _, same in groupby(merged, key=lambda line: line.split(b"\t", 3)[:3]):
            yield next(same).split(b"\t", 3)[3]
