"""`resegment policy diff`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from segmentation.application import refusals
from segmentation.capacity import RoleLoad, capacity
from segmentation.money import format_amount
from segmentation.policy import Policy, load_policy
from segmentation.segments import SEGMENTS, TIERS, Segment
from segmentation.what_if import Effect, FieldEffect, Held, WhatIf, field_effects
from streams.cli.capacity import hours, people, role_document
from streams.cli.console import escape, out, print_json, segment
from streams.cli.failures import CommandFailed
from streams.cli.figures import percent, share, signed
from streams.cli.running import policy_of_state, read_settings, store
from streams.cli.tables import matrix, new_table
from streams.instants import format_instant
from streams.snapshot import read_snapshot
from streams.what_if import what_if_of

SHIFTS_SHOWN = 20

_REPLAY = "`resegment replay FILE.jsonl --embedded --policy FILE` tells from the events"
_NOTHING = Held(0, 0)


class _Found(NamedTuple):
    present: Policy
    asked: Policy
    effects: list[FieldEffect]
    result: WhatIf
    as_of_us: int
    refusals: list[str]
    """Why it cannot be applied."""
    roles: dict[str, tuple[RoleLoad | None, RoleLoad | None]]
    """What is asked of each role, now and by the other policy; None: its strategies have no such role."""

    def of(self, effect: Effect) -> list[FieldEffect]:
        """The fields that differ and have this effect."""
        return [field for field in self.effects if field.effect is effect]


async def run_policy_diff(file: Path, *, as_json: bool) -> None:
    """Say what a policy would change. Raises PolicyError, and CommandFailed where nothing can be said."""
    asked = load_policy(file)
    settings = read_settings()
    async with store(settings) as redis:
        snapshot = await read_snapshot(redis, settings)
    if not snapshot.as_of_us:
        raise CommandFailed("the state has no time yet: no account has a segment before the first tick")
    present = policy_of_state(snapshot.founding)
    effects = field_effects(present, asked)
    unknown = [field for field in effects if field.effect is Effect.UNKNOWN]
    if unknown and not any(field.effect is Effect.ANSWERED for field in effects):
        reasons = "; ".join(f"{field.difference}: {field.why}" for field in unknown)
        raise CommandFailed(f"the state cannot tell what this policy would change ({reasons}); {_REPLAY}")
    result = what_if_of(snapshot, present, asked)
    before, after = _loads(present, result.before), _loads(asked, result.after)
    roles = {role: (before.get(role), after.get(role)) for role in [*before, *after]}
    found = _Found(present, asked, effects, result, snapshot.as_of_us, refusals(present, asked), roles)
    if as_json:
        print_json(_diff_document(found))
    else:
        _show_diff(found)


def _loads(policy: Policy, held: Mapping[Segment, Held]) -> dict[str, RoleLoad]:
    accounts = ((name, None) for name, its in held.items() for _ in range(its.accounts))
    return {load.role: load for load in capacity(policy, accounts, {}).roles}


def _show_diff(found: _Found) -> None:
    present, asked, result = found.present, found.asked, found.result
    out.print(
        f"policy {escape(asked.version)} instead of {escape(present.version)}, on the accounts as of "
        f"{format_instant(found.as_of_us)}; nothing is written"
    )
    for field in found.of(Effect.ANSWERED):
        out.print(f"  {escape(str(field.difference))}")
    for effect, heading in ((Effect.NONE, "moves nobody"), (Effect.UNKNOWN, "not in these numbers")):
        for field in found.of(effect):
            out.print(f"  {heading}: {escape(str(field.difference))} ({field.why})")
    if found.of(Effect.UNKNOWN):
        out.print(f"  {_REPLAY}")
    for refusal in found.refusals:
        out.print(f"  cannot be applied: {escape(refusal)}")
    currency = present.base_currency
    moved, revenue = len(result.shifts), result.moved_revenue_minor
    out.print(
        f"\n{moved:,} of {result.accounts:,} accounts ({percent(moved, result.accounts)}) would move, with "
        f"{format_amount(revenue, currency)} {currency} of revenue ({percent(revenue, result.revenue_minor)})"
    )
    _show_segments(result, currency)
    _show_roles(found)
    _show_cutoffs(result, currency)
    if result.shifts:
        by_pair = result.matrix()
        out.print(
            matrix(
                "accounts that would move, from (rows) to (columns)",
                {pair: held.accounts for pair, held in by_pair.items()},
            )
        )
        _show_shifts(result, currency)


def _show_segments(result: WhatIf, currency: str) -> None:
    headings = ("accounts", "would be", "change", f"revenue, {currency}", "would be")
    shown = new_table("segments", "", *headings)
    for name in SEGMENTS:
        before, after = result.before.get(name, _NOTHING), result.after.get(name, _NOTHING)
        shown.add_row(
            segment(name),
            f"{before.accounts:,}",
            f"{after.accounts:,}",
            signed(after.accounts - before.accounts),
            format_amount(before.revenue_minor, currency),
            format_amount(after.revenue_minor, currency),
        )
    out.print(shown)


def _show_roles(found: _Found) -> None:
    headings = ("hours a quarter", "would be", "people needed", "would be", "people", "would be")
    shown = new_table("capacity", "role", *headings)
    for role, (before, after) in found.roles.items():
        shown.add_row(
            escape(role),
            *(hours(load.minutes_a_quarter) if load else "-" for load in (before, after)),
            *(people(load.people_needed) if load else "-" for load in (before, after)),
            *(f"{load.people:,}" if load else "-" for load in (before, after)),
        )
    out.print(shown)


def _show_cutoffs(result: WhatIf, currency: str) -> None:
    title = f"cutoffs: the least revenue that has the tier, band aside, {currency}"
    are_many = len(result.cutoffs) > 1
    shown = new_table(title, *(["population"] if are_many else []), "", "now", "would be")
    for population, name, before, after in _cutoffs(result):
        where = [escape(population)] if are_many else []
        shown.add_row(*where, segment(name), _amount(before, currency), _amount(after, currency))
    out.print(shown)


def _show_shifts(result: WhatIf, currency: str) -> None:
    largest = result.shifts[:SHIFTS_SHOWN]
    title = "who would move" if len(largest) == len(result.shifts) else f"the {SHIFTS_SHOWN} largest that would move"
    shown = new_table(title, "account", f"revenue, {currency}", "from", "to")
    for column in shown.columns[2:]:
        column.justify = "left"
    for shift in largest:
        amount = format_amount(shift.revenue_minor, currency)
        shown.add_row(escape(shift.account_id), amount, segment(shift.previous), segment(shift.current))
    out.print(shown)


def _cutoffs(result: WhatIf) -> list[tuple[str, Segment, int | None, int | None]]:
    return [
        (population, *line)
        for population, cutoffs in sorted(result.cutoffs.items())
        for line in zip(TIERS[:-1], *cutoffs, strict=True)
    ]


def _amount(amount_minor: int | None, currency: str) -> str:
    return "-" if amount_minor is None else format_amount(amount_minor, currency)


def _diff_document(found: _Found) -> dict[str, Any]:
    result = found.result
    return {
        "as_of": format_instant(found.as_of_us),
        "base_currency": found.present.base_currency,
        "policy": {"version": found.asked.version, "hash": found.asked.hash},
        "present_policy": {"version": found.present.version, "hash": found.present.hash},
        "fields": [
            {
                "field": field.difference.field,
                "present": field.difference.before,
                "policy": field.difference.after,
                "effect": field.effect,
                "why": field.why or None,
            }
            for field in found.effects
        ],
        "refusals": found.refusals,
        "accounts": result.accounts,
        "moved_accounts": len(result.shifts),
        "share_of_accounts": share(len(result.shifts), result.accounts),
        "revenue_minor": result.revenue_minor,
        "moved_revenue_minor": result.moved_revenue_minor,
        "share_of_revenue": share(result.moved_revenue_minor, result.revenue_minor),
        "segments": [
            {
                "segment": name,
                "present": result.before.get(name, _NOTHING)._asdict(),
                "policy": result.after.get(name, _NOTHING)._asdict(),
            }
            for name in SEGMENTS
        ],
        "capacity": [
            {
                "role": role,
                "present": role_document(before) if before else None,
                "policy": role_document(after) if after else None,
            }
            for role, (before, after) in found.roles.items()
        ],
        "cutoffs_minor": [
            {"population": population, "segment": name, "present": before, "policy": after}
            for population, name, before, after in _cutoffs(result)
        ],
        "matrix": [
            {"from": previous, "to": current, **held._asdict()} for (previous, current), held in result.matrix().items()
        ],
        "largest": [
            {"account_id": one.account_id, "from": one.previous, "to": one.current, "revenue_minor": one.revenue_minor}
            for one in result.shifts[:SHIFTS_SHOWN]
        ],
    }
