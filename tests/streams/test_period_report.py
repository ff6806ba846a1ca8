"""The report and the what-if of an installation that ran: read from its state and its log, shown on a page."""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.order_index import Basis
from segmentation.period_report import PastChange, Period, period_report, timeline
from segmentation.policy import Policy
from segmentation.population import CauseKind, Member
from segmentation.risk import LEVELS
from segmentation.risk_report import risk_report
from segmentation.segments import SEGMENTS, TIERS, Segment
from state.client import connect
from streams.changes import ChangeData, RiskData
from streams.cli.console import escape
from streams.cli.report_page import BARS_MAX, report_page
from streams.embedded import Embedded
from streams.instants import parse_day, parse_instant
from streams.log import LogReader
from streams.period_report import read_changes, read_risk_changes
from streams.snapshot import Snapshot, read_snapshot
from streams.topics import Topic
from streams.what_if import what_if_of
from tests.segmentation.brute_force import position
from tests.streams.installation import GROWN, RULES, Installed, connections, installed

PERIOD = Period(parse_day("2024-11-01"), parse_day("2025-03-31"))
RISK = risk_report({}, [], PERIOD)
"""Within it the installation comes to rest more than once, and begins and ends somewhere between."""


Installations = dict[tuple[float, str], Installed]


@pytest.fixture
def installations(embedded: Embedded) -> Installations:
    """The same story under each of RULES."""
    return installed(embedded)


async def snapshot_of(installation: Installed) -> Snapshot:
    """What the store holds."""
    redis = connect(installation.settings.redis_url.get_secret_value())
    try:
        return await read_snapshot(redis, installation.settings)
    finally:
        await redis.aclose()


def members_of(snapshot: Snapshot) -> dict[str, Member]:
    """All accounts."""
    return {account_id: member for account_id, (member, _) in snapshot.members().items()}


class RepeatingReader(LogReader):
    """Reads a log in which every change was published twice, and somebody else's records are, too."""

    async def read(self, starts: Any) -> AsyncIterator[tuple[Topic, ConsumerRecord]]:
        """The records, their copies, and strangers."""
        earlier: list[ConsumerRecord] = []
        async for topic, record in super().read(starts):
            yield topic, replace(record, value=b"junk")
            yield topic, replace(record, value=None)
            yield topic, record
            yield topic, record
            earlier = [*earlier[-3:], record]
            for again in earlier:  # as after a crash: some that were published are published again
                yield topic, again


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_the_changes_are_those_of_the_log(installations: Installations) -> None:
    """From the period's begin on all of them, in order, and before it the last one of each account."""
    installation = installations[0, "revenue"]
    told: dict[str, dict[int, ChangeData]] = defaultdict(dict)
    async with connections(installation.settings) as (redis, reader):
        snapshot = await read_snapshot(redis, installation.settings)
        members = members_of(snapshot)
        found = await read_changes(reader, members.values(), PERIOD)
        async for _, record in reader.read({(Topic.SEGMENT_CHANGES, number): 0 for number in range(3)}):
            data = ChangeData.model_validate_json(record.value)
            told[data.account_id][data.sequence] = data
    assert (found.strangers, found.unpublished, found.begins_us) == (0, 0, None)
    assert found.chains.keys() == told.keys() == {m.account_id for m in members.values() if m.segment is not None}
    assert sum(len(chain) for chain in found.chains.values()) > 100
    for account_id, chain in found.chains.items():
        before = [d.sequence for d in told[account_id].values() if parse_instant(d.effective_at) < PERIOD.begin_us]
        first = max(before, default=1)
        assert [change.sequence for change in chain] == list(range(first, members[account_id].sequence + 1))
        for change in chain:
            data = told[account_id][change.sequence]
            assert (change.previous, change.current) == (data.previous_segment, data.current_segment)
            assert (change.cause, change.lapsed) == (data.cause.kind, data.lapsed)
            assert change.revenue_minor == data.rolling_revenue_minor
            assert change.effective_at_us == parse_instant(data.effective_at)
        assert chain[-1].current is members[account_id].segment


