"""Accounts that buy, log in, complain and leave, made by a process whose truth is known.

    python -m benchmarks.engaged_accounts accounts.jsonl --truth truth.jsonl
    resegment backtest accounts.jsonl --at 2024-12-31

What is known from publications is how such processes go, not how strong each part is: the numbers below are round ones,
set before anything was scored, and not changed since.

- Purchases and leaving: Pareto/NBD. An account buys at random at a rate of its own (gamma), until it leaves for good at
  a moment that nobody is told (exponential, with a hazard of its own, gamma). Schmittlein, Morrison & Colombo (1987),
  Counting your customers, Management Science 33(1); of business customers Schmittlein & Peterson (1994), Customer base
  analysis: an industrial purchase process application, Marketing Science 13(1). It is not the model that is fitted.
- Use falls before an account leaves, and use that falls does not always mean that: both show a commitment which nobody
  sees and which comes and goes. Ascarza & Hardie (2013), A joint model of usage and churn in contractual settings,
  Marketing Science 32(4).
- Some say that they leave, others do so without a word. Ascarza, Netzer & Hardie (2018), Some customers would rather
  leave without saying goodbye, Marketing Science 37(1).

None of it is made from the formula of the score, nor from the policy's numbers.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from math import exp
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from streams.cdnow import SECONDS_PER_DAY, Line

FIRST_DAY = date(2023, 1, 1)
DAYS = 1_096
"""To the end of 2025."""
ARRIVAL_DAYS = 730
"""Accounts come evenly over the first two years, so that there are old and new ones on any day of the question."""
ACCOUNTS = 3_000

BUYING_SHAPE, BUYING_MEAN_PER_DAY = 1.0, 1 / 45
"""Some buy weekly, some once a year: an exponential distribution, whose deviation is as great as its mean."""
LEAVING_SHAPE, LEAVING_SCALE_DAYS = 1.5, 1_500.0
"""28 % of the accounts leave within a year, 45 % within two: fewer in the second year, as of any mixed lot."""
SPEND_MEDIAN_MINOR, SPEND_SPREAD, SPEND_SPREAD_WITHIN = 50_000, 1.2, 0.4
"""Log-normal: of the accounts' medians, and of each account's purchases around its own."""

SEASONAL_SHARE, OFF_SEASON, OFF_SEASON_FACTOR = 0.2, (7, 8), 0.3
"""One account in five nearly stops in July and August, buying and all."""

USING_SHARE, USE_SHAPE, USE_MEAN_PER_DAY = 0.75, 1.0, 0.3
"""One in four never logs in; of the others some do daily, some monthly, whatever they buy."""
FEATURE_SHARE = 0.3
"""Of their engagements the uses of a feature; the others are logins."""
WARNING_SHARE, DECLINE_DAYS, LEFT_OF_USE = 0.6, (14, 90), 0.1
"""Of those that leave, how many use less and less before: for so many days, evenly, down to a tenth. The others leave
without a sign."""
LINGERING_SHARE, LINGERING_DAYS, LINGERING_FACTOR = 0.2, 60, 0.5
"""Of those that have left, some go on logging in for a while, to take their data along."""
LULLS_PER_YEAR, LULL_DAYS, LULL_FACTOR = 0.5, (30, 90), 0.2
"""An account that stays has times of little use, too: somebody is on leave, a project is over."""

TICKETS_PER_DAY, TICKETS_SHAPE = 1 / 365, 0.5
"""Support tickets of an account: most have none, some many."""
UNHAPPY_DAYS, UNHAPPY_FACTOR = 60, 4.0
"""In the last days before an account leaves there are more of them."""
CANCELLING_SHARE, CANCELLING_DAYS = 0.2, 30
"""Of those that leave, how many ask to cancel, and how long before at most."""
FALSE_CANCELS_PER_DAY = 0.05 / 365
"""Who asks to cancel and stays: one account in twenty a year."""
REFUND_SHARE, REFUND_SHARE_UNHAPPY, REFUND_DAYS = 0.03, 0.1, 20
"""Of the purchases taken back, wholly, within so many days; the second of those of the last UNHAPPY_DAYS."""


class Truth(NamedTuple):
    """What nobody who sees the events can know of an account. Times are days since FIRST_DAY began."""

    account_id: str
    first_at: float
    """Of the first purchase."""
    left_at: float
    """It buys nothing from then on; it may lie after the last event."""
    buys_per_day: float
    is_seasonal: bool
    uses_per_day: float
    """0: it never logs in."""
    declines_at: float
    """Its use falls from then on until it leaves; `left_at`: it gives no sign."""

    def has_left(self, day: float) -> bool:
        """By the end of a day."""
        return self.left_at < day + 1

    def silence_chance(self, day: int, horizon_days: int) -> float:
        """The chance of no purchase in the days after this one, for who knows the rate and when it leaves. 0 to 1."""
        buying_days = sum(
            max(0.0, min(1.0, self.left_at - on)) * season(self, on) for on in range(day + 1, day + 1 + horizon_days)
        )
        return exp(-self.buys_per_day * buying_days)

    def document(self) -> dict[str, Any]:
        """As a line of the file of truths has it."""
        return {
            "account_id": self.account_id,
            "first_purchase_on": _instant(self.first_at).date().isoformat(),
            "left_on": _instant(self.left_at).date().isoformat(),
            "left_before_the_end": self.left_at < DAYS,
            "buys_per_day": self.buys_per_day,
            "is_seasonal": self.is_seasonal,
            "uses_per_day": self.uses_per_day,
            "gives_a_sign_days": self.left_at - self.declines_at,
        }


class EngagedAccount(NamedTuple):
    """An account: what happened to it, in order, and the truth about it."""

    truth: Truth
    lines: list[Line]


def season(truth: Truth, at: float) -> float:
    """What share of its rates an account has at that time: 1 but for seasonal ones in their off season."""
    if not truth.is_seasonal or (FIRST_DAY + timedelta(days=int(at))).month not in OFF_SEASON:
        return 1.0
    return OFF_SEASON_FACTOR


def engaged_accounts(count: int = ACCOUNTS, seed: int = 1) -> Iterator[EngagedAccount]:
    """The accounts, each made of its own chance: the same for the same seed, however many there are."""
    for number in range(count):
        yield _account(number, random.Random(f"engaged-accounts-{seed}-{number}"))


def lines_of(accounts: list[EngagedAccount]) -> list[Line]:
    """All events in order of time, as a replay file has them."""
    return sorted((line for account in accounts for line in account.lines), key=lambda line: line.occurred_at)


def _account(number: int, chance: random.Random) -> EngagedAccount:
    first_at = chance.uniform(0, ARRIVAL_DAYS)
    hazard = chance.gammavariate(LEAVING_SHAPE, 1 / LEAVING_SCALE_DAYS)
    left_at = min(first_at + chance.expovariate(hazard), 100.0 * DAYS)
    decline_days = chance.uniform(*DECLINE_DAYS) if chance.random() < WARNING_SHARE else 0.0
    truth = Truth(
        account_id=f"engaged-{number:05d}",
        first_at=first_at,
        left_at=left_at,
        buys_per_day=chance.gammavariate(BUYING_SHAPE, BUYING_MEAN_PER_DAY / BUYING_SHAPE),
        is_seasonal=chance.random() < SEASONAL_SHARE,
        uses_per_day=chance.gammavariate(USE_SHAPE, USE_MEAN_PER_DAY / USE_SHAPE)
        if chance.random() < USING_SHARE
        else 0.0,
        declines_at=max(first_at, left_at - decline_days),
    )
    events = [*_purchases(truth, chance), *_uses(truth, chance), *_complaints(truth, chance)]
    events.sort(key=lambda event: event[0])
    # what would happen after the end is not known to the log
    lines = [_line(truth, number, at, fields) for number, (at, fields) in enumerate(events) if at < DAYS]
    return EngagedAccount(truth, lines)


_Event = tuple[float, dict[str, Any]]
"""When, in days since FIRST_DAY began, and the fields that are its own."""


def _purchases(truth: Truth, chance: random.Random) -> Iterator[_Event]:
    median = SPEND_MEDIAN_MINOR * chance.lognormvariate(0, SPEND_SPREAD)
    yield truth.first_at, {"type": "signup"}
    last = min(truth.left_at, DAYS)
    times = [
        truth.first_at,
        *_random_times(truth.buys_per_day, truth.first_at, last, lambda at: season(truth, at), chance),
    ]
    for at in times:
        amount = {"amount_minor": round(median * chance.lognormvariate(0, SPEND_SPREAD_WITHIN)) + 1, "currency": "USD"}
        yield at, {"type": "purchase", **amount}
        is_unhappy = at > truth.left_at - UNHAPPY_DAYS
        if chance.random() < (REFUND_SHARE_UNHAPPY if is_unhappy else REFUND_SHARE):
            back = {"kind": "refund", "purchased_at": _text(at)}
            yield at + chance.uniform(1, REFUND_DAYS), {"type": "purchase", **amount, **back}


def _uses(truth: Truth, chance: random.Random) -> Iterator[_Event]:
    lulls = [
        (at, at + chance.uniform(*LULL_DAYS))
        for at in _random_times(LULLS_PER_YEAR / 365, truth.first_at, DAYS, lambda _: 1.0, chance)
    ]
    lingers_until = truth.left_at + (LINGERING_DAYS if chance.random() < LINGERING_SHARE else 0)

    def share(at: float) -> float:
        """Of the account's own rate."""
        if at >= truth.left_at:
            return LINGERING_FACTOR
        share = season(truth, at)
        if any(begin <= at < end for begin, end in lulls):
            share *= LULL_FACTOR
        if at > truth.declines_at:
            share *= 1 - (1 - LEFT_OF_USE) * (at - truth.declines_at) / (truth.left_at - truth.declines_at)
        return share

    for at in _random_times(truth.uses_per_day, truth.first_at, min(lingers_until, DAYS), share, chance):
        yield at, {"type": "engagement", "kind": "feature_use" if chance.random() < FEATURE_SHARE else "login"}


