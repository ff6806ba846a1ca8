"""Alerts from the event to the receiver, on real parts: a broker, a store, an SMTP and an HTTP server."""

import asyncio
from datetime import timedelta

import pytest

from streams.worker import CannotStart
from tests.alerting import ALERTS, Alerts, World, change, count_is, now, policy_of
from tests.pipeline import until


async def test_from_a_purchase_to_the_mail(world: World) -> None:
    """To the account's owner, with all that he needs to know; by the other channel, too."""
    await world.sign_up("acme", owner=" Kim ")
    await world.sign_up("other")
    async with world.alerts():
        await world.buy("acme", "other")
        await world.received(2)
        await until(count_is(world.hook, 2), "both in the other channel")
    mails = {mail.to: mail for mail in world.box.messages}
    assert set(mails) == {"kim@example.com", "desk@example.com"}
    mail = mails["kim@example.com"]
    assert mail.subject == "The acme (acme): prospect → new_start"
    for words in ("its first purchase", "10.00 USD in the window", "See that the first order went well", "onboarding"):
        assert words in mail.body
    assert mail.id.strip("<>").split("@")[0] in mail.body
    assert {message.to for message in world.hook.messages} == {"room"}
    assert {message.id for message in world.hook.messages} != {None}


async def test_a_restart_goes_on_and_sends_nothing_twice(world: World) -> None:
    """What was announced in between is told afterwards; what was told is not."""
    await world.sign_up("a", "b", "c")
    async with world.alerts():
        await world.buy("a")
        await world.received(1)
    await world.buy("b")
    await world.installation.until_told(lambda told: len(told) == 5, "the change")
    async with world.alerts():
        await world.buy("c")
        await world.received(3)
        await asyncio.sleep(1)
    assert len(world.box.messages) == 3
    assert len({mail.id for mail in world.box.messages}) == 3


async def test_what_was_before_the_first_start_is_nobodys(world: World) -> None:
    """A ledger begins with what is announced from then on."""
    await world.sign_up("a", "b")
    await world.buy("a")
    await world.installation.until_told(lambda told: len(told) == 3, "the change")
    async with world.alerts():
        await world.buy("b")
        await world.received(1)
        await asyncio.sleep(0.5)
    assert [mail.subject for mail in world.box.messages] == ["The b (b): prospect → new_start"]


async def test_it_cannot_start_without_an_address(world: World) -> None:
    """It names the variable, and starts nothing."""
    running = Alerts(world.settings.model_copy(update={"alerts_url": {}}), world.installation.policy)
    with pytest.raises(CannotStart, match="RESEGMENT_ALERTS_URL_CHAT, RESEGMENT_ALERTS_URL_MAIL"):
        await running.task
    await running.redis.aclose()


async def test_calm_outlasts_a_restart(world: World) -> None:
    """What was said today, and how much of the hour is used up, is in the ledger."""
    policy = policy_of(
        ALERTS.replace("an_hour_max = 1000", "an_hour_max = 2").replace('["advanced"]', '["up", "down"]')
    )
    async with world.alerts(policy):
        await world.announce(change("a", 1, "key", "enterprise"))
        await world.received(1)
        await world.announce(change("a", 2, "enterprise", "key"))
        await world.received(2)
    async with world.alerts(policy):
        await world.announce(change("a", 3, "key", "enterprise"), change("b", 1, "key", "enterprise"))

        async def decided() -> list[str]:
            mails = [entry for entry in await world.log() if entry["rule"] == "first"]
            return [
                f"{entry['account']} {entry['status']}: {entry['why']}"
                for entry in mails
                if entry["status"] == "digest"
            ]

        async def both() -> bool:
            return len(await decided()) == 2

        await until(both, "two decisions")
    assert sorted(await decided()) == [
        "a digest: said of this account today: merged into the next day's digest",
        "b digest: merged into a digest: 2 messages to desk@example.com within an hour",
    ]
    assert len(world.box.messages) == 2


async def test_a_digest_is_one_mail(world: World) -> None:
    """At its time, with all that is in it; the ledger has them until then, also over a restart."""
    policy = policy_of(ALERTS.replace("an_hour_max = 1000", 'an_hour_max = 0\ndigest_at = "03:00"'))
    await world.sign_up("a", "b", "c", owner="kim")
    async with world.alerts(policy):
        await world.buy("a", "b", "c")

        async def merged() -> bool:
            return [entry["status"] for entry in await world.log()].count("digest") == 6

        await until(merged, "all wait for the digest")
    assert not world.box.messages
    async with world.alerts(policy):
        await world.installation.tick(now() + timedelta(days=1, hours=1), mode="live")
        await world.received(1)
        await until(count_is(world.hook, 1), "the other channel's")
        await asyncio.sleep(0.5)
    [mail] = world.box.messages
    assert mail.subject == "3 accounts changed" and mail.to == "kim@example.com"
    assert mail.body.count("its first purchase") == 3
