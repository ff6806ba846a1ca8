"""What breaks on the way to people: no alert is lost, and one is doubled at most for each crash, with the same id."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streams.alerting.ledger import AlertShard
from streams.embedded import Embedded
from streams.topics import Topic, place_of
from tests.alerting import ALERTS, Alerts, World, change, count_is, now, policy_of
from tests.pipeline import CommandProcess, Installation, Sent, until
from tests.receivers import Mailbox, Webhook

FAST = {"RESEGMENT_ALERTS_RETRY_SECONDS": "0.05"}
MAIL_ONLY = """
[calm]
grace_minutes = 0
an_hour_max = 1000

[[alerts]]
name = "first"
on = "move"
direction = ["advanced"]
address = "desk@example.com"
"""


def shard_of(running: Alerts) -> AlertShard:
    """The one that a role has."""
    assert running.role.shard is not None
    return running.role.shard


async def test_a_dead_channel_holds_up_no_other_one(world: World) -> None:
    """Nor the reading of topics: what it owes waits for it."""
    world.hook.delay_seconds = 60.0
    accounts = [f"a{number}" for number in range(20)]
    await world.sign_up(*accounts)
    async with world.alerts(alerts_send_seconds=1.0) as running:
        await world.buy(*accounts)
        await world.received(20)
        assert len(world.hook.messages) == 0

        async def only_its_own_wait() -> bool:
            return len(shard_of(running).messages) == 20

        await until(only_its_own_wait, "the mails that were received are confirmed")
        world.hook.delay_seconds = 0.0
        await until(count_is(world.hook, 20), "the dead one is back")
        await until(_nothing_waits(running), "all confirmed")
    assert Counter(message.id for message in world.hook.messages).most_common(1)[0][1] == 1


def _nothing_waits(running: Alerts) -> Any:
    async def done() -> bool:
        return not shard_of(running).messages

    return done


async def test_one_who_refuses_holds_up_nobody_else(world: World) -> None:
    """Of the same channel: a mistyped address is one person's."""
    world.box.answer = lambda to: "550 no such user" if to == "kim@example.com" else None
    await world.sign_up("a", "b", owner="kim")
    await world.sign_up("c", "d")
    async with world.alerts(alerts_attempts_max=3):
        await world.buy("a", "b", "c", "d")
        await world.received(2)

        async def given_up() -> bool:
            return [entry["status"] for entry in await world.log()].count("undelivered") == 2

        await until(given_up, "both given up")
    assert {mail.to for mail in world.box.messages} == {"desk@example.com"}
    why = {entry["why"] for entry in await world.log() if entry["status"] == "undelivered"}
    assert len(why) == 1 and "given up after 3 attempts" in why.pop()


async def test_no_more_is_read_than_a_bound_while_channels_are_dead(world: World) -> None:
    """And all of it once they are back."""
    world.hook.delay_seconds = 60.0
    policy = policy_of(MAIL_ONLY.replace('address = "desk@example.com"', 'address = "room"\nchannel = "chat"'))
    accounts = [f"a{number}" for number in range(60)]
    await world.sign_up(*accounts)
    async with world.alerts(policy, alerts_messages_max=10, alerts_send_seconds=2.0) as running:
        for first in range(0, 60, 5):
            await world.buy(*accounts[first : first + 5])
            await asyncio.sleep(0.2)
        waiting = len(shard_of(running).messages)
        assert 10 < waiting < 40, "one batch of each partition beyond the bound"
        world.hook.delay_seconds = 0.0
        await until(count_is(world.hook, 60), "all")
        await until(_nothing_waits(running), "all confirmed")
    assert len({message.id for message in world.hook.messages}) == 60


async def test_a_process_that_lost_the_ledger_sends_nothing_before_it_has_it_again(world: World) -> None:
    """Woken from a long sleep, for example: what another one has sent is not sent again."""
    await world.sign_up("a", "b")
    async with world.alerts() as running:
        await world.buy("a")
        await world.received(1)
        await until(_nothing_waits(running), "all confirmed")
        await world.store.claim("another")
        await world.buy("b")
        await asyncio.sleep(1)
        assert len(world.box.messages) == 1
        await world.received(2)  # nobody took the partitions away, so it claims the ledger back
        await until(_nothing_waits(running), "all confirmed")
    assert len({mail.id for mail in world.box.messages}) == len(world.box.messages) == 2


