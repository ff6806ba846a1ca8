"""A report of a period as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.

Every text goes through `text_of`, every figure is made here. Bars are SVG with widths in percent, so that they
grow with the page while the text beside them stays as large as all text.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape as escape_markup
from itertools import pairwise
from types import MappingProxyType

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.money import format_amount
from segmentation.period_report import DayMoves, PeriodReport, Timeline
from segmentation.risk_report import RiskReport
from segmentation.segments import SEGMENTS, Segment
from streams.cli.console import escape
from streams.cli.figures import days_of, percent, rows_of, segment_name, signed
from streams.instants import format_day, format_instant

BARS_MAX = 92
"""More days than these are drawn some to a bar."""

CHART_HEIGHT = 120
"""Of the bars of the days, in pixels."""

_STYLE = """
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1c2024; --soft: #5b6570; --line: #d9dee3; --tint: #f3f5f7; --heat: 37, 99, 195;
  --key: #a3389b; --enterprise: #2f5fc4; --commercial: #16839b; --new_start: #2c8a4b; --prospect: #a8720b;
  --up: #2c8a4b; --down: #c0492f; --advanced: #8492a0; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #e6e9ec; --soft: #9aa5b0; --line: #333a41; --tint: #1d2226; --heat: 96, 150, 240;
  --key: #d67fd0; --enterprise: #7da2f0; --commercial: #4fb9d0; --new_start: #62c383; --prospect: #d9a441;
  --up: #62c383; --down: #e58770; --advanced: #71808d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .25rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; }
