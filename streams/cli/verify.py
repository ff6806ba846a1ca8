"""`resegment verify`."""

from pathlib import Path

from streams.cli.console import err, escape, out, print_json
from streams.cli.failures import CHECK_FAILED, CommandFailed
from streams.cli.running import connected, partition_count, read_policy, read_settings
from streams.oracle.report import Report

MISMATCHES_SHOWN = 20


async def run_verify(*, policy: Path | None, as_json: bool) -> None:
    """Compare the state with what follows from the log. Raises CommandFailed for mismatches."""
    from streams.oracle import verify

    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with connected(settings) as connections:
        partition_count(connections.reader, settings)
        report = await verify(settings, rules, *connections)
    if as_json:
        found = [mismatch._asdict() for mismatch in report.mismatches]
        print_json({**report.fields(), "found": found, "warnings": report.warnings})
    else:
        show_findings(report)
        out.print(report.line())
    if not report.is_right:
        raise CommandFailed(f"{report.mismatch_count} mismatches", CHECK_FAILED)


def show_findings(report: Report) -> None:
    """Mismatches and warnings, on standard error."""
    for mismatch in report.mismatches[:MISMATCHES_SHOWN]:
        err.print(f"mismatch: {escape(str(mismatch))}")
    for warning in report.warnings:
        err.print(f"warning: {escape(warning)}")
