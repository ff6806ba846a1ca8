"""`resegment replay`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from redis.asyncio import Redis
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from segmentation.policy import Policy
from state.founding import read_founding
from state.keys import StageName
from state.shard_store import ShardStore
from streams.cli.console import err, out
from streams.cli.failures import CHECK_FAILED, UNUSABLE, CommandFailed
from streams.cli.local import local_installation
from streams.cli.running import (
    Connections,
    connected,
    open_lines,
    parse_time_option,
    partition_count,
    policy_path,
    read_policy,
    read_settings,
)
from streams.cli.verify import show_findings
from streams.export import export
from streams.replay import Progress as ReplayProgress
from streams.replay import Replayed, Replayer
from streams.rest import ShardsAtWork
from streams.sending import EventWriter
from streams.settings import Settings
from streams.topics import ACCOUNT_INPUTS, EVENT_TOPICS


class ReplayOptions(NamedTuple):
    """What was asked for."""

    file: Path
    embedded: bool = False
    policy: Path | None = None
    until: str | None = None
    export: Path | None = None
    verify: bool = False
    as_fast_as_possible: bool = False


async def run_replay(options: ReplayOptions) -> None:
    """Replay the file and end with one line of fields. Raises CommandFailed for mismatches."""
    until_us = parse_time_option(options.until, "--until") if options.until else None
    with open_lines(options.file) as file:
        policy = policy_path(options.policy)
        if options.embedded:
            async with local_installation(clock="replay", policy=policy) as local:
                await _replay(options, file, until_us, local.settings, local.policy, local.worker.check)
        else:
            settings = read_settings(policy=policy)
            await _replay(options, file, until_us, settings, read_policy(settings), _no_check)


def _no_check() -> None:
    """Workers of others cannot be looked at."""


async def _replay(
    options: ReplayOptions,
    file: IO[bytes],
    until_us: int | None,
    settings: Settings,
    policy: Policy,
    check_worker: Callable[[], None],
) -> None:
    async with connected(settings) as connections:
        started = time.monotonic()
        with _progress_bar(file) as progress:
            await replay_lines(
                connections,
                settings,
                policy,
                file,
                until_us=until_us,
                as_fast_as_possible=options.as_fast_as_possible,
                progress=progress,
                check_worker=check_worker,
            )
        seconds = round(time.monotonic() - started, 1)
        if options.export:
            await export(options.export, settings, policy, *connections)
        if options.verify:
            from streams.oracle import verify

            report = await verify(settings, policy, *connections)
            show_findings(report)
            _print_fields({**report.fields(), "seconds": seconds})
            if not report.is_right:
                raise CommandFailed(f"{report.mismatch_count} mismatches", CHECK_FAILED)
        else:
            _print_fields({**await _totals(connections.redis, settings), "seconds": seconds})


async def replay_lines(
    connections: Connections,
    settings: Settings,
    policy: Policy,
    lines: IO[bytes] | list[bytes],
    *,
    until_us: int | None = None,
    begin_us: int | None = None,
    as_fast_as_possible: bool = False,
    progress: Callable[[ReplayProgress], None],
    check_worker: Callable[[], None],
) -> Replayed:
    """Replay onto an installation and return when it is at rest."""
    redis, reader = connections
    partitions = partition_count(reader, settings)
    founding = await read_founding(redis, settings.redis_prefix)
    if founding is not None and founding.policy_hash != policy.hash:
        differences = "; ".join(policy.differences(founding.policy))
        raise CommandFailed(f"the state was made with another policy (state -> this one): {differences}", UNUSABLE)
    bounds = await reader.bounds([(topic, number) for topic in ACCOUNT_INPUTS for number in range(partitions)])
    ends = {place: bound.end for place, bound in bounds.items()}
    shards = ShardsAtWork(redis, settings.redis_prefix, partitions, check_worker=check_worker)
    async with EventWriter(settings) as writer:
        return await Replayer(
            policy,
            writer,
            shards,
            ends,
            until_us=until_us,
            begin_us=begin_us,
            as_fast_as_possible=as_fast_as_possible,
            progress=progress,
        ).run(lines)


async def _totals(redis: Redis, settings: Settings) -> dict[str, int]:
    """The numbers of the last line, from the shards' own counts. A few round trips a shard."""
    founding = await read_founding(redis, settings.redis_prefix)
    totals = dict.fromkeys(("events", "applied", "duplicates", "dead_letters", "accounts", "changes"), 0)
    for partition in range(founding.partitions if founding else 0):
        store = ShardStore(redis, settings.redis_prefix, StageName.ACCOUNTS, partition)
        claim = await store.peek()
        for topic in EVENT_TOPICS:
            for name, count in (claim.state.get("counts", {}) if claim else {}).get(topic, {}).items():
                totals[name] += count
                totals["events"] += count
        totals["accounts"] += await redis.hlen(store.keys.documents)
        claim = await ShardStore(redis, settings.redis_prefix, StageName.RANKING, partition).peek()
        totals["changes"] += claim.state.get("changes", 0) if claim else 0
    return totals


def _print_fields(fields: dict[str, int | float] | dict[str, int]) -> None:
    out.print(" ".join(f"{name}={value}" for name, value in fields.items()))


@contextmanager
def _progress_bar(file: IO[bytes]) -> Iterator[Callable[[ReplayProgress], None]]:
    """On a terminal, how far the file is read and which day it is there."""
    with progress_display() as (bar, update):
        if bar is not None and file.seekable():
            here = file.tell()
            bar.update(bar.task_ids[0], total=file.seek(0, 2) - here)
            file.seek(here)
        yield update


@contextmanager
def progress_display() -> Iterator[tuple[Progress | None, Callable[[ReplayProgress], None]]]:
    """A progress bar on standard error, if that is a terminal, and what moves it."""
    if not err.is_terminal:
        yield None, lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("replaying", total=None)

        def update(now: ReplayProgress) -> None:
            day = "" if now.clock_us is None else f"{datetime.fromtimestamp(now.clock_us / 1e6, UTC):%Y-%m-%d}"
            bar.update(task, completed=now.bytes, description=f"{day} {now.lines:,} lines")

        yield bar, update
