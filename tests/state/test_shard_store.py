"""One shard: whose it is, what a commit writes, and when it writes nothing at all."""

import asyncio

import pytest
from redis.asyncio import Redis

from segmentation.segments import Segment
from state.keys import ShardKeys, StageName
from state.shard_store import OUTBOX_READ_MAX, Claim, Commit, NoSuchShard, Refused, ShardStore
from tests.state.conftest import PREFIX
from tests.state.keyspace import keyspace, take_back

PROGRESS = {"purchases": 10, "ticks": 3}


def full_commit(progress: dict[str, int], text: str = "x") -> Commit:
    """A commit with a write of every kind."""
    commit = Commit(progress, {"clock_us": 7, "text": text})
    stages = ("documents", "history", "engagements", "profiles", "traits", "transfers", "figures")
    alerts = ("alerts", "messages", "undelivered", "told", "handed", "seen", "decisions", "requests")
    for name in (*stages, *alerts):
        commit.set(name, "a", text.encode())
        commit.delete(name, "b")
    for name in ("due", "owners", *(f"worklist_{segment}" for segment in Segment)):
        commit.score(name, "a", 40)
        commit.score(name, "b", None)
    commit.outbox = [b"first " + text.encode(), b"second " + text.encode()]
    return commit


def another(store: ShardStore) -> ShardStore:
    """The same shard, as another worker has it."""
    return ShardStore(store.redis, PREFIX, store.stage, store.partition)


async def test_a_new_shard_is_empty(store: ShardStore) -> None:
    """Created and claimed, it has read nothing and knows nothing; creating it again changes nothing."""
    assert await store.claim("one") == Claim({}, {}, {})
    await store.commit(full_commit(PROGRESS))
    held = await keyspace(store.redis)
    assert await store.create() is False
    assert await keyspace(store.redis) == held


async def test_a_shard_that_is_not_there_cannot_be_claimed(redis: Redis) -> None:
    """State that is missing was lost: claiming must not make an empty shard of it."""
    missing = ShardStore(redis, PREFIX, StageName.RANKING, 0)
    assert await missing.peek() is None
    with pytest.raises(NoSuchShard, match="ranking shard 0"):
        await missing.claim("one")
    assert await keyspace(redis) == {}


async def test_claiming_returns_what_was_committed(store: ShardStore) -> None:
    """Progress, state and what was told, to any later owner; peeking shows the same and takes nothing."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    await store.trim(1, {"0": 5, "1": 9})
    expected = Claim(PROGRESS, {"clock_us": 7, "text": "x"}, {"0": 5, "1": 9})
    assert await another(store).peek() == expected
    await store.commit(full_commit(PROGRESS | {"ticks": 4}))
    assert await another(store).claim("two") == expected._replace(progress=PROGRESS | {"ticks": 4})


async def test_a_commit_writes_all_it_says(store: ShardStore) -> None:
    """Every hash, the due index and the outbox; of a field that is deleted and set the last word counts."""
    await store.claim("one")
    first = full_commit(PROGRESS)
    first.set("documents", "b", b"kept for now")
    first.deletes.clear()
    first.score("due", "b", 41)
    await store.commit(first)
    assert await store.load("documents", ["b", "a", "c"]) == [b"kept for now", b"x", None]
    second = full_commit({"purchases": 11}, "\N{SNOWMAN}\0\n")
    second.delete("history", "a")
    second.delete("profiles", "a")
    second.set("profiles", "a", b"\xe2\x98\x83\0\n")
    await store.commit(second)
    assert [item async for item in store.scan("history")] == []
    for name in ("documents", "engagements", "profiles"):
        assert [item async for item in store.scan(name)] == [("a", b"\xe2\x98\x83\0\n")]
    assert await store.due(99, 99) == [("a", 40)]
    assert await store.outbox() == [b"first x", b"second x", b"first \xe2\x98\x83\0\n", b"second \xe2\x98\x83\0\n"]
    assert await store.load("documents", []) == []


async def test_a_commit_is_refused_to_an_earlier_owner(store: ShardStore) -> None:
    """Whoever claimed last owns the shard; of another one's writes not one is carried out."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    later = another(store)
    await later.claim("two")
    held = await keyspace(store.redis)
    with pytest.raises(Refused):
        await store.commit(full_commit({"purchases": 11}, "y"))
    assert await keyspace(store.redis) == held
    await later.commit(full_commit({"purchases": 12}, "z"))
    assert await store.load("documents", ["a"]) == [b"z"]


