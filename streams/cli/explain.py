"""`resegment explain`."""

from pathlib import Path

from rich.text import Text

from streams.cli.console import escape, out, print_json, segment
from streams.cli.running import connected, partition_count, read_policy, read_settings
from streams.cli.top import potential_facts
from streams.cli.watch import change_line, money
from streams.explain import Explanation, RiskExplanation, explain


async def run_explain(account: str, *, policy: Path | None, as_json: bool) -> None:
    """Say what an account is, and why. Raises UnknownAccount."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with connected(settings) as connections:
        partition_count(connections.reader, settings)
        found = await explain(settings, rules, *connections, account)
    if as_json:
        print_json(found.model_dump())
    else:
        show_explanation(found)


def show_explanation(found: Explanation) -> None:
    """All of it, for people."""
    title = Text(f"{escape(found.account_id)} is ", "bold").append_text(segment(found.segment))
    if found.lapsed:
        title.append(" (lapsed: no revenue left in the window)")
    out.print(title)
    for name, text in _facts(found):
        out.print(f"  {name:<16} {text}")
    if found.forecast:
        out.print("  if nothing is bought, with the cutoffs as they are:")
    for step in found.forecast:
        line = Text(f"    {escape(step.on)}  ").append_text(segment(step.segment))
        line.append(f"  with {money(step.rolling_revenue_minor)}{' (lapsed)' if step.lapsed else ''}", "dim")
        out.print(line)
    if found.changes:
        out.print("  latest changes:")
    for change in found.changes:
        out.print(Text("    ").append_text(change_line(change)))


def _facts(found: Explanation) -> list[tuple[str, str]]:
    currency = escape(found.base_currency)
    cutoffs = found.cutoffs_minor
    facts = [
        ("as of", escape(found.as_of)),
        ("stage", escape(found.stage)),
        ("first purchase", escape(found.first_purchase_on or "none yet")),
        ("rolling revenue", f"{money(found.rolling_revenue_minor)} {currency}"),
        ("cutoffs", f"key from {_or_none(cutoffs.key)}, enterprise from {_or_none(cutoffs.enterprise)}"),
    ]
    if found.position_revenue is not None and found.position_accounts is not None:
        by_revenue, by_accounts = f"{found.position_revenue:.2%}", f"{found.position_accounts:.2%}"
        facts.append(("position", f"{by_revenue} of revenue and {by_accounts} of accounts are above it"))
    if found.to_next_tier_up_minor is not None:
        facts.append(("to move up", f"{money(found.to_next_tier_up_minor)} more"))
    if found.to_next_tier_down_minor is not None:
        facts.append(("to move down", f"{money(found.to_next_tier_down_minor)} less"))
    if found.risk is not None:
        facts.extend(_risk_facts(found.risk, currency))
    if found.worth is not None and found.worth.potential is not None:
        facts.extend(potential_facts(found.worth.potential, currency))
    if found.worth is not None:
        at_stake = money(found.worth.priority.score_minor)
        facts.append(("at stake", f"{at_stake} {currency}, as `resegment top` counts it"))
    if found.playbook is not None:
        facts.append(("role", f"{escape(found.playbook.role)}, {escape(found.playbook.motion)}"))
        facts.append(("next step", escape(found.playbook.next_step)))
    facts.extend((escape(name), escape(str(value))) for name, value in found.profile.items())
    return facts


def _risk_facts(risk: RiskExplanation, currency: str) -> list[tuple[str, str]]:
    whose = "" if risk.is_calibrated else ", uncalibrated: see `resegment fit`"
    chance = f"{risk.score:.0f} % that nothing is bought in {risk.horizon_days} days{whose}"
    facts = [
        ("risk", f"{escape(risk.level)}: {chance}"),
        ("because", escape("; ".join(risk.reasons))),
        ("at risk", f"{money(risk.revenue_at_risk_minor)} {currency}"),
    ]
    if risk.next_level is not None and risk.next_level_on is not None:
        facts.append(
            ("risk rises", f"to {escape(risk.next_level)} on {escape(risk.next_level_on)} if nothing is bought")
        )
    return facts


def _or_none(amount_minor: int | None) -> str:
    return "none" if amount_minor is None else money(amount_minor)
