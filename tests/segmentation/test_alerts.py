"""Of which changes somebody is told, and when: whatever happens, in whatever order, people are left in peace."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segmentation.alerts import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Alert,
    AlertRules,
    Decision,
    Ledger,
    News,
    Status,
    alert_document,
    alert_of,
    end_of_quiet,
    local_day,
    local_time,
    next_at,
    release,
    take,
)
from segmentation.policy import CalmTable, Policy
from segmentation.segments import SEGMENTS

NOON_US = local_day(1_800_000_000_000_000, "UTC") * DAY_US + 12 * HOUR_US
"""Noon of a day, UTC."""
PEOPLE = {
    "kim": {"address": "kim@example.com"},
    "Ada": {"address": "#ada", "channel": "chat", "timezone": "Asia/Tokyo"},
}
ANY_MOVE = {"name": "any", "on": "move", "to": "owner"}


def rules_of(*alerts: dict[str, Any], **calm: Any) -> AlertRules:
    """Of a policy with these rules and this calm."""
    return AlertRules.of(Policy.default().with_changes(people=PEOPLE, alerts=list(alerts), calm=calm))


def move(
    before: str | None, after: str, /, *, sequence: int = 1, at_us: int = NOON_US, account: str = "acme", **fields: Any
) -> News:
    """A live change of segment."""
    direction = "up" if before and SEGMENTS.index(after) < SEGMENTS.index(before) else "down"
    news = News(
        *("move", account, sequence, "live", at_us, f"all/{before}", f"all/{after}", before, after, after, "all"),
        *(direction, "boundary_moved", 1_000, 0, "the team"),
    )
    return news._replace(**fields)


class Desk:
    """A ledger, with all that was decided."""

    def __init__(self, rules: AlertRules, owner: str = "kim") -> None:
        self.rules = rules
        self.ledger = Ledger()
        self.decisions: list[Decision] = []
        self.attributes: dict[str, Any] = {"owner": owner}

    def take(self, news: News, now_us: int | None = None) -> list[Alert]:
        """Take a change. Returns what became of alerts."""
        decisions = take(self.rules, self.ledger, news, self.attributes, news.at_us if now_us is None else now_us)
        return self._record(decisions)

    def release(self, now_us: int) -> list[Alert]:
        """Let it be a time."""
        return self._record(release(self.rules, self.ledger, now_us))

    def restart(self) -> None:
        """Go on with what was written down."""
        alerts = [alert_of(alert_document(alert)) for alert in self.ledger.open.values()]
        self.ledger = Ledger(alerts, self.ledger.told, self.ledger.handed, self.ledger.seen)

    def _record(self, decisions: Iterable[Decision]) -> list[Alert]:
        alerts: list[Alert] = []
        for decision in decisions:
            self.ledger.record(decision)
            self.decisions.append(decision)
            alerts += decision.alerts
        return alerts

    @property
    def latest(self) -> dict[str, Alert]:
        """What each alert is now."""
        return {alert.id: alert for decision in self.decisions for alert in decision.alerts}


def statuses(alerts: Sequence[Alert]) -> list[Status]:
    """In order."""
    return [alert.status for alert in alerts]


# -- one thing at a time ---------------------------------------------------------------------------------------------


def test_an_alert_waits_for_its_grace_and_is_handed_over_once() -> None:
    """Not a moment before, and never again."""
    desk = Desk(rules_of(ANY_MOVE))
    assert statuses(desk.take(move("key", "enterprise"))) == [Status.WAITING]
    assert desk.release(NOON_US + 15 * MINUTE_US - 1) == []
    (alert,) = desk.release(NOON_US + 15 * MINUTE_US)
    assert (alert.status, alert.recipient.person, alert.recipient.address) == (
        Status.HANDED_OVER,
        "kim",
        "kim@example.com",
    )
    assert desk.release(NOON_US + DAY_US) == []


def test_a_move_undone_within_its_grace_is_never_sent() -> None:
    """Neither it nor the way back; the log says of both why."""
    desk = Desk(rules_of(ANY_MOVE))
    desk.take(move("key", "enterprise"))
    undone, undoes = desk.take(move("enterprise", "key", sequence=2, at_us=NOON_US + 14 * MINUTE_US))
    assert (undone.status, undone.why) == (Status.DROPPED, "undone by move 2")
    assert (undoes.status, undoes.why) == (Status.DROPPED, "undoes move 1, of which nobody was told")
    assert desk.release(NOON_US + DAY_US) == []


def test_a_round_trip_of_several_moves_is_undone() -> None:
    """Back where it was is back where it was."""
    desk = Desk(rules_of(ANY_MOVE))
    desk.take(move("key", "enterprise"))
    desk.take(move("enterprise", "commercial", sequence=2))
    assert {alert.status for alert in desk.take(move("commercial", "key", sequence=3))} == {Status.DROPPED}
    assert not desk.ledger.open


def test_a_move_back_after_it_was_told_is_told() -> None:
    """Whoever heard of the first must hear of the second."""
    desk = Desk(rules_of(ANY_MOVE))
    desk.take(move("key", "enterprise"))
    desk.release(NOON_US + 15 * MINUTE_US)
    assert statuses(desk.take(move("enterprise", "key", sequence=2, at_us=NOON_US + HOUR_US))) == [Status.WAITING]


def test_the_way_back_is_told_to_whom_the_move_was_told() -> None:
    """A rule without grace has told the desk, one with grace has not told the owner."""
    desk = Desk(rules_of(ANY_MOVE, {"name": "desk", "on": "move", "address": "desk@example.com", "grace_minutes": 0}))
    desk.take(move("key", "enterprise"))
    assert [alert.rule for alert in desk.release(NOON_US)] == ["desk"]
    back = desk.take(move("enterprise", "key", sequence=2, at_us=NOON_US + MINUTE_US))
    assert [(alert.rule, alert.status) for alert in back] == [
        ("any", Status.DROPPED),
        ("any", Status.DROPPED),
        ("desk", Status.WAITING),
    ]


def test_the_same_is_said_of_an_account_once_a_day() -> None:
    """A day of the person's own: it is tomorrow in Tokyo. What comes back to it is said next day, if it still holds."""
    for owner, hours, status in [("kim", 2, Status.DIGEST), ("ada", 4, Status.WAITING), ("kim", 13, Status.WAITING)]:
        desk = Desk(rules_of(ANY_MOVE), owner)
        desk.take(move("key", "enterprise"))
        desk.release(NOON_US + HOUR_US)
        desk.take(move("enterprise", "key", sequence=2, at_us=NOON_US + HOUR_US))
        desk.release(NOON_US + 2 * HOUR_US)
        again = desk.take(move("key", "enterprise", sequence=3, at_us=NOON_US + hours * HOUR_US))
        assert statuses(again) == [status], (owner, hours)
        if status is Status.DIGEST:
            assert desk.release(NOON_US + 19 * HOUR_US) == []
            assert statuses(desk.release(NOON_US + 20 * HOUR_US)) == [Status.HANDED_OVER]


