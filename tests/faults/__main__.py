"""`make faults`: schedules of faults against real processes, or one of them again.

The environment says which: N schedules from the seed FIRST on; or SEED, that one alone. JOBS of them run side by side,
each with servers of its own. REPORT=1 writes the figures to docs/reliability.md. Ends with status 1 where an invariant
broke.
"""

import os
import sys
import time
from collections import Counter

from tests.faults.campaign import be_quiet, run_side_by_side
from tests.faults.report import write_section
from tests.faults.schedule import Outcome


def report(outcomes: list[Outcome]) -> list[str]:
    """The figures, in Markdown."""
    faults = sum((outcome.faults for outcome in outcomes), Counter[str]())
    rests = sorted(outcome.rest_seconds for outcome in outcomes)
    figures = {
        "schedules": len(outcomes),
        "faults": faults.total(),
        "events": sum(outcome.events for outcome in outcomes),
        "changes": sum(outcome.changes for outcome in outcomes),
        "violations": sum(len(outcome.violations) for outcome in outcomes),
    }
    return [
        f"Seeds {outcomes[0].seed} to {outcomes[-1].seed}: "
        + ", ".join(f"{number:,} {name}" for name, number in figures.items())
        + f". At rest after the end of faults and events within {rests[len(rests) // 2]:.1f} s in half of them, "
        f"{rests[-1]:.1f} s in all.",
        "",
        "| what | times |",
        "| --- | ---: |",
        *(f"| {name} | {count:,} |" for name, count in sorted(faults.items())),
    ]


def main() -> int:
    """Read the environment and run."""
    be_quiet()
    seed, first, count = (os.environ.get(name) for name in ("SEED", "FIRST", "N"))
    start = int(seed or first or 0)
    seeds = range(start, start + (1 if seed else int(count or 20)))
    began = time.monotonic()
    outcomes = run_side_by_side(seeds, min(len(seeds), int(os.environ.get("JOBS") or 1)))
    if os.environ.get("REPORT"):
        write_section("faults", report(outcomes))
    failed = [outcome.seed for outcome in outcomes if outcome.violations]
    print(
        f"{len(outcomes)} schedules in {time.monotonic() - began:.0f} s, {len(failed)} with violations"
        + (f": seeds {failed}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
