"""How good a score was, now that it is known what came: whatever is scored, greater means more likely."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Truths = NDArray[np.bool_]

TOP_SHARE = 0.1
"""The part of the accounts that somebody has the time to call."""


class Decile(NamedTuple):
    """A tenth of the accounts, by their probability."""

    accounts: int
    predicted: float
    """Their mean probability."""
    actual: float
    """The share of them for which it came true."""


def auc(scores: Numbers, came: Truths) -> float:
    """The chance that of two accounts, one for which it came and one for which not, the former has the greater score.

    Equal scores count half. 0.5 is a coin's. Not a number where it came for all or for none. O(n log n).
    """
    positives = int(came.sum())
    negatives = len(came) - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(_ranks(scores)[came].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def average_precision(scores: Numbers, came: Truths) -> float:
    """The mean, over the accounts for which it came, of the precision down to their score. O(n log n).

    Equal scores are taken together. A coin's is the share for which it came. Not a number where it came for none.
    """
    if not came.any():
        return float("nan")
    taken, right = _down_to_each_score(scores, came.astype(np.float64))
    gained = np.diff(right, prepend=0.0)
    return float((gained * right / taken).sum() / right[-1])


def share_in_top(scores: Numbers, weights: Numbers, top_share: float = TOP_SHARE) -> float:
    """How much weight the accounts with the greatest scores have, per account. O(n log n).

    With weights of 1 where it came and 0 elsewhere it is the precision there. Of the accounts that share the score at
    the edge, each counts in part. There must be at least one account.
    """
    wanted = max(1.0, len(scores) * top_share)
    taken, sums = _down_to_each_score(scores, weights)
    return float(np.interp(wanted, np.append(0.0, taken), np.append(0.0, sums))) / wanted


def brier(probabilities: Numbers, came: Truths) -> float:
    """The mean squared distance of a probability from what came: 0 is prophecy."""
    return float(np.mean((probabilities - came) ** 2))


def deciles(probabilities: Numbers, came: Truths) -> list[Decile]:
    """Ten parts of the accounts of equal size, the most probable first; fewer where there are fewer accounts."""
    order = np.argsort(-probabilities, kind="stable")
    return [
        Decile(len(part), float(probabilities[part].mean()), float(came[part].mean()))
        for part in np.array_split(order, 10)
        if len(part)
    ]


def rank_shares(scores: Numbers) -> Numbers:
    """Of each score, its place among all, above 0 and up to 1; equal ones share theirs. O(n log n)."""
    return _ranks(scores) / len(scores)


def rank_correlation(first: Numbers, second: Numbers) -> float:
    """Spearman's, -1 to 1; equal values share their ranks. Not a number where all of either are equal. O(n log n)."""
    ranks = _ranks(first), _ranks(second)
    if any(np.ptp(of) == 0 for of in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Numbers) -> Numbers:
    """From 1 for the least; equal values have the mean of the ranks they take up together."""
    # not SciPy's, whose import takes longer than all else that a command does here
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _down_to_each_score(scores: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """For each different score, the greatest first: how many accounts have it or more, and their weight together."""
    order = np.argsort(-scores, kind="stable")
    last_of_score = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    return (last_of_score + 1).astype(np.float64), np.cumsum(weights[order])[last_of_score]