def test_what_is_said_next_day_is_said_with_what_comes_before_that() -> None:
    """In one message: what is told last is what holds. And what was undone by then is not said at all."""
    for after, expected in [("commercial", [3, 4]), ("key", [])]:
        desk = Desk(rules_of(ANY_MOVE, grace_minutes=0))
        for sequence, (before, current) in enumerate([("key", "enterprise"), ("enterprise", "key")], 1):
            desk.take(move(before, current, sequence=sequence, at_us=NOON_US + sequence * HOUR_US))
            desk.release(NOON_US + sequence * HOUR_US)
        desk.take(move("key", "enterprise", sequence=3, at_us=NOON_US + 3 * HOUR_US))
        desk.take(move("enterprise", after, sequence=4, at_us=NOON_US + 4 * HOUR_US))
        told = desk.release(NOON_US + 4 * HOUR_US)
        assert [alert.sequence for alert in told] == expected
        assert desk.release(NOON_US + 48 * HOUR_US) == []


def test_nobody_is_spared_the_way_back_from_what_they_were_told() -> None:
    """Though an earlier move waits for a digest, or for the longer grace of another rule, or somebody else's does."""
    slow = {"name": "slow", "on": "move", "to": "owner", "from": ["key"], "grace_minutes": 600}
    desk_too = {"name": "desk", "on": "move", "address": "desk@example.com", "from": ["key"], "grace_minutes": 600}
    for rules, calm in (
        ([ANY_MOVE], {"an_hour_max": 1, "grace_minutes": 0}),
        ([slow, ANY_MOVE], {"grace_minutes": 0}),
        ([desk_too, ANY_MOVE], {"grace_minutes": 0}),
    ):
        desk = Desk(rules_of(*rules, **calm))
        desk.take(move("key", "enterprise", account="other"))
        desk.release(NOON_US)
        steps = ["key", "enterprise", "commercial", "key"]
        for sequence, (before, current) in enumerate(pairwise(steps), 1):
            at_us = NOON_US + MINUTE_US + 2 * (sequence - 1) * HOUR_US
            desk.take(move(before, current, sequence=sequence, at_us=at_us))
            desk.release(at_us)
        desk.release(NOON_US + 48 * HOUR_US)
        told = [alert for alert in desk.latest.values() if alert.account_id == "acme" and alert.message_id]
        to_owner = [alert.after for alert in told if alert.recipient.person == "kim"]
        assert not to_owner or to_owner[-1] == "all/key"