async def test_a_change_published_again_counts_once(installations: Installations) -> None:
    """Copies leave no trace, and what is no change is counted."""
    settings = installations[0, "revenue"].settings
    members = members_of(await snapshot_of(installations[0, "revenue"]))
    async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        once = await read_changes(reader, members.values(), PERIOD)
        bounds = await reader.bounds([(Topic.SEGMENT_CHANGES, number) for number in range(3)])
    async with RepeatingReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        twice = await read_changes(reader, members.values(), PERIOD)
    assert twice.chains == once.chains
    assert twice.strangers == 2 * sum(position.end for position in bounds.values()) > 0


async def test_what_the_state_knows_more_or_less_than_the_log_is_told_apart(installations: Installations) -> None:
    """Later changes are left out, as of the state's moment; those that are not published yet are counted."""
    settings = installations[0, "revenue"].settings
    members = members_of(await snapshot_of(installations[0, "revenue"]))
    members[GROWN].sequence -= 1
    other = next(member for member in members.values() if member.account_id != GROWN)
    other.sequence += 2
    members["decided"] = Member("decided", segment=Segment.PROSPECT, sequence=1)
    async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        found = await read_changes(reader, members.values(), PERIOD)
    assert found.chains[GROWN][-1].sequence == members[GROWN].sequence
    assert found.unpublished == 3


class CutReader(LogReader):
    """Reads a log whose partitions have lost their first records."""

    cut = 0

    async def bounds(self, partitions: Any) -> Any:
        """They begin later."""
        found = await super().bounds(partitions)
        return {key: at._replace(first=min(at.first + self.cut, at.end)) for key, at in found.items()}


@pytest.mark.parametrize("cut", [1, 40, 10**9])
async def test_a_log_that_was_cut_is_noticed(installations: Installations, cut: int) -> None:
    """It is said from when on it holds everything; what is left still adds up."""
    settings = installations[0, "revenue"].settings
    members = members_of(await snapshot_of(installations[0, "revenue"]))
    period = Period(parse_day("2024-01-01"), PERIOD.to_day)
    cut_reader = CutReader(settings.kafka_arguments(), settings.topic_prefix)
    cut_reader.cut = cut
    async with cut_reader as reader:
        found = await read_changes(reader, members.values(), period)
    assert found.begins_us is not None and found.begins_us > period.begin_us
    assert found.unpublished == 0
    report = period_report(found.chains, members.values(), period, as_of_us=period.end_us, undone_within_days=7)
    for part in report.performance:
        assert part.net == part.at_end - part.at_begin


# -- the what-if -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("present", RULES)
@pytest.mark.parametrize("other", RULES)
async def test_the_what_if_is_what_the_other_installation_says(
    installations: Installations, present: tuple[float, str], other: tuple[float, str]
) -> None:
    """The same log, applied under the other policy: without a band the same segments, with one allowed ones."""
    here, there = installations[present], installations[other]
    before, after = await snapshot_of(here), await snapshot_of(there)
    result = what_if_of(before, here.policy, there.policy)
    segments = {account_id: member.current_segment for account_id, member in members_of(before).items()}
    segments |= {shift.account_id: shift.current for shift in result.shifts}
    expected = members_of(after)
    assert segments.keys() == expected.keys()
    ranked = [member for member in expected.values() if member.tier is not None]
    assert len(ranked) > 10
    if not there.policy.band_bp:
        assert segments == {account_id: member.current_segment for account_id, member in expected.items()}
        assert present == other or here.policy.basis == there.policy.basis or result.shifts
    revenues = [member.revenue_minor for member in ranked]
    for member in ranked:
        above, total = position(revenues, member.revenue_minor, Basis(there.policy.basis))
        for number, boundary in enumerate(there.policy.boundaries):
            if TIERS.index(segments[member.account_id]) <= number:
                assert above * 10_000 < (boundary + there.policy.band_bp) * total
            else:
                assert above * 10_000 >= (boundary - there.policy.band_bp) * total
    for account_id, member in expected.items():
        if member.tier is None:
            assert segments[account_id] is member.current_segment


