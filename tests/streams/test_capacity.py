"""The load of roles and owners on a live installation: from events on the log to the tables."""

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from segmentation.account import Profile
from segmentation.capacity import OwnerLoad, capacity
from segmentation.events import MICROSECONDS_PER_DAY, AttributeValue
from segmentation.segments import Segment
from streams.capacity import CapacityNow, DifferentPolicy, owner_of, read_capacity
from streams.cli.capacity import hours, show_owners
from streams.embedded import Embedded
from streams.instants import parse_instant
from streams.topics import Topic
from tests.pipeline import PURE, Installation, Load, Told, check, environment_of, event, moment, purchase
from tests.streams.command_line import POLICY, is_one_line, resegment
from tests.streams.test_hostile import HOSTILE, is_harmless

REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]").match
"""What no event may have in a text."""
PERIOD_US = 30 * MICROSECONDS_PER_DAY


async def capacity_of(installation: Installation) -> CapacityNow:
    """What the command would say."""
    return await read_capacity(installation.settings, installation.policy, installation.redis, installation.reader)


def began_with(chain: list[Told], since_us: int) -> str | None:
    """The segment that an account had at an instant; None: none yet."""
    before = [told.current for told in chain if told.effective_at_us <= since_us]
    return before[-1] if before else None


def check_sums(found: CapacityNow, changes: dict[str, list[Told]]) -> None:
    """The load now, and less what moves did the load when the period began, recounted from the changes alone."""
    assert found.incomplete == 0
    assert found.since_us == found.as_of_us - PERIOD_US
    now = Counter(chain[-1].current for chain in changes.values())
    then = Counter(began_with(chain, found.since_us) for chain in changes.values())
    minutes = {segment: PURE.segments.of(segment).minutes_a_quarter for segment in Segment}
    for load in found.capacity.segments:
        assert load.accounts == now[load.segment]
        assert load.accounts_change == now[load.segment] - then[load.segment]
        assert load.minutes_change == load.accounts_change * minutes[load.segment]
    owners = [*found.capacity.owners, found.capacity.unowned]
    assert sum(load.accounts for load in owners) == len(changes)
    assert sum(load.minutes_a_quarter for load in owners) == sum(now[segment] * minutes[segment] for segment in Segment)


async def test_known_numbers(embedded: Embedded) -> None:
    """Two moves that cancel out, a new prospect, and moves from before the period; owners as the profiles say."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.send(
            purchase("big", "1", moment(0), 300_00),
            purchase("middle", "1", moment(0), 200_00),
            purchase("small", "1", moment(0), 100_00),
            purchase("tiny", "1", moment(0), 60_00),
            event("signup", "big", "s", moment(0), attributes={"owner": "kim"}),
            event("signup", "small", "s", moment(0), attributes={"owner": " kim "}),
            event("signup", "tiny", "s", moment(0), attributes={"owner": " "}),
            event("signup", "middle", "s", moment(0), attributes={"owner": 7, "region": "EMEA"}),
        )
        for day in (100, 139):
            await installation.tick(moment(day))
            await check(installation)
        await installation.send(
            purchase("small", "2", moment(139), 500_00),
            event("signup", "later", "s", moment(139), name="Later Ltd"),
            event("signup", "middle", "s2", moment(139), attributes={"owner": "lee"}),
        )
        await installation.tick(moment(140))
        changes = await check(installation)
        assert await installation.segments() == {
            **{"small": "key", "big": "enterprise", "middle": "enterprise", "tiny": "commercial"},
            "later": "prospect",
        }
        found = await capacity_of(installation)
    check_sums(found, changes)
    assert found.as_of_us == parse_instant(moment(140).isoformat())
    assert [(load.segment, load.accounts, load.accounts_change) for load in found.capacity.segments] == [
        ("key", 1, 0),
        ("enterprise", 2, 0),
        ("commercial", 1, 0),
        ("new_start", 0, 0),
        ("prospect", 1, 1),
    ]
    assert [(role.role, role.minutes_a_quarter, role.minutes_change) for role in found.capacity.roles] == [
        ("key_account_team", 720, 0),
        ("account_manager", 360, 0),
        ("program_manager", 0, 0),
        ("onboarding_specialist", 0, 0),
        ("sales_development", 30, 30),
    ]
    assert found.capacity.owners == [OwnerLoad("kim", 2, 900, is_over=False), OwnerLoad("lee", 1, 180, is_over=False)]
    assert found.capacity.unowned == OwnerLoad(None, 2, 30, is_over=False)


async def test_all_sums_agree_after_any_load(embedded: Embedded) -> None:
    """Half a year of purchases, refunds, signups and time; changes that were published twice count once."""
    async with Installation(embedded) as installation:
        async with installation.worker():
            load = Load(installation, random.Random(5))
            await load.run(12)
            await load.finish()
            changes = await check(installation)
        found = await capacity_of(installation)
        check_sums(found, changes)
        assert any(load.accounts_change for load in found.capacity.segments)
        for topic, record in await installation.records(Topic.SEGMENT_CHANGES):
            await installation.producer.send_and_wait(
                installation.names.name(topic), record.value, key=record.key, partition=record.partition
            )
        await installation.producer.send_and_wait(installation.names.name(Topic.SEGMENT_CHANGES), b"no change")
        assert await capacity_of(installation) == found


async def test_moves_that_the_log_does_not_hold_are_not_made_up(embedded: Embedded) -> None:
    """Where changes are gone, the load is as it is, and of how many accounts moves are missing is said."""
    async with Installation(embedded) as installation:
        async with installation.worker():
            await installation.send(*(purchase(f"a{number}", "1", moment(0), 100) for number in range(5)))
            for day in (1, 100):
                await installation.tick(moment(day))
                await check(installation)
        whole = await capacity_of(installation)
        async with Installation(embedded) as elsewhere:
            found = await read_capacity(
                installation.settings, installation.policy, installation.redis, elsewhere.reader
            )
    assert whole.incomplete == 0 and sum(load.accounts_change for load in whole.capacity.segments) == 0
    assert found.incomplete == 5
    assert [load[:4] for load in found.capacity.segments] == [load[:4] for load in whole.capacity.segments]
    assert not any(load.accounts_change for load in found.capacity.segments)


async def test_other_rules_are_refused_and_other_strategies_are_not(embedded: Embedded) -> None:
    """Segments are what the state's rules made them; what to do about them may be tried out with any strategies."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.send(purchase("acme", "1", moment(0), 100))
        await installation.tick(moment(1))
        await check(installation)
        connections = installation.redis, installation.reader
        tried = PURE.with_changes(segments={"new_start": {"touches_a_quarter": 1, "minutes_a_touch": 90}})
        found = await read_capacity(installation.settings, tried, *connections)
        assert found.capacity.segments[3].minutes_a_quarter == 90
        with pytest.raises(DifferentPolicy, match="window_days: 365 -> 30"):
            await read_capacity(installation.settings, PURE.with_changes(window_days=30), *connections)