def test_what_is_more_than_undone_is_not_sent() -> None:
    """Two tiers down and up again, where the rule is for the second alone; and a risk that is gone altogether."""
    desk = Desk(rules_of({"name": "lost", "on": "move", "to": "owner", "into": ["commercial"]}))
    for sequence, (before, current) in enumerate(
        [("key", "enterprise"), ("enterprise", "commercial"), ("commercial", "key")], 1
    ):
        desk.take(move(before, current, sequence=sequence, at_us=NOON_US + sequence * MINUTE_US))
    assert desk.release(NOON_US + HOUR_US) == []
    assert desk.latest["lost/acme/move-2"].why == "undone by move 3"
    desk = Desk(rules_of({"name": "stake", "on": "risk", "to": "owner", "level": ["high"]}))
    risk = move("key", "key")._replace(kind="risk")
    desk.take(risk._replace(before="watch", after="high", previous="watch", current="high"))
    desk.take(risk._replace(sequence=2, before="high", after="low", previous="high", current="low"))
    assert desk.release(NOON_US + HOUR_US) == []
    assert desk.latest["stake/acme/risk-1"].status is Status.DROPPED


def test_only_the_last_hour_of_a_person_is_remembered() -> None:
    """However long somebody is told twice an hour."""
    desk = Desk(rules_of(ANY_MOVE, grace_minutes=0))
    for number in range(200):
        at_us = NOON_US + number * 30 * MINUTE_US
        desk.take(move("key", "enterprise", account=f"a{number}", at_us=at_us))
        assert statuses(desk.release(at_us)) == [Status.HANDED_OVER]
        assert len(desk.ledger.handed["kim"]) <= 2


def test_an_owner_may_be_a_number() -> None:
    """As signups may say it."""
    people = {"1042": {"address": "kim@example.com"}}
    desk = Desk(AlertRules.of(Policy.default().with_changes(people=people, alerts=[ANY_MOVE])))
    desk.attributes["owner"] = 1042
    (alert,) = desk.take(move("key", "enterprise"))
    assert (alert.status, alert.recipient.address) == (Status.WAITING, "kim@example.com")


def test_what_is_too_much_for_an_hour_is_in_the_digest() -> None:
    """Five at once, the sixth and the seventh tomorrow morning, together."""
    desk = Desk(rules_of(ANY_MOVE))
    for number in range(7):
        desk.take(move("key", "enterprise", account=f"a{number}"))
    told = desk.release(NOON_US + HOUR_US)
    assert Counter(statuses(told)) == {Status.HANDED_OVER: 5, Status.DIGEST: 2}
    assert desk.release(NOON_US + 20 * HOUR_US - 1) == []
    assert statuses(desk.release(NOON_US + 20 * HOUR_US)) == [Status.HANDED_OVER] * 2
    handover = desk.decisions[-1].handover
    assert handover is not None and handover.is_digest and len(handover.alerts) == 2


def test_nothing_is_sent_in_quiet_hours() -> None:
    """Held until they end; what is undone meanwhile is not sent at all."""
    desk = Desk(rules_of(ANY_MOVE, quiet_from="11:00", quiet_until="14:00"))
    desk.take(move("key", "enterprise"))
    desk.take(move("key", "enterprise", account="other"))
    assert statuses(desk.release(NOON_US + 15 * MINUTE_US)) == [Status.QUIET] * 2
    desk.take(move("enterprise", "key", sequence=2, at_us=NOON_US + HOUR_US))
    (alert,) = desk.release(NOON_US + 2 * HOUR_US)
    assert (alert.account_id, alert.status) == ("other", Status.HANDED_OVER)


@pytest.mark.parametrize("mode", ["backfill", "replay", "silent"])
def test_what_is_not_live_is_nobodys(mode: str) -> None:
    """Nobody is to act upon history."""
    desk = Desk(rules_of(ANY_MOVE))
    assert desk.take(move("key", "enterprise", mode=mode)) == []