async def test_other_new_start_days_follow_from_the_first_purchases(installations: Installations) -> None:
    """Of all accounts, whatever day they were last looked at."""
    here = installations[0, "revenue"]
    snapshot = await snapshot_of(here)
    result = what_if_of(snapshot, here.policy, here.policy.with_changes(new_start_days=0))
    assert result.before[Segment.NEW_START].accounts > 0
    assert Segment.NEW_START not in result.after
    all_new = what_if_of(snapshot, here.policy, here.policy.with_changes(new_start_days=3650))
    assert set(all_new.after) == {Segment.NEW_START, Segment.PROSPECT}
    assert all_new.after[Segment.PROSPECT] == all_new.before[Segment.PROSPECT]
    assert all_new.cutoffs["all"].after_minor == (None, None)


@pytest.mark.parametrize("days", [1, 45, 150, 300, 480])
async def test_an_account_is_as_new_as_it_is_on_the_day_of_the_clock(installations: Installations, days: int) -> None:
    """Which may be long after the last day on which there was anything to do for it."""
    here = installations[0, "revenue"]
    snapshot = await snapshot_of(here)
    result = what_if_of(snapshot, here.policy, here.policy.with_changes(new_start_days=days))
    accounts = [account for shard in snapshot.account_shards for account in shard.accounts.values()]
    assert any(account.day < snapshot.day for account in accounts)
    bought = [a.first_purchase_day for a in accounts if a.first_purchase_day <= snapshot.day]
    expected = sum(snapshot.day - day < days for day in bought)
    assert result.after.get(Segment.NEW_START, (0, 0))[0] == expected
    assert result.after[Segment.PROSPECT].accounts == len(accounts) - len(bought)


# -- the page ----------------------------------------------------------------------------------------------------------

