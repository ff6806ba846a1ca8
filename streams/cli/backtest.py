"""`resegment backtest`."""

import re
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

from rich.table import Table

from segmentation.money import format_amount
from streams.cli.console import err, out, print_json, segment
from streams.cli.failures import CommandFailed
from streams.cli.fit import read_log_file
from streams.cli.running import parse_day_option, read_policy, read_settings
from streams.cli.tables import new_table
from streams.instants import format_day
from streams.model.backtest import (
    EXPECTED,
    FREQUENCY,
    LAST_HORIZON,
    MODEL,
    OVERDUE,
    PLANNED,
    POTENTIAL,
    PROBABILITIES,
    QUIET,
    RECENCY,
    RISK,
    Backtest,
    ForecastQuality,
    RevenueBacktest,
    backtest,
)
from streams.model.measures import Decile

HORIZON_DAYS_MAX = 3650

_DAYS = re.compile(r"([0-9]{1,4})d?").fullmatch

_NAMES = {
    RISK: "risk: model, evidence",
    MODEL: "model: no purchase",
    RECENCY: "long since the last",
    FREQUENCY: "few purchases",
    OVERDUE: "overdue by own gaps",
    QUIET: "model: is gone",
    PLANNED: "to plan with",
    POTENTIAL: "potential, as live",
    EXPECTED: "the model's",
    LAST_HORIZON: "the last days' again",
}


def run_backtest(
    file: Path, *, at: str, horizon: str, revenue_horizon: str, policy: Path | None, as_json: bool
) -> None:
    """Print how it would have turned out. Raises CommandFailed, CannotFit, CannotBacktest."""
    day = parse_day_option(at, "--at")
    horizon_days = _days(horizon, "--horizon")
    revenue_horizon_days = _days(revenue_horizon, "--revenue-horizon")
    rules = read_policy(read_settings(policy=policy))
    log = read_log_file(file, rules, with_engagements=True)
    found = backtest(log, rules, day=day, horizon_days=horizon_days, revenue_horizon_days=revenue_horizon_days)
    if found.revenue is None and log.last_day is not None:
        ends = format_day(log.last_day)
        err.print(f"the log ends on {ends}: no forecast over {revenue_horizon_days} days is checked")
    if as_json:
        print_json({"at": at, "horizon_days": horizon_days, **_document(found)})
        return
    _show(found, at, horizon_days, rules.base_currency)
    out.print(" ".join(f"{name}={value}" for name, value in _fields(found).items()))


def _days(text: str, option: str) -> int:
    match = _DAYS(text)
    if match is None or not 1 <= int(match[1]) <= HORIZON_DAYS_MAX:
        raise CommandFailed(f"{option}: expected days from 1d to {HORIZON_DAYS_MAX}d, like 90d")
    return int(match[1])


def _fields(found: Backtest) -> dict[str, int | str]:
    """The last line, for programs."""
    aucs = {name: f"{found.score(name).auc:.4f}" for name in (RISK, RECENCY, FREQUENCY, OVERDUE, QUIET)}
    return {
        "accounts": found.accounts,
        "churned": found.churned,
        "auc": aucs[RISK],
        "auc_recency": aucs[RECENCY],
        "auc_frequency": aucs[FREQUENCY],
        "auc_overdue": aucs[OVERDUE],
        "auc_quiet": aucs[QUIET],
        "brier": f"{found.score(RISK).brier:.4f}",
    }


def _show(found: Backtest, at: str, horizon_days: int, currency: str) -> None:
    churned = found.churned / found.accounts
    out.print(
        f"At the end of {at} {found.accounts:,} accounts had purchased.\n"
        f"In the {horizon_days} days that followed {found.churned:,} of them ({churned:.1%}) bought nothing."
    )
    out.print(_score_table(found))
    out.print(_calibration_table(found.calibration))
    out.print(_warning_table(found, horizon_days))
    out.print(_risk_table(found, horizon_days, currency))
    if found.revenue:
        out.print(_revenue_table(found.revenue, currency))
        out.print(_segment_table(found.revenue, currency))
    out.print("")


