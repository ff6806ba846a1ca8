"""What the world was told, as whoever claims a ranking shard reads it in the log.

A store that lost its newest writes does not know the newest changes and hand-overs, but the world does: their sequences
and segments are taken over. And some of what waits in the outbox was told already. Told again it might follow a later
change, and who reads the compacted topic would take it for the latest. Some may also say something else than the world
was told: a worker that slept while the store went back to where it was its own goes on there, on a way that others have
gone already, and puts into the outbox what the broker then refuses to take from it.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from segmentation.population import Population, fall_day
from segmentation.risk import Level
from segmentation.segments import Segment
from segmentation.transfers import HandOver, Told
from segmentation.worklist import SEPARATOR
from streams.changes import INPUT_OFFSET, TRANSFER, ChangeData, RiskData
from streams.instants import parse_instant
from streams.messages import (
    HandedOver,
    Outgoing,
    decode_outgoing,
    decode_told,
    encode_hand_over,
    encode_outgoing,
    header,
    json_object,
)
from streams.shard import Record
from streams.topics import Topic, place_name

Chain = tuple[Topic, str]
"""Of what follows each other: the compacted topic, and the account; of hand-overs their key."""
PopulationOf = Callable[[str], Population]
"""By its name."""


class Lesson(NamedTuple):
    """What came of it."""

    learned: list[tuple[Population, str]]
    """Accounts of which the world was told more than their population knew. It knows now."""
    until: int
    """Offset of the standings up to which whoever told that had read; 0: there is nothing of the kind."""
    read: dict[str, int]
    """Partition of a compacted topic (`place_name`) -> offset after the last record that was read there."""
    kept: list[bytes]
    """What of the outbox is still to be told."""


class _Waiting(NamedTuple):
    """A record in the outbox."""

    entry: bytes
    record: Outgoing
    chain: Chain | None
    """None: it is no change and no hand-over."""
    number: int
    """In the chain."""


class _Told(NamedTuple):
    """What a population told."""

    population: str
    account_id: str
    chain: Chain
    number: int
    data: ChangeData | RiskData | HandOver | None
    """None: it is a change that another shard told."""


async def learn(
    told: AsyncIterator[tuple[Topic, Record]],
    outbox: Iterable[bytes],
    population_of: PopulationOf,
    is_ours: Callable[[str], bool],
) -> Lesson:
    """Take over what was told, and say what of the outbox still is to be. `is_ours`: whether a population is here.

    Raises whatever reading raises, and ValueError for records that no worker writes. O(records).
    """
    waiting = [_waiting(entry) for entry in outbox]
    values = {(wait.chain, wait.number): wait.record.value for wait in waiting if wait.chain}
    chains = {chain for chain, _ in values}
    learned: list[tuple[Population, str]] = []
    until = 0
    latest: dict[Chain, int] = {}
    forked: set[Chain] = set()
    read: dict[str, int] = {}
    async for topic, record in told:
        read[place_name(topic, record.partition)] = record.offset + 1
        news = _told(topic, record, is_ours)
        if news is None:
            continue
        chain, number = news.chain, news.number
        if chain in chains:
            # Also where another shard told it: it has the account by a hand-over, which was told after what waits here.
            # That itself may be gone from a compacted topic.
            latest[chain] = number
        if news.data is None:
            continue
        is_fork = values.get((chain, number), record.value) != record.value and chain not in forked
        if is_fork:
            forked.add(chain)
        population = population_of(news.population)
        if _take_over(population, news.data, _transfer(record.headers), instead=is_fork):
            learned.append((population, news.account_id))
            until = max(until, int(header(record.headers, INPUT_OFFSET) or 0))
    kept = [_corrected(wait, population_of) for wait in waiting if _is_news(wait, latest, forked, population_of)]
    return Lesson(learned, until, read, kept)


def _told(topic: Topic, record: Record, is_ours: Callable[[str], bool]) -> _Told | None:
    """None for what is no change, and for another shard's hand-overs."""
    if record.value is None:
        return None
    if topic is Topic.HAND_OVERS:
        account_id, transfer, name, *_ = given = _hand_over(record.value)
        chain = topic, f"{account_id}{SEPARATOR}{name}"
        return _Told(name, account_id, chain, transfer, given) if is_ours(name) else None
    # most may be another shard's, which a whole check of each would take five times as long to find out
    read = json_object(record.value)
    name, account_id, number = read["population"], read["account_id"], read["sequence"]
    kind = RiskData if topic is Topic.RISKS else ChangeData
    data = kind.model_validate_json(record.value) if is_ours(name) else None
    return _Told(name, account_id, (topic, account_id), number, data)


