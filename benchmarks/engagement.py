"""What evidence adds to the purchase model: `python -m benchmarks.engagement`.

Accounts of which the truth is known (benchmarks/engaged_accounts.py) are scored at the end of some days with the
default policy, as `resegment backtest` does it. Printed is the AUC of who buys nothing in the 90 days that follow, by
seed and in the mean, by

    recency      days since the last purchase
    model        the purchase model, fitted on what was known
    risk         the same with all evidence, as workers have it: the `auc` of the backtest
    has left     who knows which accounts have left for good by then, and nothing else
    truth        who knows how often each account buys and when it leaves: nobody can do better

and then, of all lots and days together, who has each kind of evidence: how many accounts, what the model without it
says of them, how many bought nothing, and how many had left for good by then. An account that has two kinds is in both.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from statistics import mean
from typing import NamedTuple

import numpy as np

from benchmarks.engaged_accounts import ACCOUNTS, FIRST_DAY, Truth, engaged_accounts, lines_of
from segmentation.policy import Policy
from segmentation.purchase_model import probability_no_purchase, probability_of
from streams.model.backtest import bought_nothing, risk_rules
from streams.model.fitting import fit
from streams.model.measures import auc
from streams.model.purchases import PurchaseLog, histories_at, read_file
from streams.model.risks import risks_at

EPOCH = date(1970, 1, 1)
HORIZON_DAYS = 90
SEEDS = 5
DATES = ("2024-06-30", "2024-12-31", "2025-06-30")
"""Ends of half-years: one in which accounts still come, the last of these, and one in which all are long known."""


class Evident(NamedTuple):
    """An account that has evidence of a kind."""

    by_model: float
    """The probability that it buys nothing, without the evidence."""
    bought_nothing: bool
    has_left: bool


class Measured(NamedTuple):
    """One lot of accounts at the end of one day."""

    aucs: dict[str, float]
    evident: dict[str, list[Evident]]
    """By kind of evidence."""
    left_with_evidence: list[bool]
    """Of each account that had left for good: whether it has any evidence."""


def measure(log: PurchaseLog, truths: dict[str, Truth], at: str, policy: Policy) -> Measured:
    """Score the accounts that had purchased by then, and compare with what came."""
    day = (date.fromisoformat(at) - EPOCH).days
    own_day = day - (FIRST_DAY - EPOCH).days
    histories = histories_at(log.known_at(day), day)
    rules = risk_rules(policy, fit(histories.values()), HORIZON_DAYS)
    risks = risks_at(log, policy, day)
    scores: dict[str, list[float]] = defaultdict(list)
    evident: dict[str, list[Evident]] = defaultdict(list)
    churned, left_with_evidence = [], []
    for name, history in histories.items():
        truth, odds = truths[name], risks[name].odds(rules, day)
        by_model = probability_no_purchase(rules.model, history, HORIZON_DAYS)
        churned.append(bought_nothing(log.accounts[name], day, HORIZON_DAYS))
        scores["recency"].append(history.silent_days)
        scores["model"].append(by_model)
        scores["risk"].append(probability_of(odds))
        scores["has left"].append(truth.has_left(own_day))
        scores["truth"].append(truth.silence_chance(own_day, HORIZON_DAYS))
        evidence = risks[name].parts(rules, day, odds)[1:]
        if truth.has_left(own_day):
            left_with_evidence.append(bool(evidence))
        for part in evidence:
            evident[part.name].append(Evident(by_model, churned[-1], truth.has_left(own_day)))
    came = np.array(churned)
    aucs = {name: auc(np.array(values, dtype=np.float64), came) for name, values in scores.items()}
    return Measured(aucs, evident, left_with_evidence)


def measure_all(seeds: int, accounts: int) -> dict[tuple[int, str], Measured]:
    """By seed and day."""
    policy, found = Policy.default(), {}
    for seed in range(1, seeds + 1):
        lot = list(engaged_accounts(accounts, seed))
        log = read_file((line.payload for line in lines_of(lot)), policy, with_engagements=True)
        truths = {account.truth.account_id: account.truth for account in lot}
        for at in DATES:
            found[seed, at] = measure(log, truths, at, policy)
    return found


def row_of(seed: int, by_day: Sequence[Measured]) -> str:
    """A row of the first table: the model's AUC, and that of the risk."""
    cells = (f"{_decimals(measured.aucs['model'])}, {_decimals(measured.aucs['risk'])}" for measured in by_day)
    return f"| {seed} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables, as docs/risk.md has them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="1 up to this one")
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    options = parser.parse_args()
    found = measure_all(options.seeds, options.accounts)
    print(f"| seed | {' | '.join(DATES)} |\n{'| --- ' * (len(DATES) + 1)}|")
    for seed in range(1, options.seeds + 1):
        print(row_of(seed, [found[seed, at] for at in DATES]))
    names = list(found[1, DATES[0]].aucs)
    print(f"\n| mean at | {' | '.join(names)} |\n{'| --- ' * (len(names) + 1)}|")
    for at in DATES:
        means = [mean(found[seed, at].aucs[name] for seed in range(1, options.seeds + 1)) for name in names]
        print(f"| {at} | {' | '.join(map(_decimals, means))} |")
    evident: dict[str, list[Evident]] = defaultdict(list)
    for measured in found.values():
        for kind, those in measured.evident.items():
            evident[kind] += those
    print("\n| evidence | accounts | the model says | bought nothing | had left |\n| --- | --- | --- | --- | --- |")
    for kind, those in sorted(evident.items()):
        print(f"| `{kind}` | {len(those):,} | {' | '.join(map(_percent, zip(*those, strict=True)))} |")
    left = [has_any for measured in found.values() for has_any in measured.left_with_evidence]
    print(f"\nOf the accounts that had left, {_percent(left)} have any.")


def _percent(shares: Iterable[float]) -> str:
    return f"{100 * mean(map(float, shares)):.0f} %"


def _decimals(value: float) -> str:
    return f"{value:.4f}"[1:]


if __name__ == "__main__":
    main()
