"""Running schedules, some side by side."""

import asyncio
import logging
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from operator import attrgetter
from pathlib import Path

from tests.faults.schedule import Outcome, Schedule
from tests.servers import KafkaServer

LOGS = Path("build/faults")
SHOWN_MAX = 3
"""Of the violations of one invariant; all are in violations.txt beside the workers' logs."""


def run_side_by_side(seeds: range, jobs: int) -> list[Outcome]:
    """Run schedules, some at the same time. Returns what came of them, by seed."""
    if jobs == 1:
        return run(seeds)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=be_quiet) as pool:
        outcomes = [outcome for part in pool.map(run, [seeds[job::jobs] for job in range(jobs)]) for outcome in part]
    return sorted(outcomes, key=attrgetter("seed"))


def be_quiet() -> None:
    """The clients here complain of servers that are down, too."""
    logging.basicConfig(level=logging.CRITICAL)


def run(seeds: range) -> list[Outcome]:
    """Run schedules one after the other, and say what came of each."""
    outcomes = []
    with KafkaServer() as kafka:
        for seed in seeds:
            directory = LOGS / f"seed-{seed}"
            outcome = asyncio.run(Schedule(seed, kafka, directory).run())
            outcomes.append(outcome)
            print(outcome.line(), flush=True)
            for violation in _some_of_each_kind(outcome.violations):
                print(f"  VIOLATED {violation[:400]}")
            if outcome.violations:
                (directory / "violations.txt").write_text("\n".join(outcome.violations))
                shutil.copy(kafka.log, directory)
                print(f"  logs: {directory}; again: make faults SEED={seed}", flush=True)
            elif len(seeds) > 1:
                shutil.rmtree(directory)
    return outcomes


def _some_of_each_kind(violations: list[str]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for violation in violations:
        kind = violation.partition(":")[0]
        seen[kind] += 1
        if seen[kind] <= SHOWN_MAX:
            yield violation
    yield from (f"{kind}: {count} in all" for kind, count in seen.items() if count > SHOWN_MAX)
