"""A channel says what became of a message, whatever the server does, and never shows its address."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

import psutil
import pytest
from pydantic import SecretStr

from streams.alerting.channels import Channel, Outgoing, without_secrets
from streams.server_process import LOOPBACK, free_port
from tests.receivers import Mailbox, Webhook, dribbling_server, silent_server

MESSAGE = Outgoing("a" * 32, "kim@example.com", "It moved", "From key\nto enterprise → äöü")


@asynccontextmanager
async def channel(url: str, *, timeout_seconds: float = 20.0) -> AsyncIterator[Channel]:
    """One that is closed at the end."""
    made = Channel("mail", SecretStr(url), timeout_seconds=timeout_seconds)
    try:
        yield made
    finally:
        await made.close()


async def test_a_mail_arrives_as_it_is(box: Mailbox) -> None:
    """With its id, whatever is in it."""
    async with channel(box.url) as mail:
        assert await mail.send(MESSAGE) is None
        assert await mail.send(MESSAGE._replace(id="b" * 32)) is None
    assert [message.id for message in box.messages] == [f"<{'a' * 32}@resegment>", f"<{'b' * 32}@resegment>"]
    assert (box.messages[0].to, box.messages[0].subject) == ("kim@example.com", "It moved")
    assert box.messages[0].body.splitlines() == MESSAGE.body.splitlines()


async def test_a_request_has_the_id_in_a_header(hook: Webhook) -> None:
    """And the address of who is told where the URL asks for it."""
    async with channel(hook.url) as chat:
        assert await chat.send(MESSAGE._replace(address="#key accounts")) is None
    [message] = hook.messages
    assert (message.id, message.to, message.subject) == ("a" * 32, "%23key%20accounts", "It moved")


async def test_what_is_longer_than_a_channel_takes_is_cut_before_its_id(hook: Webhook) -> None:
    """Else it would be refused each time."""
    body = "x" * 60_000 + "\n\n-- \nresegment " + "a" * 32
    async with channel(hook.url) as chat:
        assert await chat.send(MESSAGE._replace(body=body)) is None
    [message] = hook.messages
    assert 20_000 < len(message.body) < 32_768
    assert message.body.endswith("x\n[...]\n\n-- \nresegment " + "a" * 32)


@pytest.mark.parametrize("answer", ["550 no such user", "451 try later", "421 going down"])
async def test_a_mail_that_is_refused(box: Mailbox, answer: str) -> None:
    """Says so, and the next one is sent as if nothing had been."""
    box.answer = lambda to: answer
    async with channel(box.url) as mail:
        error = await mail.send(MESSAGE)
        assert error and answer.split()[0] in error
        box.answer = lambda to: None
        assert await mail.send(MESSAGE) is None
    assert len(box.messages) == 1


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_a_request_that_is_refused(hook: Webhook, status: int) -> None:
    """The same."""
    hook.status = status
    async with channel(hook.url) as chat:
        error = await chat.send(MESSAGE)
    assert error and str(status) in error and "secret-path" not in error


async def test_a_connection_that_is_closed_without_an_answer(hook: Webhook) -> None:
    """What became of the message nobody knows: it counts as not sent."""
    hook.is_half_closed = True
    async with channel(hook.url) as chat:
        assert await chat.send(MESSAGE)
    assert hook.attempts == 1


async def test_nobody_listens() -> None:
    """The refusal of a connection is an error like any other."""
    for scheme in ("mailto", "json"):
        async with channel(f"{scheme}://{LOOPBACK}:{free_port()}/?from=a@example.com&to=b@example.com") as closed:
            assert await closed.send(MESSAGE)


@pytest.mark.parametrize("server", [silent_server, dribbling_server], ids=lambda server: server.__name__)
@pytest.mark.parametrize("scheme", ["mailto", "json"])
async def test_a_server_that_takes_for_ever(server: Callable[[], AbstractContextManager[int]], scheme: str) -> None:
    """It is left after the time-out, with the process that talked to it; and nobody else waited for it."""
    with server() as port:
        url = f"{scheme}://{LOOPBACK}:{port}/?from=a@example.com&to=b@example.com&mode=insecure&rto=60&cto=60"
        async with channel(url, timeout_seconds=2.0) as slow:
            began, turns = time.monotonic(), 0
            sending = asyncio.create_task(slow.send(MESSAGE))
            while not sending.done():
                await asyncio.sleep(0.05)
                turns += 1
            assert await sending == "no answer within 2 s"
            assert 1.9 < time.monotonic() - began < 4.0
            assert turns > 20, "something blocked the loop"
    assert not [child for child in psutil.Process().children() if "streams.alerting.sender" in child.cmdline()]


async def test_a_slow_server_is_waited_for(box: Mailbox) -> None:
    """As long as it may take."""
    box.delay_seconds = 1.0
    async with channel(box.url) as mail:
        assert await mail.send(MESSAGE) is None
    assert len(box.messages) == 1


async def test_the_process_may_die(box: Mailbox) -> None:
    """The message counts as not sent, and the next one gets a new process."""
    box.delay_seconds = 60.0
    async with channel(box.url) as mail:
        sending = asyncio.create_task(mail.send(MESSAGE))
        while not box.attempts:
            await asyncio.sleep(0.02)
        assert mail._process is not None
        mail._process.kill()
        error = await sending
        assert error and "has ended" in error
        box.delay_seconds = 0.0
        assert await mail.send(MESSAGE) is None


@pytest.mark.parametrize("url", ["nonsense", "nope://x/y", "slack://short", "mailto://"])
async def test_an_address_that_is_none(url: str) -> None:
    """Is an error of the message, not of the program; and not shown either."""
    async with channel(url) as wrong:
        error = await wrong.send(MESSAGE)
    assert error
    assert url not in error


@pytest.mark.parametrize(
    "url",
    [
        "mailto://user:p%40ss-w0rd@smtp.example.com:587?from=alerts@example.com&to={address}",
        "slack://TokenAAAA/TokenBBBB/TokenCCCC/#room",
        "json://host.example.com/hook/abc123?+Authorization=Bearer%20xyz789",
    ],
)
def test_what_a_library_says_has_no_secret_left(url: str) -> None:
    """Neither encoded nor plain."""
    secrets = ["p@ss-w0rd", "p%40ss-w0rd", "TokenAAAA", "TokenCCCC", "abc123", "xyz789", "user"]
    said = without_secrets(f"cannot reach {url}: p@ss-w0rd kim@example.com was refused", url, "kim@example.com")
    assert not [secret for secret in secrets if secret in said and secret in url]
    assert "kim@example.com was refused" in said
