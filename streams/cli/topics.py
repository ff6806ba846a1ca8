"""`resegment topics`."""

from pathlib import Path

from streams.cli.console import err, escape, out, print_json
from streams.cli.failures import CHECK_FAILED, CommandFailed
from streams.cli.running import admin, read_policy, read_settings
from streams.topics import Finding, check_topics, create_topics, partition_counts


async def run_create(*, partitions: int, replication: int, policy: Path | None, as_json: bool) -> None:
    """Make the topics that are missing, and check the ones that were there."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with admin(settings) as client:
        created = await create_topics(client, settings, rules, partitions, replication)
        findings = await check_topics(client, settings, rules)
    if as_json:
        print_json({"created": created, **_findings(findings)})
    else:
        for name in created:
            out.print(f"created {escape(name)} with {partitions} partitions")
        if not created:
            out.print("all topics are there already")
    _judge(findings, shown=not as_json)


async def run_check(*, policy: Path | None, as_json: bool) -> None:
    """See whether the topics are as they must be."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with admin(settings) as client:
        findings = await check_topics(client, settings, rules)
        counts = await partition_counts(client, settings)
    if as_json:
        print_json({"partitions": counts, **_findings(findings)})
    elif not any(finding.is_error for finding in findings):
        out.print(f"{len(counts)} topics are as they must be, {max(counts.values())} partitions")
    _judge(findings, shown=not as_json)


def _findings(findings: list[Finding]) -> dict[str, list[str]]:
    return {
        "errors": [finding.text for finding in findings if finding.is_error],
        "warnings": [finding.text for finding in findings if not finding.is_error],
    }


def _judge(findings: list[Finding], *, shown: bool) -> None:
    """Raises CommandFailed if there are errors."""
    found = _findings(findings)
    if shown:
        for text in found["warnings"]:
            err.print(f"warning: {escape(text)}")
    if found["errors"]:
        raise CommandFailed("; ".join(found["errors"]), CHECK_FAILED)
