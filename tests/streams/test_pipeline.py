"""From an event on the log to a segment change: the whole program on the embedded servers."""

import asyncio
import logging
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from state.keys import StageName
from streams.accounts import AccountShard
from streams.changes import RiskData
from streams.embedded import Embedded
from streams.instants import parse_instant
from streams.messages import Tick, encode_tick
from streams.oracle import CannotVerify, verify
from streams.rest import look
from streams.shard import CorruptState
from streams.tasks import end_tasks
from streams.topics import TOLD_TOPICS, Topic, place_of
from streams.worker import CannotStart
from tests.pipeline import (
    PURE,
    Installation,
    Load,
    Sent,
    WorkerProcess,
    account_in,
    chains,
    check,
    day_of,
    event,
    expected_accounts,
    moment,
    outboxes,
    purchase,
    until,
)
from tests.streams.bad_records import BAD_RECORDS, partition_of


async def test_a_purchase_moves_its_account_and_displaces_its_neighbour(embedded: Embedded) -> None:
    """One purchase changes its own account and the neighbour that it pushes over the boundary, within seconds."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.send(
            purchase("big", "1", moment(0), 300_00),
            purchase("middle", "1", moment(0), 200_00),
            purchase("small", "1", moment(0), 100_00),
            purchase("tiny", "1", moment(0), 60_00),
        )
        await installation.tick(moment(100))
        await check(installation)
        assert await installation.segments() == {
            "big": "key",
            "middle": "enterprise",
            "small": "enterprise",
            "tiny": "commercial",
        }
        at = moment(100, 60)
        await installation.send(purchase("small", "2", at, 500_00))
        changes = await check(installation)
        (own,), (displaced,) = changes["small"][1:], changes["big"][1:]
        assert (own.current, own.cause, own.data["cause"]["event_id"]) == ("key", "purchase", "2")
        assert own.effective_at_us == parse_instant(at.isoformat())
        assert (displaced.current, displaced.cause) == ("enterprise", "boundary_moved")
        assert displaced.data["cause"]["event_id"] is None


async def test_time_alone_moves_accounts(embedded: Embedded) -> None:
    """With no traffic at all, ticks alone bring graduation, revenue dated ahead, and the end of the window."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.tick(moment(0))
        await installation.rest()
        await installation.send(
            event("signup", "later", "1", moment(0), name="Later Ltd"),
            purchase("once", "1", moment(0, 5), 100_00),
            purchase("twice", "1", moment(0, 5), 100_00),
            purchase("twice", "2", moment(200), 30_00),
            purchase("ahead", "1", moment(10), 40_00),
        )
        seen = {}
        for day in (1, 9, 10, 89, 90, 100, 199, 200, 364, 365, 564, 565):
            await installation.tick(moment(day))
            changes = await check(installation)
            seen[day] = await installation.segments()
        assert [seen[day]["once"] for day in (1, 89, 90, 364, 365)] == [
            "new_start",
            "new_start",
            "key",
            "enterprise",
            "commercial",
        ]
        assert [seen[day]["ahead"] for day in (9, 10, 89, 100)] == ["prospect", "new_start", "new_start", "commercial"]
        assert seen[565]["later"] == "prospect"
        causes = [told.cause for told in changes["once"]]
        assert (causes[:2], set(causes[2:-1]), causes[-1]) == (
            ["first_purchase", "graduated"],
            {"boundary_moved"},
            "lapsed",
        )
        assert [told.cause for told in changes["later"]] == ["first_signup"]
        assert [told.cause for told in changes["ahead"]][:3] == ["first_purchase", "first_purchase", "graduated"]
        assert changes["twice"][-1].data["lapsed"]
        assert changes["once"][-1].data["effective_at"] == "2024-12-31T00:00:00Z"
        assert {told.data["mode"] for chain in changes.values() for told in chain} == {"replay"}


