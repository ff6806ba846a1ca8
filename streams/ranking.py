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
from segmentation.population import CauseKind, Change, Member, Population, effective_at_us, fall_day
from segmentation.risk import LEVELS, RiskChange, Trigger
from segmentation.risk_watch import RiskWatch
from segmentation.transfers import HandOver
from segmentation.worklist import SEPARATOR
from state.documents import decode_member, decode_transfer, encode_member, encode_transfer
from state.shard_store import Claim, Commit, Refused, ShardStore
from streams.applying import RuledShard, applied_of
from streams.changes import INPUT_OFFSET, ChangeWriter
from streams.dead_letters import dead_letter
from streams.messages import (
    ChangeMode,
    Description,
    Descriptions,
    HandedOver,
    Mode,
    NewPolicy,
    Outgoing,
    Reached,
    Standings,
    decode_told,
    encode_hand_over,
)
from streams.shard import CorruptState, Record
from streams.told import learn
from streams.topics import Topic
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

Message = Standings | Descriptions | HandedOver | NewPolicy


class RankingShard(RuledShard):
    """One partition of the ranking stage: the populations whose names fall on it."""

    inputs = (Topic.STANDINGS,)

    def __init__(
        self,
        store: ShardStore,
        *arguments: Any,
        partitions: int,
        read_told: ToldReader,
        partition_of: Callable[[str], int],
        **settings: Any,
    ) -> None:
        super().__init__(store, *arguments, **settings)
        self._partitions = partitions
        self._read_told = read_told
        self._partition_of = partition_of
        self.populations: dict[str, Population] = {}
        self._untold: list[tuple[Population, str]] = []
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
        await self._take_policy(state)
        self.next_policy = applied_of(state, "next_policy")
        """The one that account shards have begun to tell by; None: there is none. Until all have told all by it, and
        the shard is not silent for another reason, nothing is announced."""
        self.awaited: dict[str, int | None] = state.get("awaited", {})
        """Each account shard that has not told all by it yet -> where in its ticks it began to; None: it has not."""
        self.retold_from: dict[str, int] = state.get("retold_from", {})
        """Of each source, where in its ticks it began to tell all accounts anew: what it tells with a smaller offset is
        from a way that was lost, and will be told again."""
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
        self.is_policy_to_blame: bool = state.get("is_policy_to_blame", False)
        """What is announced in this way is the doing of another policy."""
        with _no_garbage_collection():
            members: dict[str, list[Member]] = {}
            async for page in self.store.pages("documents"):
                for account_id, document in page.items():
                    member, population = decode_member(account_id.decode(), document)
                    members.setdefault(population, []).append(member)
            self.populations = {name: self._new_population(name, held) for name, held in members.items()}
            async for field, document in self.store.scan("transfers"):
                name, _, account = field.partition(SEPARATOR)
                self._population(name).transfers.restore(account, decode_transfer(document))
        found = [self._member_count(), self._transfer_count()]
        if found != [state.get("members", found[0]), state.get("transfers", found[1])]:
            # A server that was started again in the middle does not know how far the scan was, and goes on anywhere.
            self._short_reads += 1
            error = CorruptState if self._short_reads == SHORT_READS_MAX else Refused
            raise error(
                f"{self}: the store has {found[0]} of {state.get('members')} members, and of {found[1]} of "
                f"{state.get('transfers')} accounts what is remembered of their transfers"
            )
        self._short_reads = 0
        self.risk_hash: str = state.get("risk_hash", self.policy.risk_hash)
        """Of the risk rules by which all accounts were looked at last. By others than this worker's, all are due."""
        self.described: dict[str, int] = state.get("described", {})
        """Of each source, up to which offset of its signups it has told what attributes say."""
        await self._begin_to_watch()
        self.due_work.set()
        await self._learn_what_was_told(claim.told)
        if self.announcing is not None:
            self._look_for_untold()

    def _go_by(self, policy: Policy) -> None:
        self.policy = policy
        self._writer = ChangeWriter(policy)

    async def _begin_to_watch(self) -> None:
        """Watch the risk of all members, and put them on the worklists, by the policy."""
        self._watch = RiskWatch(
            self._writer.rules,
            (member for population in self.populations.values() for member in population.members.values()),
            all_are_due=self.risk_hash != self.policy.risk_hash,
        )
        fields = [field async for field, _ in self.store.scan("figures")]
        self._worklists = Worklists(self.store, self.policy, self.populations, fields)

    def _new_population(self, name: str, members: Iterable[Member] = ()) -> Population:
        policy = self.policy
        population = Population(
            name, basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp, members=members
        )
        population.muted = self._is_muted
        return population

    @property
    def _is_muted(self) -> bool:
        return self.next_policy is not None or self._must_be_silent(self.progress[Topic.STANDINGS])

    def _must_be_silent(self, position: int) -> bool:
        """Whether the world was told more than this shard knows at a position of its input, or a source is awaited."""
        return position < self.muted_until or bool(self.backfill_until) or bool(self.awaited)

    def _member_count(self) -> int:
        return sum(len(population.members) for population in self.populations.values())

    @property
    def is_silent(self) -> bool:
        """Whether it announces nothing just now, as after a loss, or until all history or another policy is told."""
        return self._is_muted

    @property
    def account_count(self) -> int:
        """Accounts of all its populations. O(populations)."""
        return self._member_count()

    @property
    def unplaced(self) -> int:
        """Accounts that wait for their places on the worklists."""
        return self._worklists.waiting

    def _transfer_count(self) -> int:
        return sum(len(population.transfers) for population in self.populations.values())

    def _note_end_of_backfill(self, source: str, message: Standings) -> None:
        """A message without standings says that a source has nothing left to tell up to its progress."""
        ends = self.backfill_until.get(source)
        if ends and message.says_nothing and all(message.progress.get(topic, 0) >= end for topic, end in ends.items()):
            del self.backfill_until[source]

    def _note_new_policy(self, message: NewPolicy) -> bool:
        """An account shard tells by another policy from now on. Returns whether that is news."""
        source, applied = str(message.source), message.applied
        if message.is_retold:
            self.retold_from[source] = max(message.ticks_end, self.retold_from.get(source, 0))
        newest = self.next_policy or self.applied
        if newest is None or applied.number > newest.number:
            self.next_policy = applied
            self.awaited = dict.fromkeys(map(str, range(self._partitions)))
            for population in self.populations.values():
                population.muted = True
        if applied != self.next_policy or self.awaited.get(source, 0) is not None:
            return False
        self.awaited[source] = message.ticks_end
        return True

    def _note_end_of_retelling(self, source: str, message: Standings) -> None:
        """A message without standings also says that a source has told all by the policy that it goes by."""
        begin = self.awaited.get(source)
        if begin is not None and message.says_nothing and message.progress.get(Topic.TICKS, 0) >= begin:
            del self.awaited[source]

    def _note_end_of_day(self, source: str, message: Standings) -> bool:
        """A message without standings also says that all is told that time brings about. Returns whether it is news."""
        day = message.clock_us // MICROSECONDS_PER_DAY
        if not message.says_nothing or day <= self.told_days.get(source, 0):
            return False
        self.told_days[source] = day
        self.due_work.set()
        return True

    def _population(self, name: str) -> Population:
        if name not in self.populations:
            self.populations[name] = self._new_population(name)
        return self.populations[name]

    async def _learn_what_was_told(self, told: dict[str, int]) -> None:
        """Know what the world was told since the store was last written, whether the store knows it or not.

        Nothing is announced until the shard has read on to where it was when it told what the store does not know: then
        only what differs is. `told` is brought to where everything before is known.
        """
        # without transactions one worker is the limit, and it may repeat itself
        outbox = await self.store.whole_outbox() if self.publisher.is_atomic else []
        lesson = await learn(
            self._read_told(told), outbox, self._population, lambda name: self._partition_of(name) == self.partition
        )
        self._learned = lesson.learned
        if self._learned:
            until = max(self.muted_until, lesson.until)
            log.warning(
                "the store had lost %d changes that were announced; reading on silently",
                len(self._learned),
                extra={"shard": self, "topic": Topic.STANDINGS, "end_offset": until},
            )
            self.muted_until = until
            if self.progress[Topic.STANDINGS] >= until:
                # They were announced without reading on, at the end of a silence: there is nothing to wait for.
                self.muted_until, self.announcing = 0, self.announcing or "live"
            for population in self.populations.values():
                population.muted = self._is_muted
            for population, account_id in self._learned:
                member = population.members.get(account_id)
                if member is not None:
                    # a fall that was learnt may raise the level, and on another day than was worked out without it
                    self._watch.look(member, max(member.day, self.watched_day))
        if lesson.kept != outbox:
            commit = self._commit_to(self.progress[Topic.STANDINGS])
            self._write_transfers(commit)
            commit.trim, commit.outbox, commit.state = len(outbox), lesson.kept, self._state()
            await self.store.commit(commit)
            self._learned.clear()
        self._has_read = bool(lesson.read) and not self._learned
        if self._has_read:
            told |= lesson.read

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
            "transfers": self._transfer_count(),
            "under_way": sum(population.transfers.under_way for population in self.populations.values()),
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
            "is_policy_to_blame": self.is_policy_to_blame,
            "policy": self.applied and [*self.applied],
            "next_policy": self.next_policy and [*self.next_policy],
            "awaited": self.awaited,
            "retold_from": self.retold_from,
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
            message: Message | ValueError
            try:
                message = decode_told(record.value)
            except ValueError as error:
                message = error
            if isinstance(message, NewPolicy):
                # what was told before it is announced before it
                await self._take_portion(portion, record.offset)
                portion, standings = [], 0
            portion.append((record, message))
            if isinstance(message, Standings):
                standings += len(message.standings)
            elif isinstance(message, Descriptions):
                standings += len(message.descriptions)
        await self._take_portion(portion, end)

    async def _take_portion(self, portion: Sequence["_Taken"], end: int) -> None:
        """Apply messages, those of one instant together, and commit."""
        out: list[Outgoing] = []
        news: list[Standings | HandedOver] = []
        descriptions: list[Description] = []
        was_silent = self.muted_until > 0 or bool(self.backfill_until) or self.next_policy is not None
        for record, message in portion:
            if isinstance(message, ValueError):
                self.counts["dead_letters"] += 1
                out.append(self._dead_letter(record, str(message)))
                continue
            told = self._news(message)
            was_silent = was_silent or self.next_policy is not None
            self.counts["duplicates" if told is None else "applied"] += 1
            if isinstance(told, Descriptions):
                descriptions += (description for description in told.descriptions if self._is_here(description))
            elif isinstance(told, Standings | HandedOver):
                self.mode = told.mode
                news.append(told)
        commit = self._commit_to(end)
        await self._worklists.describe(descriptions, commit)
        for (clock_us, mode), group in groupby(news, key=_instant):
            self.clock_us = max(self.clock_us, clock_us)
            await self._take_news(list(group), mode, end, commit, out)
        if news or descriptions:
            self.due_work.set()
        if was_silent and not self._must_be_silent(end):
            self.muted_until = 0
            self.announcing = news[-1].mode if news else "live"
            different = await self._adopt() if self.next_policy is not None else self._unmute()
            for population, members in different.items():
                members += self._levels_from_told(population)
                _write(population, members, commit)
                self._worklists.touch(population, members)
            self._look_for_untold()
        await self._carry_out(commit, out)

    def _news(self, message: Message) -> Message | None:
        """What of a message is not known yet; None: nothing. Notes how far it brings its source."""
        if isinstance(message, HandedOver):
            return message if self._population(message.hand_over.to).expects(message.hand_over) else None
        if isinstance(message, NewPolicy):
            return message if self._note_new_policy(message) else None
        source = str(message.source)
        if isinstance(message, Descriptions):
            if message.signups_end < self.described.get(source, 0):
                return None
            self.described[source] = message.signups_end
            return message
        if message.progress.get(Topic.TICKS, 0) < self.retold_from.get(source, 0):
            # on its way to where it tells all accounts again; not, who leaves a population
            return message._replace(standings=[]) if message.departures else None
        self._note_end_of_backfill(source, message)
        self._note_end_of_retelling(source, message)
        reached = Reached(message.progress, message.cursor)
        ends_day = self._note_end_of_day(source, message)
        if reached.is_ahead_of(self.sources.get(source)):
            self.sources[source] = reached
            return message
        is_news = ends_day or bool(message.departures) or any(map(self._is_standing_news, message.standings))
        return message if is_news else None

    def _is_here(self, description: Description) -> bool:
        """Else it comes once more, after the account has left, and nobody would take it off the lists any more."""
        transfers = self._population(description.population).transfers
        return not transfers.is_over(description.account_id, description.transfer)

    def _is_standing_news(self, standing: Standing) -> bool:
        return self._population(standing.population).is_news(standing)

    async def _take_news(
        self, messages: Sequence[Standings | HandedOver], mode: Mode, end: int, commit: Commit, out: list[Outgoing]
    ) -> None:
        """Apply messages of one instant: who leaves, who comes, and how everybody stands."""
        leaving: dict[str, dict[str, None]] = {}
        standings: dict[str, list[Standing]] = {}
        departures = [d for message in messages if isinstance(message, Standings) for d in message.departures]
        for departure in departures:
            population = self._population(departure.population)
            hand_over, is_member = population.depart(departure)
            if hand_over is not None:
                out.append(self._hand_over(hand_over, mode, end))
            if is_member:
                leaving.setdefault(population.name, {})[departure.account_id] = None
        await self._worklists.depart(departures, commit)
        for name, account_ids in leaving.items():
            for account_id in account_ids:
                commit.delete("documents", account_id)
            standings[name] = []
        for message in messages:
            if isinstance(message, Standings):
                for standing in message.standings:
                    standings.setdefault(standing.population, []).append(standing)
                continue
            came = self._population(message.hand_over.to).arrive(message.hand_over)
            if isinstance(came, HandOver):
                out.append(self._hand_over(came, mode, end))
            elif came is not None:
                standings.setdefault(came.population, []).append(came)
        for name, its in standings.items():
            population = self._population(name)
            changes, members = population.apply(its, self.clock_us, leaving.get(name, ()))
            out += await self._records(population, changes, mode, end)
            if population.transfers:
                its = [standing for standing in its if population.has(standing)]
            told = {standing.account_id: standing for standing in its}
            noted = self._note_evidence(population, its, changes)
            looked_at = {account_id: population.members[account_id] for account_id in {**told, **noted}}
            risk_changes = self._look(population, looked_at.values(), told, noted)
            out += await self._records(population, risk_changes, mode, end)
            concerned = ({member.account_id: member for member in members} | looked_at).values()
            _write(population, concerned, commit)
            self._worklists.touch(population, concerned)

    def _hand_over(self, hand_over: HandOver, mode: Mode, end: int) -> Outgoing:
        """A hand-over, for the other population, and for whoever claims this shard after it went back in time."""
        key = f"{hand_over.account_id}{SEPARATOR}{hand_over.population}".encode()
        value = encode_hand_over(HandedOver(self.clock_us, mode, hand_over))
        headers = [(INPUT_OFFSET, str(end).encode())]
        topics: list[str] = [Topic.HAND_OVERS, Topic.STANDINGS]
        number = self._partition_of(hand_over.to)
        return Outgoing(topics, key, value, headers, self.wall_clock() // 1000, number)

    def _unmute(self) -> dict[Population, list[Member]]:
        return {population: population.unmute() for population in self.populations.values()}

    async def _adopt(self) -> dict[Population, list[Member]]:
        """Go by the next policy from now on, and announce again. Returns who is different now."""
        self.applied, self.next_policy = self.next_policy, None
        policy = await self._policy_of(self.applied)
        self._go_by(policy)
        log.info("%s ranks by policy %s from now on", self, policy.version)
        self.is_policy_to_blame = True
        await self._begin_to_watch()
        return {
            population: population.adopt(basis=Basis(policy.basis), boundaries=policy.boundaries, band=policy.band_bp)
            for population in self.populations.values()
        }

    def _commit_to(self, end: int) -> Commit:
        """A commit up to this position that also holds what was learnt from the log: before anything is published, and
        the position up to which the world was told moves on, the store has to know it."""
        commit = Commit({**self.progress, Topic.STANDINGS: end}, {})
        for population, account_id in self._learned:
            if account_id in population.members:
                commit.set("documents", account_id, encode_member(population.members[account_id], population.name))
        return commit

    async def _carry_out(self, commit: Commit, out: Sequence[Outgoing]) -> None:
        self._write_transfers(commit)
        commit.state = self._state()
        await self.commit(commit, out)
        self._learned.clear()

    def _write_transfers(self, commit: Commit) -> None:
        for name, population in self.populations.items():
            transfers = population.transfers
            for account_id in transfers.changed:
                field, transfer = f"{name}{SEPARATOR}{account_id}", transfers.get(account_id)
                if account_id in transfers:
                    commit.set("transfers", field, encode_transfer(transfer))
                else:
                    commit.delete("transfers", field)
            transfers.changed.clear()

    # -- risk --------------------------------------------------------------------------------------------------------

    def _note_evidence(
        self, population: Population, standings: Iterable[Standing], changes: Iterable[Change]
    ) -> dict[str, Trigger]:
        """Take over what happened to accounts that have purchased: told of them, or a change of tier.

        All standings count, in order: the last one of an account may be one that was told before, and know less than
        one between. Returns what is news, by account.
        """
        noted: dict[str, Trigger] = {}
        for standing in standings:
            member = population.members[standing.account_id]
            risk = member.risk
            if risk is None:
                continue
            news = risk.note(standing.evidence_days) if any(standing.evidence_days) else None
            if news is not None:
                noted.setdefault(standing.account_id, Trigger(news))
            # of an earlier day it is no news: whoever went back in time will come to this day again
            if standing.day >= member.day and risk.note_engagement(fell=standing.engagement_fell):
                trigger = Trigger.ENGAGEMENT_FALL if standing.engagement_fell else Trigger.EVIDENCE_OVER
                noted.setdefault(standing.account_id, trigger)
        for change in changes:
            risk = population.members[change.account_id].risk
            fell_on = fall_day(change.direction, change.effective_at_us)
            if risk is not None and risk.note_change(fell_on):
                noted.setdefault(change.account_id, Trigger.TIER_FALL if fell_on else Trigger.EVIDENCE_OVER)
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
        is_judged_anew = self.risk_hash != self.policy.risk_hash
        if self.watched_day >= day and not is_judged_anew:
            return False
        due = self._watch.due(day, LOOKS_AT_ONCE)
        commit = self._commit_to(self.progress[Topic.STANDINGS])
        out: list[Outgoing] = []
        if len(due) < LOOKS_AT_ONCE:
            self.watched_day = max(day, self.watched_day)
            self.risk_hash = self.policy.risk_hash
        noted = {member.account_id: Trigger.POLICY_CHANGED for member in due} if is_judged_anew else {}
        for population in self.populations.values():
            members = [member for member in due if population.members.get(member.account_id) is member]
            changes = self._look(population, members, noted=noted, on_day=day)
            _write(population, members, commit)
            self._worklists.touch(population, members)
            out += await self._records(population, changes, self.mode, self.progress[Topic.STANDINGS])
        await self._carry_out(commit, out)
        return self.watched_day < day or self.risk_hash != self.policy.risk_hash

    # -- work that no record brings ----------------------------------------------------------------------------------

    def _look_for_untold(self) -> None:
        if self.is_policy_to_blame:
            for population in self.populations.values():
                population.blame_policy()
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
            account_ids = [account_id for _, account_id in untold if account_id in population.members]
            changes, _ = population.announce(account_ids, self.clock_us)
            out += await self._records(population, changes, self.announcing, position)
            self._note_evidence(population, (), changes)
            looked_at = [population.members[account_id] for account_id in account_ids]
            trigger = Trigger.POLICY_CHANGED if self.is_policy_to_blame else Trigger.RECOVERED
            risk_changes = self._look(population, looked_at, noted=dict.fromkeys(account_ids, trigger))
            out += await self._records(population, risk_changes, self.announcing, position)
            _write(population, looked_at, commit)
        if not self._untold:
            self.announcing, self.is_policy_to_blame = None, False
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
        records = []
        for is_silent, group in groupby(changes, key=self._is_silent):
            its_mode: ChangeMode = "silent" if is_silent else mode
            records += self._writer.records(
                group, its_mode, input_offset=end, recorded_at_us=self.wall_clock(), needs=needs
            )
        return records

    def _is_silent(self, change: Change | RiskChange) -> bool:
        """Whether nobody is to act upon it: it was made by a policy that was applied silently."""
        if self.applied is None or not self.applied.is_silent:
            return False
        if isinstance(change, Change):
            return change.cause.kind is CauseKind.POLICY_CHANGED
        # its risk rules may come later than the others: from the next worker, where the store forgot what was applied
        is_its_doing = self.is_policy_to_blame or self.policy.risk_hash == self.applied.risk_hash
        return change.trigger is Trigger.POLICY_CHANGED and is_its_doing

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


_Taken = tuple[Record, Message | ValueError]
"""A record, and what is told in it, or what is wrong with it."""


def _instant(message: Standings | HandedOver) -> tuple[int, Mode]:
    return message.clock_us, message.mode


def _write(population: Population, members: Iterable[Member], commit: Commit) -> None:
    name = population.name
    documents = commit.sets.setdefault("documents", {})
    for member in members:
        documents[member.account_id] = encode_member(member, name)