def test_what_a_silent_policy_undid_is_not_sent() -> None:
    """It would say what is no longer so."""
    desk = Desk(rules_of(ANY_MOVE))
    desk.take(move("key", "enterprise"))
    (undone,) = desk.take(move("enterprise", "key", sequence=2, mode="silent"))
    assert undone.status is Status.DROPPED and not desk.ledger.open


def test_one_person_is_told_once_of_one_change() -> None:
    """Whichever rules it is for; another person is told, too."""
    desk = Desk(
        rules_of(
            {**ANY_MOVE, "direction": ["down"]},
            ANY_MOVE | {"name": "kim", "to": "kim"},
            ANY_MOVE | {"name": "desk", "to": "team", "address": "desk@example.com"},
        )
    )
    told = desk.take(move("key", "enterprise"))
    assert [(alert.status, alert.recipient.person) for alert in told] == [
        (Status.WAITING, "kim"),
        (Status.DROPPED, "kim"),
        (Status.WAITING, "desk@example.com"),
    ]
    assert told[1].why == "told by the rule any"


def test_a_change_that_comes_twice_is_one() -> None:
    """Neither does the second take the first one's alert away, nor is what was undone news."""
    desk = Desk(rules_of(ANY_MOVE))
    first, back = move("key", "enterprise"), move("enterprise", "key", sequence=2)
    desk.take(first)
    assert desk.take(first) == [] and len(desk.ledger.open) == 1
    desk.take(back)
    desk.restart()
    assert desk.take(first) == desk.take(back) == []
    assert desk.release(NOON_US + DAY_US) == []


def test_an_alert_for_nobody_says_so() -> None:
    """It does not vanish."""
    desk = Desk(rules_of(ANY_MOVE), owner="who")
    (alert,) = desk.take(move("key", "enterprise"))
    assert (alert.status, alert.why) == (
        Status.DROPPED,
        "nobody to tell: owner is not in [people], and the rule has no address",
    )


@pytest.mark.parametrize(
    ("conditions", "is_for"),
    [
        ({"from": ["key"]}, True),
        ({"from": ["commercial"]}, False),
        ({"into": ["enterprise"]}, True),
        ({"into": ["key"]}, False),
        ({"direction": ["down"]}, True),
        ({"direction": ["up"]}, False),
        ({"cause": ["boundary_moved"]}, True),
        ({"cause": ["purchase"]}, False),
        ({"population": ["all"]}, True),
        ({"population": ["emea"]}, False),
        ({"revenue_over_minor": 999}, True),
        ({"revenue_over_minor": 1_000}, False),
        ({"where": [{"attribute": "region", "any_of": [" EMEA"]}, {"attribute": "employees", "at_least": 10}]}, True),
        ({"where": [{"attribute": "region", "any_of": ["EMEA"]}, {"attribute": "employees", "at_least": 11}]}, False),
        ({"where": [{"attribute": "industry", "any_of": ["EMEA"]}]}, False),
    ],
)
def test_conditions(conditions: dict[str, Any], is_for: bool) -> None:
    """Each holds that a rule has."""
    desk = Desk(rules_of(ANY_MOVE | conditions))
    desk.attributes |= {"region": "emea", "employees": 10}
    assert bool(desk.take(move("key", "enterprise"))) is is_for


@pytest.mark.parametrize(
    ("conditions", "is_for"),
    [
        ({"level": ["high"]}, True),
        ({"level": ["low"]}, False),
        ({"segment": ["key"]}, True),
        ({"segment": ["commercial"]}, False),
        ({"at_risk_over_minor": 499}, True),
        ({"at_risk_over_minor": 500}, False),
        ({"cause": ["silence"]}, True),
    ],
)
def test_conditions_on_risk(conditions: dict[str, Any], is_for: bool) -> None:
    """As on moves, but other ones."""
    desk = Desk(rules_of({"name": "risk", "on": "risk", "to": "owner"} | conditions))
    risk = News(
        *(
            "risk",
            "acme",
            1,
            "live",
            NOON_US,
            "low",
            "high",
            "low",
            "high",
            "key",
            "all",
            "",
            "silence",
            1_000,
            500,
            "t",
        )
    )
    assert bool(desk.take(risk)) is is_for
    assert desk.take(move("key", "enterprise")) == []


# -- local time ------------------------------------------------------------------------------------------------------


