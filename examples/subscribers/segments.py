"""Keeps a copy of every account's segment, and acts upon each change once.

    python -m examples.subscribers.segments out/accounts.csv

Once `resegment export out` has written that file and nothing new comes, it compares both, and ends if they are equal.
"""

import asyncio
import csv
import sys
from pathlib import Path

from examples.subscribers.subscription import Change, follow


async def main(accounts: Path) -> None:
    """Follow until the copy is what was exported."""
    copy: dict[str, tuple[str, str]] = {}
    async for change, is_news in follow("segments", "segment-changes"):
        if change is not None:
            copy[change["account_id"]] = change["current_segment"], str(change["sequence"])
            # what a policy changed that was applied silently is for nobody to act upon
            if is_news and change["mode"] != "silent":
                act(change)
        elif accounts.exists():
            with accounts.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["sequence"] != "0"]
            exported = {row["account_id"]: (row["segment"], row["sequence"]) for row in rows}
            different = {account for account, _ in copy.items() ^ exported.items()}
            print(f"{len(copy)} accounts, {len(different)} of them not as exported", flush=True)
            if not different:
                return


def act(change: Change) -> None:
    """A CRM would be written to here."""
    way = f"{change['previous_segment']} -> {change['current_segment']}"
    playbook = change.get("playbook") or {}
    print(change["account_id"], change["sequence"], way, playbook.get("next_step", ""), sep="\t", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
