"""`resegment watch`: whose changes it shows, and from when on."""

import asyncio
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from streams.embedded import Embedded
from streams.topics import Topic
from tests.pipeline import Installation, environment_of, event, moment, purchase
from tests.streams.command_line import Here, in_this_process, is_one_line, resegment

OWNERS = {"acme": "Kim", "bolt": "Kim", "coil": "Lee", "dune": None}


class Seen(NamedTuple):
    """An installation at rest that no worker runs any more."""

    variables: dict[str, str]
    noon: str
    """When half of it was announced."""
    changes: list[dict[str, Any]]
    risks: list[dict[str, Any]]


@pytest.fixture(scope="module")
def seen(embedded: Embedded) -> Seen:
    """Four accounts: all buy; then bolt asks to cancel, and coil goes over to Kim."""
    return asyncio.run(run(embedded))


async def run(embedded: Embedded) -> Seen:
    """Let it happen."""
    async with Installation(embedded, partitions=2, kafka_session_timeout_seconds=6.0) as installation:
        async with installation.worker():
            for number, (account, owner) in enumerate(OWNERS.items(), 1):
                attributes = {"owner": owner} if owner else {}
                await installation.send(event("signup", account, "s", moment(0), attributes=attributes))
                await installation.send(purchase(account, "p", moment(1), 1_000 * number))
            await installation.tick(moment(2))
            await installation.rest()
            await asyncio.sleep(0.05)
            noon = datetime.now(UTC).isoformat()
            await installation.send(event("engagement", "bolt", "e", moment(3), kind="cancel_request"))
            await installation.send(event("signup", "coil", "s2", moment(3), attributes={"owner": "Kim"}))
            await installation.tick(moment(100))
            await installation.rest()
        changes, risks = [
            [json.loads(record.value) for _, record in await installation.records(topic)]
            for topic in (Topic.SEGMENT_CHANGES, Topic.CHURN_RISK)
        ]
        variables = environment_of(installation.settings)
    return Seen(variables, noon, changes, risks)


@pytest.fixture
def here(seen: Seen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs commands on the installation."""
    for name, value in seen.variables.items():
        monkeypatch.setenv(name, value)
    return in_this_process(capsys)


def watched(here: Here, wanted: Iterable[dict[str, Any]], *arguments: str) -> bool:
    """Whether it shows all of these, and none before the last of them that is not among them."""
    expected = sorted((change["account_id"], change["sequence"]) for change in wanted)
    assert expected
    done = here("watch", "--json", "--limit", str(len(expected)), *arguments)
    assert done.status == 0, done
    events = [json.loads(line)["data"] for line in done.out.splitlines()]
    return sorted((change["account_id"], change["sequence"]) for change in events) == expected


def test_one_account(seen: Seen, here: Here) -> None:
    """Or some: of one kind, one must fit."""
    assert watched(
        here, (c for c in seen.changes if c["account_id"] == "acme"), "--from-beginning", "--follow", "account=acme"
    )
    both = ["--from-beginning", "--follow", "account=acme", "--follow", "account=dune"]
    assert watched(here, (c for c in seen.changes if c["account_id"] in ("acme", "dune")), *both)


def test_one_segment(seen: Seen, here: Here) -> None:
    """Who comes to it, and who leaves it."""
    to_or_from = [c for c in seen.changes if "key" in (c["previous_segment"], c["current_segment"])]
    assert {c["current_segment"] == "key" for c in to_or_from} >= {True}
    assert watched(here, to_or_from, "--from-beginning", "--follow", "segment=key")
    left = [c for c in seen.changes if "new_start" in (c["previous_segment"], c["current_segment"])]
    assert {c["current_segment"] == "new_start" for c in left} == {True, False}
    assert watched(here, left, "--from-beginning", "--follow", "segment=new_start")


def test_ones_owner(seen: Seen, here: Here) -> None:
    """As the store has it by now: coil was Lee's when the first of its changes was announced."""
    kims = [c for c in seen.changes if c["account_id"] in ("acme", "bolt", "coil")]
    assert watched(here, kims, "--from-beginning", "--follow", "owner=Kim")
    fresh = [c for c in kims if "new_start" in (c["previous_segment"], c["current_segment"])]
    assert (
        0 < len(fresh) < len([c for c in seen.changes if "new_start" in (c["previous_segment"], c["current_segment"])])
    )
    assert watched(here, fresh, "--from-beginning", "--follow", "owner=Kim", "--follow", "segment=new_start")


def test_risks(seen: Seen, here: Here) -> None:
    """The same for changes of churn risk; the segment is the one that the account is in."""
    assert {c["account_id"] for c in seen.risks} == set(OWNERS)
    bolts = [c for c in seen.risks if c["account_id"] == "bolt"]
    assert watched(here, bolts, "--risks", "--from-beginning", "--follow", "account=bolt")
    kims = [c for c in seen.risks if c["account_id"] != "dune"]
    assert watched(here, kims, "--risks", "--from-beginning", "--follow", "owner=Kim")
    segment = seen.risks[-1]["segment"]
    assert watched(
        here,
        (c for c in seen.risks if c["segment"] == segment),
        *("--risks", "--from-beginning", "--follow", f"segment={segment}"),
    )


def test_since_a_time(seen: Seen, here: Here) -> None:
    """What was announced then or later, whatever time its events are from; a day begins at midnight, UTC."""
    later = [c for c in seen.changes if c["recorded_at"] > seen.noon.replace("+00:00", "Z")]
    assert 0 < len(later) < len(seen.changes)
    assert watched(here, later, "--since", seen.noon)
    assert watched(here, seen.changes, "--since", "2020-01-01")
    at_once = [c for c in later if c["account_id"] == "bolt"]
    assert watched(here, at_once, "--since", seen.noon, "--follow", "account=bolt")


def test_people_see_the_same(seen: Seen, here: Here) -> None:
    """A line for each."""
    done = here("watch", "--from-beginning", "--follow", "account=dune", "--limit", "2")
    assert done.status == 0
    assert [("dune" in line) for line in done.out.splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--follow", "acme"), "account=ID"),
        (("--follow", "colour=red"), "account=ID"),
        (("--follow", "owner="), "account=ID"),
        (("--follow", "segment=gold"), "enterprise"),
        (("--since", "yesterday"), "--since"),
        (("--since", "2026-01-01", "--from-beginning"), "one of them"),
    ],
)
def test_what_cannot_be_meant_is_status_2(here: Here, arguments: tuple[str, ...], said: str) -> None:
    """One line says what may be."""
    done = here("watch", *arguments)
    assert done.status == 2
    assert is_one_line(done.err) and said in done.err


def test_only_who_follows_an_owner_needs_the_store(seen: Seen) -> None:
    """The rest is in the topics."""
    values = {**seen.variables, "RESEGMENT_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert resegment("watch", "--from-beginning", "--limit", "1", values=values).status == 0
    done = resegment("watch", "--follow", "owner=Kim", values=values)
    assert done.status == 2 and is_one_line(done.err) and "RESEGMENT_REDIS_URL" in done.err
    none = {**seen.variables, "RESEGMENT_REDIS_PREFIX": f"none-{time.time_ns()}"}
    assert resegment("watch", "--follow", "owner=Kim", values=none).status == 2