@pytest.mark.parametrize(
    ("value", "owner"),
    [("kim", "kim"), (" kim ", "kim"), (7, "7"), ("7", "7"), (1.5, "1.5"), ("", None), (" \t", None), (None, None)],
)
def test_an_owner_is_what_the_profile_names(value: str | float | None, owner: str | None) -> None:
    """However it was written; blanks are nobody."""
    fields: dict[str, tuple[AttributeValue, int]] = {"attributes.region": ("EMEA", 1)}
    if value is not None:
        fields["attributes.owner"] = (value, 1)
    assert owner_of(Profile(fields)) == owner


@pytest.mark.parametrize(
    ("minutes", "shown"),
    [(0, "0.0"), (3, "0.1"), (2, "0.0"), (90, "1.5"), (-90, "-1.5"), (-3, "-0.1"), (60_000_057, "1,000,001.0")],
)
def test_minutes_are_shown_as_hours(minutes: int, shown: str) -> None:
    """With one decimal, the nearest."""
    assert hours(minutes) == shown


def test_an_owner_whom_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in the store; and a long list is cut short, with how many are left out."""
    policy = PURE.with_changes(owners={"accounts_max": 1})
    accounts = [(Segment.KEY, HOSTILE)] * 3 + [(Segment.PROSPECT, f"owner {n}") for n in range(25) for _ in range(2)]
    show_owners(CapacityNow(0, 0, capacity(policy, accounts, {}), 0), policy)

    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert "\\x1b[2J" in shown and "26 of 26 owners are over their load" in shown
    assert "owner 0:" in shown and "owner 9:" not in shown and "and 6 more (--json lists all)" in shown


async def test_the_command_says_who_has_too_much(embedded: Embedded, tmp_path: Path) -> None:
    """For people and for programs; an owner's name comes from a payload, and a terminal obeys none of it."""
    policy = tmp_path / "policy.toml"
    text = POLICY.read_text().replace("band = 2.0", "band = 0").replace("accounts_max = 150", "accounts_max = 1")
    policy.write_text(text.replace("people = 3", "people = 0"))
    hostile = "".join(character for character in HOSTILE if not REFUSED(character))
    async with (
        Installation(embedded, kafka_session_timeout_seconds=6.0) as installation,
        installation.worker() as running,
    ):
        values = environment_of(installation.settings)
        await running.claimed()
        nothing = resegment("capacity", "--policy", policy, values=values)
        await installation.send(
            *(event("signup", f"a{number}", "s", moment(0), attributes={"owner": hostile}) for number in range(2)),
            event("signup", "b", "s", moment(0), attributes={"owner": "kim"}),
            purchase("c", "1", moment(0), 100),
        )
        await installation.tick(moment(1))
        await check(installation)
        shown = resegment("capacity", "--policy", policy, values=values)
        listed = resegment("capacity", "--policy", policy, "--json", values=values)
        refused = resegment("capacity", values=values)
    assert nothing.status == 0 and "no account has a segment yet" in nothing.err, nothing
    assert shown.status == 0, shown
    assert is_harmless(shown.out) and is_harmless(shown.err), shown
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["prospect", "sales_development", "3", "+3", "1.5", "+1.5"] in lines
    assert ["new_start", "onboarding_specialist", "1", "+1", "2.0", "+2.0"] in lines
    assert ["sales_development", "1.5", "+1.5", "0.01", "0", "short"] in lines
    assert "1 of 2 owners are over their load (at most 1 accounts and 400 hours a quarter)" in shown.out
    assert "\\u200b" in shown.out and "kim" not in shown.out
    assert "without an owner: 1 accounts, 2.0 hours a quarter" in shown.out
    assert listed.status == 0 and listed.out.isascii(), listed
    found = json.loads(listed.out)
    assert {owner["owner"]: (owner["accounts"], owner["is_over"]) for owner in found["owners"]} == {
        hostile.strip(): (2, True),
        "kim": (1, False),
    }
    assert found["unowned"] == {"accounts": 1, "minutes_a_quarter": 120}
    assert found["as_of"] == "2024-01-02T00:00:00Z" and found["accounts_with_moves_missing"] == 0
    by_role: dict[str, dict[str, object]] = defaultdict(dict, {role["role"]: role for role in found["roles"]})
    assert by_role["sales_development"]["people_needed"] == 0.01
    assert by_role["sales_development"]["is_short"] is True
    assert refused.status == 2 and is_one_line(refused.err) and "band" in refused.err