async def test_a_commit_is_refused_to_who_never_claimed(store: ShardStore) -> None:
    """Knowing the shard is not owning it, also where nobody owns it."""
    held = await keyspace(store.redis)
    with pytest.raises(Refused):
        await store.commit(full_commit(PROGRESS))
    with pytest.raises(Refused):
        await store.outbox()
    with pytest.raises(Refused):
        await store.trim(1)
    assert await keyspace(store.redis) == held


async def test_a_commit_is_refused_where_the_progress_differs(store: ShardStore) -> None:
    """The owner is right, but the store went back in time: it must not go on as if nothing had happened."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    earlier = await keyspace(store.redis)
    await store.commit(full_commit(PROGRESS | {"ticks": 4}, "y"))
    await take_back(store.redis, earlier)
    with pytest.raises(Refused):
        await store.commit(full_commit(PROGRESS | {"ticks": 5}, "z"))
    assert await keyspace(store.redis) == earlier
    assert (await store.claim("one again")).progress == PROGRESS
    await store.commit(full_commit(PROGRESS | {"ticks": 4}, "y"))


async def test_a_commit_is_refused_where_somebody_wrote_the_progress(store: ShardStore) -> None:
    """Whatever else says that nothing happened: the offsets that were loaded are not the ones that are stored."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    await store.redis.hset(store.keys.meta, mapping={"progress": b'{"purchases":9}'})
    held = await keyspace(store.redis)
    with pytest.raises(Refused):
        await store.commit(full_commit(PROGRESS | {"ticks": 4}))
    assert await keyspace(store.redis) == held


async def test_a_commit_is_refused_where_only_due_work_was_lost(store: ShardStore) -> None:
    """Due work moves no offset on: a store that forgot it, and the standings it sent, went back in time."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    earlier = await keyspace(store.redis)
    await store.commit(full_commit(PROGRESS, "due work"))
    await take_back(store.redis, earlier)
    with pytest.raises(Refused):
        await store.commit(full_commit(PROGRESS | {"ticks": 4}, "z"))
    assert await keyspace(store.redis) == earlier


async def test_a_commit_whose_answer_got_lost_is_not_carried_out_twice(store: ShardStore) -> None:
    """The client tries again what it has no answer to: the second time is refused, the first one counts."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    twin = another(store)
    twin._owner, twin._expected, twin._commits = store._owner, store._expected, store._commits
    await store.commit(full_commit(PROGRESS, "again"))
    held = await keyspace(store.redis)
    with pytest.raises(Refused):
        await twin.commit(full_commit(PROGRESS, "again"))
    assert await keyspace(store.redis) == held
    assert await store.outbox_size() == 4