async def test_a_store_that_went_away_after_the_mail_was_taken(world: World) -> None:
    """What was sent is remembered until it is written down: no second mail for it."""
    redis, loop = world.installation.redis, asyncio.get_running_loop()
    await world.sign_up(*(accounts := [f"a{number}" for number in range(5)]))

    async def kill_connections() -> None:
        await redis.client_kill_filter(_type="normal")

    def cut() -> None:
        asyncio.run_coroutine_threadsafe(kill_connections(), loop)

    async with world.alerts() as running:
        world.box.after_taking = cut
        await world.buy(*accounts)
        await world.received(5)
        world.box.after_taking = lambda: None
        await until(_nothing_waits(running), "all confirmed")
    assert len({mail.id for mail in world.box.messages}) == len(world.box.messages) == 5


async def test_what_was_undone_while_it_was_away_is_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what was announced, also where ticks come first, and only then lets time go on; the log says why."""
    policy = policy_of(MAIL_ONLY.replace("grace_minutes = 0", "grace_minutes = 5").replace("advanced", "down"))
    async with world.alerts(policy) as running:
        await world.announce(change("acme", 1, "key", "enterprise"), change("stays", 1, "key", "enterprise"))

        async def wait() -> bool:
            return len(shard_of(running).ledger.open) == 2

        await until(wait, "two alerts that wait")
    await world.announce(change("acme", 2, "enterprise", "key"))
    await world.installation.tick(now() + timedelta(minutes=30), mode="live")
    monkeypatch.setattr(AlertShard, "offer", ticks_first(AlertShard.offer))
    async with world.alerts(policy):
        await world.received(1)
        await asyncio.sleep(1)
    assert [mail.subject for mail in world.box.messages] == ["stays: key → enterprise"]
    dropped = [entry for entry in await world.log() if entry["status"] == "dropped"]
    assert [(entry["account"], entry["why"]) for entry in dropped] == [("acme", "undone by move 2")]


def ticks_first(offer: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A broker may send any partition first: here what was announced comes half a second after the first tick."""
    held: list[tuple[Any, Any]] = []
    has_ticked = False

    async def offered(shard: AlertShard, topic: Topic, batch: Any) -> None:
        nonlocal has_ticked
        is_tick = place_of(topic)[0] is Topic.TICKS
        if not is_tick and not has_ticked:
            held.append((topic, batch))
            return
        await offer(shard, topic, batch)
        if is_tick and batch.records and not has_ticked:
            has_ticked = True
            await asyncio.sleep(0.5)
            for late in held:
                await offer(shard, *late)

    return offered


async def test_what_workers_undo_when_they_catch_up_is_not_sent(
    embedded: Embedded, box: Mailbox, hook: Webhook
) -> None:
    """They tick as soon as they are back: time goes on once the account stage has applied what came before the tick."""
    policy = policy_of(MAIL_ONLY.replace("grace_minutes = 0", "grace_minutes = 5").replace("advanced", "down"))
    async with Installation(embedded, policy=policy_of(), partitions=2, clock="wall", tick_seconds=0.1) as installation:
        world = World(installation, box, hook)
        async with installation.worker() as worker:
            await worker.claimed()
            await world.sign_up("a", "b", "c", "d")
        async with world.alerts(policy) as running:
            await world.announce(change("acme", 1, "key", "enterprise"))

            async def wait() -> bool:
                return len(shard_of(running).ledger.open) == 1

            await until(wait, "an alert that waits")
            await installation.tick(now() + timedelta(minutes=30), mode="live")
            await asyncio.sleep(1.5)
            await world.announce(change("acme", 2, "enterprise", "key"))
            async with installation.worker():

                async def decided() -> bool:
                    return not shard_of(running).ledger.open

                await until(decided, "it is undone")
                await asyncio.sleep(0.5)
    assert not box.messages


async def test_what_is_not_live_is_nobodys_but_counted(world: World) -> None:
    """Of history, and of what a policy changed silently."""
    policy = policy_of(MAIL_ONLY.replace("advanced", "down"))
    async with world.alerts(policy) as running:
        await world.announce(
            change("a", 1, "key", "enterprise", mode="silent"),
            change("b", 1, "key", "enterprise", mode="backfill"),
            change("c", 1, "key", "enterprise", mode="replay"),
            Sent(Topic.SEGMENT_CHANGES, b"d", b"nonsense"),
            change("e", 1, "key", "enterprise"),
        )
        await world.received(1)
        await until(_nothing_waits(running), "all confirmed")
        await asyncio.sleep(0.5)
    assert [mail.subject for mail in world.box.messages] == ["e: key → enterprise"]
    claim = await world.store.peek()
    assert claim is not None
    assert claim.state["skipped"] == {"silent": 1, "backfill": 1, "replay": 1, "unreadable": 1}


