"""Alerts from the event to the receiver, on real parts: a broker, a store, an SMTP and an HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from segmentation.policy import Policy
from state.client import connect
from state.keys import LedgerName
from state.shard_store import ShardStore
from streams.alerting.role import AlertsRole
from streams.embedded import Embedded
from streams.settings import Settings
from streams.worker import CannotStart
from tests.pipeline import Installation, event, purchase, until
from tests.receivers import Mailbox, Webhook, mailbox, webhook

RULES = [
    {"name": "first", "on": "move", "direction": ["advanced"], "to": "owner", "address": "desk@example.com"},
    {"name": "chat", "on": "move", "direction": ["advanced"], "address": "room", "channel": "chat"},
]
PEOPLE = {"kim": {"address": "kim@example.com"}}
PARTITIONS = 2


def policy_with(**tables: Any) -> Policy:
    """A policy with rules for alerts; without grace unless it says so."""
    return Policy.default().with_changes(
        **{"people": PEOPLE, "alerts": RULES, "calm": {"grace_minutes": 0, "an_hour_max": 1_000}} | tables
    )


@pytest.fixture
def box() -> Iterator[Mailbox]:
    """A mail server."""
    with mailbox() as running:
        yield running


@pytest.fixture
def hook() -> Iterator[Webhook]:
    """A server of HTTP."""
    with webhook() as running:
        yield running


def now() -> datetime:
    """By the wall clock, as workers tick."""
    return datetime.now(UTC)


class Alerts:
    """The role in this process."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self.redis = connect(settings.redis_url.get_secret_value())
        self.role = AlertsRole(settings, policy, self.redis)
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(self.role.run(self._stop))

    async def claimed(self) -> None:
        """Return when it has the ledger."""

        async def claimed() -> bool:
            if self.task.done():
                self.task.result()
            return self.role.shard is not None and self.role.shard.owned

        await until(claimed, "a claimed ledger")

    async def stop(self) -> None:
        """Let it leave. Raises what it died of."""
        self._stop.set()
        try:
            await self.task
        finally:
            await self.redis.aclose()


class World:
    """An installation with a worker that ticks, and receivers."""

    def __init__(self, installation: Installation, box: Mailbox, hook: Webhook) -> None:
        self.installation = installation
        self.box = box
        self.hook = hook
        urls = {"mail": SecretStr(box.url), "chat": SecretStr(hook.url)}
        self.settings = installation.settings.model_copy(
            update={"alerts_url": urls, "alerts_retry_seconds": 0.05, "alerts_send_seconds": 5.0}
        )

    @asynccontextmanager
    async def alerts(self, policy: Policy | None = None, **changes: Any) -> AsyncIterator[Alerts]:
        """The role, until the end of the context, where it must leave without an error."""
        running = Alerts(self.settings.model_copy(update=changes), policy or self.installation.policy)
        try:
            await running.claimed()
            yield running
        finally:
            await running.stop()

    async def buy(self, *accounts: str) -> None:
        """First purchases: each makes an account advance from prospect to new start."""
        await self.installation.send(*(purchase(account, f"p-{account}", now(), 1_000) for account in accounts))

    async def sign_up(self, *accounts: str, **attributes: str) -> None:
        """Accounts appear."""
        await self.installation.send(
            *(
                event("signup", account, f"s-{account}", now(), name=f"The {account}", attributes=attributes)
                for account in accounts
            )
        )
        await self.installation.until_told(
            lambda told: {change.account for change in told} >= {*accounts}, "all signed up"
        )

    async def received(self, count: int, *, seconds: float = 30.0) -> None:
        """Return when so many mails have arrived."""

        async def arrived() -> bool:
            return len(self.box.messages) >= count

        await until(arrived, f"{count} mails", seconds=seconds)

    @property
    def store(self) -> ShardStore:
        """The ledger's."""
        return ShardStore(self.installation.redis, self.settings.redis_prefix, LedgerName.ALERTS, 0)

    async def log(self) -> list[dict[str, Any]]:
        """What `resegment alerts log` has, the oldest first."""
        from streams.alerting.reading import read_log

        return [entry async for entry in read_log(self.store)]


@pytest.fixture
async def world(embedded: Embedded, box: Mailbox, hook: Webhook) -> AsyncIterator[World]:
    """One at work, with accounts that have signed up."""
    async with Installation(
        embedded, policy=policy_with(), partitions=PARTITIONS, clock="wall", tick_seconds=0.1
    ) as installation, installation.worker() as running:
        await running.claimed()
        yield World(installation, box, hook)


async def test_from_a_purchase_to_the_mail(world: World) -> None:
    """To the account's owner, with all that he needs to know; by the other channel, too."""
    await world.sign_up("acme", owner=" Kim ")
    await world.sign_up("other")
    async with world.alerts():
        await world.buy("acme", "other")
        await world.received(2)
        await until(_count_is(world.hook, 2), "both in the other channel")
    mails = {mail.to: mail for mail in world.box.messages}
    assert set(mails) == {"kim@example.com", "desk@example.com"}
    mail = mails["kim@example.com"]
    assert mail.subject == "The acme (acme): prospect → new_start"
    for words in ("its first purchase", "10.00 USD in the window", "See that the first order went well", "onboarding"):
        assert words in mail.body
    assert mail.id.strip("<>").split("@")[0] in mail.body
    assert {message.to for message in world.hook.messages} == {"room"}
    assert {message.id for message in world.hook.messages} != {None}


def _count_is(receiver: Mailbox | Webhook, count: int) -> Any:
    async def reached() -> bool:
        return len(receiver.messages) >= count

    return reached


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
