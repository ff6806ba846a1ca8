"""The files that other programs read: every account as it is, every change once and in order."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from segmentation.account import Account
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.ledger import Ledger
from segmentation.population import Member
from segmentation.segments import Segment
from state.founding import Founding
from streams.embedded import Embedded
from streams.export import decimal_fraction, export, write_accounts, write_changes
from streams.instants import parse_instant
from streams.log import LogReader
from streams.snapshot import AccountShardState, RankingShardState, Snapshot
from streams.topics import Topic
from tests.streams.installation import GROWN, Installed, connections, installed, policy_for

HEADER = (
    "account_id,population,stage,segment,lapsed,rolling_revenue_minor,position_revenue,position_accounts,"
    "first_purchase_on,sequence,as_of"
)
DAY = 20_000
AS_OF = "2024-10-04T12:00:00Z"


@pytest.fixture
def installation(embedded: Embedded) -> Installed:
    """One with a band of 0, by revenue."""
    return installed(embedded)[0, "revenue"]


def _read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# -- accounts ----------------------------------------------------------------------------------------------------------


def _snapshot(*accounts: Account, members: list[Member] | None = None, clock_us: int | None = None) -> Snapshot:
    """One shard that holds these, at noon of DAY unless told otherwise."""
    if clock_us is None:
        clock_us = DAY * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
    shard = AccountShardState(0, state={"clock_us": clock_us})
    shard.accounts = {account.account_id: account for account in accounts}
    ranking = RankingShardState(0)
    ranking.populations = {"all": {member.account_id: member for member in members or []}}
    return Snapshot(Founding(1, "", "", 1), [shard], [ranking])


def _ranked(account_id: str, revenue_minor: int, tier: int, segment: Segment) -> tuple[Account, Member]:
    account = Account(
        account_id,
        day=DAY,
        first_purchase_day=DAY - 100,
        revenue_minor=revenue_minor,
        announced=True,
        history=Ledger(),
    )
    member = Member(
        account_id, stage="established", revenue_minor=revenue_minor, tier=tier, segment=segment, sequence=3, version=1
    )
    return account, member


def test_accounts_are_written_by_id_with_their_positions(tmp_path: Path) -> None:
    """Positions are the shares of the weight strictly above, cut off after nine digits; equals share one."""
    pairs = [
        _ranked("c", 300, 0, Segment.KEY),
        _ranked("b", 200, 1, Segment.ENTERPRISE),
        _ranked("a", 200, 1, Segment.ENTERPRISE),
    ]
    snapshot = _snapshot(*(pair[0] for pair in pairs), members=[pair[1] for pair in pairs])
    assert write_accounts(tmp_path / "accounts.csv", snapshot, policy_for(0, "revenue")) == 3
    assert (tmp_path / "accounts.csv").read_bytes().decode().split("\n") == [
        HEADER,
        f"a,all,established,enterprise,false,200,0.428571428,0.333333333,2024-06-26,3,{AS_OF}",
        f"b,all,established,enterprise,false,200,0.428571428,0.333333333,2024-06-26,3,{AS_OF}",
        f"c,all,established,key,false,300,0.000000000,0.000000000,2024-06-26,3,{AS_OF}",
        "",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["accounts.csv"]


def test_an_account_outside_of_the_ranking_has_no_position(tmp_path: Path) -> None:
    """Prospects, new starts and the lapsed are not ranked; a first purchase that lies ahead has not been."""
    ahead = Account("ahead", day=DAY, first_purchase_day=DAY + 1, announced=True)
    fresh = Account("fresh", day=DAY, first_purchase_day=DAY, revenue_minor=5, announced=True)
    lapsed = Account("lapsed", day=DAY, first_purchase_day=DAY - 400, announced=True)
    members = [
        Member("ahead", segment=Segment.PROSPECT, sequence=1, version=1),
        Member("fresh", stage="new_start", revenue_minor=5, segment=Segment.NEW_START, sequence=2, version=1),
        Member("lapsed", stage="established", segment=Segment.COMMERCIAL, sequence=4, version=1),
    ]
    write_accounts(tmp_path / "a.csv", _snapshot(ahead, fresh, lapsed, members=members), policy_for(0, "revenue"))
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == [
        f"ahead,all,prospect,prospect,false,0,,,,1,{AS_OF}",
        f"fresh,all,new_start,new_start,false,5,,,2024-10-04,2,{AS_OF}",
        f"lapsed,all,established,commercial,true,0,,,2023-08-31,4,{AS_OF}",
    ]


def test_before_the_first_tick_accounts_are_known_and_nothing_more(tmp_path: Path) -> None:
    """An account without any announcement has no segment, and where no clock was set there is no time."""
    account = Account("new", first_purchase_day=DAY)
    write_accounts(tmp_path / "a.csv", _snapshot(account, clock_us=0), policy_for(0, "revenue"))
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == ["new,all,prospect,,false,0,,,,0,"]


@pytest.mark.parametrize(
    "part, whole, text",
    [
        (0, 7, "0.000000000"),
        (2, 3, "0.666666666"),
        (10**30 - 1, 10**30, "0.999999999"),
        (3 * 10**20 - 1, 10**21, "0.299999999"),
        (3 * 10**20, 10**21, "0.300000000"),
    ],
)
def test_a_printed_position_is_on_the_side_of_a_boundary_that_the_position_is_on(
    part: int, whole: int, text: str
) -> None:
    """Rounding up could print 0.3 for an account that is within the best 30 %."""
    assert decimal_fraction(part, whole) == text


async def test_an_installation_is_exported_as_it_is(installation: Installed, tmp_path: Path) -> None:
    """Every account is there, with the segment that its position gives it and the sequence of its last change."""
    async with connections(installation.settings) as (redis, reader):
        exported = await export(tmp_path / "new" / "directory", *installation, redis, reader)
    directory = tmp_path / "new" / "directory"
    accounts = _read(directory / "accounts.csv")
    changes = [json.loads(line) for line in (directory / "changes.jsonl").read_text().splitlines()]
    assert exported == (len(accounts), len(changes))
    assert sorted(path.name for path in directory.iterdir()) == ["accounts.csv", "changes.jsonl", "risks.csv"]
    assert [account["account_id"] for account in accounts] == sorted({account["account_id"] for account in accounts})
    last = {change["data"]["account_id"]: change["data"] for change in changes}
    risks: dict[str, tuple[str, str]] = {}
    async with connections(installation.settings) as (_, reader):
        await reader.refresh()
        starts = {(Topic.RISKS, number): 0 for number in range(reader.partition_count(Topic.RISKS))}
        async for _, record in reader.read(starts):
            risk = json.loads(record.value)
            risks[risk["account_id"]] = risk["current_level"], str(risk["sequence"])
    assert len(risks) > 10
    with (directory / "risks.csv").open(newline="") as file:
        assert risks == {row["account_id"]: (row["risk_level"], row["sequence"]) for row in csv.DictReader(file)}
    ranked = [account for account in accounts if account["position_revenue"]]
    total = sum(int(account["rolling_revenue_minor"]) for account in ranked)
    assert len(ranked) > 10
    for account in accounts:
        told = last[account["account_id"]]
        assert (account["segment"], int(account["sequence"])) == (told["current_segment"], told["sequence"])
        assert account["as_of"] == "2025-06-24T00:00:01.500000Z"
    for account in ranked:
        revenue = int(account["rolling_revenue_minor"])
        above = sum(
            int(other["rolling_revenue_minor"]) for other in ranked if int(other["rolling_revenue_minor"]) > revenue
        )
        position = Fraction(account["position_revenue"])
        assert 0 <= Fraction(above, total) - position < Fraction(1, 10**9)
        tier = "key" if position < Fraction(3, 10) else "enterprise" if position < Fraction(8, 10) else "commercial"
        assert account["segment"] == tier
    (grown,) = [account for account in accounts if account["account_id"] == GROWN]
    assert grown["first_purchase_on"] == (date(2024, 1, 1) + timedelta(days=310)).isoformat()
    assert grown["rolling_revenue_minor"] == "400000"


# -- changes -----------------------------------------------------------------------------------------------------------


class RepeatingReader(LogReader):
    """Reads a log in which every change was published twice, and somebody else's records are, too."""

    async def read(self, starts: Any) -> AsyncIterator[tuple[Topic, ConsumerRecord]]:
        """The records, their copies and strangers."""
        async for topic, record in super().read(starts):
            yield topic, replace(record, value=b"junk", headers=())
            yield topic, replace(record, value=b'{"account_id": "x"}', headers=())
            yield topic, record
            yield topic, record


