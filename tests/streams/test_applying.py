"""Another policy for accounts that go on: applied through the log, while a worker runs."""

import json
from pathlib import Path

import pytest

from state.founding import read_founding
from streams.applying import CannotApply
from streams.embedded import Embedded
from streams.explain import explain
from streams.messages import PolicySwitch, encode_switch
from streams.oracle import CannotVerify, verify
from streams.topics import Topic
from streams.worker import CannotStart
from tests.pipeline import PURE, Installation, Sent, check, moment, purchase, until
from tests.streams.command_line import POLICY, environment, resegment
from tests.streams.test_cli_worker import worker

TEN_FORTY = PURE.with_changes(version="ten-forty", tiers={"key": 10, "enterprise": 40, "commercial": 50})
AMOUNTS_MINOR = {"a": 500_00, "b": 400_00, "c": 300_00, "d": 200_00, "e": 100_00}


async def with_five_accounts(installation: Installation) -> None:
    """Established, of different revenues, each of which came in two parts, 60 and 120 days before the last tick."""
    await installation.send(
        *(purchase(name, "1", moment(0), amount // 2) for name, amount in AMOUNTS_MINOR.items()),
        *(purchase(name, "2", moment(60), amount // 2) for name, amount in AMOUNTS_MINOR.items()),
    )
    await installation.tick(moment(120))
    await check(installation)


async def test_other_shares_move_accounts_and_say_so(embedded: Embedded) -> None:
    """Whoever is moved hears why; the chain goes on, and what comes after it is judged by the new policy."""
    async with Installation(embedded) as installation, installation.worker():
        await with_five_accounts(installation)
        segments = ["key", "enterprise", "enterprise", "commercial", "commercial"]
        assert await installation.segments() == dict(zip("abcde", segments, strict=True))
        await installation.apply(TEN_FORTY)
        changes = await check(installation)
        told = {name: of_account[-1] for name, of_account in changes.items()}
        assert [name for name in told if told[name].cause == "policy_changed"] == ["c"]
        assert (told["c"].current, told["c"].data["direction"]) == ("commercial", "down")
        assert (told["c"].data["policy_version"], told["c"].data["mode"]) == ("ten-forty", "replay")
        await installation.send(purchase("e", "3", moment(120), 5_000_00))
        changes = await check(installation)
        assert (changes["e"][-1].current, changes["e"][-1].cause) == ("key", "purchase")
        assert changes["e"][-1].data["policy_version"] == "ten-forty"
        stale = PURE.with_changes(basis="accounts")
        found = await explain(installation.settings, stale, installation.redis, installation.reader, "c")
        assert (found.basis, found.segment) == ("revenue", "commercial")
        report = await verify(installation.settings, TEN_FORTY, installation.redis, installation.reader)
        assert report.mismatches == []
        with pytest.raises(CannotVerify, match=r"tiers\.key"):
            await verify(installation.settings, PURE, installation.redis, installation.reader)


async def test_a_shorter_window_and_other_new_starts_work_every_account_out_anew(embedded: Embedded) -> None:
    """Revenue that is older is forgotten, whoever is new by the new policy is, and it can be verified."""
    policy = PURE.with_changes(version="short", window_days=100, new_start_days=121)
    async with Installation(embedded) as installation:
        async with installation.worker():
            await with_five_accounts(installation)
            await installation.apply(policy, is_silent=True)
            changes = await check(installation)
            members = await installation.members()
            assert {name: member.revenue_minor for name, member in members.items()} == {
                name: amount // 2 for name, amount in AMOUNTS_MINOR.items()
            }
            assert set((await installation.segments()).values()) == {"new_start"}
            last = [of_account[-1] for of_account in changes.values()]
            assert {(change.cause, change.data["mode"]) for change in last} == {("policy_changed", "silent")}
            await installation.tick(moment(122))
            changes = await check(installation)
            # Who graduates in the other shard comes a moment later, and may move those who came first once more.
            for of_account in changes.values():
                assert ("graduated", "replay") in {(change.cause, change.data["mode"]) for change in of_account}
        report = await verify(installation.settings, policy, installation.redis, installation.reader)
        assert report.mismatches == []


async def test_a_worker_goes_on_by_what_was_applied_whatever_its_file_says(embedded: Embedded) -> None:
    """A new one with the old file is refused, one with the new file goes on; also where nobody ran meanwhile."""
    async with Installation(embedded) as installation:
        async with installation.worker():
            await with_five_accounts(installation)
        strategy = {"key": {"next_step": "Call tomorrow"}}
        await installation.apply(TEN_FORTY.with_changes(segments=strategy))
        running = installation.start(policy=PURE)
        with pytest.raises(CannotStart, match=r"tiers\.key: 10 -> 30"):
            await installation.stop(running)
        async with installation.worker():
            # Between topics there is no order: what is sent before the policy is in force may be judged by the old one.
            await installation.rest()
            await installation.send(purchase("e", "3", moment(120), 5_000_00))
            changes = await check(installation)
            assert changes["e"][-1].data["playbook"]["next_step"] == "Call tomorrow"


async def test_what_cannot_be_applied_changes_nothing(embedded: Embedded) -> None:
    """Each refusal says why; and what somebody writes into the log past the command is a dead letter."""
    async with Installation(embedded) as installation, installation.worker():
        with pytest.raises(CannotApply, match="no time yet"):
            await installation.rest()
            await installation.apply(TEN_FORTY)
        await with_five_accounts(installation)
        for changes, why in (
            ({}, "by these rules already"),
            ({"window_days": 366}, "window_days: 365 -> 366: what is older than 365 days is forgotten"),
            ({"rates": {"EUR": "1.1"}}, "rates.EUR: 1.08 -> 1.1: this is decided when a record arrives"),
            ({"future_days": 1}, "future_days: 366 -> 1: this is decided when a record arrives"),
        ):
            with pytest.raises(CannotApply) as refused:
                await installation.apply(PURE.with_changes(**changes))
            assert why in str(refused.value)
        founding = await read_founding(installation.redis, installation.settings.redis_prefix)
        assert founding is not None and founding.number == 0
        await installation.apply(TEN_FORTY)
        await check(installation)
        known = await read_founding(installation.redis, installation.settings.redis_prefix)
        assert known is not None and known.applied is not None
        larger = TEN_FORTY.with_changes(window_days=700)
        for applied in (
            known.applied._replace(policy=PURE.canonical()),
            known.applied._replace(number=2, policy=larger.canonical()),
        ):
            await installation.send(Sent(Topic.TICKS, None, encode_switch(PolicySwitch(applied, {})), 0))
        await installation.send(Sent(Topic.TICKS, None, b'{"policy": {}, "number": 3, "silent": false, "ends": {}}', 0))
        await check(installation)
        letters = {(letter.reason, letter.message) for letter in await installation.dead_letters()}
        assert ("bad_policy", "policy 1 after policy 1") in letters
        assert ("bad_policy", "window_days: 365 -> 700: what is older than 365 days is forgotten") in letters
        assert {reason for reason, _ in letters} == {"bad_policy", "bad_tick"}


async def test_the_command_applies_and_says_when_it_is_in_force(embedded: Embedded, tmp_path: Path) -> None:
    """Checked, looked at, applied; asked again it says that there is nothing to do."""
    values = environment(embedded, RESEGMENT_TICK_SECONDS="0.1")
    assert resegment("topics", "create", "--partitions", "2", values=values).status == 0
    other = tmp_path / "policy.toml"
    other.write_text(POLICY.read_text().replace("new_start_days = 90", "new_start_days = 30"))
    assert resegment("policy", "apply", other, values=values).status == 2
    async with worker(values, tmp_path / "log"):
        assert (
            resegment("send", "purchase", "acme", "100.00", "--at", "2026-01-01T00:00:00Z", values=values).status == 0
        )

        async def applied() -> bool:
            done = resegment("policy", "apply", other, "--silent", "--json", values=values)
            if done.status == 0:
                assert json.loads(done.out)["fields"][0]["field"] == "new_start_days"
                assert json.loads(done.out)["in_force"] is True
            return done.status == 0

        await until(applied, "time to have come")
        again = resegment("policy", "apply", other, values=values)
        assert again.status == 2 and "by these rules already" in again.err and len(again.err.splitlines()) == 1
        refused = resegment("doctor", "--policy", POLICY, values=values)
        assert refused.status == 1 and "new_start_days: 30 -> 90" in refused.out