VOID = {"meta"}
EMPTY = {"rect", "line"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """It must be closed later, unless it holds nothing."""
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed at once, which only a picture's elements may be."""
        assert tag in EMPTY
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """It closes the last one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """What people read, and the style."""
        self.texts.append(data)


def a_page(*, days: int = 400, account_id: str = "acme", remarks: tuple[str, ...] = ()) -> str:
    """Two accounts that swing for a long time."""
    chains = {
        "acme": [
            PastChange(1, None, Segment.PROSPECT, CauseKind.FIRST_SIGNUP, False, 0, 5),
            PastChange(2, Segment.PROSPECT, Segment.NEW_START, CauseKind.FIRST_PURCHASE, False, 5, 3 * DAY_US),
            PastChange(3, Segment.NEW_START, Segment.COMMERCIAL, CauseKind.LAPSED, True, -5, 90 * DAY_US),
            *(
                PastChange(
                    number, TIERS[number % 2], TIERS[(number + 1) % 2], CauseKind.PURCHASE, False, 7, number * DAY_US
                )
                for number in range(100, 300)
            ),
        ]
    }
    members = [Member("acme", segment=chains["acme"][-1].current, sequence=300, revenue_minor=1_234_567)]
    period = Period(0, days - 1)
    report = period_report(chains, members, period, as_of_us=period.end_us - 1, undone_within_days=7)
    told = timeline(chains["acme"], members[0], period)._replace(account_id=account_id)
    return report_page(report, RISK, [told], currency="USD", policy_version="2026", remarks=remarks)


DAY_US = MICROSECONDS_PER_DAY


@pytest.mark.parametrize("days", [1, 30, 91, 92, 93, 400, 5_000])
def test_the_page_is_whole_and_needs_nothing_else(days: int) -> None:
    """Well-formed, no script, nothing from elsewhere; made for a phone, for the dark and for paper."""
    text = a_page(days=days)
    page = Page(text)
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "img", "iframe", "object", "base"}
    assert not [name for _, name, _ in page.attributes if name in ("src", "href", "srcset") or name.startswith("on")]
    assert not re.search(r"https?:|//|url\(|@import|<script|javascript:", text)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media print" in text and "prefers-color-scheme: dark" in text
    assert text.count("<table>") == text.count('<div class="box"><table>') >= 3
    assert text.count('style="fill: var(--up)"') <= BARS_MAX + 1  # and one in the legend
    for tag, name, value in page.attributes:
        if tag == "rect" and name in ("x", "width") and value and value.endswith("%"):
            assert 0 <= float(value.removesuffix("%")) <= 100
        elif tag == "rect" and name in ("y", "height") and value and not value.endswith("%"):
            assert 0 <= float(value) <= 120.05


def test_the_page_says_the_numbers() -> None:
    """Money in units, causes, the account's own changes."""
    said = " ".join(Page(a_page()).texts)
    for text in (
        "99.5%",
        "12,345.67",
        "first_purchase",
        "acme",
        "1970-04-01 00:00:00",
        "(lapsed)",
        "-0.05",
        "Policy 2026.",
    ):
        assert text in said


HOSTILE = "<script>alert(1)</script>\"'&amp;\u202e"


def test_the_page_escapes_what_it_is_told() -> None:
    """Whatever an account is called, and whatever there is to remark, it is text."""
    text = a_page(account_id=HOSTILE, remarks=(HOSTILE,))
    assert "<script" not in text
    texts = Page(text).texts
    assert escape(HOSTILE) in texts and f"{escape(HOSTILE)}." in texts


def test_a_page_of_nothing_is_a_page() -> None:
    """No account, no change, no revenue."""
    report = period_report({}, [], Period(3, 3), as_of_us=3 * DAY_US, undone_within_days=7)
    texts = Page(report_page(report, RISK, [], currency="JPY", policy_version="x")).texts
    assert "-" in texts and not [text for text in texts if "nan" in text.lower()]


# -- all of it ---------------------------------------------------------------------------------------------------------


async def test_the_report_of_an_installation_adds_up(installations: Installations) -> None:
    """The same numbers, counted from the changes' own documents."""
    installation = installations[2, "revenue"]
    moves: Counter[tuple[str | None, str]] = Counter()
    levels: Counter[str] = Counter()
    async with connections(installation.settings) as (redis, reader):
        snapshot = await read_snapshot(redis, installation.settings)
        members = members_of(snapshot)
        found = await read_changes(reader, members.values(), PERIOD)
        found_risks = await read_risk_changes(reader, members.values(), PERIOD)
        async for _, record in reader.read({(Topic.SEGMENT_CHANGES, number): 0 for number in range(3)}):
            data = ChangeData.model_validate_json(record.value)
            if "2024-11-01" <= data.effective_at < "2025-04-01":
                moves[data.previous_segment, data.current_segment] += 1
        async for _, record in reader.read({(Topic.CHURN_RISK, number): 0 for number in range(3)}):
            changed = RiskData.model_validate_json(record.value)
            if "2024-11-01" <= changed.effective_at < "2025-04-01":
                levels[changed.current_level] += 1
    report = period_report(found.chains, members.values(), PERIOD, as_of_us=snapshot.as_of_us, undone_within_days=7)
    first = {pair: count for pair, count in moves.items() if pair[0] is None}
    assert report.moves == {pair: count for pair, count in moves.items() if pair[0] is not None}
    assert report.placed == sum(first.values()) > 0
    assert report.move_count > 20
    assert report.accounts == len(members) and report.untold == 0
    for part in report.performance:
        assert part.net == part.at_end - part.at_begin
    assert {part.segment for part in report.performance} == set(SEGMENTS)
    assert report.revenue_minor == sum(member.revenue_minor for member in members.values())
    risk = risk_report(found_risks.chains, members.values(), PERIOD)
    changed_to = {level: risk.raised.get(level, 0) + risk.lowered.get(level, 0) for level in LEVELS}
    assert changed_to == {level: levels[level] for level in LEVELS}
    assert sum(levels.values()) > 20
    Page(report_page(report, risk, [], currency="USD", policy_version=Policy.default().version))