def _complaints(truth: Truth, chance: random.Random) -> Iterator[_Event]:
    rate = chance.gammavariate(TICKETS_SHAPE, TICKETS_PER_DAY / TICKETS_SHAPE) * UNHAPPY_FACTOR
    last = min(truth.left_at, DAYS)

    def share(at: float) -> float:
        return 1.0 if at > truth.left_at - UNHAPPY_DAYS else 1 / UNHAPPY_FACTOR

    for at in _random_times(rate, truth.first_at, last, share, chance):
        yield at, {"type": "engagement", "kind": "support_ticket"}
    cancels = list(_random_times(FALSE_CANCELS_PER_DAY, truth.first_at, last, lambda _: 1.0, chance))
    if chance.random() < CANCELLING_SHARE:
        cancels.append(max(truth.first_at, truth.left_at - chance.uniform(0, CANCELLING_DAYS)))
    for at in cancels:
        yield at, {"type": "engagement", "kind": "cancel_request"}


def _random_times(
    rate: float, begin: float, end: float, share: Callable[[float], float], chance: random.Random
) -> Iterator[float]:
    """A Poisson process of a rate times a share, 0 to 1, that may differ from time to time (by thinning)."""
    at = begin
    while rate > 0 and (at := at + chance.expovariate(rate)) < end:
        if chance.random() < share(at):
            yield at


def _line(truth: Truth, number: int, at: float, fields: dict[str, Any]) -> Line:
    document = {"event_id": f"{truth.account_id}-{number}", "account_id": truth.account_id, "occurred_at": _text(at)}
    return Line(_instant(at), orjson.dumps({**fields, **document}))


def _instant(at: float) -> datetime:
    midnight = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    return midnight + timedelta(seconds=int(at * SECONDS_PER_DAY))


def _text(at: float) -> str:
    return _instant(at).isoformat().replace("+00:00", "Z")


def main() -> None:
    """Write the events, and the truth beside them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("output", type=Path, help="replay file to write")
    parser.add_argument("--truth", type=Path, help="file for what nobody can know, one account a line")
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    accounts = list(engaged_accounts(options.accounts, options.seed))
    lines = lines_of(accounts)
    options.output.write_bytes(b"".join(line.payload + b"\n" for line in lines))
    if options.truth:
        options.truth.write_text("".join(json.dumps(account.truth.document()) + "\n" for account in accounts))
    print(f"{len(lines):,} events of {len(accounts):,} accounts in {options.output}")


if __name__ == "__main__":
    main()
