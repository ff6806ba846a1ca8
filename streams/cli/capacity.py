"""`resegment capacity`."""

from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from segmentation.capacity import MINUTES_AN_HOUR, OwnerLoad, RoleLoad
from segmentation.policy import Policy
from streams.capacity import PERIOD_DAYS, CapacityNow, read_capacity
from streams.cli.console import err, escape, out, print_json, segment, shortened
from streams.cli.running import connected, partition_count, read_policy, read_settings
from streams.instants import format_instant

OWNERS_SHOWN = 20
OWNER_CHARACTERS = 60
TABLE_CHARACTERS_MAX = 1_000


async def run_capacity(*, policy: Path | None, as_json: bool) -> None:
    """Say how much work there is for whom. Raises DifferentPolicy, NoInstallation."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with connected(settings) as connections:
        partition_count(connections.reader, settings)
        found = await read_capacity(settings, rules, *connections)
    if as_json:
        print_json(_document(found))
        return
    if not found.as_of_us:
        err.print("no time is known before the first tick, so no account has a segment yet")
    else:
        out.print(f"as of {format_instant(found.as_of_us)}; moves: of the {PERIOD_DAYS} days before")
    show_segments_and_roles(found)
    show_owners(found, rules)
    if found.incomplete:
        err.print(f"of {found.incomplete:,} accounts the log does not hold all moves (yet, or any more)")


def show_segments_and_roles(found: CapacityNow) -> None:
    """Two tables, for people."""
    table = _table("segment", "role", "accounts", "moved", "hours a quarter", "moved", left=2)
    for load in found.capacity.segments:
        table.add_row(
            segment(load.segment),
            escape(load.role),
            f"{load.accounts:,}",
            _signed(f"{load.accounts_change:+,}"),
            hours(load.minutes_a_quarter),
            _signed(hours(load.minutes_change, sign="+")),
        )
    _print(table)
    out.print()
    table = _table("role", "hours a quarter", "moved", "people needed", "people", "", left=1)
    for role in found.capacity.roles:
        table.add_row(
            escape(role.role),
            hours(role.minutes_a_quarter),
            _signed(hours(role.minutes_change, sign="+")),
            people(role.people_needed),
            f"{role.people:,}",
            Text("short", "bold red") if role.is_short else "",
        )
    _print(table)


def _print(table: Table) -> None:
    """As wide as it is: a number that is cut off is a wrong number."""
    out.print(table, width=TABLE_CHARACTERS_MAX, crop=False)


def _table(*columns: str, left: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right")
    return table


def show_owners(found: CapacityNow, policy: Policy) -> None:
    """Who has too much, the heaviest load first, and what nobody owns."""
    out.print()
    owners, unowned, limits = found.capacity.owners, found.capacity.unowned, policy.owners
    over = [load for load in owners if load.is_over]
    out.print(
        f"{len(over):,} of {len(owners):,} owners are over their load "
        f"(at most {limits.accounts_max:,} accounts and {limits.hours_a_quarter_max:,} hours a quarter)"
    )
    for load in over[:OWNERS_SHOWN]:
        out.print(Text("  ").append(shortened(escape(load.owner or ""), OWNER_CHARACTERS), "bold").append(_said(load)))
    if len(over) > OWNERS_SHOWN:
        out.print(f"  and {len(over) - OWNERS_SHOWN:,} more (--json lists all)")
    out.print(f"  without an owner{_said(unowned)}")


def _said(load: OwnerLoad) -> str:
    return f": {load.accounts:,} accounts, {hours(load.minutes_a_quarter)} hours a quarter"


def hours(minutes: int, *, sign: str = "") -> str:
    """Minutes as hours with one decimal, halves away from zero: `hours(90)` is `1.5`."""
    tenths = (abs(minutes) * 10 + MINUTES_AN_HOUR // 2) // MINUTES_AN_HOUR
    before = "-" if minutes < 0 else sign
    return f"{before}{tenths // 10:,}.{tenths % 10}"


def _signed(text: str) -> str:
    """Without a sign where nothing changed."""
    return "·" if text in ("+0", "+0.0") else text


def _hundredths(people: Fraction) -> int:
    """Rounded up, so that 4 people never look like enough where 4.001 are needed."""
    return ceil(people * 100)


def people(needed: Fraction) -> str:
    """How many are needed, with two decimals, rounded up."""
    return f"{_hundredths(needed) / 100:,.2f}"


def _document(found: CapacityNow) -> dict[str, Any]:
    loads = found.capacity
    return {
        "as_of": format_instant(found.as_of_us) if found.as_of_us else None,
        "moves_since": format_instant(found.since_us) if found.as_of_us else None,
        "accounts_with_moves_missing": found.incomplete,
        "segments": [load._asdict() for load in loads.segments],
        "roles": [role_document(role) for role in loads.roles],
        "owners": [load._asdict() for load in loads.owners],
        "unowned": {"accounts": loads.unowned.accounts, "minutes_a_quarter": loads.unowned.minutes_a_quarter},
    }


def role_document(role: RoleLoad) -> dict[str, Any]:
    """As JSON has it."""
    return {
        **role._asdict(),
        "people_needed": _hundredths(role.people_needed) / 100,
        "is_short": role.is_short,
    }