async def test_time_never_overtakes_data(embedded: Embedded) -> None:
    """A tick waits for the records that were there before it, and is then applied without another one."""
    async with Installation(embedded, partitions=1) as installation, installation.worker() as running:
        await installation.send(purchase("acme", "1", moment(0), 100_00))
        await installation.tick(moment(1))
        await installation.rest()
        shard = running.worker.shards[StageName.ACCOUNTS, 0]
        assert isinstance(shard, AccountShard)
        await installation.tick(moment(400), ahead={Topic.PURCHASES: 2})

        async def held() -> bool:
            return shard.position[Topic.TICKS] == 2

        await until(held, "a tick that is read")
        await installation.send(purchase("acme", "2", moment(2), 50_00))

        async def applied_one() -> bool:
            return shard.progress[Topic.PURCHASES] == 2

        await until(applied_one, "the first of two purchases")
        assert (shard.day, shard.progress[Topic.TICKS]) == (day_of(moment(1)), 1)
        await installation.send(purchase("acme", "3", moment(390), 1_00))
        changes = await check(installation)
        assert (shard.day, shard.progress[Topic.TICKS]) == (day_of(moment(400)), 2)
        assert [told.current for told in changes["acme"]] == ["new_start", "key"]
        assert changes["acme"][-1].data["rolling_revenue_minor"] == 1_00