def _score_table(found: Backtest) -> Table:
    headings = ("AUC", "average\nprecision", "right in\ntop tenth", "lost revenue\nin top tenth", "Brier")
    table = new_table("who would buy nothing, told by", "", *headings)
    for score in found.scores:
        table.add_row(
            _NAMES[score.name],
            _decimals(score.auc),
            _decimals(score.average_precision),
            _percent(score.precision_in_top),
            _percent(score.lost_in_top),
            "" if score.brier is None else _decimals(score.brier),
        )
    return table


def _calibration_table(calibration: Iterable[Decile]) -> Table:
    table = new_table(
        "is the probability what it says? tenths of the accounts", "accounts", "predicted", "bought nothing"
    )
    for decile in calibration:
        table.add_row(f"{decile.accounts:,}", _percent(decile.predicted), _percent(decile.actual))
    return table


def _warning_table(found: Backtest, horizon_days: int) -> Table:
    headings = ("accounts\nby then", "of them\nright", "of the lost,\nfound", "days before\nthe end, median")
    table = new_table(f"how early silence alone warned; the end is {horizon_days} days later", "level", *headings)
    for warned in found.warned:
        lead = f"{warned.lead_days:.0f}" if isfinite(warned.lead_days) else "-"
        table.add_row(warned.level, f"{warned.accounts:,}", _percent(warned.right), _percent(warned.found), lead)
    return table


def _risk_table(found: Backtest, horizon_days: int, currency: str) -> Table:
    table = new_table(f"revenue of the {horizon_days} days before, {currency}", "", "")
    for name in PROBABILITIES:
        at_risk_minor = found.score(name).at_risk_minor
        assert at_risk_minor is not None
        table.add_row(f"at risk by {_NAMES[name]}", format_amount(at_risk_minor, currency))
    table.add_row("lost: of accounts that then bought nothing", format_amount(found.lost_minor, currency))
    return table


def _revenue_table(revenue: RevenueBacktest, currency: str) -> Table:
    headings = ("total", "of what\ncame", "mean error\nan account", "rank\ncorrelation")
    table = new_table(f"revenue of the {revenue.horizon_days} days that followed, {currency}", "forecast", *headings)
    for forecast in revenue.forecasts:
        table.add_row(
            _NAMES[forecast.name],
            format_amount(forecast.total_minor, currency),
            _ratio(forecast, revenue.came_minor),
            format_amount(round(forecast.mean_absolute_error_minor), currency),
            _decimals(forecast.rank_correlation),
        )
    table.add_row("what came", format_amount(revenue.came_minor, currency))
    table.caption = f"within the bounds of its potential was what {revenue.covered:.0%} of the accounts brought"
    return table


def _segment_table(revenue: RevenueBacktest, currency: str) -> Table:
    """Each forecast's total as a part of what came."""
    names = [_NAMES[forecast.name].replace(" ", "\n", 1) for forecast in revenue.forecasts]
    table = new_table("the totals by segment, as parts of what came", "", "accounts", "what came", *names)
    for part in revenue.segments:
        ratios = [_ratio(forecast, part.came_minor) for forecast in part.forecasts]
        table.add_row(segment(part.segment), f"{part.accounts:,}", format_amount(part.came_minor, currency), *ratios)
    return table


def _ratio(forecast: ForecastQuality, came_minor: int) -> str:
    return f"{forecast.total_minor / came_minor:.2f}" if came_minor > 0 else "-"


def _decimals(value: float) -> str:
    return f"{value:.3f}" if isfinite(value) else "-"


def _percent(value: float) -> str:
    return f"{value:.1%}" if isfinite(value) else "-"


def _document(found: Backtest) -> dict[str, Any]:
    """Everything, as JSON has it: what is not a number is null."""
    document: dict[str, Any] = _plain(found)
    fit = document.pop("fit")
    return {**document, "model": {**fit.pop("buying"), **fit.pop("spend")}, "statistics": fit}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value
