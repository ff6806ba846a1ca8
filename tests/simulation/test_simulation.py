"""Schedules of faults against both stages: no change lost, doubled, out of order or wrong, whatever happens."""

import pytest

from tests.simulation.load import Meaning
from tests.simulation.oracle import wrongs
from tests.simulation.schedule import Schedule, run, run_and_verify

SCHEDULES = 1_000
CHUNK = 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_no_invariant_breaks(first: int) -> None:
    """Of 20,000 schedules, which `make simulate` runs, these are the first; some are verified in SQL as well."""
    outcomes = [run_and_verify(seed) for seed in range(first, first + CHUNK)]
    assert {outcome.seed: outcome.wrongs[:3] for outcome in outcomes if outcome.wrongs} == {}
    assert sum(outcome.faults.total() for outcome in outcomes) > 5 * CHUNK
    assert sum(outcome.changes for outcome in outcomes) > 10 * CHUNK


def test_a_seed_is_one_schedule() -> None:
    """Run again it is the same, step by step: a failure that was seen can be looked at."""
    for seed in range(20):
        first, second = run(seed), run(seed)
        assert first.trace == second.trace
        assert first == second
    assert len({run(seed).digest for seed in range(20)}) == 20


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_both_oracles_see_what_is_wrong(seed: int) -> None:
    """A purchase more in the log than the state has seen: the one in Python and the one in SQL must say so."""
    schedule = Schedule(seed)
    assert schedule.run().wrongs == []
    assert schedule.snapshot is not None
    account_id = sorted(schedule.snapshot.account_shards[0].accounts)[0]
    schedule.forget(account_id)
    found = {wrong.invariant for wrong in wrongs(schedule.snapshot_now(), schedule.log, schedule.policy)}
    assert found
    assert found <= {mismatch.removeprefix("SQL: ").split(":")[0] for mismatch in schedule.verify()}