async def test_what_a_channel_that_is_gone_was_to_deliver_is_given_up_and_then_goes_elsewhere(
    world: World,
) -> None:
    """Nothing waits for ever without a word; and what is tried again is sent to the address that was put right."""
    world.hook.status = 500
    await world.sign_up("acme")
    async with world.alerts(alerts_attempts_max=1_000) as running:
        await world.buy("acme")
        await world.received(1)
        await until(_first_failed(world), "an attempt")
    urls = {"mail": world.settings.alerts_url["mail"]}
    async with world.alerts(policy_of(MAIL_ONLY), alerts_url=urls, alerts_attempts_max=1) as running:
        await until(_nothing_waits(running), "given up")
    assert (await world.log())[-1]["status"] == "undelivered"
    assert "RESEGMENT_ALERTS_URL_CHAT is not set" in (await world.log())[-1]["why"]
    world.hook.status = 200
    async with world.alerts(policy_of(ALERTS.replace('"room"', '"hall"'))) as running:
        [id_] = [id_ async for id_, _ in world.store.scan("undelivered")]
        await world.installation.redis.hset(world.store.keys.requests, id_, "retry")
        await until(count_is(world.hook, 1), "it arrives")
        await until(_nothing_waits(running), "confirmed")
    assert world.hook.messages[0].to == "hall"


def _first_failed(world: World) -> Any:
    async def failed() -> bool:
        return world.hook.attempts > 0

    return failed


async def test_nothing_is_sent_in_quiet_hours(world: World) -> None:
    """Neither what failed before they began: its next turn is when they are over."""
    world.hook.status = 500
    await world.sign_up("acme")
    async with world.alerts(alerts_attempts_max=1_000):
        await world.buy("acme")
        await world.received(1)
        await until(_first_failed(world), "an attempt")
    world.hook.status = 200
    begin, end = (f"{now() + timedelta(hours=hours):%H:%M}" for hours in (-2, 2))
    quiet = ALERTS.replace("[calm]", f'[calm]\nquiet_from = "{begin}"\nquiet_until = "{end}"')
    async with world.alerts(policy_of(quiet)) as running:
        await asyncio.sleep(2.5)
        assert len(shard_of(running).messages) == 1 and not world.hook.messages
    async with world.alerts():
        await until(count_is(world.hook, 1), "it arrives")


@pytest.mark.parametrize("when", ["taken", "any time"])
async def test_kill_9_in_the_middle_of_a_delivery(world: World, tmp_path: Path, when: str) -> None:
    """None is lost; one is doubled at most for each crash, and the receiver can tell by its id."""
    kills, accounts = 4, [f"a{number}" for number in range(40)]
    values = world.variables(tmp_path, MAIL_ONLY) | FAST
    chance = random.Random(7)
    world.box.delay_seconds = 0.05
    await world.sign_up(*accounts)
    with ExitStack() as stack:

        async def start(number: int) -> CommandProcess:
            started = CommandProcess(world.installation, tmp_path, f"alerts-{number}", "alerts", variables=values)
            stack.enter_context(started)
            await started.until_said("claimed the ledger")
            return started

        process = await start(0)
        await world.buy(*accounts)
        for number in range(1, kills + 1):
            if when == "taken":
                await _kill_when_taken(world, process)
            else:
                await until(count_is(world.box, len(world.box.messages) + 1), "one more")
                await asyncio.sleep(chance.random() * 0.2)
                process.kill()
            process = await start(number)
        await _settled(world, accounts)
    counts = Counter(mail.id for mail in world.box.messages)
    assert len(counts) == len(accounts)
    assert sum(counts.values()) <= len(accounts) + kills
    assert max(counts.values()) <= 1 + kills
    if when == "taken":
        assert sum(counts.values()) == len(accounts) + kills, "each crash came before the ledger knew"
    by_id: dict[str, set[tuple[str, str]]] = {}
    for mail in world.box.messages:
        by_id.setdefault(mail.id, set()).add((mail.subject, mail.body))
    assert all(len(texts) == 1 for texts in by_id.values()), "the same message, word by word"


async def _kill_when_taken(world: World, process: CommandProcess) -> None:
    """Before the one who sends it hears that the mail was taken."""
    killed, loop = asyncio.Event(), asyncio.get_running_loop()

    def kill() -> None:
        world.box.after_taking = lambda: None
        process.kill()
        loop.call_soon_threadsafe(killed.set)

    world.box.after_taking = kill
    await asyncio.wait_for(killed.wait(), 30)


async def _settled(world: World, accounts: list[str]) -> None:
    async def all_sent() -> bool:
        sent = {entry["account"] for entry in await world.log() if entry["status"] == "sent"}
        return sent == {*accounts} and not await world.store.count("messages")

    await until(all_sent, "all sent")
