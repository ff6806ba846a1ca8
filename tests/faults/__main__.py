"""`make faults`: schedules of faults against real processes, or one of them again.

The environment says which: N schedules from the seed FIRST on; or SEED, that one alone. REPORT=1 writes the figures to
docs/reliability.md. Ends with status 1 where an invariant broke.
"""

import asyncio
import logging
import os
import shutil
import sys
import time
from pathlib import Path

from tests.faults.schedule import Outcome, Schedule
from tests.servers import KafkaServer

LOGS = Path("build/faults")
SHOWN_MAX = 10


def run(seeds: range) -> list[Outcome]:
    """Run schedules one after the other, and say what came of each."""
    outcomes = []
    with KafkaServer() as kafka:
        for seed in seeds:
            directory = LOGS / f"seed-{seed}"
            outcome = asyncio.run(Schedule(seed, kafka, directory).run())
            outcomes.append(outcome)
            print(outcome.line(), flush=True)
            for violation in outcome.violations[:SHOWN_MAX]:
                print(f"  VIOLATED {violation[:400]}")
            if outcome.violations:
                print(f"  logs: {directory}; again: make faults SEED={seed}", flush=True)
            elif len(seeds) > 1:
                shutil.rmtree(directory)
    return outcomes


def main() -> int:
    """Read the environment and run."""
    logging.basicConfig(level=logging.CRITICAL)  # the clients here complain of servers that are down, too
    seed, first, count = (os.environ.get(name) for name in ("SEED", "FIRST", "N"))
    start = int(seed or first or 0)
    seeds = range(start, start + (1 if seed else int(count or 20)))
    began = time.monotonic()
    outcomes = run(seeds)
    failed = [outcome.seed for outcome in outcomes if outcome.violations]
    print(
        f"{len(outcomes)} schedules in {time.monotonic() - began:.0f} s, {len(failed)} with violations"
        + (f": seeds {failed}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
