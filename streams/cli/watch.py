"""`resegment watch`."""

import itertools

from aiokafka.structs import ConsumerRecord
from rich.text import Text

from streams.changes import ChangeData, RiskData, cloud_event
from streams.cli.console import err, escape, out, print_json, segment
from streams.cli.running import read_settings
from streams.reading import follow
from streams.topics import Topic

ARROWS = {"up": "↑", "down": "↓"}


async def run_watch(*, risks: bool, from_beginning: bool, limit: int | None, as_json: bool) -> None:
    """Print changes, of segments or of risk, as they come, until there are `limit` of them, or Ctrl-C."""
    shown = itertools.count(1)
    if limit == 0:
        return
    topic = Topic.CHURN_RISK if risks else Topic.SEGMENT_CHANGES
    async for record in follow(read_settings(), topic, from_beginning=from_beginning):
        if as_json:
            _print_event(record)
        elif not _print_line(record, risks=risks):
            continue
        if next(shown) == limit:
            return


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