def instant(text: str) -> int:
    """As microseconds."""
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("now", "minutes", "expected"),
    [
        ("2026-03-28T09:00+01:00", 8 * 60, "2026-03-29T08:00+02:00"),  # the night that is an hour shorter
        ("2026-03-29T00:00+01:00", 2 * 60 + 30, "2026-03-29T03:30+02:00"),  # a time that no clock shows
        ("2026-10-25T01:00+02:00", 2 * 60 + 30, "2026-10-25T02:30+02:00"),  # a time that they show twice
        ("2026-10-25T02:30+02:00", 2 * 60 + 30, "2026-10-26T02:30+01:00"),
        ("2026-07-01T07:59:59+02:00", 8 * 60, "2026-07-01T08:00+02:00"),
        ("2026-07-01T08:00+02:00", 8 * 60, "2026-07-02T08:00+02:00"),
    ],
)
def test_a_local_time_comes_when_clocks_say_so(now: str, minutes: int, expected: str) -> None:
    """Also where they are put forward or back."""
    assert next_at(minutes, instant(now), "Europe/Berlin") == instant(expected)


@given(
    now_us=st.integers(NOON_US - 400 * DAY_US, NOON_US + 400 * DAY_US),
    begin=st.integers(0, 1439),
    end=st.integers(0, 1439),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]),
)
def test_quiet_hours_end(now_us: int, begin: int, end: int, zone: str) -> None:
    """Within a day and an hour, and later than now."""
    if begin == end:
        return
    calm = CalmTable.model_validate({"quiet_from": _text(begin), "quiet_until": _text(end), "timezone": zone})
    until_us = end_of_quiet(calm, now_us, zone)
    if until_us is not None:
        assert now_us < until_us <= now_us + 25 * HOUR_US


def _text(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


# -- whatever happens ------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """Something that happens: time goes on, an account moves or not, and the process may be another one."""

    seconds: int
    account: str
    segment: str | None
    mode: str
    restart: bool
    repeat: int = 0
    """So many of the newest changes come once more, as they do where a worker died after it had published them."""


STEPS = st.lists(
    st.builds(
        Step,
        st.one_of(st.integers(0, 1_200), st.integers(0, 200_000)),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.none(), st.sampled_from(SEGMENTS)),
        st.sampled_from(["live", "live", "live", "silent"]),
        st.booleans(),
        st.sampled_from([0, 0, 0, 1, 2, 5]),
    ),
    max_size=60,
)
RULES = st.sampled_from(
    [
        [ANY_MOVE],
        [ANY_MOVE, {"name": "desk", "on": "move", "address": "desk@example.com", "direction": ["down"]}],
        [{"name": "now", "on": "move", "to": "owner", "into": ["key"], "grace_minutes": 0}, ANY_MOVE],
    ]
)
CALM = st.fixed_dictionaries(
    {"an_hour_max": st.integers(0, 3), "grace_minutes": st.integers(0, 60)},
    optional={"timezone": st.sampled_from(["Europe/Berlin", "America/New_York"])},
)
QUIET = st.sampled_from(
    [
        {},
        {"quiet_from": "20:00", "quiet_until": "07:30"},
        {"quiet_from": "02:15", "quiet_until": "02:45"},
        {"quiet_from": "07:00", "quiet_until": "09:00"},  # when the digest would be
    ]
)


@settings(max_examples=300)
@given(steps=STEPS, rules=RULES, calm=CALM, quiet=QUIET, owner=st.sampled_from(["kim", "ada"]))
@example(
    steps=[
        Step(0, "a", "key", "live", False),
        Step(0, "a", "enterprise", "live", False),
        Step(59, "a", "commercial", "live", False),
        Step(1, "a", None, "live", False),
        Step(0, "a", "key", "live", True),
    ],
    rules=[ANY_MOVE, {"name": "desk", "on": "move", "address": "desk@example.com", "direction": ["down"]}],
    calm={"an_hour_max": 1, "grace_minutes": 1},
    quiet={},
    owner="kim",
)
@example(
    steps=[Step(0, "a", "key", "live", False), Step(1, "a", "enterprise", "live", True)],
    rules=[ANY_MOVE],
    calm={"an_hour_max": 0, "grace_minutes": 0},
    quiet={},
    owner="kim",
)
def test_whatever_happens(
    steps: list[Step], rules: list[dict[str, Any]], calm: dict[str, Any], quiet: dict[str, str], owner: str
) -> None:
    """All that is promised of alerts, in any history."""
    desk, never_restarted = (Desk(rules_of(*rules, **calm, **quiet), owner) for _ in range(2))
    segments: dict[str, str] = {}
    sequences: Counter[str] = Counter()
    moves: list[News] = []
    now_us = NOON_US
    for step in steps:
        now_us += step.seconds * 1_000_000
        if step.restart:
            desk.restart()
        if step.segment is not None and segments.get(step.account) != step.segment:
            sequences[step.account] += 1
            moves.append(
                move(
                    segments.get(step.account),
                    step.segment,
                    sequence=sequences[step.account],
                    at_us=now_us,
                    account=step.account,
                    mode=step.mode,
                )
            )
            segments[step.account] = step.segment
            assert desk.take(moves[-1]) == never_restarted.take(moves[-1])
        for news in moves[len(moves) - step.repeat :] if step.repeat else []:
            if news.at_us > now_us - DAY_US:
                assert desk.take(news, now_us) == []
        assert desk.release(now_us) == never_restarted.release(now_us)
        desk.ledger.forget(now_us)
    for hours in range(0, 24 * 5):
        desk.release(now_us + hours * HOUR_US)
        never_restarted.release(now_us + hours * HOUR_US)
    assert desk.decisions == never_restarted.decisions
    _check_ends(desk, moves)
    _check_calm(desk, moves)
    _check_order(desk, moves)