def _take_over(population: Population, data: ChangeData | RiskData | HandOver, transfer: int, *, instead: bool) -> bool:
    """Whether it was not known. instead: of what the population takes for told."""
    if isinstance(data, HandOver):
        return population.learn(data)
    effective_at_us = parse_instant(data.effective_at)
    if isinstance(data, ChangeData):
        fell_on = fall_day(data.direction, effective_at_us)
        told = Told(data.population, data.sequence, Segment(data.current_segment), effective_at_us, fell_on)
    else:
        told = Told(
            risk_sequence=data.sequence, risk_level=Level(data.current_level), risk_effective_at_us=effective_at_us
        )
    return population.was_told(data.account_id, transfer, told, instead=instead)


def _waiting(entry: bytes) -> _Waiting:
    record = decode_outgoing(entry)
    if Topic.HAND_OVERS in record.topics:
        chain = Topic.HAND_OVERS, (record.key or b"").decode()
        return _Waiting(entry, record, chain, _hand_over(record.value).transfer)
    for topic in (Topic.SEGMENTS, Topic.RISKS):
        if topic in record.topics:
            account_id, _, sequence = (header(record.headers, "ce_id") or "").rpartition(":")
            return _Waiting(entry, record, (topic, account_id), int(sequence))
    return _Waiting(entry, record, None, 0)


def _is_news(wait: _Waiting, latest: dict[Chain, int], forked: set[Chain], population_of: PopulationOf) -> bool:
    """Whether it was not told yet, and follows from what was."""
    chain = wait.chain
    if chain is None or chain[0] is Topic.HAND_OVERS:
        return True  # a hand-over may be told again, for a population that was lost
    return (
        chain not in forked
        # Not, greater than all that were told: who began to tell them again may have come to an earlier one only, and
        # in a compacted topic that would stay the latest.
        and wait.number > latest.get(chain, 0)
        and not _is_of_the_past(wait, chain, population_of)
    )


def _is_of_the_past(wait: _Waiting, chain: Chain, population_of: PopulationOf) -> bool:
    """Whether a change was decided after the account was handed over, by who did not know."""
    topic, account_id = chain
    known = population_of(json_object(wait.record.value)["population"]).transfers.get(account_id)
    transfer = _transfer(wait.record.headers)
    if transfer >= known.left:
        return False
    told = known.given.told if known.given is not None and known.given.transfer == transfer + 1 else Told()
    return wait.number > (told.risk_sequence if topic is Topic.RISKS else told.sequence)


def _corrected(wait: _Waiting, population_of: PopulationOf) -> bytes:
    """A hand-over says what the world was really told."""
    if wait.chain is None or wait.chain[0] is not Topic.HAND_OVERS:
        return wait.entry
    message = decode_told(wait.record.value)
    assert isinstance(message, HandedOver)
    mine = message.hand_over
    given = population_of(mine.population).transfers.get(mine.account_id).given
    if given is None or given.transfer != mine.transfer or given == mine:
        return wait.entry
    return encode_outgoing(wait.record._replace(value=encode_hand_over(message._replace(hand_over=given))))


def _hand_over(value: bytes | None) -> HandOver:
    message = decode_told(value)
    assert isinstance(message, HandedOver)
    return message.hand_over


def _transfer(headers: Sequence[tuple[str, bytes]]) -> int:
    return int(header(headers, TRANSFER) or 0)
