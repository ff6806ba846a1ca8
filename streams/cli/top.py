"""`resegment top`."""

from pathlib import Path

from rich.text import Text

from segmentation.money import format_minor
from segmentation.policy import Policy
from segmentation.segments import Segment
from streams.cli.console import err, escape, out, print_json, segment
from streams.cli.running import connected, partition_count, read_policy, read_settings
from streams.instants import format_instant
from streams.top import PotentialData, Top, TopAccount, Wanted, top


async def run_top(
    count: int,
    *,
    of_segment: Segment | None,
    owner: str | None,
    population: str | None,
    region: str | None,
    policy: Path | None,
    as_json: bool,
) -> None:
    """Say whom to work on. Raises NoInstallation."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with connected(settings) as connections:
        partition_count(connections.reader, settings)
        wanted = Wanted(of_segment, owner, population, region)
        found = await top(settings, rules, connections.redis, count, wanted)
    if as_json:
        for account in found.accounts:
            print_json(account.model_dump())
    else:
        show_top(found, rules)


def show_top(found: Top, policy: Policy) -> None:
    """The list, for people."""
    if not found.as_of_us:
        err.print("no time is known before the first tick, so there is nobody to work on yet")
        return
    out.print(f"as of {format_instant(found.as_of_us)}; by the money at stake, as the policy's [priority] counts it")
    for place, account in enumerate(found.accounts, 1):
        out.print(_line(place, account, policy))
        for reason in account.reasons:
            out.print(f"      {escape(reason)}")
        out.print(f"      next: {escape(account.next_step)} ({escape(account.role)})", style="dim")
    if not found.accounts:
        out.print("nobody")
    if found.unplaced:
        err.print(f"{found.unplaced:,} accounts are still being put into their places")


def _line(place: int, account: TopAccount, policy: Policy) -> Text:
    line = Text(f"{place:>4}  ").append(escape(account.account_id), "bold").append("  ")
    line.append_text(segment(account.segment))
    line.append(f"  {format_minor(account.priority.score_minor, policy.base_currency)}")
    whose = [escape(text) for text in (account.owner, account.region) if text]
    return line.append(f"  {', '.join(whose)}", "dim") if whose else line


def potential_facts(potential: PotentialData, currency: str) -> list[tuple[str, str]]:
    """What an account may bring, in two lines: how much, and what that rests on."""
    low, high = (format_minor(amount, currency) for amount in (potential.low_minor, potential.high_minor))
    expected = format_minor(potential.expected_minor, currency)
    if_it_buys = "if it buys at all, " if potential.conversion is not None else ""
    whose = "" if potential.is_calibrated else ", uncalibrated: see `resegment fit`"
    facts = [
        ("potential", f"{expected} in {potential.horizon_days} days; {if_it_buys}80 % bring {low} to {high}{whose}")
    ]
    if potential.class_path is not None:
        name = " / ".join(potential.class_path) or "all accounts"
        rests = f"{potential.accounts:,} established accounts like it ({escape(name)})"
        if potential.conversion is not None:
            rests += f"; about {potential.conversion:.0%} of prospects of its class buy"
        facts.append(("rests on", rests))
    return facts
