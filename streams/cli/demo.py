"""`resegment demo`: the newcomer's five minutes, in one."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from segmentation.segments import Segment
from streams.capacity import PERIOD_DAYS, read_capacity
from streams.cdnow import Line, data_file, read_lines
from streams.changes import ChangeData, RiskData
from streams.cli.capacity import show_segments_and_roles
from streams.cli.console import escape, out, segment
from streams.cli.explain import show_explanation
from streams.cli.failures import CHECK_FAILED, CommandFailed
from streams.cli.local import Local, local_installation
from streams.cli.replay import progress_display, replay_lines
from streams.cli.running import Connections, connected, partition_count
from streams.cli.top import show_top
from streams.cli.verify import show_findings
from streams.cli.watch import change_line, risk_line
from streams.explain import explain
from streams.oracle import verify
from streams.replay import Progress
from streams.rest import wait_at_rest
from streams.top import Wanted, top
from streams.topics import Topic

BEGIN = datetime(1998, 1, 1, tzinfo=UTC)
"""What was bought before is history, which counts at once; from here on, day by day."""

SAMPLES_A_MONTH = 3
POLL_SECONDS = 0.25
TOP_SHOWN = 5
PLACED_SECONDS = 30.0

TIERS = (Segment.KEY, Segment.ENTERPRISE, Segment.COMMERCIAL)


async def run_demo() -> None:
    """Show everything once. Raises CdnowMissing, EmbeddedMissing, ServerFailed, and CommandFailed for mismatches."""
    started = time.monotonic()
    lines = read_lines(data_file())
    purchases = sum(b'"type":"purchase"' in line.payload for line in lines)
    out.print(
        f"CDNOW, a music shop: {len(lines) - purchases:,} accounts and their {purchases:,} purchases, "
        f"{lines[0].occurred_at:%B %Y} to {lines[-1].occurred_at:%B %Y}."
    )
    out.print("Starting a broker, a store and a worker, on this machine only ...")
    async with local_installation(clock="replay", policy=None) as local, connected(local.settings) as connections:
        story = _Story(connections, partition_count(connections.reader, local.settings))
        await _play(local, connections, lines, story)
        story.show_matrix()
        await _show_capacity(local, connections)
        await _show_risk(connections)
        await _show_top(local, connections)
        await _explain_displaced(local, connections, story)
        await _prove(local, connections)
    out.print(f"\nAll of it took {time.monotonic() - started:.0f} s, and nothing is left behind.")
    out.print("Next: `resegment dev` runs the same for your own events; `resegment --help` lists the rest.")


async def _play(local: Local, connections: Connections, lines: list[Line], story: "_Story") -> None:
    """Replay the log, and tell what happens meanwhile."""
    history = sum(line.occurred_at < BEGIN for line in lines)
    out.print(f"{history:,} events are history, up to {BEGIN:%Y-%m-%d}; then the days pass one by one:\n")
    size = sum(len(line.payload) + 1 for line in lines)
    with progress_display() as (bar, update):
        if bar is not None:
            bar.update(bar.task_ids[0], total=size)

        def progress(now: Progress) -> None:
            update(now)
            story.clock_us = now.clock_us

        telling = asyncio.create_task(story.tell())
        try:
            await replay_lines(
                connections,
                local.settings,
                local.policy,
                [line.payload + b"\n" for line in lines],
                begin_us=int(BEGIN.timestamp()) * 1_000_000,
                progress=progress,
                check_worker=local.worker.check,
            )
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    await story.tell_rest()


class _Story:
    """The changes of a replay, told month by month."""

    def __init__(self, connections: Connections, partitions: int) -> None:
        self._reader = connections.reader
        self._positions = {(Topic.SEGMENT_CHANGES, number): 0 for number in range(partitions)}
        self._untold: list[ChangeData] = []
        self.moves: Counter[tuple[str, str]] = Counter()
        self.displaced: ChangeData | None = None
        """The newest change of an account that another's purchase moved to another tier."""
        self.clock_us: int | None = None
        """Where the replay is."""

    async def tell(self) -> None:
        """Tell each month once it is over, until cancelled."""
        told = ""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            month = _month(self.clock_us)
            if month > max(told, f"{BEGIN:%Y-%m}"):
                await self._read()
                self._show(until_month=month)
                told = month

    async def tell_rest(self) -> None:
        """Tell what is not told yet."""
        await self._read()
        self._show(until_month="9999")

    async def _read(self) -> None:
        async for topic, record in self._reader.read(self._positions):
            self._positions[topic, record.partition] = record.offset + 1
            self._untold.append(ChangeData.model_validate_json(record.value))

    def _show(self, *, until_month: str) -> None:
        self._untold.sort(key=lambda change: change.effective_at)
        while self._untold and self._untold[0].effective_at[:7] < until_month:
            month = self._untold[0].effective_at[:7]
            of_month = [change for change in self._untold if change.effective_at[:7] == month]
            self._untold = self._untold[len(of_month) :]
            self._show_month(month, of_month)

    def _show_month(self, month: str, changes: list[ChangeData]) -> None:
        moves = [change for change in changes if change.previous_segment is not None]
        for change in moves:
            self.moves[change.previous_segment or "", change.current_segment] += 1
            if _was_displaced(change):
                self.displaced = change
        begun = len(changes) - len(moves)
        displaced = sum(change.cause.kind == "boundary_moved" for change in moves)
        out.print(
            f"{month}  {len(moves):>6,} moves, {displaced:,} of them of accounts that did nothing"
            + (f"; {begun:,} accounts placed for the first time" if begun else "")
        )
        for change in _samples(moves):
            out.print(Text("         ").append_text(change_line(change)))

    def show_matrix(self) -> None:
        """How many accounts went from where to where."""
        table = Table(title="\nmoves, from (rows) to (columns)", title_justify="left")
        table.add_column("")
        names = [str(name) for name in Segment]
        for name in names:
            table.add_column(segment(name), justify="right")
        for previous in names:
            counts = [self.moves[previous, current] for current in names]
            table.add_row(segment(previous), *(f"{count:,}" if count else "·" for count in counts))
        out.print(table)


