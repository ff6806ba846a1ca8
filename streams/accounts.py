"""The account stage: events and ticks of one partition in, standings out.

Time never overtakes data: a tick names the end of each input when it was made, and is held back until the shard has
applied everything before. What is due when a tick has passed is done in chunks, between batches.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from redis.exceptions import RedisError

from segmentation.account import NEVER, NO_DAY, Account, Reason, Standing, entry_id_of, reason_of
from segmentation.application import refusals, touches_accounts
from segmentation.classification import Classifier, attributes_of
from segmentation.events import MICROSECONDS_PER_DAY, Event, Purchase
from segmentation.ledger import Ledger
from segmentation.policy import Policy
from segmentation.transfers import Departure
from state.documents import decode_account, decode_profile, encode_account, encode_profile, policy_parity
from state.founding import AppliedPolicy
from state.shard_store import Claim, Commit, ShardStore
from streams.applying import RuledShard
from streams.dead_letters import dead_letter
from streams.messages import (
    Description,
    Descriptions,
    Mode,
    NewPolicy,
    Outgoing,
    PolicySwitch,
    Reached,
    Standings,
    Tick,
    decode_tick_or_switch,
    encode_descriptions,
    encode_new_policy,
    encode_standings,
)
from streams.shard import CorruptState, Record
from streams.topics import ACCOUNT_INPUTS, Topic
from streams.wire import BadRecord, Decoder

log = logging.getLogger(__name__)

DESCRIBED_AT_ONCE = 250
"""Accounts of which one message says what their attributes say: at most 3 KB each, and a broker takes 1 MB."""
DESCRIBE_PAUSE_SECONDS = 0.05
"""After each of these, and each chunk of accounts that are worked out by another policy: purchases wait behind them in
the ranking stage."""

PACE_SECONDS = 0.01
PACE_SECONDS_MAX = 1.0
"""How often due work looks whether the ranking stage has taken what it told, and how long it waits for it: if nobody
owns that shard just now, others of the same population may still be told."""

LOOKS_IN_VAIN_MAX = 5
"""Scans in a row that do not find accounts of which the shard knows that they are there."""

_KINDS: dict[Topic, Literal["purchase", "signup", "engagement"]] = {
    Topic.PURCHASES: "purchase",
    Topic.SIGNUPS: "signup",
    Topic.ENGAGEMENTS: "engagement",
}


_New = tuple[Event, bytes]
"""An event, with its entry id."""


class _HeldTick(NamedTuple):
    record: Record
    tick: Tick | PolicySwitch | None
    """None: it is neither."""
    error: str = ""


class AccountShard(RuledShard):
    """One partition of the account stage."""

    inputs = ACCOUNT_INPUTS

    def __init__(
        self,
        store: ShardStore,
        *arguments: Any,
        partitions: int,
        cache_accounts: int,
        due_chunk_accounts: int,
        ranking: Callable[[int], ShardStore],
        ranking_of: Callable[[str], int],
        **settings: Any,
    ) -> None:
        super().__init__(store, *arguments, **settings)
        self.cache_accounts = cache_accounts
        self.due_chunk_accounts = due_chunk_accounts
        self._partitions = partitions
        self._ranking = ranking
        """Of the shards that rank these accounts; only looked at."""
        self._ranking_of = ranking_of
        """The partition of the ranking shard that has a population."""
        self._young: dict[str, Account] = {}
        self._old: dict[str, Account] = {}
        """The cache in two halves: who is used is young, and the old ones go when the young half is full. One dict in
        order of use would not do: its first entry is found only after all that were deleted before it."""
        self._held: list[_HeldTick] = []

    # -- state -------------------------------------------------------------------------------------------------------

    async def load(self, claim: Claim) -> None:
        """Begin with an empty cache."""
        state = claim.state
        await self._take_policy(state)
        self.decoder = Decoder(self.policy, self._partitions, cached_accounts=self.cache_accounts)
        self.policies_of_accounts: int = state.get("policies_of_accounts", 0)
        """How many of the applied policies made accounts be worked out anew."""
        self.not_anew: int = state.get("not_anew", 0)
        """Accounts that are not worked out by the policy yet."""
        self._old_window_days: int = state.get("old_window_days", 0)
        """By which these are worked out."""
        self._to_work_out: AsyncIterator[tuple[str, bytes]] | None = None
        """The accounts among which these are looked for; None: it has not begun."""
        self._looks_in_vain = 0
        self.clock_us: int = state.get("clock_us", 0)
        self.mode: Mode | None = state.get("mode")
        """Of the last tick; None before the first one."""
        cursor = state.get("cursor")
        self.cursor: tuple[int, str] | None = (cursor[0], cursor[1]) if cursor else None
        """Every account due up to this (due day, account) was done. It only grows: due days lie ahead of the clock."""
        self.counts: dict[str, dict[str, int]] = {
            topic: {"applied": 0, "duplicates": 0, "dead_letters": 0} | state.get("counts", {}).get(topic, {})
            for topic in self.inputs
        }
        self.unknown_fields: int = state.get("unknown_fields", 0)
        self.sent: dict[str, dict[str, Any]] = state.get("sent", {})
        """Of each ranking shard, how far the newest standings that it was sent bring this one."""
        self.told_day: int = state.get("told_day", NO_DAY)
        """The last day of which the ranking stage was told that all that time brings about on it is told."""
        self.backfill_until: dict[str, int] | None = state.get("backfill_until")
        """Where the inputs ended when this shard was founded. Once it is there, and has done what the first tick makes
        due, it tells the ranking stage: everything before was backfill."""
        self.described: dict[str, int] = state.get("described", {})
        """Of each ranking shard, up to which offset of the signups it was told what attributes say."""
        self.classification_hash: str = state.get("classification_hash", self._policy_classification_hash)
        """By which rules it was told so of all accounts. Where they are others now, it is told again of each."""
        self._to_describe: AsyncIterator[tuple[str, bytes]] | None = None
        """The profiles of which that is still to be done; None: it has not begun."""
        self._is_to_pause = False
        self._young, self._old = {}, {}
        self._held.clear()
        self._told_of: list[tuple[tuple[int, str], list[int]]] = []
        """Up to where the last two chunks of due work that had something to tell were done, and whom they told."""
        self.due_work.set()

    def _state(self) -> dict[str, Any]:
        return {
            "clock_us": self.clock_us,
            "mode": self.mode,
            "cursor": self.cursor,
            "counts": self.counts,
            "unknown_fields": self.unknown_fields + self.decoder.unknown_fields,
            "sent": self.sent,
            "told_day": self.told_day,
            "described": self.described,
            "classification_hash": self.classification_hash,
            "backfill_until": self.backfill_until,
            "policy": self.applied and [*self.applied],
            "policies_of_accounts": self.policies_of_accounts,
            "not_anew": self.not_anew,
            "old_window_days": self._old_window_days,
        }

    def _go_by(self, policy: Policy) -> None:
        self.policy = policy
        self._classifier = Classifier.of(policy)
        self._policy_classification_hash = policy.classification_hash  # once: it takes 0.1 ms

    @property
    def day(self) -> int:
        """The clock's day; NO_DAY before the first tick."""
        return self.clock_us // MICROSECONDS_PER_DAY if self.mode else NO_DAY

    # -- batches -----------------------------------------------------------------------------------------------------

    async def take(self, topic: Topic, records: Sequence[Record], end: int) -> None:
        """Apply events at once; hold ticks until their time has come."""
        if topic is Topic.TICKS:
            await self._take_ticks(records, end)
        else:
            await self._take_events(topic, records, end)
        await self._apply_held_ticks()
        if self.backfill_until is not None:
            self.due_work.set()

    async def _take_events(self, topic: Topic, records: Sequence[Record], end: int) -> None:
        counts = self.counts[topic]
        out: list[Outgoing] = []
        news: dict[str, list[_New]] = {}
        decode, kind = self.decoder.decode, _KINDS[topic]
        for record in records:
            try:
                event = decode(kind, self.partition, record.timestamp, record.key, record.value)
            except BadRecord as bad:
                counts["dead_letters"] += 1
                out.append(self._dead_letter(topic, record, bad.reason, bad.message))
                continue
            new = event, entry_id_of(event)
            known = news.get(event.account_id)
            if known is None:
                news[event.account_id] = [new]
            else:
                known.append(new)
        commit = Commit({**self.progress, topic: end}, {})
        accounts = await self._accounts_for(topic, news)
        departures: list[Departure] = []
        standings = self._apply(topic, news, accounts, commit, departures)
        self._write(accounts.values(), topic, commit)
        if topic is Topic.SIGNUPS:
            # before the standings: the playbook of the first change depends on what an account needs
            self._describe([a for a in accounts.values() if a.profile is not None and a.profile.changed], commit, out)
        self._send(standings, commit, out, departures)
        commit.state = self._state()
        await self.commit(commit, out)
        for account in accounts.values():
            _saved(account)
        self._evict()

    def _describe(self, accounts: Iterable[Account], commit: Commit, out: list[Outgoing]) -> None:
        """Put what the attributes of these accounts say, whose profiles are loaded, among the records to send."""
        descriptions: dict[int, list[Description]] = {}
        for account in accounts:
            assert account.profile is not None
            traits, population = self._classifier.traits(attributes_of(account.profile)), self._population_of(account)
            described = Description(account.account_id, population, account.transfers, traits)
            descriptions.setdefault(self._ranking_of(population), []).append(described)
        signups_end = commit.progress[Topic.SIGNUPS]
        for number, its in descriptions.items():
            self.described[str(number)] = signups_end
            for first in range(0, len(its), DESCRIBED_AT_ONCE):
                message = Descriptions(self.partition, signups_end, its[first : first + DESCRIBED_AT_ONCE])
                out.append(self._to_ranking(number, encode_descriptions(message)))

    def _to_ranking(self, number: int, value: bytes) -> Outgoing:
        return Outgoing([Topic.STANDINGS], None, value, [], self.wall_clock() // 1000, number)

    def _population_of(self, account: Account) -> str:
        return account.population or self._classifier.home

    def _transfer(self, account: Account) -> Departure | None:
        """Move the account to where its attributes say that it belongs, after each signup."""
        assert account.profile is not None
        before, population = self._population_of(account), self._classifier.population(account.profile)
        if population == before:
            return None
        account.population = population
        account.transfers += 1
        return Departure(account.account_id, account.transfers, before, population)

    def _apply(
        self,
        topic: Topic,
        news: dict[str, list[_New]],
        accounts: dict[str, Account],
        commit: Commit,
        departures: list[Departure],
    ) -> list[Standing]:
        """Apply the events of one topic to the accounts. Returns the standings that are different now."""
        policy, day, new_start_days = self.policy, self.day, self.policy.new_start_days
        is_money, may_move = topic is Topic.PURCHASES, topic is Topic.SIGNUPS and self._classifier.has_populations
        is_switching, home, window_days = self.not_anew > 0, self._classifier.home, policy.window_days
        applied = duplicates = 0
        standings = []
        for account_id, events in news.items():
            account = accounts[account_id]
            stage_before, revenue_minor = account.stage(new_start_days), account.revenue_minor
            evidence = account.evidence_days, account.engagement_fell
            due_day = account.due_day
            if not account.version:
                due_day, account.version = NEVER, 1 + self.policies_of_accounts  # it is in no due index yet
            advanced = self._advance(account) if is_switching else account.advance(day, policy)
            cause: Event | None = None
            mover: Event | None = None
            for event, entry_id in events:
                if account.apply(event, entry_id, policy):
                    applied += 1
                    cause = event
                    if may_move and (departure := self._transfer(account)) is not None:
                        departures.append(departure)
                        mover = event
                else:
                    duplicates += 1
            stage = account.stage(new_start_days)
            # Also where several effects cancel each other out: another order of reading may have told one of them.
            if day != NO_DAY and (
                (is_money and cause is not None)
                or advanced is not None
                or account.revenue_minor != revenue_minor
                or stage is not stage_before
                or (account.evidence_days, account.engagement_fell) != evidence
                or mover is not None
                or not account.announced
            ):
                population = account.population or home
                standings.append(standing_of(account, stage, advanced, cause, window_days, population, mover=mover))
            if account.due_day != due_day:
                commit.score("due", account_id, account.due_day if account.due_day != NEVER else None)
        counts = self.counts[topic]
        counts["applied"] += applied
        counts["duplicates"] += duplicates
        return standings

    def _write(self, accounts: Iterable[Account], topic: Topic | None, commit: Commit) -> None:
        """Put what changed of the accounts into the commit."""
        documents = commit.sets.setdefault("documents", {})
        for account in accounts:
            account_id = account.account_id
            documents[account_id] = encode_account(account)
            if account.history.index_changed:
                _write_blocks(commit, "history", account_id, account.history)
            if account.engagements is not None and topic is Topic.ENGAGEMENTS:
                commit.set("engagements", account_id, bytes(account.engagements.open))
                if account.engagements.index_changed:
                    _write_blocks(commit, "engagements", account_id, account.engagements)
            if account.profile is not None and account.profile.changed:
                commit.set("profiles", account_id, encode_profile(account.profile))

    def _send(
        self, standings: list[Standing], commit: Commit, out: list[Outgoing], departures: Iterable[Departure] = ()
    ) -> list[int]:
        """Put the standings and departures among the records to send. Returns the ranking shards that are told.

        Those that accounts leave first: where they come to waits for them.
        """
        of_population: dict[str, tuple[list[Standing], list[Departure]]] = {}
        for departure in departures:
            of_population.setdefault(departure.population, ([], []))[1].append(departure)
        for standing in standings:
            name = standing.population
            if name not in of_population:
                of_population[name] = [], []
            of_population[name][0].append(standing)
        told: dict[int, tuple[list[Standing], list[Departure]]] = {}
        for name, (its, leaving) in of_population.items():
            of_shard = told.setdefault(self._ranking_of(name), ([], []))
            of_shard[0].extend(its)
            of_shard[1].extend(leaving)
        for number, (its, leaving) in told.items():
            out.append(self._standings(number, its, leaving, commit))
        return [*told]

    def _standings(
        self, number: int, standings: list[Standing], departures: list[Departure], commit: Commit
    ) -> Outgoing:
        mode: Mode = self.mode or "live"
        if self.backfill_until is not None and mode == "live":
            mode = "backfill"
        message = Standings(self.partition, commit.progress, self.cursor, self.clock_us, mode, standings, departures)
        self.sent[str(number)] = {"progress": commit.progress, "cursor": self.cursor}
        return self._to_ranking(number, encode_standings(message))

    def _dead_letter(self, topic: Topic, record: Record, reason: str, message: str) -> Outgoing:
        return dead_letter(
            reason=reason,
            message=message,
            topic=topic,
            partition=self.partition,
            offset=record.offset,
            timestamp_ms=self.wall_clock() // 1000,
            key=record.key,
            payload=record.value,
            headers=record.headers,
        )

    # -- accounts ----------------------------------------------------------------------------------------------------

    async def _accounts_for(self, topic: Topic, news: dict[str, list[_New]]) -> dict[str, Account]:
        """The accounts of the events, with everything loaded that the events need. A new one is empty."""
        accounts = await self._load(news, create=True)
        if topic is Topic.ENGAGEMENTS:
            await self._load_engagements(accounts, news)
        else:
            await self._load_blocks(accounts, news)
        if topic is Topic.SIGNUPS:
            missing = [account for account in accounts.values() if account.profile is None]
            documents = await self.store.load("profiles", [account.account_id for account in missing])
            for account, document in zip(missing, documents, strict=True):
                account.profile = decode_profile(document)
        return accounts

    async def _load(self, account_ids: Iterable[str], *, create: bool) -> dict[str, Account]:
        young, old, found, missing = self._young, self._old, {}, []
        for account_id in account_ids:
            account = young.get(account_id)
            if account is None:
                account = old.pop(account_id, None)
                if account is None:
                    missing.append(account_id)
                    continue
                young[account_id] = account
            found[account_id] = account
        if missing:
            documents = await self.store.load("documents", missing)
            known = [account_id for account_id, document in zip(missing, documents, strict=True) if document]
            indexes = await self.store.load("history", [f"{account_id}|index" for account_id in known])
            index_of = dict(zip(known, indexes, strict=True))
            for account_id, document in zip(missing, documents, strict=True):
                if document is not None:
                    account = decode_account(account_id, document, index_of[account_id])
                elif create:
                    account = Account(account_id, policy_parity=self.policies_of_accounts & 1)
                else:
                    raise CorruptState(f"{self}: account {account_id} is due but has no document")
                found[account_id] = young[account_id] = account
        return found

    async def _load_blocks(self, accounts: dict[str, Account], news: dict[str, list[_New]]) -> None:
        """The closed blocks that bringing the accounts to the day, and these events, need."""
        wanted = [
            (account.history, number, f"{account_id}|{number}")
            for account_id, account in accounts.items()
            if account.history.index
            for number in account.blocks_needed(
                self.day,
                self.policy,
                [entry_id for _, entry_id in news.get(account_id, ())],
                is_policy_new=self._is_old(account.policy_parity),
            )
        ]
        await self._load_into(wanted, "history")

    async def _load_engagements(self, accounts: dict[str, Account], news: dict[str, list[_New]]) -> None:
        missing = [account for account in accounts.values() if account.engagements is None]
        fields = [field for account in missing for field in (account.account_id, f"{account.account_id}|index")]
        documents = await self.store.load("engagements", fields)
        for number, account in enumerate(missing):
            account.engagements = Ledger(documents[2 * number] or b"", documents[2 * number + 1] or b"")
        wanted = [
            (ledger, number, f"{account_id}|{number}")
            for account_id, account in accounts.items()
            if (ledger := account.engagements) is not None and ledger.index
            for number in sorted({n for _, entry_id in news[account_id] for n in ledger.blocks_for_id(entry_id)})
        ]
        await self._load_into(wanted, "engagements")
        await self._load_blocks(accounts, {})

    async def _load_into(self, wanted: list[tuple[Ledger, int, str]], name: str) -> None:
        blocks = await self.store.load(name, [field for _, _, field in wanted])
        for (ledger, number, field), block in zip(wanted, blocks, strict=True):
            if block is None:
                raise CorruptState(f"{self}: block {field} of the {name} is missing")
            ledger.blocks[number] = block

    def _evict(self) -> None:
        """Keep the cache within its bound: the accounts that were not used for long go. O(1)."""
        if 2 * len(self._young) >= self.cache_accounts:
            self._young, self._old = {}, self._young

    # -- time --------------------------------------------------------------------------------------------------------

    async def _take_ticks(self, records: Sequence[Record], end: int) -> None:
        """Hold the ticks until their time has come; what is no tick waits its turn among them."""
        for record in records:
            try:
                self._held.append(_HeldTick(record, decode_tick_or_switch(record.value)))
            except ValueError as error:
                self._held.append(_HeldTick(record, None, str(error)))

    async def _apply_held_ticks(self) -> None:
        """Apply what is held, ticks and policies, as far as no data before it is missing."""
        while self._held:
            first = self._held[0]
            if not isinstance(first.tick, PolicySwitch):
                if not await self._apply_ticks():
                    return
            elif self.not_anew or not self._is_reached(first.tick):
                return  # one policy after the other
            else:
                await self._apply_switch(first.record, first.tick)

    async def _apply_ticks(self) -> bool:
        """Apply the ticks up to the last one before which no data is missing. The clock never goes back.

        No further than to a policy. Returns whether there were any.
        """
        ready = 0
        for count, held in enumerate(self._held, 1):
            if isinstance(held.tick, PolicySwitch):
                break
            if self._is_reached(held.tick) if held.tick else ready == count - 1:
                ready = count
        if not ready:
            return False
        counts, out = self.counts[Topic.TICKS], []
        day = self.day
        for record, tick, error in self._held[:ready]:
            assert not isinstance(tick, PolicySwitch)
            if tick is not None and tick.mode == "replay" and self.mode == "live":
                tick, error = (
                    None,
                    "a replay cannot tick where live time has ticked: use a fresh installation",
                )
            if tick is None:
                counts["dead_letters"] += 1
                out.append(self._dead_letter(Topic.TICKS, record, "bad_tick", error))
                continue
            counts["applied"] += 1
            self.mode = tick.mode
            self.clock_us = max(self.clock_us, tick.at_us)
        end = self._held[ready - 1].record.offset + 1
        del self._held[:ready]
        await self.commit(Commit({**self.progress, Topic.TICKS: end}, self._state()), out)
        if self.day != day:
            self.due_work.set()
        return True

    async def _apply_switch(self, record: Record, switch: PolicySwitch) -> None:
        """Go by another policy from now on, and say so; the accounts follow one by one."""
        applied, counts, out = switch.applied, self.counts[Topic.TICKS], list[Outgoing]()
        commit = Commit({**self.progress, Topic.TICKS: record.offset + 1}, {})
        until = self.backfill_until
        asked = Policy.of(applied.policy, self.policy.canonical_rest())
        if applied == self.applied or (until is not None and record.offset < until[Topic.TICKS]):
            # told again, or from before the installation was founded anew: that was by the newest policy
            counts["duplicates"] += 1
        elif problems := self._refusals(applied, asked):
            counts["dead_letters"] += 1
            out.append(self._dead_letter(Topic.TICKS, record, "bad_policy", "; ".join(problems)))
        else:
            counts["applied"] += 1
            before = self.policy
            self._go_by(await self._policy_of(applied))
            self.applied = applied
            log.info("%s goes by policy %d (%s) from now on", self, applied.number, self.policy.version)
            is_retold = touches_accounts(before, asked)
            if is_retold:
                self.policies_of_accounts += 1
                self.not_anew = await self.store.count("documents")
                self._old_window_days = before.window_days
            self.told_day = NO_DAY  # the end of the day is told once more: then all is told by this policy
            message = encode_new_policy(NewPolicy(self.partition, record.offset + 1, is_retold, applied))
            out += [self._to_ranking(number, message) for number in range(self._partitions)]
        del self._held[0]
        commit.state = self._state()
        await self.commit(commit, out)
        self.due_work.set()

    def _refusals(self, applied: AppliedPolicy, asked: Policy) -> list[str]:
        if self.applied is not None and applied.number <= self.applied.number:
            return [f"policy {applied.number} after policy {self.applied.number}"]
        return refusals(self.policy, asked)

    def _is_old(self, policy_parity: int) -> bool:
        """Whether an account is not worked out by the policy yet."""
        return self.not_anew > 0 and policy_parity != self.policies_of_accounts & 1

    def _advance(self, account: Account) -> Reason | None:
        """Bring an account to the clock's day, and to the policy."""
        if not self._is_old(account.policy_parity):
            return account.advance(self.day, self.policy)
        self.not_anew -= 1
        return account.advance(self.day, self.policy, old_window_days=self._old_window_days)

    def _is_reached(self, tick: Tick | PolicySwitch) -> bool:
        return all(self.position.get(topic, 0) >= end for topic, end in tick.ends.items())

    async def due(self) -> bool:
        """Bring one chunk of the accounts that are due to the clock's day; else of those that go by an old policy.

        With the last one that did, a next policy may follow.
        """
        due = await self.store.due(self.day, self.due_chunk_accounts) if self.day != NO_DAY else []
        if not due:
            if self.not_anew:
                await self._work_out_anew()
                await self._apply_held_ticks()
                return True
            if self.classification_hash != self._policy_classification_hash:
                await self._describe_again()
                return True
            if self.day != NO_DAY:
                await self._end_day()
            return False
        last_account, last_day = due[-1]
        self.cursor = (last_day, last_account)
        if told := await self._bring_to_day([account_id for account_id, _ in due]):
            self._told_of = [*self._told_of[-1:], (self.cursor, told)]
        await self._apply_held_ticks()
        return True

    async def _bring_to_day(self, account_ids: Iterable[str]) -> list[int]:
        """Bring accounts to the clock's day and to the policy. Returns the ranking shards that are told of it."""
        accounts = await self._load(account_ids, create=False)
        await self._load_blocks(accounts, {})
        commit = Commit(self.progress, {})
        new_start_days = self.policy.new_start_days
        standings = []
        for account in accounts.values():
            advanced = self._advance(account)
            if self.day != NO_DAY and (not account.announced or advanced is not None):
                stage, population = account.stage(new_start_days), self._population_of(account)
                standings.append(standing_of(account, stage, advanced, None, self.policy.window_days, population))
            commit.score("due", account.account_id, account.due_day if account.due_day != NEVER else None)
        self._write(accounts.values(), None, commit)
        out: list[Outgoing] = []
        told = self._send(standings, commit, out)
        commit.state = self._state()
        await self.commit(commit, out)
        for account in accounts.values():
            _saved(account)
        self._evict()
        return told

    async def _work_out_anew(self) -> None:
        """Bring one chunk of the accounts that go by an old policy to the new one. Raises CorruptState."""
        if self._to_work_out is None:
            self._to_work_out = self.store.scan("documents")
        account_ids: list[str] = []
        async for account_id, document in self._to_work_out:
            if self._is_old(policy_parity(document)):
                account_ids.append(account_id)
                if len(account_ids) == self.due_chunk_accounts:
                    break
        else:
            self._to_work_out = None
        before = self.not_anew
        if account_ids:
            self._is_to_pause = True
            await self._bring_to_day(account_ids)
        if self.not_anew < before:
            self._looks_in_vain = 0
        elif self._to_work_out is None:
            # a server that was started again in the middle does not know how far the scan was
            self._looks_in_vain += 1
            if self._looks_in_vain == LOOKS_IN_VAIN_MAX:
                raise CorruptState(f"{self}: {before} accounts that are to be worked out anew are not there")

    async def _describe_again(self) -> None:
        """Tell of one chunk of the accounts what their attributes say by rules that are others than before."""
        if self._to_describe is None:
            self._to_describe = self.store.scan("profiles")
        account_ids: list[str] = []
        async for account_id, _ in self._to_describe:
            account_ids.append(account_id)
            if len(account_ids) == DESCRIBED_AT_ONCE:
                break
        else:
            self._to_describe, self.classification_hash = None, self._policy_classification_hash
        # as they are now: the scan is ahead of it by what it read at once, and signups may have come since
        accounts = await self._load(account_ids, create=False)
        documents = await self.store.load("profiles", accounts)
        for account, document in zip(accounts.values(), documents, strict=True):
            account.profile = decode_profile(document)
        self._is_to_pause = True
        commit = Commit(self.progress, {})
        out: list[Outgoing] = []
        self._describe(accounts.values(), commit, out)
        commit.state = self._state()
        await self.commit(commit, out)

    async def pace(self) -> None:
        """No more than two chunks of due work on their way to the ranking stage: a purchase waits behind them there."""
        await super().pace()
        if self._is_to_pause:
            self._is_to_pause = False
            await asyncio.sleep(DESCRIBE_PAUSE_SECONDS)
        until = asyncio.get_running_loop().time() + PACE_SECONDS_MAX
        while len(self._told_of) == 2 and not await self._are_taken(*self._told_of[0]):
            if asyncio.get_running_loop().time() >= until:
                return
            await asyncio.sleep(PACE_SECONDS)

    async def _are_taken(self, cursor: tuple[int, str], told: Iterable[int]) -> bool:
        for number in told:
            try:
                ranking = await self._ranking(number).peek()
            except (RedisError, OSError):
                return True  # whoever writes next will see to it
            reached = ranking.state.get("sources", {}).get(str(self.partition)) if ranking else None
            if reached is not None and (Reached.of(reached).cursor or cursor) < cursor:
                return False
        return True

    async def _end_day(self) -> None:
        """Nothing is due any more. Tell so of a new day, and once all that the log held in the beginning is applied."""
        until = self.backfill_until
        is_end_of_backfill = until is not None and all(self.progress[topic] >= end for topic, end in until.items())
        if self.day == self.told_day and not is_end_of_backfill:
            return
        commit = Commit(self.progress, {})
        messages = [self._standings(number, [], [], commit) for number in range(self._partitions)]
        self.told_day = self.day
        if is_end_of_backfill:
            self.backfill_until = None
        commit.state = self._state()
        await self.commit(commit, messages)


def standing_of(
    account: Account,
    stage: str,
    advanced: Reason | None,
    cause: Event | None,
    window_days: int,
    population: str,
    *,
    mover: Event | None = None,
) -> Standing:
    """The account's standing, with what caused it: an event that moves money or is the account's first, else time.

    mover: the signup that moved it to its population just now.
    """
    first, account.announced = not account.announced, True
    if mover is not None and not first:
        reason, event_id, occurred_at_us = Reason.POPULATION_CHANGED, mover.event_id, mover.occurred_at_us
    elif cause is not None and (first or isinstance(cause, Purchase)):
        reason, event_id, occurred_at_us = reason_of(cause), cause.event_id, cause.occurred_at_us
    else:
        reason, event_id, occurred_at_us = (
            Reason.BACKFILL if first else advanced or Reason.BACKFILL,
            None,
            None,
        )
    bought = account.purchase_days.history(account.day)
    return Standing(
        account.account_id,
        stage,
        account.revenue_minor,
        account.version,
        account.day,
        reason,
        event_id,
        occurred_at_us,
        *(
            (account.purchase_days.first_day, account.day - bought.silent_days, bought.repeats + 1)
            if bought
            else (0, 0, 0)
        ),
        account.evidence_days,
        account.purchase_days.count(account.day - window_days, account.day),
        account.engagement_fell,
        population,
        account.transfers,
    )


def _write_blocks(commit: Commit, name: str, account_id: str, ledger: Ledger) -> None:
    if ledger.index:
        commit.set(name, f"{account_id}|index", ledger.index)
    else:
        commit.delete(name, f"{account_id}|index")
    for number in ledger.removed:
        commit.delete(name, f"{account_id}|{number}")
    for number in ledger.created:
        commit.set(name, f"{account_id}|{number}", ledger.blocks[number])


def _saved(account: Account) -> None:
    if account.history.index_changed or account.history.blocks:
        account.history.saved()
    if account.engagements is not None:
        account.engagements.saved()
    if account.profile is not None:
        account.profile.changed = False