async def test_changes_are_cloud_events_in_the_order_of_their_effect(installation: Installed, tmp_path: Path) -> None:
    """By time, then account, then sequence; within an account no sequence is missing."""
    async with connections(installation.settings) as (_, reader):
        count = await write_changes(tmp_path / "changes.jsonl", reader)
    events = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    assert len(events) == count > 100
    order = [(parse_instant(event["time"]), event["data"]["account_id"], event["data"]["sequence"]) for event in events]
    assert order == sorted(order)
    sequences: dict[str, list[int]] = defaultdict(list)
    for event in events:
        data = event["data"]
        sequences[data["account_id"]].append(data["sequence"])
        assert event["specversion"] == "1.0"
        assert event["id"] == f"{data['account_id']}:{data['sequence']}"
        assert event["time"] == data["effective_at"]
        assert (data["previous_segment"] is None) == (data["sequence"] == 1)
        assert {
            "population", "current_segment", "direction", "cause", "rolling_revenue_minor", "recorded_at",
            "policy_version", "mode", "playbook",
        } <= data.keys()  # fmt: skip
    assert all(listed == list(range(1, len(listed) + 1)) for listed in sequences.values())
    assert max(map(len, sequences.values())) >= 3


async def test_a_change_published_again_is_written_once(installation: Installed, tmp_path: Path) -> None:
    """Copies and records that are no changes leave no trace, however little of it is sorted at once."""
    settings = installation.settings
    async with connections(settings) as (_, reader):
        await write_changes(tmp_path / "once.jsonl", reader)
    async with RepeatingReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        await write_changes(tmp_path / "twice.jsonl", reader, sorted_bytes_max=5_000)
    assert (tmp_path / "twice.jsonl").read_bytes() == (tmp_path / "once.jsonl").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