async def test_a_clock_never_goes_back(embedded: Embedded) -> None:
    """A tick that says an earlier time than the last one changes nothing: what follows is of the later one."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.tick(moment(100))
        await installation.rest()
        await installation.tick(moment(50))
        await installation.rest()
        assert {shard.day for shard in (await installation.state()).account_shards} == {day_of(moment(100))}
        await installation.send(purchase("acme", "1", moment(0), 100))
        await installation.rest()
        assert await installation.segments() == {"acme": "key"}


async def test_a_later_tick_does_not_wait_for_one_that_never_comes_true(embedded: Embedded) -> None:
    """A tick that names an end which the log never reaches is passed over by the next one."""
    async with Installation(embedded, partitions=1) as installation, installation.worker():
        await installation.send(purchase("acme", "1", moment(0), 100_00))
        await installation.tick(moment(1), ahead={Topic.PURCHASES: 10**15})
        await installation.tick(moment(2))
        await check(installation)
        assert (await installation.counts(Topic.TICKS))["applied"] == 2
        assert (await installation.state()).day == day_of(moment(2))


async def test_bad_records_are_dead_letters_and_good_ones_are_unharmed(embedded: Embedded) -> None:
    """Each record of the catalogue becomes a dead letter with its reason and its bytes; what is around it counts."""
    async with Installation(embedded) as installation, installation.worker():
        await installation.tick(moment(0))
        records, reasons = [], {}
        for number, bad in enumerate(BAD_RECORDS):
            partition = partition_of(bad, installation.partitions)
            good = account_in(partition, installation.partitions, f"good{number % 7}")
            records.append(purchase(good, f"{number}", moment(1, number), 1_00))
            topic = {"purchase": Topic.PURCHASES, "signup": Topic.SIGNUPS}.get(bad.kind, Topic.ENGAGEMENTS)
            records.append(Sent(topic, bad.key, bad.value, partition))
        placed = await installation.send(*records)
        for bad, at in zip(BAD_RECORDS, placed[1::2], strict=True):
            reasons[at.topic.removeprefix(installation.settings.topic_prefix), at.partition, at.offset] = bad
        await installation.tick(moment(200))
        await check(installation)
        letters = await installation.dead_letters()
        assert len(letters) == len(BAD_RECORDS) >= 30
        for letter in letters:
            bad = reasons.pop((letter.topic, letter.partition, letter.offset))
            assert (letter.reason, letter.key, letter.payload) == (bad.reason, bad.key, bad.value), bad.name
        assert not reasons
        assert sum(account.revenue_minor for account in (await installation.members()).values()) == (
            len(BAD_RECORDS) * 1_00
        )


async def test_bad_ticks_and_bad_standings_are_dead_letters(embedded: Embedded) -> None:
    """What is no tick, or no message of standings, is a dead letter; time and ranking go on."""
    bad_ticks = [
        b"",
        b"12",
        b"{}",
        b'{"at": "2024-01-01T00:00:00", "mode": "replay", "ends": {}}',
        b'{"at": "2024-01-01T00:00:00Z", "mode": "later", "ends": {}}',
        b'{"at": "2024-01-01T00:00:00Z", "mode": "replay", "ends": {"purchases": "1"}}',
        b'{"at": "1969-01-01T00:00:00Z", "mode": "replay", "ends": {}}',
        encode_tick(Tick(1, "replay", {})),
    ]
    bad_standings = [(b"all", None), (b"all", b"junk"), (b"\xff", b"\x90"), (b"", b"[]")]
    async with Installation(embedded, partitions=1) as installation, installation.worker() as worker:
        await worker.claimed()  # standings from before the installation was founded are not read
        await installation.send(purchase("acme", "1", moment(0), 100_00))
        await installation.send(*(Sent(Topic.TICKS, None, value, 0) for value in bad_ticks))
        await installation.send(*(Sent(Topic.STANDINGS, key, value, 0) for key, value in bad_standings))
        await installation.tick(moment(100))
        await check(installation)
        letters = await installation.dead_letters()
        assert Counter(letter.reason for letter in letters) == {
            "bad_tick": len(bad_ticks),
            "bad_standings": len(bad_standings),
        }
        assert [letter.payload for letter in letters if letter.reason == "bad_tick"] == bad_ticks
        assert await installation.segments() == {"acme": "key"}


async def test_duplicates_are_counted_and_have_no_effect(embedded: Embedded) -> None:
    """The same event id on the same account and topic counts once, however it differs and whenever it comes."""
    async with Installation(embedded, partitions=1) as installation, installation.worker():
        first = [
            purchase("acme", "1", moment(0), 100_00),
            event("engagement", "acme", "1", moment(0), kind="login"),
            event("signup", "acme", "1", moment(0), name="Acme"),
        ]
        await installation.send(*first, *first, purchase("acme", "1", moment(1), 999_00))
        await installation.tick(moment(50))
        await installation.send(*first, purchase("other", "1", moment(50), 7_00))
        await installation.tick(moment(300))
        await installation.rest()
        await installation.send(*first)
        await check(installation)
        assert await installation.counts(Topic.PURCHASES) == {"applied": 2, "duplicates": 4, "dead_letters": 0}
        assert await installation.counts(Topic.SIGNUPS) == {"applied": 1, "duplicates": 3, "dead_letters": 0}
        assert await installation.counts(Topic.ENGAGEMENTS) == {"applied": 1, "duplicates": 3, "dead_letters": 0}
        assert (await installation.members())["acme"].revenue_minor == 100_00


async def test_what_was_before_live_time_is_backfill(embedded: Embedded) -> None:
    """Nothing is told before the first tick; what it makes known is backfill, what comes later is live."""
    now = datetime.now(UTC)
    async with Installation(embedded, partitions=1) as installation, installation.worker():
        await installation.send(purchase("old", "1", now - timedelta(days=200), 100_00))

        async def applied() -> bool:
            return bool((await installation.counts(Topic.PURCHASES))["applied"])

        await installation.rest()
        await until(applied, "the purchase")
        assert await installation.changes() == []
        await installation.tick(now, mode="live")
        await installation.rest()
        await installation.send(purchase("new", "1", now, 5_00))
        changes = await check(installation)
        assert [(told.data["mode"], told.cause) for told in changes["old"]] == [("backfill", "backfill")]
        assert [(told.data["mode"], told.cause) for told in changes["new"]] == [("live", "first_purchase")]
        await installation.tick(now + timedelta(days=1), mode="replay")
        await installation.tick(now + timedelta(hours=1), mode="live")
        await check(installation)
        (letter,) = await installation.dead_letters()
        assert (letter.reason, letter.topic) == ("bad_tick", "ticks")
        assert "replay" in letter.message
        assert (await installation.counts(Topic.TICKS))["applied"] == 2


async def test_a_worker_ticks_by_itself(embedded: Embedded) -> None:
    """With the wall's clock a worker needs nobody to tell it the time."""
    async with (
        Installation(embedded, clock="wall", tick_seconds=0.1) as installation,
        installation.worker(),
    ):
        await installation.send(purchase("acme", "1", datetime.now(UTC) - timedelta(days=100), 5_00))
        (told,) = await installation.until_told(bool, "a change")
        assert (told.current, told.data["mode"]) == ("key", "backfill")
        sent_at = datetime.now(UTC)
        await installation.send(purchase("other", "1", sent_at, 5_00))
        changes = await installation.until_told(lambda told: len(told) == 2, "a second change")
        assert changes[-1].data["mode"] == "live"


