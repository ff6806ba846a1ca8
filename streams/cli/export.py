"""`resegment export`."""

from pathlib import Path

from streams.cli.console import out, print_json
from streams.cli.running import connected, partition_count, read_policy, read_settings
from streams.export import export


async def run_export(directory: Path, *, policy: Path | None, as_json: bool) -> None:
    """Write accounts.csv, risks.csv and changes.jsonl."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    async with connected(settings) as connections:
        partition_count(connections.reader, settings)
        exported = await export(directory, settings, rules, *connections)
    if as_json:
        print_json(exported._asdict())
    else:
        out.print(f"{exported.accounts:,} accounts in {directory / 'accounts.csv'}")
        out.print(f"{exported.changes:,} changes in {directory / 'changes.jsonl'}")
