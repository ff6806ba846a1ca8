"""`make simulate`: many schedules, or one of them again with all that happened in it.

The environment says which: N schedules from the seed FIRST on; or SEED, that one alone. Ends with status 1 where an
invariant broke.
"""

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.schedule import Outcome, prepare_process, run_and_verify

SHOWN_MAX = 5
TRACE_LINES_MAX = 60
CHUNK = 20


def _outcomes(first: int, count: int) -> Iterator[Outcome]:
    processes = min(count, os.cpu_count() or 1)
    if processes == 1 or count < 2 * CHUNK:
        prepare_process()
        yield from map(run_and_verify, range(first, first + count))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=prepare_process) as pool:
        yield from pool.map(run_and_verify, range(first, first + count), chunksize=CHUNK)


def _show(outcome: Outcome, lines: int | None) -> None:
    trace = outcome.trace if lines is None else outcome.trace[-lines:]
    print(f"\nseed {outcome.seed}, {outcome.seconds:.0f} virtual seconds, {outcome.steps} steps")
    if len(trace) < len(outcome.trace):
        print(f"  ... {len(outcome.trace) - len(trace)} lines before")
    for line in trace:
        print(f"  {line}")
    for wrong in outcome.wrongs:
        print(f"  VIOLATED {wrong[:400]}")


def one(seed: int) -> int:
    """Show one schedule. Returns the exit status."""
    outcome = run_and_verify(seed)
    _show(outcome, None)
    print(f"\n{len(outcome.wrongs)} violations")
    return 1 if outcome.wrongs else 0


def many(first: int, count: int) -> int:
    """Run many schedules. Returns the exit status."""
    began, failed, done = time.monotonic(), list[int](), 0
    faults, totals = Counter[str](), Counter[str]()
    for outcome in _outcomes(first, count):
        done += 1
        faults += outcome.faults
        totals.update(events=outcome.events, changes=outcome.changes, steps=outcome.steps, seconds=int(outcome.seconds))
        if outcome.wrongs:
            failed.append(outcome.seed)
            if len(failed) <= SHOWN_MAX:
                _show(outcome, TRACE_LINES_MAX)
                print(f"  again: make simulate SEED={outcome.seed}", flush=True)
        if sys.stderr.isatty() and done % CHUNK == 0:
            print(f"\r{done} of {count} schedules", end="", file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"{done} schedules in {seconds:.0f} s, seeds {first} to {first + count - 1}: {totals['events']} events and ")
    print(f"{totals['changes']} changes in {totals['seconds'] / 3600:.0f} virtual hours, {totals['steps']} steps")
    print(f"{faults.total()} faults: " + ", ".join(f"{count} {kind}" for kind, count in faults.most_common()))
    print(f"{len(failed)} schedules with violations" + (f": seeds {sorted(failed)[:50]}" if failed else ""))
    return 1 if failed else 0


def main() -> int:
    """Read the environment and run."""
    seed = os.environ.get("SEED")
    if seed:
        return one(int(seed))
    return many(int(os.environ.get("FIRST") or 0), int(os.environ.get("N") or 20_000))


if __name__ == "__main__":
    sys.exit(main())
