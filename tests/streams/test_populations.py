"""Accounts ranked inside the population that an attribute puts them into, on real parts."""

import random
from collections.abc import AsyncIterator

import pytest

from segmentation.policy import Policy
from segmentation.segments import Segment
from streams.explain import explain
from streams.oracle import verify
from streams.partitions import partition_of
from streams.top import Wanted, top
from streams.what_if import what_if_of
from tests.pipeline import Installation, Sent, Servers, event, moment, purchase

POLICY = Policy.default().with_changes(band=0, population="region")
REGIONS = ("EMEA", "apac", "Americas ", "emea")
PARTITIONS = 3


@pytest.fixture
async def installation(embedded: Servers) -> AsyncIterator[Installation]:
    """With a worker."""
    async with Installation(embedded, policy=POLICY, partitions=PARTITIONS) as found, found.worker():
        yield found


def signup(account: str, event_id: str, day: float, region: str, **attributes: str) -> Sent:
    """A signup that says where an account belongs."""
    return event("signup", account, event_id, moment(day), attributes={"region": region, **attributes})


async def test_an_account_that_moves_is_ranked_among_others(installation: Installation) -> None:
    """The first in one region, the last in the other: one change says so, and nobody hears of it twice."""
    regions = {"emea": (100, 90), "americas": (9_000, 8_000, 7_000)}
    assert len({partition_of(name.encode(), PARTITIONS) for name in ("unknown", *regions)}) > 1
    await installation.send(
        *(
            record
            for name, amounts in regions.items()
            for number, amount in enumerate(amounts)
            for record in (
                signup(f"{name}-{number}", f"s-{name}-{number}", 1, name.upper(), owner="ann"),
                purchase(f"{name}-{number}", f"p-{name}-{number}", moment(2), amount),
            )
        )
    )
    await installation.tick(moment(100))
    await installation.rest()
    await installation.send(signup("emea-0", "moves", 100.5, "Americas"))
    await installation.tick(moment(101))
    await installation.rest()
    told = [change for change in await installation.changes() if change.data["account_id"] == "emea-0"]
    last = told[-1].data
    assert (last["previous_segment"], last["current_segment"]) == (Segment.KEY, Segment.COMMERCIAL)
    assert (last["previous_population"], last["population"], last["direction"]) == ("emea", "americas", "moved")
    assert (last["cause"]["kind"], last["cause"]["event_id"]) == ("population_changed", "moves")
    assert [change.data["sequence"] for change in told] == list(range(1, len(told) + 1))
    displaced = [change.data for change in await installation.changes() if change.data["account_id"] == "emea-1"]
    assert displaced[-1]["current_segment"] == Segment.KEY and displaced[-1]["cause"]["kind"] == "boundary_moved"
    settings, redis, reader = installation.settings, installation.redis, installation.reader
    report = await verify(settings, POLICY, redis, reader)
    assert report.is_right and not report.warnings
    explained = await explain(settings, POLICY, redis, reader, "emea-0")
    assert explained.population == "americas" and explained.segment == Segment.COMMERCIAL
    listed = await top(settings, POLICY, redis, 10, Wanted(population="americas"))
    assert {account.account_id for account in listed.accounts} == {"emea-0", *(f"americas-{n}" for n in range(3))}
    state = await installation.state()
    result = what_if_of(state, POLICY, POLICY.with_changes(tiers={"key": 1, "enterprise": 98, "commercial": 1}))
    assert set(result.cutoffs) >= {"emea", "americas"}


async def test_moving_to_and_fro_with_purchases_in_between(installation: Installation) -> None:
    """Everything in any order: what comes of it is what the log says."""
    chance = random.Random(7)
    records: list[Sent] = []
    for number in range(300):
        account, day = f"a{number % 30}", number / 5
        if chance.random() < 0.4:
            records.append(signup(account, f"e{number}", day, chance.choice(REGIONS)))
        else:
            records.append(purchase(account, f"e{number}", moment(day), chance.choice((100, 500, 2_000, 9_000))))
    for day, first in enumerate(range(0, 300, 50)):
        part = records[first : first + 50]
        chance.shuffle(part)
        await installation.send(*part)
        await installation.tick(moment(10 * (day + 1)))
        await installation.rest()
    await installation.tick(moment(140))
    await installation.rest()
    report = await verify(installation.settings, POLICY, installation.redis, installation.reader)
    assert report.is_right and not report.warnings
    moved = [change.data for change in await installation.changes() if change.data["previous_population"]]
    assert len(moved) > 30 and {change["population"] for change in moved} == {"emea", "apac", "americas"}


async def test_attributes_move_no_account_between_tiers_inside_its_population(embedded: Servers) -> None:
    """Whatever else accounts say of themselves, at any time: by the same purchases they are in the same segments."""
    found: list[list[dict[str, tuple[str, str]]]] = []
    for is_talkative in (False, True):
        chance, days = random.Random(3), list[dict[str, tuple[str, str]]]()
        async with Installation(embedded, policy=POLICY) as installation, installation.worker():
            for day in range(0, 240, 20):
                for number in range(12):
                    account, region = f"a{number}", REGIONS[number % 3]
                    says = {
                        "industry": chance.choice(("software", "mining")),
                        "employees": str(chance.randrange(5_000)),
                        "likeness": str(chance.random()),
                        "tier": chance.choice(("key", "commercial")),
                        "segment": "key",
                    }
                    amount = chance.choice((100, 500, 2_000, 9_000))
                    await installation.send(
                        signup(account, f"s{number}-{day}", day, region, **(says if is_talkative else {})),
                        purchase(account, f"p{number}-{day}", moment(day), amount),
                    )
                await installation.tick(moment(day + 1))
                await installation.rest()
                members = (await installation.state()).members()
                days.append({name: (member.current_segment, where) for name, (member, where) in members.items()})
        found.append(days)
    silent, talkative = found
    assert silent == talkative
    assert len({segments["a3"] for segments in silent}) > 2, "accounts move"
