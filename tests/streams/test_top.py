"""Whom to work on: kept live on real parts, and right after anything."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from segmentation.policy import Policy
from segmentation.segments import Segment
from streams import accounts
from streams.oracle import verify
from streams.rest import wait_at_rest
from streams.top import Top, Wanted, top
from tests.pipeline import PATIENCE_SECONDS, Installation, Servers, event, moment

Scores = list[tuple[bytes, float]]

POLICY = Policy.default().with_changes(
    band=0,
    classes={"by": ["industry"]},
    icp=[{"attribute": "industry", "any_of": ["software"], "points": 50}],
)


@pytest.fixture
async def installation(embedded: Servers) -> AsyncIterator[Installation]:
    """With a worker, by a policy that has an ideal customer."""
    async with Installation(embedded, policy=POLICY) as found, found.worker():
        yield found


async def ask(installation: Installation, count: int = 100, **wanted: object) -> Top:
    """The list, once everybody is in place."""
    await installation.rest()
    await wait_at_rest(
        installation.redis,
        installation.reader,
        installation.settings,
        timeout_seconds=PATIENCE_SECONDS,
        until_placed=True,
    )
    return await top(installation.settings, installation.policy, installation.redis, count, Wanted(**wanted))  # type: ignore[arg-type]


async def test_the_list_says_whom_to_work_on_and_why(installation: Installation) -> None:
    """Customers by what they may bring, prospects by what their class brings, each owner his own."""
    records = []
    for number in range(12):
        industry, owner = ("software", "ann") if number % 2 else ("retail", "bob")
        attributes = {"industry": industry, "owner": owner, "region": "EMEA" if number < 6 else "APAC"}
        records.append(event("signup", f"a{number}", f"s{number}", moment(1), attributes=attributes))
        for month in range(5) if number < 8 else ():
            amount = {"amount_minor": 1_000 * (number + 1), "currency": "USD"}
            records.append(event("purchase", f"a{number}", f"p{number}-{month}", moment(2 + 30 * month), **amount))
    await installation.send(*records)
    await installation.tick(moment(130))
    found = await ask(installation)
    assert found.unplaced == 0 and len(found.accounts) == 12
    scores = [account.priority.score_minor for account in found.accounts]
    assert scores == sorted(scores, reverse=True)
    by_id = {account.account_id: account for account in found.accounts}
    best = by_id["a7"]
    assert found.accounts[0] is best and best.segment == Segment.KEY
    assert best.potential is not None and best.potential.class_path is None
    assert best.potential.low_minor <= best.potential.expected_minor <= best.potential.high_minor
    parts = best.priority
    total = parts.potential_minor + parts.revenue_at_risk_minor + parts.fit_minor + parts.closeness_minor
    assert parts.score_minor == total and parts.fit_minor == round(best.potential.expected_minor / 4)
    assert any("may bring" in reason for reason in best.reasons)
    assert best.reasons[-1] == "industry is software (+50 points of fit)"
    prospect = by_id["a9"]
    assert prospect.segment == Segment.PROSPECT and prospect.potential is not None
    assert prospect.potential.class_path == ["software"] and prospect.potential.accounts == 4
    assert prospect.potential.conversion is not None and 0 < prospect.potential.conversion < 1
    assert {account.account_id for account in (await ask(installation, owner="ann")).accounts} == {
        f"a{number}" for number in range(1, 12, 2)
    }
    of_region = await ask(installation, region=" emea")
    assert {account.account_id for account in of_region.accounts} == {f"a{number}" for number in range(6)}
    prospects = await ask(installation, 3, segment=Segment.PROSPECT)
    assert [account.account_id for account in prospects.accounts] == ["a9", "a11", "a8"]
    assert (await ask(installation, population="nobody's")).accounts == []


async def test_the_list_follows_what_happens(installation: Installation) -> None:
    """A first purchase, another owner, a class that loses its last account: nothing of what was is left."""
    stated = {"industry": "retail", "owner": "ann"}
    await installation.send(
        event("signup", "a", "s1", moment(1), attributes=stated),
        event("purchase", "b", "p1", moment(1), amount_minor=5_000, currency="USD"),
    )
    await installation.tick(moment(2))
    assert [account.account_id for account in (await ask(installation, owner="ann")).accounts] == ["a"]
    await installation.send(
        event("signup", "a", "s2", moment(2), attributes={"industry": "mining", "owner": "bob"}),
        event("purchase", "a", "p2", moment(2), amount_minor=1_000, currency="USD"),
    )
    await installation.tick(moment(100))
    found = await ask(installation)
    assert [account.account_id for account in found.accounts] == ["b", "a"]
    assert (await ask(installation, owner="ann")).accounts == []
    assert [account.account_id for account in (await ask(installation, owner="bob")).accounts] == ["a"]
    report = await verify(installation.settings, POLICY, installation.redis, installation.reader)
    assert report.is_right and not report.warnings
    state = await installation.state()
    classes = {path for shard in state.ranking_shards for of in shard.classes.figures.values() for path in of}
    assert classes == {("mining",), ()}


async def test_what_is_kept_is_what_would_be_worked_out_anew(embedded: Servers) -> None:
    """After a worker has begun again, each account is where an assessment as of now puts it."""
    async with Installation(embedded, policy=POLICY) as installation:
        async with installation.worker():
            for number in range(30):
                amount = {"amount_minor": 137 * (number + 1), "currency": "USD"}
                await installation.send(event("purchase", f"a{number}", f"p{number}", moment(number), **amount))
            await installation.tick(moment(150))
            await ask(installation)
        async with installation.worker():
            found = await ask(installation)
        kept: dict[bytes, float] = {}
        for key in await installation.redis.keys(f"{{{installation.settings.redis_prefix}:*worklist_*"):
            if b"prospect" not in cast(bytes, key):
                kept |= dict(cast(Scores, await installation.redis.zrange(key, 0, -1, withscores=True)))
        assert {account.account_id.encode(): account.priority.score_minor for account in found.accounts} == kept
        assert len(kept) == 30


async def test_another_policy_classifies_everybody_again(embedded: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """And fits everybody again, a few at a time: it is told of accounts that say nothing new."""
    monkeypatch.setattr(accounts, "DESCRIBED_AT_ONCE", 2)
    async with Installation(embedded, policy=POLICY) as installation:
        async with installation.worker():
            for number in range(5):
                stated = {"industry": "software", "employees": 50 * number}
                await installation.send(event("signup", f"a{number}", f"s{number}", moment(1), attributes=stated))
            await installation.tick(moment(2))
            await ask(installation)
        other = POLICY.with_changes(classes={"by": ["employees"]}, icp=[])
        async with installation.worker(policy=other) as running:
            await running.claimed()
            installation.policy = other
            await ask(installation)
            state = await installation.state()
            traits = [traits for shard in state.ranking_shards for traits in shard.traits.values()]
            assert [t.class_path for t in traits].count(("mid",)) == 3 and not any(t.fit for t in traits)
            report = await verify(installation.settings, other, installation.redis, installation.reader)
            assert report.is_right and not report.warnings


async def test_what_an_account_needs_is_in_its_first_change(embedded: Servers) -> None:
    """And in the later ones, also of a worker that begins anew and has to look it up."""
    policy = POLICY.with_changes(needs={"training": {"offers": ["course"], "next_step": "Book a course"}})
    stated = {"needs": ["Training", "toys"]}
    async with Installation(embedded, policy=policy) as installation:
        async with installation.worker():
            await installation.tick(moment(0))
            await installation.rest()
            await installation.send(
                event("signup", "a", "s", moment(1), attributes=stated), event("signup", "b", "s", moment(1))
            )
            await installation.rest()
        async with installation.worker():
            await installation.send(event("purchase", "a", "p", moment(1), amount_minor=5_000, currency="USD"))
            await installation.tick(moment(2))
            found = await ask(installation, owner=None)
        told = [(change.account, change.data["playbook"]) for change in await installation.changes()]
        assert sorted((account, playbook["needs"], playbook["next_step"]) for account, playbook in told) == [
            *[("a", ["training"], "Book a course")] * 2,
            ("b", [], policy.segments.prospect.next_step),
        ]
        assert {account.account_id: account.next_step for account in found.accounts}["a"] == "Book a course"