async def _dump(installation: Installation) -> dict[bytes, bytes | None]:
    """All that the store holds of an installation."""
    pattern = f"*{installation.settings.redis_prefix}*"
    return {key: await installation.redis.dump(key) async for key in installation.redis.scan_iter(match=pattern)}


async def test_a_worker_goes_on_where_the_last_one_stopped(embedded: Embedded) -> None:
    """Another worker on the same state takes up what came in between, and nothing is told again."""
    async with Installation(embedded) as installation:
        async with installation.worker():
            await installation.send(*(purchase(f"a{n}", "1", moment(0), 100 + n) for n in range(50)))
            await installation.tick(moment(100))
            await installation.rest()
        told = await installation.changes()
        await installation.send(*(purchase(f"a{n}", "2", moment(100), 1_000 * n) for n in range(50)))
        await installation.tick(moment(101))
        assert sorted(await installation.changes()) == sorted(told)
        async with installation.worker():
            await check(installation)
        changes = await installation.changes()
        assert len(changes) == len({(told.account, told.sequence) for told in changes}) > len(told)


async def test_what_others_were_told_is_read_once(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that ranks nobody reads at its claim what the world was told, and its next owner need not again."""
    monkeypatch.setattr("streams.worker.WATCH_SECONDS", 0.1)
    async with Installation(embedded) as installation:

        async def told() -> list[dict[str, int]]:
            now = await look(installation.redis, installation.settings.redis_prefix, 2)
            return [
                {name: end for name, end in shard.told.items() if place_of(name)[0] in TOLD_TOPICS}
                for shard in now.ranking
            ]

        async def equal() -> bool:
            one, other = await told()
            return one == other

        async with installation.worker():
            await installation.send(*(purchase(f"a{n}", "1", moment(0), 100 + n) for n in range(50)))
            await installation.tick(moment(100))
            await installation.rest()
        assert not await equal()
        async with installation.worker():
            await check(installation)
            await until(equal, "that the shard without accounts has noted how far it read")
        read = {name: count for name, count in (await told())[0].items() if name.startswith(Topic.SEGMENTS)}
        assert sum(read.values()) == len(await installation.changes())


async def test_shards_that_were_being_closed_are_closed_by_the_next_claim(embedded: Embedded) -> None:
    """A claim may end at any point, for a newer one. What it had begun to let go must not go on unseen."""
    async with Installation(embedded) as installation, installation.worker() as running:
        await running.claimed()
        worker = running.worker
        shards = list(worker.shards.values())
        async with shards[0].lock:  # so closing it waits
            claiming = asyncio.create_task(worker.claim_partitions(set()))
            await asyncio.sleep(0.1)
            await end_tasks([claiming])
        await worker.claim_partitions(set())
        assert not worker.shards
        assert [shard for shard in shards if shard.owned or shard._tasks] == []


async def test_another_policy_is_refused_and_nothing_is_lost(embedded: Embedded) -> None:
    """A worker with another policy says what differs, writes nothing, and the right one goes on."""
    async with Installation(embedded) as installation:
        async with installation.worker():
            await installation.send(purchase("acme", "1", moment(0), 100))
            await installation.tick(moment(100))
            await installation.rest()
        before = await _dump(installation)
        other = installation.start(policy=PURE.with_changes(window_days=30, band=1))
        with pytest.raises(CannotStart, match=r"band: 0 -> 1\n  window_days: 365 -> 30"):
            await installation.stop(other)
        assert before == await _dump(installation) != {}
        async with installation.worker():
            await installation.tick(moment(101))
            await check(installation)


async def test_risk_is_told_live_and_by_the_rules_of_now(embedded: Embedded) -> None:
    """Silence, a request to cancel, a purchase, other rules: each level change is one event, and verified."""
    nervous = PURE.with_changes(risk={"horizon_days": 30, "watch": 30, "high": 60})

    async with Installation(embedded) as installation:

        async def told() -> list[tuple[str, int, str, str, str]]:
            data = [RiskData.model_validate_json(r.value) for _, r in await installation.records(Topic.CHURN_RISK)]
            unique = {(d.account_id, d.sequence): d for d in data}
            return [(*key, d.previous_level, d.current_level, d.trigger) for key, d in sorted(unique.items())]

        async with installation.worker():
            days = range(0, 100, 10)
            await installation.send(*(purchase("acme", f"{day}", moment(day), 1_000) for day in days))
            await installation.tick(moment(100))
            await check(installation)
            assert await told() == []
            await installation.tick(moment(400))
            await check(installation)
            silent = [("acme", 1, "low", "watch", "silence"), ("acme", 2, "watch", "high", "silence")]
            assert await told() in ([silent[0]], silent, [("acme", 1, "low", "high", "silence")])
            await installation.send(purchase("acme", "late", moment(399.5), 1_000))
            await installation.send(event("engagement", "acme", "asks", moment(399.6), kind="cancel_request"))
            await installation.tick(moment(401))
            await check(installation)
            before = await told()
            assert before[-1][-1] in ("purchase", "cancel_request")
        async with installation.worker(policy=nervous):
            await installation.tick(moment(402))
            await until(lambda: _grown(told, len(before)), "the change that the new rules make")
            assert (await told())[-1][-1] == "policy_changed"
            await check(installation)
            connections = installation.redis, installation.reader
            report = await verify(installation.settings, nervous, *connections)
            assert report.mismatches == [] and report.is_right
            with pytest.raises(CannotVerify, match=r"risk.watch: 30 -> 75"):
                await verify(installation.settings, PURE, *connections)


async def _grown(told: Callable[[], Awaitable[list[Any]]], count: int) -> bool:
    return len(await told()) > count


async def test_other_strategies_are_taken_and_said(
    embedded: Embedded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change has the playbook of where the account is now. A worker with another one says so once, and goes on."""
    # what other tests of the same process have done to loggers does not matter here
    logger = logging.getLogger("streams.worker")
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level(logging.WARNING, "streams.worker")
    edited = PURE.with_changes(segments={"key": {"next_step": "Ring the sponsor"}})
    async with Installation(embedded) as installation:
        async with installation.worker():
            await installation.send(purchase("acme", "1", moment(0), 100), purchase("umbrella", "1", moment(50), 10))
            await installation.tick(moment(100))
            before = await check(installation)
        assert before["acme"][-1].data["playbook"] == PURE.segments.key.document() | {"needs": []}
        assert before["umbrella"][-1].data["playbook"] == PURE.segments.new_start.document() | {"needs": []}
        assert "decide no segment" not in caplog.text
        for _ in range(2):
            other = installation.start(policy=edited)
            await other.claimed()
            await installation.stop(other)
        said = [record.getMessage() for record in caplog.records if "decide no segment" in record.getMessage()]
        assert len(said) == 1
        assert "segments.key.next_step: Agree the plan of the quarter with the sponsor -> Ring the sponsor" in said[0]
        other = installation.start(policy=edited)
        await installation.send(purchase("umbrella", "2", moment(100), 1_000))
        await installation.tick(moment(200))
        after = await check(installation)
        await installation.stop(other)
        assert {account: chain[: len(before[account])] for account, chain in after.items()} == before
        last = after["umbrella"][-1]
        assert (last.current, last.data["playbook"]["next_step"]) == ("key", "Ring the sponsor")


async def test_an_emptied_store_is_corrupt_and_not_new(embedded: Embedded) -> None:
    """Where the world was told of segments that the store does not know, a worker stops and says so."""
    async with Installation(embedded) as installation:
        async with installation.worker() as running:
            await installation.send(purchase("acme", "1", moment(0), 100))
            await installation.tick(moment(100))
            await installation.rest()
            keys = list(await _dump(installation))
        assert running.task.done()
        await installation.redis.delete(*keys)
        other = installation.start()
        with pytest.raises(CorruptState, match=r"holds changes.*--rebuild"):
            await other.task
        assert await _dump(installation) == {}


@pytest.mark.parametrize("band", [0, 2])
async def test_a_store_is_rebuilt_from_the_log_and_nothing_is_told_again(embedded: Embedded, band: int) -> None:
    """Of a store that was lost, all that the log still has comes back, and every account's sequence goes on."""
    policy = PURE.with_changes(band=band)
    async with Installation(embedded, policy=policy) as installation:
        load = Load(installation, random.Random(band), accounts=40)
        async with installation.worker():
            await load.run(15)
            await load.finish()
            await installation.rest()
            keys = list(await _dump(installation))
            before = await installation.members()
        told = chains(await installation.changes())
        assert sum(map(len, told.values())) >= 30
        await installation.redis.delete(*keys)
        async with installation.worker(rebuild=True):
            await installation.rest()
            after = await installation.members()
            assert chains(await installation.changes()) == told
            assert {name: (m.segment, m.revenue_minor, m.sequence) for name, m in after.items()} == {
                name: (m.segment, m.revenue_minor, m.sequence) for name, m in before.items()
            }
            await load.run(5)
            await load.finish()
            report = await verify(installation.settings, installation.policy, installation.redis, installation.reader)
            assert report.mismatches == []
        later = chains(await installation.changes())
        assert all(later[account][: len(chain)] == chain for account, chain in told.items())
        assert later != told


async def test_a_store_emptied_under_a_worker_stops_it(embedded: Embedded) -> None:
    """A worker whose state is deleted while it runs ends loudly, and tells nobody anything new."""
    async with Installation(embedded) as installation:
        running = installation.start()
        await installation.send(purchase("acme", "1", moment(0), 100))
        await installation.tick(moment(100))
        await installation.rest()
        told = await installation.changes()
        await installation.redis.delete(*(await _dump(installation)))
        await installation.send(purchase("acme", "2", moment(100), 100))
        with pytest.raises(Exception, match="nothing at"):
            await running.task
        assert sorted(await installation.changes()) == sorted(told)


async def test_partition_counts_must_fit(embedded: Embedded) -> None:
    """Topics with unequal counts, or another count than the state was made for, are refused with both numbers."""
    async with Installation(embedded, partitions=1) as installation:
        async with installation.worker():
            await installation.tick(moment(1))
            await installation.rest()
        async with Installation(embedded, partitions=2, redis_prefix=installation.settings.redis_prefix) as other:
            with pytest.raises(CannotStart, match="made for 1 partitions, the topics have 2"):
                await other.start().task


async def _crashed_at_random(installation: Installation, directory: Path, chance: random.Random) -> None:
    """Send events and time while workers are killed, one after the other, at any moment."""
    load = Load(installation, chance)
    for round_number in range(3):
        with WorkerProcess(installation, directory, f"round-{round_number}") as process:
            await process.until_said("claimed")
            for _ in range(chance.randrange(2, 30)):
                await load.send(20)
                await load.tick()
            process.kill()


async def test_killed_workers_leave_no_trace(embedded: Embedded, tmp_path: Path) -> None:
    """After kill -9 in the middle of the work, again and again, everything is as if nothing had happened."""
    async with Installation(embedded, relay_interval_ms=5) as installation:
        await _crashed_at_random(installation, tmp_path, random.Random(7))
        async with installation.worker():
            await installation.tick(moment(400))
            await check(installation)
            assert await expected_accounts(installation, day_of(moment(400)))


async def test_a_worker_that_is_asked_to_leave_leaves_nothing_behind(embedded: Embedded, tmp_path: Path) -> None:
    """SIGTERM: what was decided is published, the outboxes are empty, and the status is 0."""

    async with Installation(embedded, relay_interval_ms=200) as installation:
        with WorkerProcess(installation, tmp_path) as process:
            await process.until_said("claimed")
            await installation.send(*(purchase(f"a{n}", "1", moment(0), 100 + n) for n in range(200)))
            await installation.tick(moment(100))
            await installation.until_told(lambda told: len(told) > 0, "a change")
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
        assert not any([await installation.redis.llen(key) for key in await outboxes(installation)])
