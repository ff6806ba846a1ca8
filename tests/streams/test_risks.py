"""Risks of a past day are what workers had on that day."""

import json
import random

import pytest

from segmentation.account import EVIDENCE_TOLD
from segmentation.events import MICROSECONDS_PER_DAY, Engagement, Event, Purchase
from segmentation.policy import Policy
from segmentation.risk import EVIDENCE, TIER_FALL, Risk, RiskRules
from streams.embedded import Embedded
from streams.model.purchases import PurchaseLog, read_file
from streams.model.risks import risks_at
from tests.pipeline import Installation, Sent, day_of, event, moment, purchase
from tests.segmentation.stored_account import StoredAccount

POLICY = Policy.default().with_changes(window_days=40, new_start_days=15, engagement_days=30)
ACCOUNTS = 12
KINDS = ["login", "login", "feature_use", "meeting", "support_ticket", "cancel_request"]


def random_events(chance: random.Random, days: int, *, purchases_a_day: float) -> list[list[Sent]]:
    """Of each day: at most `purchases_a_day` purchases or refunds, and engagements, some told twice."""
    of_days: list[list[Sent]] = []
    for day in range(days):
        sent = []
        if chance.random() < purchases_a_day:
            account, amount = f"a{chance.randrange(ACCOUNTS)}", int(chance.paretovariate(1) * 100)
            refund = {"kind": "refund"} if chance.random() < 0.15 else {}
            sent.append(purchase(account, f"p{day}", moment(day, chance.uniform(0, 86_000)), amount, **refund))
        for number in range(ACCOUNTS):
            # each has some weeks in which it engages, and some in which it does not
            if chance.random() < (0.5 if (day // 25 + number) % 2 else 0.05):
                at = moment(day, chance.uniform(0, 86_000))
                told = event("engagement", f"a{number}", f"e{day}", at, kind=chance.choice(KINDS))
                sent += [told] * chance.choice([1, 1, 1, 2])
        of_days.append(sent)
    return of_days


def log_of(of_days: list[list[Sent]]) -> PurchaseLog:
    """As the command reads a file of them."""
    types = {"purchases": "purchase", "engagements": "engagement"}
    lines = [
        json.dumps({**json.loads(sent.value or b""), "type": types[str(sent.topic)]}).encode()
        for of_day in of_days
        for sent in of_day
    ]
    log = read_file(lines, POLICY, with_engagements=True)
    assert not log.refused
    return log


def known_of(risk: Risk) -> tuple[object, ...]:
    """All that its odds rest on."""
    bought = risk.first_day, risk.last_day, risk.days_bought, risk.bought_in_window
    return (*bought, risk.engagement_fell, *risk.evidence_days)


async def test_they_are_those_of_workers(embedded: Embedded) -> None:
    """Day by day on a broker; with one purchase a day at most, so that batches are cut in one way only."""
    days = 110
    of_days = random_events(random.Random(7), days, purchases_a_day=0.8)
    installation = Installation(embedded, policy=POLICY, partitions=1, due_chunk_accounts=1_000)
    async with installation, installation.worker():
        for day, sent in enumerate(of_days):
            await installation.tick(moment(day))
            await installation.rest()
            await installation.send(*sent)
            await installation.rest()
        members = await installation.members()
    live = {name: known_of(member.risk) for name, member in members.items() if member.risk is not None}
    found = risks_at(log_of(of_days), POLICY, day_of(moment(days - 1)))
    assert {name: known_of(risk) for name, risk in found.items()} == live
    assert len(live) == ACCOUNTS
    # the comparison is worth something only where there is something to compare
    for place in range(len(EVIDENCE)):
        assert any(risk.evidence_days[place] for risk in found.values()), EVIDENCE[place]
    assert {risk.engagement_fell for risk in found.values()} == {True, False}


@pytest.mark.parametrize("seed", range(5))
def test_evidence_is_that_of_an_account_on_each_day(seed: int) -> None:
    """Of an account that took its events one after the other as its days came; nothing from after the day is used."""
    days, first = 100, day_of(moment(0))
    log = log_of(random_events(random.Random(seed), days, purchases_a_day=0.9))
    accounts = {name: StoredAccount(POLICY) for name in {*log.accounts, *log.engagements}}
    events: dict[str, list[Event]] = {
        name: [*log.accounts.get(name, []), *log.engagements.get(name, [])] for name in accounts
    }
    place = EVIDENCE.index(TIER_FALL)
    rules, compared = RiskRules.of(POLICY), 0
    for day in range(first, first + days):
        found = risks_at(log, POLICY, day)
        for name, account in accounts.items():
            account.tick(day)
            today = [e for e in events[name] if e.occurred_at_us // MICROSECONDS_PER_DAY == day]
            account.take(sorted(today, key=lambda e: e.occurred_at_us))
            live = account.account
            history = live.purchase_days.history(day)
            assert (history is not None) is (name in found)
            if history is None:
                continue
            risk = found[name]
            assert risk.evidence_days[: len(EVIDENCE_TOLD)] == live.evidence_days
            assert risk.engagement_fell is live.engagement_fell
            assert risk.history(day) == history
            own = Risk(risk.first_day, risk.last_day, risk.days_bought)
            own.note(live.evidence_days)
            own.note_engagement(fell=live.engagement_fell)
            own.note_change(risk.evidence_days[place])
            assert risk.odds(rules, day) == own.odds(rules, day)
            compared += 1
    assert compared > 500


def test_a_refund_and_an_engagement_of_later_are_not_known() -> None:
    """Whatever day the money belongs to."""
    day = 20_000
    at_us = day * MICROSECONDS_PER_DAY
    log = PurchaseLog()
    log.add(Purchase("a", "1", at_us, day, 1_000, False))
    log.add(Purchase("a", "2", at_us + MICROSECONDS_PER_DAY, day, -1_000, True))
    log.add_engagement(Engagement("a", "1", at_us + MICROSECONDS_PER_DAY, "cancel_request", None))
    log.add_engagement(Engagement("b", "1", at_us, "cancel_request", None))
    before, after = risks_at(log, POLICY, day), risks_at(log, POLICY, day + 1)
    assert not any(before["a"].evidence_days) and set(before) == {"a"}
    assert after["a"].evidence_days == (day + 1, 0, day + 1, 0)
