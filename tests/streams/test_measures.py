"""The measures of a score, against their definitions worked out pair by pair and account by account."""

from math import isnan
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.model.measures import (
    auc,
    average_precision,
    brier,
    deciles,
    rank_correlation,
    rank_shares,
    share_in_top,
)

scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)
"""Few different scores, so that many are equal."""


def columns(entries: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and whether it came."""
    return np.array([score for score, _ in entries], dtype=float), np.array([came for _, came in entries])


@given(scored)
def test_auc_is_the_share_of_pairs_in_the_right_order(entries: list[tuple[int, bool]]) -> None:
    """Equal scores are half right."""
    right = [score for score, came in entries if came]
    wrong = [score for score, came in entries if not came]
    found = auc(*columns(entries))
    if not right or not wrong:
        assert isnan(found)
        return
    assert found == pytest.approx(mean((one > other) + (one == other) / 2 for one in right for other in wrong))


@given(scored)
def test_average_precision_is_the_mean_precision_down_to_what_came(entries: list[tuple[int, bool]]) -> None:
    """Accounts with equal scores are taken at once."""
    found = average_precision(*columns(entries))
    precisions = [
        mean(other_came for other, other_came in entries if other >= score) for score, came in entries if came
    ]
    assert isnan(found) if not precisions else found == pytest.approx(mean(precisions))


@given(scored, st.sampled_from([0.1, 0.3, 1.0]))
def test_the_share_in_the_top_is_what_chance_among_equals_gives(entries: list[tuple[int, bool]], top: float) -> None:
    """Of the accounts at the edge each counts with the part of them that is wanted."""
    wanted = max(1.0, len(entries) * top)
    taken = weight = 0.0
    for edge in sorted({score for score, _ in entries}, reverse=True):
        group = [came for score, came in entries if score == edge]
        part = min(1.0, (wanted - taken) / len(group))
        taken, weight = taken + part * len(group), weight + part * sum(group)
    scores, came = columns(entries)
    assert share_in_top(scores, came.astype(float), top) == pytest.approx(weight / wanted)


@given(scored)
def test_ranks_are_shared_by_equals(entries: list[tuple[int, bool]]) -> None:
    """Each score's mean place among all, as a part of their number."""
    scores, _ = columns(entries)
    for score, share in zip(scores, rank_shares(scores), strict=True):
        below, equal = (scores < score).sum(), (scores == score).sum()
        assert share * len(scores) == pytest.approx(below + (equal + 1) / 2)


def test_deciles_are_of_equal_size_and_the_most_probable_come_first() -> None:
    """Their means are told beside what came."""
    chances = np.linspace(0, 1, 101)[:-1]
    parts = deciles(chances, chances >= 0.5)
    assert [part.accounts for part in parts] == [10] * 10
    assert parts[0].predicted == pytest.approx(0.945)
    assert [part.actual for part in parts] == [1.0] * 5 + [0.0] * 5
    assert len(deciles(chances[:3], chances[:3] > 0)) == 3


def test_brier_and_rank_correlation_of_known_cases() -> None:
    """Prophecy, a coin, the right order, the wrong order, and no order at all."""
    came = np.array([True, False])
    assert brier(np.array([1.0, 0.0]), came) == 0
    assert brier(np.array([0.5, 0.5]), came) == 0.25
    rising = np.array([1.0, 2.0, 3.0, 50.0])
    assert rank_correlation(rising, rising**2) == pytest.approx(1)
    assert rank_correlation(rising, -rising) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1.0, 2.0, 2.0]), np.array([1.0, 2.0, 1.0, 2.0])) == pytest.approx(0)
    assert isnan(rank_correlation(rising, np.ones(4)))