.soft, .tile small, figcaption { color: var(--soft); }
.warning { border-left: 4px solid var(--down); padding: .25rem .75rem; background: var(--tint); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tile { background: var(--tint); border-radius: .5rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; overflow-wrap: anywhere; }
.tile small { display: block; line-height: 1.35; }
.box { overflow-x: auto; margin: .5rem 0; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; font-size: .875rem; }
th:first-child, .text { text-align: left; }
tbody th { font-weight: 600; }
tbody th, tfoot th { position: sticky; left: 0; background: var(--paper); }
tfoot th, tfoot td { border-top: 2px solid var(--line); font-weight: 600; }
th.bar, td.bar { width: 40%; min-width: 7rem; }
td.none { color: var(--soft); }
svg { display: block; width: 100%; overflow: visible; }
figure { margin: .75rem 0; }
figcaption { font-size: .875rem; margin: .6rem 0 .2rem; }
.axis { margin: .2rem 0; display: flex; justify-content: space-between; color: var(--soft); font-size: .8rem; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: .2em; margin-right: .45em; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .875rem; color: var(--soft); }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; color: var(--soft); }
@media screen and (max-width: 32rem) {
  th, td { padding: .35rem .5rem; font-size: .9rem; }
  th.bar, td.bar { min-width: 4rem; }
  .tile:last-child:nth-child(odd) { grid-column: 1 / -1; }
}
@media print {
  :root { color-scheme: light;
    --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #f3f5f7; --heat: 37, 99, 195;
    --key: #a3389b; --enterprise: #2f5fc4; --commercial: #16839b; --new_start: #2c8a4b; --prospect: #a8720b;
    --up: #2c8a4b; --down: #c0492f; --advanced: #8492a0; }
  @page { margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .tiles { grid-template-columns: repeat(5, 1fr); gap: .5rem; }
  .tile { padding: .5rem; }
  .tile b { font-size: 12pt; }
  .box { overflow: visible; border: 0; }
  th, td { padding: .25rem .4rem; }
  tbody th, tfoot th { position: static; }
  h2, h3, h2 + p, h3 + p { break-after: avoid; }
  tr, figure, .box, .tile { break-inside: avoid; }
}
"""


def report_page(
    report: PeriodReport,
    risk: RiskReport,
    timelines: Sequence[Timeline],
    *,
    currency: str,
    policy_version: str,
    remarks: Sequence[str] = (),
) -> str:
    """The whole page. `remarks`: what the numbers do not hold. O(days with changes + changes of the timelines)."""
    title = f"Segments, {days_of(report.period)}"
    sections = [
        f"<h1>{text_of(title)}</h1>",
        f'<p class="soft">Whole days, UTC. What is <em>now</em> is as of {_instant(report.as_of_us)}. '
        f"Amounts in {text_of(currency)}. Policy {text_of(policy_version)}.</p>",
        *(f'<p class="warning">{text_of(_sentence(remark))}</p>' for remark in remarks),
        _tiles(report, currency),
        _performance(report, currency),
        _migration(report),
        _moves(report),
        _causes(report),
        _risk(risk, currency),
        *_timelines(timelines, report, currency),
        _meanings(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text_of(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def text_of(text: str) -> str:
    """A text as it may stand in the page: nothing in it is markup, or hides or turns what is beside it."""
    return escape_markup(escape(text))


# -- sections ------------------------------------------------------------------------------------------------


def _tiles(report: PeriodReport, currency: str) -> str:
    undone = report.undone
    tiles = [
        (f"{report.accounts:,}", "accounts now"),
        (_whole_units(report.revenue_minor, currency), f"rolling revenue now, {text_of(currency)}"),
        (f"{report.move_count:,}", f"moves of {report.moved_accounts:,} accounts"),
        (
            percent(report.displaced_accounts, report.moved_accounts),
            f"of the accounts that moved were displaced: {report.displaced_accounts:,} did nothing, "
            "and the cutoff passed them",
        ),
        (
            percent(undone.undone, undone.moves),
            f"of the moves between tiers were undone within {undone.within_days} days",
        ),
    ]
    inner = "".join(f'<div class="tile"><b>{value}</b><small>{text}</small></div>' for value, text in tiles)
    return f'<div class="tiles">{inner}</div>'


def _whole_units(amount_minor: int, currency: str) -> str:
    """Cut off at the point, where there is no room for more: the table has the whole amount."""
    return format_amount(amount_minor, currency).partition(".")[0]


def _performance(report: PeriodReport, currency: str) -> str:
    heads = ("segment", "accounts", "of accounts", "revenue", "of revenue", "entered", "left", "net")
    rows = [
        [
            _segment(part.segment),
            f"{part.accounts:,}",
            percent(part.accounts, report.accounts),
            format_amount(part.revenue_minor, currency),
            percent(part.revenue_minor, report.revenue_minor),
            f"{part.entered:,}",
            f"{part.left:,}",
            signed(part.net),
        ]
        for part in report.performance
    ]
    entered = sum(part.entered for part in report.performance)
    left = sum(part.left for part in report.performance)
    total = ["all", f"{report.accounts:,}", "", format_amount(report.revenue_minor, currency), ""]
    table = _table(heads, rows, [*total, f"{entered:,}", f"{left:,}", signed(entered - left)])
    bars = "".join(
        f"<figcaption>{text_of(name)}</figcaption>{_stacked(parts, name)}"
        for name, parts in (
            ("share of the accounts", [(part.segment, part.accounts) for part in report.performance]),
            ("share of the revenue", [(part.segment, max(part.revenue_minor, 0)) for part in report.performance]),
        )
    )
    return (
        "<h2>Segments</h2>"
        f"<figure>{_legend(SEGMENTS)}{bars}</figure>{table}"
        '<p class="soft">Accounts and revenue are as they are now; entered, left and net are of the period.</p>'
    )


def _migration(report: PeriodReport) -> str:
    stayed = sum(count for (previous, current), count in report.migration.items() if previous is current)
    there = sum(count for (previous, _), count in report.migration.items() if previous is not None)
    said = f"{stayed:,} of the {there:,} accounts that were there ({percent(stayed, there)}) ended where they began."
    if not there:
        said = "No account was there when it began."
    return (
        "<h2>From where to where</h2>"
        f"<p>Rows: the segment when the period began. Columns: the segment when it ended. {said}</p>"
        + _matrix(report.migration, "accounts")
    )


def _moves(report: PeriodReport) -> str:
    return (
        "<h2>Moves</h2>"
        f"<p>{report.move_count:,} moves, one by one: an account that went up and came down again is in two cells. "
        f"{report.placed:,} accounts got their first segment, which is no move.</p>"
        f"{_matrix(report.moves, 'moves')}{_day_chart(report)}"
    )


def _causes(report: PeriodReport) -> str:
    if not report.causes:
        return ""
    most = max(report.causes.values())
    rows = [
        [
            text_of(cause),
            f"{count:,}",
            percent(count, report.move_count),
            (
                f'<svg height="12" aria-hidden="true"><rect width="{_part(count, most)}" height="12" rx="2" '
                'style="fill: var(--enterprise)"/></svg>'
            ),
        ]
        for cause, count in report.causes.items()
    ]
    return "<h2>Why they moved</h2>" + _table(("cause", "moves", "share", ""), rows, classes={3: "bar"})


def _risk(risk: RiskReport, currency: str) -> str:
    levels = _table(
        ("level", "accounts", "raised to", "lowered to"),
        [
            [str(level), f"{count:,}", f"{risk.raised.get(level, 0):,}", f"{risk.lowered.get(level, 0):,}"]
            for level, count in risk.accounts.items()
        ],
    )
    outcomes = _table(
        ("flagged high in the period", "accounts", f"at risk, {text_of(currency)}"),
        [
            [name, f"{part.accounts:,}", format_amount(part.revenue_at_risk_minor, currency)]
            for name, part in (
                ("all", risk.flagged),
                ("came back: bought", risk.came_back),
                ("calmer for another reason", risk.calmed),
                ("still flagged", risk.still_flagged),
            )
        ],
    )
    return (
        "<h2>Churn risk</h2>"
        '<p class="soft">Accounts are as they are now; raised and lowered are of the period. What is at risk is as of '
        "the first flag in the period.</p>" + levels + outcomes
    )


def _timelines(timelines: Sequence[Timeline], report: PeriodReport, currency: str) -> Iterable[str]:
    if timelines:
        yield "<h2>Accounts</h2>"
    for entry in timelines:
        yield f"<h3>{text_of(entry.account_id)}</h3>"
        count = len(entry.changes)
        told = f"{count} {'change' if count == 1 else 'changes'} in the period"
        yield (
            f"<p>{_segment(entry.at_begin)} when the period began, {told}; now {_segment(entry.now)} with "
            f"{format_amount(entry.revenue_minor, currency)} {text_of(currency)}.</p>"
        )
        yield _lane(entry, report)
        if entry.changes:
            yield _changes(entry, currency)


def _meanings(report: PeriodReport) -> str:
    within = report.undone.within_days
    meanings = [
        ("revenue", "Rolling revenue: what the accounts brought, net, in the policy's window, up to now."),
        ("entered, left, net", "Changes into and out of a segment. Net is entered minus left."),
        ("moves", "Changes of accounts that had a segment before. A first segment is no move."),
        (
            "displaced",
            "Moved with the cause boundary_moved: the account did nothing, others moved the cutoff past it.",
        ),
        (
            "undone",
            f"Of the moves between tiers that are at least {within} days old ({report.undone.moves:,}), those after "
            f"which the account was back in the tier it had left within {within} days ({report.undone.undone:,}). "
            f"{report.undone.too_young:,} younger moves are in neither number.",
        ),
    ]
    inner = "".join(f"<dt>{text_of(word)}</dt><dd>{text_of(text)}</dd>" for word, text in meanings)
    return f"<h2>What the words mean</h2><dl>{inner}</dl>"


# -- parts ---------------------------------------------------------------------------------------------------


def _table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    foot: Sequence[str] = (),
    *,
    classes: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """Cells are HTML already; the first of each row is its heading. `classes`: of columns that are no figures."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{_class(classes.get(number))}>{text}</{tag}>" for number, text in enumerate(row[1:], 1))

    head = f'<th scope="col">{heads[0]}</th>{cells("th", heads)}'
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{cells("td", row)}</tr>' for row in rows)
    tail = f'<tfoot><tr><th scope="row">{foot[0]}</th>{cells("td", foot)}</tr></tfoot>' if foot else ""
    return f'<div class="box"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{tail}</table></div>'


def _class(name: str | None) -> str:
    return f' class="{name}"' if name else ""


def _matrix(
    counts: Mapping[tuple[Segment | None, Segment], int] | Mapping[tuple[Segment, Segment], int], unit: str
) -> str:
    """Each cell is the darker, the larger its part of its row."""
    by_pair: dict[tuple[Segment | None, Segment], int] = dict(counts.items())
    head = "".join(f'<th scope="col">{_segment(name)}</th>' for name in SEGMENTS)
    rows = []
    for previous in rows_of({source for source, _ in by_pair}):
        row = {current: by_pair.get((previous, current), 0) for current in SEGMENTS}
        total = sum(row.values())
        cells = "".join(_heated(count, total) for count in row.values())
        rows.append(f'<tr><th scope="row">{_segment(previous)}</th>{cells}<td>{total:,}</td></tr>')
    sums = [sum(count for (_, to), count in by_pair.items() if to is current) for current in SEGMENTS]
    foot = "".join(f"<td>{total:,}</td>" for total in [*sums, sum(sums)])
    return (
        f'<div class="box"><table><thead><tr><th scope="col">{unit}</th>{head}<th scope="col">all</th></tr></thead>'
        f'<tbody>{"".join(rows)}</tbody><tfoot><tr><th scope="row">all</th>{foot}</tr></tfoot></table></div>'
    )


def _heated(count: int, total: int) -> str:
    if not count:
        return '<td class="none">·</td>'
    strength = 0.06 + 0.34 * count / total
    return f'<td style="background: rgba(var(--heat), {strength:.2f})">{count:,}</td>'


def _stacked(parts: Sequence[tuple[Segment, int]], name: str) -> str:
    """One bar, cut by shares."""
    whole = sum(weight for _, weight in parts)
    shares = ", ".join(f"{segment} {percent(weight, whole)}" for segment, weight in parts)
    rects, at = [], 0
    for segment, weight in parts:
        if weight:
            rects.append(
                f'<rect x="{_part(at, whole)}" width="{_part(weight, whole)}" height="22" '
                f'style="fill: var(--{segment})"><title>{segment} {percent(weight, whole)}</title></rect>'
            )
        at += weight
    return f'<svg height="22" role="img" aria-label="{text_of(name)}: {shares}">{"".join(rects)}</svg>'


def _day_chart(report: PeriodReport) -> str:
    """A bar for each day, or for some days: up from the line what rose or advanced, down from it what fell."""
    if not any(counts.advanced or counts.up or counts.down for counts in report.days.values()):
        return ""
    today = max(report.as_of_us // MICROSECONDS_PER_DAY, *report.days)
    first, last = report.period.from_day, min(report.period.to_day, today)
    days_a_bar = -(-(last - first + 1) // BARS_MAX)
    bars = -(-(last - first + 1) // days_a_bar)
    sums = [[0, 0, 0] for _ in range(bars)]
    for day, counts in report.days.items():
        into = sums[(day - first) // days_a_bar]
        for place, count in enumerate(_drawn(counts)):
            into[place] += count
    above = max(up + advanced for up, advanced, _ in sums)
    below = max(down for _, _, down in sums)
    scale = CHART_HEIGHT / (above + below)
    line = above * scale
    rects = []
    for number, (up, advanced, down) in enumerate(sums):
        tops = (line - up * scale, line - (up + advanced) * scale, line)
        for name, count, top in zip(("up", "advanced", "down"), (up, advanced, down), tops, strict=True):
            if count:
                begins = format_day(first + number * days_a_bar)
                rects.append(
                    f'<rect x="{_part(5 * number + 1, 5 * bars)}" width="{_part(4, 5 * bars)}" y="{top:.1f}" '
                    f'height="{max(count * scale, 0.5):.1f}" style="fill: var(--{name})">'
                    f"<title>{begins}: {count:,} {name}</title></rect>"
                )
    each = "each day" if days_a_bar == 1 else f"each {days_a_bar} days"
    return (
        f"<figure><figcaption>Moves of {each}: above the line up, or on to a later stage; below it down. "
        f"The highest bar is {above:,}, the lowest {below:,}.</figcaption>"
        f'<svg height="{CHART_HEIGHT}" role="img" aria-label="moves of {each}">{"".join(rects)}'
        f'<line x1="0" x2="100%" y1="{line:.1f}" y2="{line:.1f}" style="stroke: var(--soft)"/></svg>'
        f'<div class="axis"><span>{format_day(first)}</span><span>{format_day(last)}</span></div>'
        f"{_color_legend({'up': 'up', 'advanced': 'to a later stage', 'down': 'down'})}</figure>"
    )


def _drawn(counts: DayMoves) -> tuple[int, int, int]:
    return counts.up, counts.advanced, counts.down


def _lane(entry: Timeline, report: PeriodReport) -> str:
    """The account's segments through the period, up to now."""
    begin_us = report.period.begin_us
    end_us = min(report.period.end_us, max(report.as_of_us, begin_us + 1))
    steps: list[tuple[int, Segment | None]] = [
        (begin_us, entry.at_begin),
        *((change.effective_at_us, change.current) for change in entry.changes),
        (end_us, None),
    ]
    rects = []
    for (from_us, segment), (to_us, _) in pairwise(steps):
        if segment is not None and to_us > from_us:
            x, width = _part(from_us - begin_us, end_us - begin_us), _part(to_us - from_us, end_us - begin_us)
            rects.append(
                f'<rect x="{x}" width="{width}" height="18" style="fill: var(--{segment})">'
                f"<title>{segment} from {_instant(from_us)}</title></rect>"
            )
    there = {segment for _, segment in steps if segment is not None}
    return (
        f'<figure><svg height="18" role="img" aria-label="segments over time">{"".join(rects)}</svg>'
        f'<div class="axis"><span>{format_day(report.period.from_day)}</span><span>{_day_before(end_us)}</span></div>'
        f"{_legend(segment for segment in SEGMENTS if segment in there)}</figure>"
    )


def _changes(entry: Timeline, currency: str) -> str:
    rows = [
        [
            _instant(change.effective_at_us),
            _segment(change.previous),
            _segment(change.current) + (" (lapsed)" if change.lapsed else ""),
            text_of(change.cause),
            format_amount(change.revenue_minor, currency),
        ]
        for change in entry.changes
    ]
    return _table(("when", "from", "to", "because of", "revenue"), rows, classes={1: "text", 2: "text", 3: "text"})


def _legend(segments: Iterable[Segment]) -> str:
    return _color_legend({str(segment): str(segment) for segment in segments})


def _color_legend(names: Mapping[str, str]) -> str:
    """Color -> what it stands for."""
    inner = "".join(f"<span>{_dot(color)}{text_of(name)}</span>" for color, name in names.items())
    return f'<div class="legend">{inner}</div>'


def _dot(color: str) -> str:
    return f'<svg class="dot" aria-hidden="true"><rect width="100%" height="100%" style="fill: var(--{color})"/></svg>'


def _segment(segment: Segment | None) -> str:
    name = text_of(segment_name(segment))
    return name if segment is None else f"{_dot(segment)}{name}"


def _part(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3f}%"


def _instant(instant_us: int) -> str:
    """To the second: `1998-06-30 12:00:05`."""
    return format_instant(instant_us)[:19].replace("T", " ").removesuffix("Z")


def _day_before(instant_us: int) -> str:
    """The day that ends at an instant or holds it."""
    return format_instant(instant_us - 1)[:10]


def _sentence(remark: str) -> str:
    return f"{remark[:1].upper()}{remark[1:]}."
