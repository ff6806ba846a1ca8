"""What a report says of risk: who was flagged in a period, and what became of them."""

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.period_report import Period
from segmentation.population import Member
from segmentation.risk import Level, Risk, Trigger
from segmentation.risk_report import Flagged, PastRiskChange, risk_report

LOW, WATCH, HIGH = Level.LOW, Level.WATCH, Level.HIGH
PERIOD = Period(100, 129)


def change(
    sequence: int, day: int, previous: Level, current: Level, trigger: Trigger, at_risk: int = 0
) -> PastRiskChange:
    """At noon of a day."""
    at_us = day * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
    return PastRiskChange(sequence, previous, current, trigger, at_risk, at_us)


CHAINS = {
    "bought": [
        change(1, 90, LOW, WATCH, Trigger.SILENCE, 5),
        change(2, 101, WATCH, HIGH, Trigger.SILENCE, 10),
        change(3, 110, HIGH, LOW, Trigger.PURCHASE),
    ],
    "bought after the period, and was flagged again": [
        change(1, 102, LOW, HIGH, Trigger.CANCEL_REQUEST, 20),
        change(2, 140, HIGH, WATCH, Trigger.PURCHASE),
        change(3, 150, WATCH, HIGH, Trigger.SILENCE, 99),
    ],
    "waited until it was forgotten": [
        change(1, 103, LOW, HIGH, Trigger.CANCEL_REQUEST, 40),
        change(2, 135, HIGH, WATCH, Trigger.EVIDENCE_OVER),
    ],
    "silent": [change(1, 129, LOW, HIGH, Trigger.SILENCE, 80)],
    "flagged before": [change(1, 99, LOW, HIGH, Trigger.SILENCE, 160), change(2, 105, HIGH, LOW, Trigger.PURCHASE)],
    "flagged after": [change(1, 130, LOW, HIGH, Trigger.SILENCE, 320)],
}
MEMBERS = [
    *(
        Member(name, risk=Risk(days_bought=2, level=chain[-1].current, told_level=chain[-1].current))
        for name, chain in CHAINS.items()
    ),
    Member("never told of", risk=Risk(days_bought=1)),
    Member("has not bought"),
    Member("not known yet", risk=Risk(sequence=1, told_level=HIGH)),
]


def test_who_was_flagged_and_what_became_of_them() -> None:
    """Once an account, however often; by what it did afterwards, also after the period."""
    report = risk_report(CHAINS, MEMBERS, PERIOD)
    assert report.flagged == Flagged(4, 150)
    assert report.came_back == Flagged(2, 30)
    assert report.calmed == Flagged(1, 40)
    assert report.still_flagged == Flagged(1, 80)


def test_what_was_raised_and_lowered() -> None:
    """In the period; the accounts are as they are now."""
    report = risk_report(CHAINS, MEMBERS, PERIOD)
    assert report.accounts == {LOW: 3, WATCH: 1, HIGH: 3}
    assert report.raised == {WATCH: 0, HIGH: 4}
    assert report.lowered == {LOW: 2, WATCH: 0}
    assert report.triggers == {"cancel_request": 2, "silence": 2}


def test_a_period_without_anything() -> None:
    """Nothing is nothing."""
    report = risk_report({}, [], PERIOD)
    assert report.flagged == report.still_flagged == Flagged(0, 0)
    assert report.triggers == {}