def _check_ends(desk: Desk, moves: Sequence[News]) -> None:
    """No alert disappears: what a rule is for is handed over once, or dropped with a reason; nothing else is there."""
    assert not desk.ledger.open
    expected = {
        f"{rule.name}/{news.account_id}/{news.kind}-{news.sequence}"
        for news in moves
        if news.mode == "live"
        for rule in desk.rules.wanted(news)
    }
    assert set(desk.latest) == expected
    handed = [id_ for decision in desk.decisions if decision.handover for id_ in decision.handover.alerts]
    assert len(handed) == len(set(handed))
    for alert in desk.latest.values():
        assert alert.status is (Status.HANDED_OVER if alert.id in handed else Status.DROPPED)
        assert alert.why
    messages = [decision.handover.id for decision in desk.decisions if decision.handover]
    assert len(messages) == len(set(messages))


def _check_calm(desk: Desk, moves: Sequence[News]) -> None:
    calm, latest = desk.rules.calm, desk.latest
    alone: dict[str, list[int]] = defaultdict(list)
    handed_at: dict[str, int] = {}
    for decision in desk.decisions:
        handover = decision.handover
        if handover is None:
            continue
        zone = handover.recipient.timezone
        assert end_of_quiet(calm, decision.at_us, zone) is None, local_time(decision.at_us, zone)
        handed_at |= dict.fromkeys(handover.alerts, decision.at_us)
        if not handover.is_digest:
            alone[handover.recipient.person].append(decision.at_us)
    for instants in alone.values():
        for place, at_us in enumerate(instants[calm.an_hour_max :], calm.an_hour_max):
            assert at_us - instants[place - calm.an_hour_max] >= HOUR_US, "too many for an hour"
    said = Counter((latest[id_].reason, latest[id_].day) for id_ in handed_at if not latest[id_].repeats)
    assert all(count == 1 for count in said.values()), "said twice on a day"
    by_account: dict[str, list[News]] = defaultdict(list)
    for news in moves:
        by_account[news.account_id].append(news)
    for chain in by_account.values():
        for first, second in pairwise(chain):
            if second.after != first.before:
                continue
            for rule in desk.rules.wanted(first):
                alert = latest.get(f"{rule.name}/{first.account_id}/move-{first.sequence}")
                if alert is not None and second.at_us < alert.at_us + desk.rules.grace_us(rule):
                    assert alert.id not in handed_at, "undone within its grace, and sent"


def _check_order(desk: Desk, moves: Sequence[News]) -> None:
    """Of an account everybody is told in order; and who is told of each move was told last what holds in the end."""
    last: dict[tuple[str, str], Alert] = {}
    for decision in desk.decisions:
        for id_ in decision.handover.alerts if decision.handover else ():
            alert = desk.latest[id_]
            of = alert.account_id, alert.recipient.address
            assert of not in last or last[of].sequence < alert.sequence, "an older move after a newer one"
            last[of] = alert
    owner = (
        next(alert.recipient.address for alert in desk.latest.values() if alert.rule == "any") if desk.latest else ""
    )
    for account in {news.account_id for news in moves if news.mode == "live"}:
        own = [news for news in moves if news.account_id == account]
        if all(news.mode == "live" for news in own) and (account, owner) in last:
            assert last[account, owner].after == own[-1].after, "told something that holds no more"