def _month(clock_us: int | None) -> str:
    return "" if clock_us is None else f"{datetime.fromtimestamp(clock_us / 1e6, UTC):%Y-%m}"


def _was_displaced(change: ChangeData) -> bool:
    return (
        change.cause.kind == "boundary_moved"
        and change.previous_segment in TIERS
        and change.current_segment in TIERS
        and change.direction == "down"
    )


def _samples(changes: list[ChangeData]) -> Iterator[ChangeData]:
    """A few changes between tiers, of different causes."""
    seen: set[str] = set()
    for change in changes:
        if len(seen) == SAMPLES_A_MONTH:
            return
        if change.previous_segment in TIERS and change.cause.kind not in seen:
            seen.add(change.cause.kind)
            yield change


async def _show_capacity(local: Local, connections: Connections) -> None:
    out.print(f"\nwhat the accounts ask of the team, by the policy's strategies; moved: in the last {PERIOD_DAYS} days")
    show_segments_and_roles(await read_capacity(local.settings, local.policy, *connections))


async def _show_risk(connections: Connections) -> None:
    """The flag behind which most money is."""
    reader, most, counts = connections.reader, None, Counter[str]()
    partitions = range(reader.partition_count(Topic.CHURN_RISK))
    async for _, record in reader.read({(Topic.CHURN_RISK, number): 0 for number in partitions}):
        change = RiskData.model_validate_json(record.value or b"")
        if change.mode != "backfill":
            counts[change.current_level] += 1
            if most is None or change.revenue_at_risk_minor > most.revenue_at_risk_minor:
                most = change
    if most is not None:
        raised = f"{counts['watch']:,} to watch, {counts['high']:,} to high, {counts['low']:,} back to low"
        out.print(f"\nchurn risk changed meanwhile: {raised}. The one with the most at stake:")
        out.print(Text("  ").append_text(risk_line(most)))


async def _show_top(local: Local, connections: Connections) -> None:
    settings, policy = local.settings, local.policy
    await wait_at_rest(*connections, settings, timeout_seconds=PLACED_SECONDS, until_placed=True)
    out.print("\nwhom to work on now, by the money at stake (`resegment top`):")
    show_top(await top(settings, policy, connections.redis, TOP_SHOWN, Wanted()), policy)


async def _explain_displaced(local: Local, connections: Connections, story: _Story) -> None:
    change = story.displaced
    if change is None:
        return
    out.print(
        f"\n{escape(change.account_id)} did nothing on {escape(change.effective_at[:10])}, and yet moved: "
        "others bought, and the cutoff passed it.\n"
    )
    show_explanation(await explain(local.settings, local.policy, *connections, change.account_id))


async def _prove(local: Local, connections: Connections) -> None:
    out.print("\nEvery account, change and count, worked out again from the log in plain SQL:")
    report = await verify(local.settings, local.policy, *connections)
    show_findings(report)
    out.print(report.line())
    if not report.is_right:
        raise CommandFailed(f"{report.mismatch_count} mismatches", CHECK_FAILED)
