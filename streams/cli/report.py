"""`resegment report`."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from segmentation.money import format_amount
from segmentation.period_report import PastChange, Period, PeriodReport, Timeline, period_report, timeline
from segmentation.policy import Policy
from segmentation.population import Member
from segmentation.risk_report import RiskReport, risk_report
from segmentation.segments import Segment
from streams.cli.console import err, escape, out, print_json, segment
from streams.cli.failures import CommandFailed
from streams.cli.figures import days_of, percent, segment_name, share, signed
from streams.cli.report_page import report_page
from streams.cli.running import connected, parse_day_option, partition_count, policy_of_state, read_settings
from streams.cli.tables import matrix, new_table
from streams.instants import format_day, format_instant
from streams.period_report import ReadChanges, read_changes, read_risk_changes
from streams.snapshot import read_snapshot

DEFAULT_DAYS = 30
"""How long a period is whose first day is not given."""


class ReportOptions(NamedTuple):
    """What the command line says."""

    from_day: str | None
    to_day: str | None
    undone_within_days: int
    accounts: tuple[str, ...]
    html: Path | None
    as_json: bool


class _Found(NamedTuple):
    report: PeriodReport
    risk: RiskReport
    timelines: list[Timeline]
    policy: Policy
    remarks: list[str]
    """What the numbers do not hold."""


async def run_report(options: ReportOptions) -> None:
    """Work the report out and show it. Raises CommandFailed for a period or an account that there is not."""
    from_day = parse_day_option(options.from_day, "--from") if options.from_day is not None else None
    to_day = parse_day_option(options.to_day, "--to") if options.to_day is not None else None
    found = await _read(from_day, to_day, options)
    for remark in found.remarks:
        err.print(f"warning: {remark}")
    if options.html is not None:
        _write(options.html, found)
    if options.as_json:
        print_json(_document(found))
    elif options.html is not None:
        out.print(f"report of {days_of(found.report.period)} in {escape(str(options.html))}")
    else:
        _show(found)


async def _read(from_day: int | None, to_day: int | None, options: ReportOptions) -> _Found:
    settings = read_settings()
    async with connected(settings) as (redis, reader):
        partition_count(reader, settings)
        snapshot = await read_snapshot(redis, settings)
        if not snapshot.as_of_us:
            raise CommandFailed("the state has no time yet: nothing is announced before the first tick")
        period = _period(from_day, to_day, snapshot.day)
        members = {account_id: member for account_id, (member, _) in snapshot.members().items()}
        asked = [_member(members, account_id) for account_id in dict.fromkeys(options.accounts)]
        read = await read_changes(reader, members.values(), period)
        read_risks = await read_risk_changes(reader, members.values(), period)
    report = period_report(
        read.chains,
        members.values(),
        period,
        as_of_us=snapshot.as_of_us,
        undone_within_days=options.undone_within_days,
    )
    timelines = [timeline(read.chains.get(member.account_id, ()), member, period) for member in asked]
    risk = risk_report(read_risks.chains, members.values(), period)
    remarks = [*_remarks(read, report), *(f"risk: {remark}" for remark in _log_remarks(read_risks))]
    return _Found(report, risk, timelines, policy_of_state(snapshot.founding), remarks)


def _period(from_day: int | None, to_day: int | None, today: int) -> Period:
    last = today if to_day is None else to_day
    # nothing happened before 1970, and a calendar has a first day
    first = min(last, max(0, last - DEFAULT_DAYS + 1)) if from_day is None else from_day
    if first > last:
        begins, ends = format_day(first), format_day(last)
        raise CommandFailed(f"the period ends before it begins: it would be from {begins} to {ends}")
    return Period(first, last)


def _member(members: Mapping[str, Member], account_id: str) -> Member:
    member = members.get(account_id)
    if member is None or member.segment is None:
        raise CommandFailed(f"--account {account_id}: no segment of it was announced yet")
    return member


def _remarks(read: ReadChanges[PastChange], report: PeriodReport) -> Iterator[str]:
    yield from _log_remarks(read)
    if report.untold:
        yield f"{report.untold:,} accounts have no announced segment yet and are in none of these numbers"


def _log_remarks(read: ReadChanges[Any]) -> Iterator[str]:
    if read.begins_us is not None:
        begins = format_instant(read.begins_us)
        yield f"the log no longer has all changes from before {begins}: what happened then is not in these numbers"
    if read.unpublished:
        yield f"{read.unpublished:,} changes are decided and not published yet: they are not in these numbers"
    if read.strangers:
        yield f"{read.strangers:,} records of the log are no changes and are left out"


def _write(path: Path, found: _Found) -> None:
    page = report_page(
        found.report,
        found.risk,
        found.timelines,
        currency=found.policy.base_currency,
        policy_version=found.policy.version,
        remarks=found.remarks,
    )
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


# -- for people ----------------------------------------------------------------------------------------------


def _show(found: _Found) -> None:
    report, currency = found.report, found.policy.base_currency
    out.print(
        f"{days_of(report.period)} (whole days, UTC), and what is as of {format_instant(report.as_of_us)}; "
        f"policy {escape(found.policy.version)}"
    )
    _show_performance(report, currency)
    counts = report.migration
    out.print(matrix("accounts: segment when it began (rows) and when it ended (columns)", counts))
    out.print(matrix("moves, from (rows) to (columns)", report.moves))
    causes = new_table("moves by cause", "", "moves", "share")
    for cause, count in report.causes.items():
        causes.add_row(escape(cause), f"{count:,}", percent(count, report.move_count))
    if report.causes:
        out.print(causes)
    out.print("")
    for line in (*_sentences(report), *_risk_sentences(found.risk, currency)):
        out.print(line)
    for entry in found.timelines:
        _show_timeline(entry, currency)


def _show_performance(report: PeriodReport, currency: str) -> None:
    headings = ("accounts", f"revenue, {currency}", "share", "entered", "left", "net")
    performance = new_table("segments: now, and in the period", "", *headings)
    for part in report.performance:
        performance.add_row(
            segment(part.segment),
            f"{part.accounts:,}",
            format_amount(part.revenue_minor, currency),
            percent(part.revenue_minor, report.revenue_minor),
            f"{part.entered:,}",
            f"{part.left:,}",
            signed(part.net),
        )
    total = format_amount(report.revenue_minor, currency)
    performance.add_row("all", f"{report.accounts:,}", total, percent(report.revenue_minor, report.revenue_minor))
    out.print(performance)


def _sentences(report: PeriodReport) -> Iterator[str]:
    moves, undone = report.move_count, report.undone
    yield f"{moves:,} moves of {report.moved_accounts:,} accounts; {report.placed:,} accounts got their first segment"
    yield (
        f"displaced: {report.displaced_moves:,} moves ({percent(report.displaced_moves, moves)}) of "
        f"{report.displaced_accounts:,} accounts ({percent(report.displaced_accounts, report.moved_accounts)}) "
        "that did nothing: others moved the cutoff"
    )
    yield (
        f"undone within {undone.within_days} days: {undone.undone:,} of {undone.moves:,} moves between tiers "
        f"({percent(undone.undone, undone.moves)}); {undone.too_young:,} more are too young to tell"
    )


def _risk_sentences(risk: RiskReport, currency: str) -> Iterator[str]:
    now = ", ".join(f"{count:,} {level}" for level, count in risk.accounts.items())
    raised, lowered = sum(risk.raised.values()), sum(risk.lowered.values())
    yield f"churn risk: now {now}; raised {raised:,} times, lowered {lowered:,} times"
    if risk.flagged.accounts:
        parts = {"came back": risk.came_back, "calmer for another reason": risk.calmed, "still": risk.still_flagged}
        told = "; ".join(
            f"{name} {part.accounts:,} ({format_amount(part.revenue_at_risk_minor, currency)})"
            for name, part in parts.items()
        )
        at_risk = format_amount(risk.flagged.revenue_at_risk_minor, currency)
        yield f"flagged high: {risk.flagged.accounts:,} accounts, with {at_risk} {currency} at risk; {told}"


def _show_timeline(entry: Timeline, currency: str) -> None:
    line = Text(f"\n{escape(entry.account_id)}", "bold")
    line.append(": ", "not bold").append_text(segment(segment_name(entry.at_begin)))
    out.print(line.append(" when the period began", "not bold"))
    for change in entry.changes:
        out.print(_change_line(change, currency))
    now = Text("  now ").append_text(segment(segment_name(entry.now)))
    out.print(now.append(f"  with {format_amount(entry.revenue_minor, currency)} {currency}", "dim"))


def _change_line(change: PastChange, currency: str) -> Text:
    line = Text(f"  {format_instant(change.effective_at_us):<20.20}  ")
    if change.previous is not None:
        line.append_text(segment(change.previous)).append(" → ")
    line.append_text(segment(change.current))
    if change.lapsed:
        line.append(" (lapsed)", "dim")
    amount = format_amount(change.revenue_minor, currency)
    return line.append(f"  {amount}  because of {escape(change.cause)}", "dim")


# -- for programs --------------------------------------------------------------------------------------------


def _document(found: _Found) -> dict[str, Any]:
    report, undone = found.report, found.report.undone
    return {
        "from": format_day(report.period.from_day),
        "to": format_day(report.period.to_day),
        "as_of": format_instant(report.as_of_us),
        "policy_version": found.policy.version,
        "base_currency": found.policy.base_currency,
        "accounts": report.accounts,
        "revenue_minor": report.revenue_minor,
        "segments": [
            {
                **part._asdict(),
                "net": part.net,
                "share_of_revenue": share(part.revenue_minor, report.revenue_minor),
            }
            for part in report.performance
        ],
        "migration": _pairs(report.migration.items(), "accounts"),
        "moves": _pairs(report.moves.items(), "moves"),
        "move_count": report.move_count,
        "moved_accounts": report.moved_accounts,
        "placed": report.placed,
        "causes": report.causes,
        "displaced": {
            "moves": report.displaced_moves,
            "share_of_moves": share(report.displaced_moves, report.move_count),
            "accounts": report.displaced_accounts,
            "share_of_moved_accounts": share(report.displaced_accounts, report.moved_accounts),
        },
        "undone": {**undone._asdict(), "rate": share(undone.undone, undone.moves)},
        "risk": _risk_document(found.risk),
        "days": [{"day": format_day(day), **counts._asdict()} for day, counts in report.days.items()],
        "timelines": [_timeline_document(entry) for entry in found.timelines],
        "warnings": found.remarks,
    }


def _risk_document(risk: RiskReport) -> dict[str, Any]:
    flagged = {
        name: part._asdict()
        for name, part in (
            ("flagged", risk.flagged),
            ("came_back", risk.came_back),
            ("calmed", risk.calmed),
            ("still_flagged", risk.still_flagged),
        )
    }
    counts = {"accounts": risk.accounts, "raised": risk.raised, "lowered": risk.lowered, "triggers": risk.triggers}
    return {**counts, **flagged}


def _pairs(counts: Iterable[tuple[tuple[Segment | None, Segment], int]], name: str) -> list[dict[str, Any]]:
    return [{"from": previous, "to": current, name: count} for (previous, current), count in counts]


def _timeline_document(entry: Timeline) -> dict[str, Any]:
    changes = [
        {
            "sequence": change.sequence,
            "effective_at": format_instant(change.effective_at_us),
            "from": change.previous,
            "to": change.current,
            "cause": change.cause,
            "lapsed": change.lapsed,
            "rolling_revenue_minor": change.revenue_minor,
        }
        for change in entry.changes
    ]
    return {
        "account_id": entry.account_id,
        "at_begin": entry.at_begin,
        "changes": changes,
        "now": entry.now,
        "rolling_revenue_minor": entry.revenue_minor,
    }
