"""The ranking stage: standings in, segment changes out. The single writer of segments."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from segmentation.account import Reason, Standing
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.population import Change, Direction, Member, Population, effective_at_us
from segmentation.risk import LEVELS, Level, Risk, RiskChange, Trigger
from segmentation.risk_watch import RiskWatch
from segmentation.segments import Segment
from state.documents import decode_member, encode_member
from state.shard_store import Claim, Commit, Refused, ShardStore
from streams.changes import INPUT_OFFSET, ChangeData, ChangeWriter, RiskData
from streams.dead_letters import dead_letter
from streams.instants import parse_instant
from streams.messages import (
    Descriptions,
    Mode,
    Outgoing,
    Reached,
    Standings,
    decode_outgoing,
    decode_told,
    header,
    json_object,
)
from streams.shard import CorruptState, Record, Shard
from streams.topics import TOLD_TOPICS, Topic, place_name
from streams.worklists import Worklists

log = logging.getLogger(__name__)

ToldReader = Callable[[Mapping[str, int]], AsyncIterator[tuple[Topic, Record]]]
"""Reads the compacted topics from an offset for each partition (`place_name`) to their ends."""


STANDINGS_AT_ONCE = 2_000
"""After so many standings the messages taken so far are committed."""
SHORT_READS_MAX = 5
"""After so many in a row members are lost: no store is started again, or goes back, during each of them."""
CHANGES_AT_ONCE = 1_000
"""After a silence, accounts whose changes are announced in one commit."""
WORKLISTS_SHARE = 0.03
"""Of the time while batches come, for putting accounts into their places on the worklists."""
WORKLISTS_PAUSE_SECONDS_MAX = 1.0
WORKLISTS_IDLE_SHARE = 0.5
"""While none comes: one may come."""
LOOKS_AT_ONCE = 1_000
"""Accounts that are looked at in one commit because silence may have changed their risk."""

ChangeId = tuple[Topic, str, int]
"""Of a change: the compacted topic that it is for, account and sequence."""


class RankingShard(Shard):
    """One partition of the ranking stage: the populations whose names fall on it."""

    inputs = (Topic.STANDINGS,)

    def __init__(
        self,
        store: ShardStore,
        *arguments: Any,
        policy: Policy,
        read_told: ToldReader,
        partition_of: Callable[[str], int],
        **settings: Any,
    ) -> None:
        super().__init__(store, *arguments, **settings)
        self.policy = policy
        self._policy_risk_hash = policy.risk_hash  # once: it is asked for after each batch, and takes 0.1 ms
        self._writer = ChangeWriter(policy)
        self._read_told = read_told
        self._partition_of = partition_of
        self.populations: dict[str, Population] = {}
        self._untold: list[tuple[Population, str]] = []
        self._watch = RiskWatch(self._writer.rules)
        self._worklists = Worklists(store, policy, {}, ())
        self._is_pausing = False
        """There is no time for the worklists just now."""
        self._is_busy = False
        """Whether a batch was taken since there was."""
        self._short_reads = 0
        """Claims in a row that did not find all members."""

    # -- state -------------------------------------------------------------------------------------------------------

    async def load(self, claim: Claim) -> None:
        """Read every member, and what the world was told since the store was last written."""
        state = claim.state
        self.clock_us: int = state.get("clock_us", 0)
        self.counts: dict[str, int] = {"applied": 0, "duplicates": 0, "dead_letters": 0} | state.get("counts", {})
        self.changes: int = state.get("changes", 0)
        """Of segments, announced."""
        self.sources: dict[str, Reached] = {
            source: Reached.of(reached) for source, reached in state.get("sources", {}).items()
        }
        self.begin: int = state.get("begin", 0)
        """Offset of the standings from which this state counts: older ones were of a state that was lost."""
        self.muted_until: int = state.get("muted_until", 0)
        """Offset of the standings up to which the world was already told: until it is reached nothing is announced."""
        self.backfill_until: dict[str, dict[str, int]] = state.get("backfill_until", {})
        """Of each source that is not there yet, where its inputs ended when the installation was founded, or founded
        again. Until all are there, nothing is announced."""
        self.told_days: dict[str, int] = state.get("told_days", {})
        """Of each source, the last day of which it has told all that time brings about."""
        self.watched_day: int = state.get("watched_day", 0)
        """The last day for which all accounts were looked at whose risk silence may have changed."""
        self.mode: Mode = state.get("mode", "live")
        """Of the time that passes: as the message that was taken last has it."""
        self.announcing: Mode | None = state.get("announcing")
        """A silence is over, and not all that differs from what was told is announced yet: in which mode it is."""
        with _no_garbage_collection():
            members: dict[str, list[Member]] = {}
            async for page in self.store.pages("documents"):
                for account_id, document in page.items():
                    member, population = decode_member(account_id.decode(), document)
                    members.setdefault(population, []).append(member)
            self.populations = {name: self._new_population(name, held) for name, held in members.items()}
        if self._member_count() != state.get("members", self._member_count()):
            # A server that was started again in the middle does not know how far the scan was, and goes on anywhere.
            self._short_reads += 1
            error = CorruptState if self._short_reads == SHORT_READS_MAX else Refused
            raise error(f"{self}: the store has {self._member_count()} of {state['members']} members")
        self._short_reads = 0
        self.risk_hash: str = state.get("risk_hash", self._policy_risk_hash)
        """Of the risk rules by which all accounts were looked at last. By others than this worker's, all are due."""
        self._watch = RiskWatch(
            self._writer.rules,
            (member for population in self.populations.values() for member in population.members.values()),
            all_are_due=self.risk_hash != self._policy_risk_hash,
        )
        self.described: dict[str, int] = state.get("described", {})
        """Of each source, up to which offset of its signups it has told what attributes say."""
        fields = [field async for field, _ in self.store.scan("figures")]
        self._worklists = Worklists(self.store, self.policy, self.populations, fields)
        self.due_work.set()
        await self._learn_what_was_told(claim.told)
        if self.announcing is not None:
            self._look_for_untold()

    def _new_population(self, name: str, members: Iterable[Member] = ()) -> Population:
        policy = self.policy
        population = Population(
            name, basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp, members=members
        )
        population.muted = self._is_muted
        return population

    @property
    def _is_muted(self) -> bool:
        return self._must_be_silent(self.progress[Topic.STANDINGS])

    def _must_be_silent(self, position: int) -> bool:
        """Whether the world was told more than this shard knows at a position of its input."""
        return position < self.muted_until or bool(self.backfill_until)

    def _member_count(self) -> int:
        return sum(len(population.members) for population in self.populations.values())

    def _note_end_of_backfill(self, source: str, message: Standings) -> None:
        """A message without standings says that a source has nothing left to tell up to its progress."""
        ends = self.backfill_until.get(source)
        if ends and not message.standings and all(message.progress.get(topic, 0) >= end for topic, end in ends.items()):
            del self.backfill_until[source]

    def _note_end_of_day(self, source: str, message: Standings) -> bool:
        """A message without standings also says that all is told that time brings about. Returns whether it is news."""
        day = message.clock_us // MICROSECONDS_PER_DAY
        if message.standings or day <= self.told_days.get(source, 0):
            return False
        self.told_days[source] = day
        self.due_work.set()
        return True

    def _population(self, name: str) -> Population:
        if name not in self.populations:
            self.populations[name] = self._new_population(name)
        return self.populations[name]

    async def _learn_what_was_told(self, told: dict[str, int]) -> None:
        """A store that lost its newest writes does not know its newest changes, but the world does.

        Their sequences and segments are taken over, and nothing is announced until the shard has read on to where it
        was when it made them: then only what differs is. `told` is brought to where everything before is known.
        """
        self._learned: list[tuple[Member, str]] = []
        outbox = await self._waiting_records()
        waiting = {change_id: record.value for _, change_id, record in outbox if change_id}
        until = self.muted_until
        sequences: dict[tuple[Topic, str], int] = {}
        forked: set[tuple[Topic, str]] = set()
        read: dict[str, int] = {}
        async for topic, record in self._read_told(told):
            read[place_name(topic, record.partition)] = record.offset + 1
            # most may be another shard's, which a whole check of each would take five times as long to find out
            if record.value is None or self._partition_of(json_object(record.value)["population"]) != self.partition:
                continue
            data = (RiskData if topic is Topic.RISKS else ChangeData).model_validate_json(record.value)
            chain = topic, data.account_id
            sequences[chain] = max(data.sequence, sequences.get(chain, 0))
            is_fork = waiting.get((*chain, data.sequence), record.value) != record.value and chain not in forked
            if is_fork:
                forked.add(chain)
            member = self._was_told(data, instead=is_fork)
            if member is not None:
                self._learned.append((member, data.population))
                until = max(until, int(header(record.headers, INPUT_OFFSET) or 0))
        if self._learned:
            log.warning(
                "%s: the store had lost %d changes that were announced; reading on silently to offset %d",
                *(self, len(self._learned), until),
            )
            self.muted_until = until
            if self.progress[Topic.STANDINGS] >= until:
                # They were announced without reading on, at the end of a silence: there is nothing to wait for.
                self.muted_until, self.announcing = 0, self.announcing or "live"
            for population in self.populations.values():
                population.muted = self._is_muted
            for member, _ in self._learned:
                # a fall that was learnt may raise the level, and on another day than was worked out without it
                self._watch.look(member, max(member.day, self.watched_day))
        kept = [
            entry
            for entry, change_id, _ in outbox
            if not change_id or (change_id[:2] not in forked and change_id[2] > sequences.get(change_id[:2], 0))
        ]
        if len(kept) < len(outbox):
            commit = self._commit_to(self.progress[Topic.STANDINGS])
            commit.trim, commit.outbox, commit.state = len(outbox), kept, self._state()
            await self.store.commit(commit)
            self._learned.clear()
        self._has_read = bool(read) and not self._learned
        if self._has_read:
            told |= read

    def _was_told(self, data: ChangeData | RiskData, *, instead: bool) -> Member | None:
        population, effective_at_us = self._population(data.population), parse_instant(data.effective_at)
        if isinstance(data, ChangeData):
            segment = Segment(data.current_segment)
            member = population.was_told(data.account_id, data.sequence, segment, effective_at_us, instead=instead)
            if member is not None:
                member.risk = member.risk or Risk()
                member.risk.note_change(_fall_day(data.direction, effective_at_us))
            return member
        level = Level(data.current_level)
        return population.was_told_risk(data.account_id, data.sequence, level, effective_at_us, instead=instead)

    async def _waiting_records(self) -> list[tuple[bytes, ChangeId | None, Outgoing]]:
        """What waits in the outbox, each with the change that it is.

        Some of it the world may have been told already. Told again it might follow a later change, and who reads the
        compacted topic would take it for the latest. And some may say something else than the world was told: a worker
        that slept while the store went back to where it was its own goes on there, on a way that others have gone
        already, and puts into the outbox what the broker then refuses to take from it.
        """
        if not self.publisher.is_atomic:
            return []  # one worker is the limit, and it may repeat itself
        waiting = []
        for entry in await self.store.whole_outbox():
            record, change_id = decode_outgoing(entry), None
            for topic in TOLD_TOPICS:
                if topic in record.topics:
                    account_id, _, sequence = (header(record.headers, "ce_id") or "").rpartition(":")
                    change_id = topic, account_id, int(sequence)
            waiting.append((entry, change_id, record))
        return waiting

    async def watch_reading(self) -> None:
        """And note how far was read of what the world was told, so that whoever claims the shard next need not again.

        Not at the claim itself: a worker that finds out meanwhile that it must stop writes nothing.
        """
        await super().watch_reading()
        if self.owned and self._has_read:
            self._has_read = False
            self.relay.save_told()

    def _state(self) -> dict[str, Any]:
        return {
            "clock_us": self.clock_us,
            "counts": self.counts,
            "changes": self.changes,
            "members": self._member_count(),
            "sources": {source: reached._asdict() for source, reached in self.sources.items()},
            "begin": self.begin,
            "muted_until": self.muted_until,
            "told_days": self.told_days,
            "described": self.described,
            "unplaced": self._worklists.waiting,
            "watched_day": self.watched_day,
            "risk_hash": self.risk_hash,
            "mode": self.mode,
            "announcing": self.announcing,
            "backfill_until": self.backfill_until,
        }

    # -- batches -----------------------------------------------------------------------------------------------------

    async def take(self, topic: Topic, records: Sequence[Record], end: int) -> None:
        """Apply the messages that bring news, and commit, in portions: others wait for no more than one of them."""
        self._is_busy = True
        portion: list[_Taken] = []
        standings = 0
        for record in records:
            if standings >= STANDINGS_AT_ONCE:
                await self._take_portion(portion, record.offset)
                portion, standings = [], 0
            try:
                name, message = (record.key or b"").decode(), decode_told(record.value)
            except ValueError as error:
                portion.append((record, "", error))
            else:
                portion.append((record, name, message))
                standings += len(message.standings if isinstance(message, Standings) else message.traits)
        await self._take_portion(portion, end)

    async def _take_portion(self, portion: Sequence["_Taken"], end: int) -> None:
        """Apply messages, those of one instant together, and commit."""
        out: list[Outgoing] = []
        news: list[tuple[str, Standings]] = []
        described: list[tuple[str, Descriptions]] = []
        was_silent = self.muted_until > 0 or bool(self.backfill_until)
        for record, name, message in portion:
            if isinstance(message, ValueError):
                self.counts["dead_letters"] += 1
                out.append(self._dead_letter(record, str(message)))
                continue
            source = str(message.source)
            if isinstance(message, Descriptions):
                is_news = message.signups_end >= self.described.get(source, 0)
                self.counts["applied" if is_news else "duplicates"] += 1
                if is_news:
                    self.described[source] = message.signups_end
                    described.append((name, message))
                continue
            self._note_end_of_backfill(source, message)
            reached = Reached(message.progress, message.cursor)
            ends_day = self._note_end_of_day(source, message)
            if reached.is_ahead_of(self.sources.get(source)):
                self.sources[source] = reached
            elif not ends_day and not any(map(self._population(name).is_news, message.standings)):
                self.counts["duplicates"] += 1
                continue
            self.counts["applied"] += 1
            self.mode = message.mode
            news.append((name, message))
        commit = self._commit_to(end)
        for name, descriptions in described:
            await self._worklists.describe(self._population(name), descriptions.traits, commit)
        for (name, clock_us, mode), group in groupby(news, key=_population_and_instant):
            self.clock_us = max(self.clock_us, clock_us)
            population = self._population(name)
            standings = [standing for _, message in group for standing in message.standings]
            changes, members = population.apply(standings, self.clock_us)
            out += await self._records(population, changes, mode, end)
            told = {standing.account_id: standing for standing in standings}
            noted = self._note_evidence(population, told.values(), changes)
            looked_at = {account_id: population.members[account_id] for account_id in {**told, **noted}}
            risk_changes = self._look(population, looked_at.values(), told, noted)
            out += await self._records(population, risk_changes, mode, end)
            concerned = ({member.account_id: member for member in members} | looked_at).values()
            _write(population, concerned, commit)
            self._worklists.touch(population, concerned)
        if news or described:
            self.due_work.set()
        if was_silent and not self._must_be_silent(end):
            self.muted_until = 0
            modes = [message.mode for _, _, message in portion if isinstance(message, Standings)]
            self.announcing = modes[-1] if modes else "live"
            for population in self.populations.values():
                different = [*population.unmute(), *self._levels_from_told(population)]
                _write(population, different, commit)
                self._worklists.touch(population, different)
            self._look_for_untold()
        await self._carry_out(commit, out)

    def _commit_to(self, end: int) -> Commit:
        """A commit up to this position that also holds what was learnt from the log: before anything is published, and
        the position up to which the world was told moves on, the store has to know it."""
        commit = Commit({**self.progress, Topic.STANDINGS: end}, {})
        for member, name in self._learned:
            commit.set("documents", member.account_id, encode_member(member, name))
        return commit

    async def _carry_out(self, commit: Commit, out: Sequence[Outgoing]) -> None:
        commit.state = self._state()
        await self.commit(commit, out)
        self._learned.clear()

    # -- risk --------------------------------------------------------------------------------------------------------

    def _note_evidence(
        self, population: Population, standings: Iterable[Standing], changes: Iterable[Change]
    ) -> dict[str, Trigger]:
        """Take over what happened to accounts that have purchased: told of them, or a change of tier.

        Returns what is news, by account.
        """
        noted = {}
        for standing in standings:
            member = population.members[standing.account_id]
            risk = member.risk
            if risk is None:
                continue
            news = risk.note(standing.evidence_days) if any(standing.evidence_days) else None
            if news is not None:
                noted[standing.account_id] = Trigger(news)
            # of an earlier day it is no news: whoever went back in time will come to this day again
            if standing.day >= member.day and risk.note_engagement(fell=standing.engagement_fell):
                trigger = Trigger.ENGAGEMENT_FALL if standing.engagement_fell else Trigger.EVIDENCE_OVER
                noted.setdefault(standing.account_id, trigger)
        for change in changes:
            risk = population.members[change.account_id].risk
            fall_day = _fall_day(change.direction, change.effective_at_us)
            if risk is not None and risk.note_change(fall_day):
                noted.setdefault(change.account_id, Trigger.TIER_FALL if fall_day else Trigger.EVIDENCE_OVER)
        return noted

    def _look(
        self,
        population: Population,
        members: Iterable[Member],
        told: Mapping[str, Standing] = MappingProxyType({}),
        noted: Mapping[str, Trigger] = MappingProxyType({}),
        on_day: int = 0,
    ) -> list[RiskChange]:
        """Bring the levels of these members to the day. Returns the changes, whose cause is in the rest."""
        watch, changes, watched_day = self._watch, [], max(self.watched_day, on_day)
        for member in members:
            risk = member.risk
            if risk is None:
                continue
            day, before = member.day if member.day > watched_day else watched_day, risk.level
            odds = watch.look(member, day)
            if risk.level is risk.told_level or population.muted or not risk.days_bought:
                continue
            own = told.get(member.account_id)
            if own is not None and own.reason not in (Reason.PURCHASE, Reason.REFUND):
                own = None
            if member.account_id in noted:
                trigger = noted[member.account_id]
            elif own is not None:
                trigger = Trigger.PURCHASE
            else:
                is_calmer = LEVELS.index(risk.level) < LEVELS.index(before)
                trigger = Trigger.EVIDENCE_OVER if is_calmer else Trigger.SILENCE
            changes.append(
                watch.change(
                    member,
                    population.name,
                    day,
                    odds,
                    trigger=trigger,
                    event_id=own.event_id if own is not None else None,
                    effective_at_us=effective_at_us(own, self.clock_us),
                )
            )
        return changes

    def _levels_from_told(self, population: Population) -> list[Member]:
        """After a silence levels go on from those that were told, as tiers do. Returns who is different now. O(n)."""
        changed = []
        for member in population.members.values():
            if member.is_risk_untold:
                self._watch.look(member, max(member.day, self.watched_day), from_told=True)
                changed.append(member)
        return changed

    async def _watch_silence(self) -> bool:
        """Look at one chunk of the accounts whose level silence may have changed. Returns whether there may be more."""
        day = min(self.told_days.values(), default=0)
        is_judged_anew = self.risk_hash != self._policy_risk_hash
        if self.watched_day >= day and not is_judged_anew:
            return False
        due = self._watch.due(day, LOOKS_AT_ONCE)
        commit = self._commit_to(self.progress[Topic.STANDINGS])
        out: list[Outgoing] = []
        if len(due) < LOOKS_AT_ONCE:
            self.watched_day = max(day, self.watched_day)
            self.risk_hash = self._policy_risk_hash
        noted = {member.account_id: Trigger.POLICY_CHANGED for member in due} if is_judged_anew else {}
        for population in self.populations.values():
            members = [member for member in due if population.members.get(member.account_id) is member]
            changes = self._look(population, members, noted=noted, on_day=day)
            _write(population, members, commit)
            self._worklists.touch(population, members)
            out += await self._records(population, changes, self.mode, self.progress[Topic.STANDINGS])
        await self._carry_out(commit, out)
        return self.watched_day < day or self.risk_hash != self._policy_risk_hash

    # -- work that no record brings ----------------------------------------------------------------------------------

    def _look_for_untold(self) -> None:
        self._untold = [
            (population, account_id)
            for population in self.populations.values()
            for account_id in reversed(population.untold())
        ]
        self.due_work.set()

    async def due(self) -> bool:
        """After a silence, announce one chunk of what differs from what was told; else watch the accounts' silence.

        Where there is none of that to do, put accounts into their places on the worklists.
        """
        if self.announcing is None or self._is_muted:
            if await self._watch_silence():
                return True
            await self._bring_worklists()
            return False
        position, out = self.progress[Topic.STANDINGS], []
        commit = self._commit_to(position)
        chunk, self._untold = self._untold[-CHANGES_AT_ONCE:], self._untold[:-CHANGES_AT_ONCE]
        for population, untold in groupby(reversed(chunk), key=itemgetter(0)):
            account_ids = [account_id for _, account_id in untold]
            changes, _ = population.announce(account_ids, self.clock_us)
            out += await self._records(population, changes, self.announcing, position)
            self._note_evidence(population, (), changes)
            looked_at = [population.members[account_id] for account_id in account_ids]
            recovered = dict.fromkeys(account_ids, Trigger.RECOVERED)
            risk_changes = self._look(population, looked_at, noted=recovered)
            out += await self._records(population, risk_changes, self.announcing, position)
            _write(population, looked_at, commit)
        if not self._untold:
            self.announcing = None
        await self._carry_out(commit, out)
        return True

    async def _bring_worklists(self) -> None:
        """Bring one chunk of the accounts to where they are on the worklists, if it is time for that.

        While batches come, with pauses that leave it no more than a part of the time. Nothing else waits in them: the
        work is woken when they are over.
        """
        day, loop = self.clock_us // MICROSECONDS_PER_DAY, asyncio.get_running_loop()
        if not day or self._is_muted or self._is_pausing:
            return
        if self.mode == "live":  # in a replay a day takes no time
            self._worklists.sweep(day)
        if not self._worklists.waiting:
            return
        began = loop.time()
        commit = self._commit_to(self.progress[Topic.STANDINGS])
        if await self._worklists.bring(day, commit):
            await self._carry_out(commit, [])
        is_busy, self._is_busy = self._is_busy, False
        pause_seconds = (loop.time() - began) / (WORKLISTS_SHARE if is_busy else WORKLISTS_IDLE_SHARE)
        self._is_pausing = True
        loop.call_later(min(pause_seconds, WORKLISTS_PAUSE_SECONDS_MAX), self._end_pause)

    def _end_pause(self) -> None:
        self._is_pausing = False
        self.due_work.set()

    async def _records(
        self, population: Population, changes: Sequence[Change | RiskChange], mode: Mode, end: int
    ) -> list[Outgoing]:
        self.changes += sum(isinstance(change, Change) for change in changes)
        needs = {}
        if self.policy.needs and changes:
            needs = await self._worklists.needs(population, [change.account_id for change in changes])
        return self._writer.records(changes, mode, input_offset=end, recorded_at_us=self.wall_clock(), needs=needs)

    def _dead_letter(self, record: Record, message: str) -> Outgoing:
        return dead_letter(
            reason="bad_standings",
            message=message,
            topic=Topic.STANDINGS,
            partition=self.partition,
            offset=record.offset,
            timestamp_ms=self.wall_clock() // 1000,
            key=record.key,
            payload=record.value,
            headers=record.headers,
        )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """What is loaded stays: to look through it again and again takes an eighth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


_Taken = tuple[Record, str, Standings | Descriptions | ValueError]
"""A record, and the population and what is told in it, or what is wrong with it."""


def _population_and_instant(news: tuple[str, Standings]) -> tuple[str, int, Mode]:
    name, message = news
    return name, message.clock_us, message.mode


def _fall_day(direction: str, effective_at_us: int) -> int:
    """The day of a change that is a fall of tier; 0 for another one."""
    return effective_at_us // MICROSECONDS_PER_DAY if direction == Direction.DOWN else 0


def _write(population: Population, members: Iterable[Member], commit: Commit) -> None:
    name = population.name
    documents = commit.sets.setdefault("documents", {})
    for member in members:
        documents[member.account_id] = encode_member(member, name)
