"""Alerts from the event to the receiver, on real parts: a broker, a store, an SMTP and an HTTP server."""

import asyncio

import pytest

from streams.worker import CannotStart
from tests.alerting import Alerts, World, count_is
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
