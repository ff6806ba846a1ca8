"""Flags each account whose churn risk becomes high, and takes the flag away when it no longer is.

    python -m examples.subscribers.churn_flags out/risks.csv

Once `resegment export out` has written that file and nothing new comes, it compares both, and ends if they are equal.
"""

import asyncio
import csv
import sys
from pathlib import Path

from examples.subscribers.subscription import follow


async def main(risks: Path) -> None:
    """Follow until the levels are what was exported."""
    levels: dict[str, tuple[str, str]] = {}
    async for change, is_news in follow("risks", "churn-risk"):
        if change is not None:
            account, level = change["account_id"], change["current_level"]
            levels[account] = level, str(change["sequence"])
            flag = {"high": "raise"}.get(level) or {"high": "lower"}.get(change["previous_level"])
            if is_news and flag and change["mode"] != "silent":
                reasons = "; ".join(change["reasons"])
                print(account, change["sequence"], flag, f"{change['score']:.0f} %", reasons, sep="\t", flush=True)
        elif risks.exists():
            with risks.open(newline="") as file:
                rows = list(csv.DictReader(file))
            exported = {row["account_id"]: (row["risk_level"], row["sequence"]) for row in rows}
            different = {account for account, _ in levels.items() ^ exported.items()}
            flagged = sum(level == "high" for level, _ in levels.values())
            print(f"{flagged} accounts flagged, {len(different)} not as exported", flush=True)
            if not different:
                return


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
