"""`resegment alerts` and its commands, as an operator gives them."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.alerting import ALERTS, World, policy_of
from tests.pipeline import CommandProcess, until
from tests.streams.command_line import Done, is_one_line, resegment


async def command(values: dict[str, str], *arguments: str) -> Done:
    """Run one, while the world goes on."""
    return await asyncio.to_thread(resegment, *arguments, values=values)


async def test_a_message_is_shown_as_it_would_be_and_sent(world: World, tmp_path: Path) -> None:
    """Nothing of it is in the ledger, which nobody has begun."""
    values = world.variables(tmp_path)
    await world.sign_up("acme", owner="kim")
    shown = await command(values, "alerts", "test", "first", "acme")
    assert shown.status == 0
    assert "The acme (acme) is prospect" in shown.out
    assert "but: the rule is not for this change" in shown.err
    await world.buy("acme")
    await world.installation.until_told(lambda told: len(told) == 2, "the change")
    shown = await command(values, "alerts", "test", "first", "acme")
    assert "The acme (acme): prospect → new_start" in shown.out and "but:" not in shown.err
    assert "to kim by mail (kim@example.com)" in shown.err and not world.box.messages
    sent = await command(values, "alerts", "test", "first", "acme", "--send", "--json")
    document = json.loads(sent.out)
    assert (sent.status, document["sent"], document["error"]) == (0, True, None)
    [mail] = world.box.messages
    assert mail.subject == "[test] The acme (acme): prospect → new_start"
    assert mail.id == f"<{document['message_id']}@resegment>"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("test", "nope", "acme"), "the policy has no alert nope; it has: first, chat"),
        (("test", "first", "nobody"), "nobody has never moved"),
        (("log",), "no `resegment alerts` has begun"),
        (("undelivered",), "no `resegment alerts` has begun"),
    ],
)
async def test_what_cannot_be_is_one_line(world: World, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """And status 2."""
    done = await command(world.variables(tmp_path), "alerts", *arguments)
    assert done.status == 2
    assert is_one_line(done.err) and words in done.err


async def test_the_log_says_what_became_of_alerts(world: World, tmp_path: Path) -> None:
    """Of each one, and why."""
    values = world.variables(tmp_path)
    await world.sign_up("acme", owner="kim")
    async with world.alerts():
        await world.buy("acme")
        await world.received(1)
        await until_status(world, "sent", 2)
    done = await command(values, "alerts", "log", "--rule", "first", "--json")
    entries = [json.loads(line) for line in done.out.splitlines()]
    assert [(entry["status"], entry["person"]) for entry in entries] == [
        ("waiting", "kim"),
        ("handed_over", "kim"),
        ("sent", "kim"),
    ]
    assert entries[-1]["message_id"] == world.box.messages[0].id[1:33]
    people = await command(values, "alerts", "log", "--limit", "1", "--account", "acme")
    assert "sent" in people.out and "5 older ones" in people.err


async def until_status(world: World, status: str, count: int) -> None:
    """Return when so many alerts have come to it."""

    async def reached() -> bool:
        return [entry["status"] for entry in await world.log()].count(status) >= count

    await until(reached, f"{count} {status}")


async def test_what_was_given_up_is_listed_and_tried_again(world: World, tmp_path: Path) -> None:
    """Once whoever was away is back; with the same id."""
    world.hook.status = 500
    values = world.variables(tmp_path)
    await world.sign_up("acme")
    async with world.alerts(alerts_attempts_max=3):
        await world.buy("acme")
        await until_status(world, "undelivered", 1)
        listed = await command(values, "alerts", "undelivered")
        assert "The acme (acme): prospect → new_start" in listed.out and "3 attempts" in listed.out
        assert "secret-path" not in listed.out
        [document] = [
            json.loads(line) for line in (await command(values, "alerts", "undelivered", "--json")).out.splitlines()
        ]
        world.hook.status = 200
        retried = await command(values, "alerts", "undelivered", "--retry")
        assert retried.out.startswith("1 will be tried again")
        await until_status(world, "sent", 2)
        world.hook.status = 500
        await world.sign_up("umbrella")
        await world.buy("umbrella")
        await until_status(world, "undelivered", 2)
        discarded = await command(values, "alerts", "undelivered", "--discard")
        assert discarded.out.startswith("1 will be discarded")
        await until_status(world, "dropped", 1)
        assert (await world.log())[-1]["why"] == "discarded, as somebody wants it"
        assert (await command(values, "alerts", "undelivered", "--discard", "--retry")).status == 2
    assert [message.id for message in world.hook.messages] == [document["message_id"]]
    assert "0 undelivered, 0 wait" in (await command(values, "alerts", "undelivered")).err
    assert len(world.box.messages) == 2, "the other channel has nothing to do with it"


async def test_it_runs_until_it_is_asked_to_leave(world: World, tmp_path: Path) -> None:
    """As a process, with a log that has no secret; and a second one stands by until the first is gone."""
    values = world.variables(tmp_path)
    await world.sign_up("a", "b")
    with CommandProcess(world.installation, tmp_path, "first", "alerts", variables=values) as first:
        await until_said(first, "claimed the ledger")
        with CommandProcess(world.installation, tmp_path, "second", "alerts", variables=values) as second:
            await world.buy("a")
            await world.received(1)
            await until_said(second, "standing by")
            await leave(first)
            await until_said(second, "claimed the ledger")
            await world.buy("b")
            await world.received(2)
            await leave(second)
            said = first.said() + second.said()
    assert [mail.subject.split()[1] for mail in world.box.messages] == ["a", "b"]
    assert said.count("left") == 2
    assert "secret-path" not in said and "mailto" not in said


async def leave(process: CommandProcess) -> None:
    """Ask it to leave, and wait."""
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def until_said(process: CommandProcess, text: str) -> None:
    """Return when a command has written this."""

    async def said() -> bool:
        assert process.status() is None, process.said()
        return text in process.said()

    await until(said, text)


def test_the_policy_of_these_tests_is_one() -> None:
    """It decides segments as the default one does."""
    assert policy_of(ALERTS).hash == policy_of("").hash