async def test_of_all_who_commit_at_once_only_the_last_owner_does(store: ShardStore) -> None:
    """However the calls interleave, one worker's batch is written, and no part of another's."""
    workers = [another(store) for _ in range(8)]
    for number, worker in enumerate(workers):
        await worker.claim(f"worker-{number}")
    outcomes = await asyncio.gather(
        *(worker.commit(full_commit({"purchases": n}, str(n))) for n, worker in enumerate(workers)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Refused] * 7 + [type(None)]
    assert await store.load("documents", ["a"]) == [b"7"]
    assert await workers[-1].outbox() == [b"first 7", b"second 7"]


async def test_claiming_and_committing_at_once_leaves_one_owner(store: ShardStore) -> None:
    """Every worker claims and commits in its own time: what is stored is what the commits that were not refused say."""

    async def work(number: int) -> int:
        worker, committed = another(store), 0
        for _ in range(10):
            claim = await worker.claim(f"worker-{number}")
            commit = Commit({"purchases": claim.progress.get("purchases", 0) + 1}, {})
            commit.outbox = [str(number).encode()]
            try:
                await worker.commit(commit)
            except Refused:
                continue
            committed += 1
        return committed

    committed = sum(await asyncio.gather(*(work(number) for number in range(5))))
    assert committed > 0
    assert (await store.claim("last")).progress == {"purchases": committed}
    assert await store.outbox_size() == committed


async def test_a_commit_may_have_any_number_of_arguments(store: ShardStore) -> None:
    """A script's stack holds 8,000 values: more are written in parts, whole pairs each, in one atomic call."""
    await store.claim("one")
    accounts = [f"account-{n:05}" for n in range(10_001)]
    commit = Commit(PROGRESS, {})
    for number, account in enumerate(accounts):
        commit.set("documents", account, str(number).encode())
        commit.set("history", account, b"to be deleted")
        commit.score("due", account, 1 + number % 7)
        commit.outbox.append(account.encode())
    await store.commit(commit)
    assert dict([item async for item in store.scan("documents")]) == {
        account: str(number).encode() for number, account in enumerate(accounts)
    }
    assert await store.due(7, 20_000) == sorted(
        ((account, 1 + number % 7) for number, account in enumerate(accounts)), key=lambda item: (item[1], item[0])
    )
    assert await store.redis.lrange(store.keys.outbox, 0, -1) == [account.encode() for account in accounts]
    commit = Commit(PROGRESS, {})
    for account in accounts:
        commit.delete("history", account)
        commit.score("due", account, None)
    await store.commit(commit)
    assert [item async for item in store.scan("history")] == []
    assert await store.due(99, 20_000) == []


async def test_reading_all_of_a_hash_may_be_given_up(store: ShardStore) -> None:
    """What was asked for ahead is let go, and the store answers as before."""
    await store.claim("one")
    commit = Commit(PROGRESS, {})
    for number in range(20_001):
        commit.set("documents", f"account-{number}", b"%d" % number)
    await store.commit(commit)
    pages = store.pages("documents")
    first = await anext(pages)
    assert all(field == b"account-" + value for field, value in first.items())
    await pages.aclose()
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await store.load("documents", ["account-7"]) == [b"7"]


async def test_who_is_due_comes_in_order_and_in_bounded_numbers(store: ShardStore) -> None:
    """By day and then by account; a later day replaces an earlier one, none removes it."""
    await store.claim("one")
    commit = Commit(PROGRESS, {})
    commit.scores["due"] = {"b": 2, "a": 2, "C": 2, "z": 1, "later": 60_000, "gone": 1, "moved": 1}
    await store.commit(commit)
    commit = Commit(PROGRESS, {})
    commit.scores["due"] = {"gone": None, "moved": 3, "never there": None}
    await store.commit(commit)
    assert await store.due(0, 9) == []
    assert await store.due(2, 3) == [("z", 1), ("C", 2), ("a", 2)]
    assert await store.due(3, 99) == [("z", 1), ("C", 2), ("a", 2), ("b", 2), ("moved", 3)]
    assert await store.due(59_999, 99) == await store.due(3, 99)
    assert (await store.due(60_000, 99))[5:] == [("later", 60_000)]


async def test_the_outbox_is_read_and_trimmed_by_its_owner_only(store: ShardStore) -> None:
    """A worker that lost the shard may publish nothing any more, and must not drop what the new owner will publish."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    later = another(store)
    await later.claim("two")
    held = await keyspace(store.redis)
    with pytest.raises(Refused):
        await store.outbox()
    with pytest.raises(Refused):
        await store.trim(2, {"0": 99})
    assert await keyspace(store.redis) == held
    assert await later.outbox() == [b"first x", b"second x"]
    await later.trim(1)
    assert await later.outbox() == [b"second x"]
    await later.trim(0)
    await later.trim(5, {"0": 1})
    assert await later.outbox() == []
    assert (await store.peek() or Claim({}, {}, {})).told == {"0": 1}


async def test_trimming_drops_what_was_read_and_nothing_newer(store: ShardStore) -> None:
    """Records that a commit adds while the oldest are being published stay."""
    await store.claim("one")
    commit = Commit(PROGRESS, {})
    commit.outbox = [str(n).encode() for n in range(OUTBOX_READ_MAX + 2)]
    await store.commit(commit)
    read = await store.outbox()
    assert read == commit.outbox[:OUTBOX_READ_MAX]
    more = Commit(PROGRESS, {})
    more.outbox = [b"newest"]
    await store.commit(more)
    await store.trim(len(read))
    assert await store.outbox() == [*commit.outbox[OUTBOX_READ_MAX:], b"newest"]
    assert await store.outbox_size() == 3


async def test_trimming_again_for_want_of_an_answer_drops_nothing_more(store: ShardStore) -> None:
    """The client tries again what it has no answer to: the records were dropped, the next ones stay."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    await store.outbox()
    twin = another(store)
    vars(twin).update({name: value for name, value in vars(store).items() if isinstance(value, str | bytes | int)})
    await twin.trim(1, {"0": 1})
    held = await keyspace(store.redis)
    await store.trim(1, {"0": 1})
    assert await keyspace(store.redis) == held
    assert await store.outbox() == [b"second x"]


async def test_a_trim_whose_answer_got_lost_is_heard_of_at_the_next_reading(store: ShardStore) -> None:
    """Else its records would be counted as waiting for ever, and the shard stop in the end."""
    await store.claim("one")
    commit = Commit(PROGRESS, {})
    commit.outbox = [b"1", b"2", b"3"]
    await store.commit(commit)
    await store.outbox()
    await store.trim(2)
    store.trimmed = 0  # as if no answer had come
    assert await store.outbox() == [b"3"]
    assert store.trimmed == 2
    await store.trim(1)
    assert await store.outbox() == []


async def test_nothing_is_trimmed_where_the_records_that_were_read_are_lost(store: ShardStore) -> None:
    """They are published, and the store does not know it: what it was told it must learn from the log."""
    await store.claim("one")
    earlier = await keyspace(store.redis)
    await store.commit(full_commit(PROGRESS))
    assert await store.outbox() == [b"first x", b"second x"]
    await take_back(store.redis, earlier)
    with pytest.raises(Refused):
        await store.trim(2, {"0": 2})
    assert await keyspace(store.redis) == earlier


async def test_a_store_that_forgot_a_trim_is_found_out(store: ShardStore) -> None:
    """Nobody committed since, but what was told went back: the shard is claimed again, and publishes again."""
    await store.claim("one")
    await store.commit(full_commit(PROGRESS))
    earlier = await keyspace(store.redis)
    await store.outbox()
    await store.trim(1, {"0": 1})
    await take_back(store.redis, earlier)
    with pytest.raises(Refused):
        await store.outbox()
    with pytest.raises(Refused):
        await store.trim(1, {"0": 2})
    assert await keyspace(store.redis) == earlier
    await store.claim("one again")
    assert await store.outbox() == [b"first x", b"second x"]
    await store.trim(2)
    assert await store.outbox() == []


async def test_a_commit_touches_its_own_shard_alone(redis: Redis) -> None:
    """Neither the other stage's shard of the same partition, nor another partition, nor another installation."""
    others = [
        ShardStore(redis, PREFIX, StageName.RANKING, 1),
        ShardStore(redis, PREFIX, StageName.ACCOUNTS, 11),
        ShardStore(redis, f"{PREFIX}:b", StageName.ACCOUNTS, 1),
    ]
    for number, other in enumerate(others):
        await other.create()
        await other.claim(f"other-{number}")
        await other.commit(full_commit({"purchases": number}, "other"))
    held = await keyspace(redis)
    mine = ShardStore(redis, PREFIX, StageName.ACCOUNTS, 1)
    await mine.create()
    await mine.claim("one")
    await mine.commit(full_commit(PROGRESS))
    now = await keyspace(redis)
    assert {key: now[key] for key in held} == held
    assert set(now) - set(held) == {
        key.encode() for name, key in mine.keys._asdict().items() if name in ShardKeys._fields
    }


async def test_a_sorted_set_is_read_a_page_at_a_time(store: ShardStore) -> None:
    """The greatest scores first, of equal ones the last by name."""
    await store.claim("one")
    commit = Commit(PROGRESS, {})
    for number in range(7):
        commit.score("worklist_key", f"account-{number}", number // 2 * 2**52)
    await store.commit(commit)
    assert await store.best("worklist_key", 0, 3) == ["account-6", "account-5", "account-4"]
    assert await store.best("worklist_key", 5, 3) == ["account-1", "account-0"]
    assert await store.best("worklist_key", 7, 3) == []
    assert await store.best("worklist_enterprise", 0, 3) == []
    again = Commit(PROGRESS, {})
    again.score("worklist_key", "account-0", 2**52 * 4)
    again.score("worklist_key", "account-6", None)
    await store.commit(again)
    assert await store.best("worklist_key", 0, 2) == ["account-0", "account-5"]


async def test_entries_of_one_beginning_are_read_by_their_names(store: ShardStore) -> None:
    """The last first, and none that begins in another way, whatever letters it has."""
    await store.claim("one")
    commit = Commit(PROGRESS, {})
    for entry in ("emea/005/a", "emea/100/b", "emea/100/ä", "emea\uffff", "emeä", "eme", "apac/001/c"):
        commit.score("worklist_prospect", entry, 0)
    await store.commit(commit)
    assert await store.last("worklist_prospect", "emea/", 2) == ["emea/100/ä", "emea/100/b"]
    assert await store.last("worklist_prospect", "emea/", 2, before="emea/100/b") == ["emea/005/a"]
    assert await store.last("worklist_prospect", "amer/", 2) == []
