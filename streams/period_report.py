"""Reading what a report of a period is worked out from: the state, then the changes that led to it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from aiokafka.structs import ConsumerRecord

from segmentation.period_report import PastChange, Period
from segmentation.population import Member
from segmentation.risk import Level
from segmentation.risk_report import PastRiskChange
from segmentation.segments import Segment
from streams.changes import ChangeData, RiskData
from streams.instants import parse_instant
from streams.log import LogReader
from streams.topics import Topic


class Announced(Protocol):
    """A change, of whatever kind."""

    @property
    def sequence(self) -> int:
        """1, 2, 3, ... for each account."""

    @property
    def effective_at_us(self) -> int:
        """Its instant."""


C = TypeVar("C", bound=Announced)


class ReadChanges(NamedTuple, Generic[C]):
    """The changes of the log, and what it does not tell."""

    chains: dict[str, list[C]]
    """Account -> its changes by sequence, each once: those from the period's begin on, and the last one before it."""
    strangers: int
    """Records that are no changes."""
    unpublished: int
    """Changes that the state has decided and the log does not hold yet."""
    begins_us: int | None
    """Where the log no longer holds all changes of the period: the instant from which it does, or may; else None."""


async def read_changes(reader: LogReader, members: Iterable[Member], period: Period) -> ReadChanges[PastChange]:
    """Every committed change up to the state that the members are of; later ones are left out, copies dropped.

    O(records), about 20 us each. Memory: one change an account, and those from the period's begin on.
    Raises KafkaError, TimeoutError.
    """
    sequences = {member.account_id: member.sequence for member in members}
    return await _read(reader, Topic.SEGMENT_CHANGES, sequences, period, _past_change)


async def read_risk_changes(
    reader: LogReader, members: Iterable[Member], period: Period
) -> ReadChanges[PastRiskChange]:
    """As `read_changes`, of risk."""
    sequences = {member.account_id: member.risk.sequence for member in members if member.risk is not None}
    return await _read(reader, Topic.CHURN_RISK, sequences, period, _past_risk_change)


async def _read(
    reader: LogReader,
    topic: Topic,
    sequences: Mapping[str, int],
    period: Period,
    parse: Callable[[ConsumerRecord], tuple[str, C]],
) -> ReadChanges[C]:
    """`parse` raises ValueError for a record that is no change."""
    chains: dict[str, list[C]] = {}
    strangers = 0
    await reader.refresh()
    places = [(topic, number) for number in range(reader.partition_count(topic))]
    bounds = await reader.bounds(places)
    cut = {number for _, number in places if bounds[topic, number].first}
    oldest_us: dict[int, int] = {}
    async for _, record in reader.read(dict.fromkeys(places, 0)):
        try:
            account_id, change = parse(record)
        except ValueError:
            strangers += 1
            continue
        oldest_us.setdefault(record.partition, change.effective_at_us)
        if change.sequence > sequences.get(account_id, 0):
            continue
        chain = chains.setdefault(account_id, [])
        if chain and change.sequence <= chain[-1].sequence:
            continue  # published again: the same record
        if change.effective_at_us < period.begin_us:
            chain.clear()
        chain.append(change)
    return ReadChanges(
        chains,
        strangers,
        sum(sequences[account_id] - chain[-1].sequence for account_id, chain in chains.items())
        + _never_published(chains, sequences, bool(cut)),
        _begins_us(cut, oldest_us, period),
    )


def _past_change(record: ConsumerRecord) -> tuple[str, PastChange]:
    data = ChangeData.model_validate_json(record.value or b"")
    previous = data.previous_segment
    return data.account_id, PastChange(
        data.sequence,
        None if previous is None else Segment(previous),
        Segment(data.current_segment),
        data.cause.kind,
        data.lapsed,
        data.rolling_revenue_minor,
        parse_instant(data.effective_at),
    )


def _past_risk_change(record: ConsumerRecord) -> tuple[str, PastRiskChange]:
    data = RiskData.model_validate_json(record.value or b"")
    return data.account_id, PastRiskChange(
        data.sequence,
        Level(data.previous_level),
        Level(data.current_level),
        data.trigger,
        data.revenue_at_risk_minor,
        parse_instant(data.effective_at),
    )


def _never_published(chains: Iterable[str], sequences: Mapping[str, int], is_cut: bool) -> int:
    """Changes of accounts of which the log holds none at all; where it was cut, they may have been cut from it."""
    if is_cut:
        return 0
    known = set(chains)
    return sum(sequence for account_id, sequence in sequences.items() if account_id not in known)


def _begins_us(cut: Iterable[int], oldest_us: dict[int, int], period: Period) -> int | None:
    """A partition that was cut tells of nothing before its oldest record, and of nothing at all where it has none."""
    begins_us = max((oldest_us.get(number, period.end_us) for number in cut), default=period.begin_us)
    return begins_us if begins_us > period.begin_us else None
