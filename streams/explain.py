"""Everything about one account, read from the store and the log: what `resegment explain` says."""

from collections import deque
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis

from segmentation.account import NEVER, Account
from segmentation.classification import Classifier, Traits
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.explanation import Step, forecast
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.population import Member
from segmentation.risk import LEVELS, RiskRules, score_of
from segmentation.segments import Stage
from segmentation.tiers import Tiers
from segmentation.worklist import Assessor
from state.documents import decode_account, decode_member, decode_profile, decode_traits
from state.founding import read_founding
from state.keys import StageName
from state.shard_store import ShardStore
from streams.applying import in_force
from streams.changes import (
    ChangeData,
    CutoffsData,
    PartData,
    PlaybookData,
    RhythmData,
    part_documents,
    reasons,
    rhythm_document,
)
from streams.instants import format_day, format_instant
from streams.log import LogReader
from streams.partitions import partition_of
from streams.settings import Settings
from streams.top import PotentialData, PriorityData, potential_data, priority_data
from streams.top import reasons as priority_reasons
from streams.topics import Topic
from streams.worklists import read_classes

CHANGES_SHOWN = 10


class UnknownAccount(Exception):
    """No valid event of this account was applied yet."""


class ForecastStep(BaseModel):
    """From this day on, if nothing happens but time, with the cutoffs as they are."""

    on: str
    rolling_revenue_minor: int
    segment: str
    lapsed: bool


class RiskExplanation(BaseModel):
    """How likely an account is to buy nothing, why, and when silence alone makes that more alarming."""

    level: str
    score: float
    """The probability in percent, that nothing is bought in the horizon."""
    parts: list[PartData]
    """What it is made of."""
    is_calibrated: bool
    """Whether the policy has a model of this installation's accounts; else the probability is of others' accounts."""
    horizon_days: int
    rhythm: RhythmData
    reasons: list[str]
    revenue_at_risk_minor: int
    """What the account brings in a horizon, times the probability."""
    sequence: int
    """Of the last change of level that was told; 0: none was."""
    next_level: str | None
    """The level that silence leads to; None: there is none above."""
    next_level_on: str | None
    """The day on which it does; None: never."""


class Worth(BaseModel):
    """What an account may bring, and how much is at stake: where it is on the list of whom to work on."""

    potential: PotentialData | None
    """None: no account is established yet, so nobody knows."""
    priority: PriorityData
    reasons: list[str]
    """Of the priority."""


class Explanation(BaseModel):
    """What an account is, why, how far it is from its neighbours, and where time alone takes it."""

    account_id: str
    population: str
    as_of: str
    """The instant of the account's clock."""
    stage: str
    segment: str | None
    """None: not announced yet."""
    lapsed: bool
    rolling_revenue_minor: int
    base_currency: str
    first_purchase_on: str | None
    position_revenue: float | None
    """Share of revenue strictly above; None where the account is not ranked."""
    position_accounts: float | None
    basis: str
    cutoffs_minor: CutoffsData
    to_next_tier_up_minor: int | None
    """The gain of revenue that lifts it, with the cutoffs as they are."""
    to_next_tier_down_minor: int | None
    """The loss of revenue that lowers it."""
    sequence: int
    risk: RiskExplanation | None
    """None: it has not purchased yet."""
    worth: Worth | None
    """None: the ranking stage does not know it yet."""
    playbook: PlaybookData | None
    """What the policy says is done for accounts of its segment; None: not announced yet."""
    profile: dict[str, Any]
    forecast: list[ForecastStep]
    changes: list[ChangeData]
    """The latest, oldest first."""


async def explain(settings: Settings, policy: Policy, redis: Redis, reader: LogReader, account_id: str) -> Explanation:
    """Read everything about an account. O(n) for n accounts of its population, whose cutoffs must be worked out.

    Raises UnknownAccount, RedisError, KafkaError.
    """
    founding = await read_founding(redis, settings.redis_prefix)
    if founding is None:
        raise UnknownAccount(f"the store holds no installation under {settings.redis_prefix!r}")
    policy = in_force(founding, policy)
    partition = partition_of(account_id.encode(), founding.partitions)
    store = ShardStore(redis, settings.redis_prefix, StageName.ACCOUNTS, partition)
    account, clock_us = await _account(store, account_id)
    day = clock_us // MICROSECONDS_PER_DAY
    account.advance(day, policy)
    population = account.population or Classifier.of(policy).home
    ranking = partition_of(population.encode(), founding.partitions)
    ranking_store = ShardStore(redis, settings.redis_prefix, StageName.RANKING, ranking)
    members = await _members(ranking_store, population)
    tiers = Tiers(
        basis=Basis(policy.basis),
        boundaries=policy.boundaries,
        band=policy.band_bp,
        members=((m.account_id, m.revenue_minor, m.tier) for m in members.values() if m.tier is not None),
    )
    member = members.get(account_id) or Member(account_id)
    ranked = member.tier is not None
    distance = tiers.distance(account_id) if ranked else None
    key, enterprise = tiers.cutoffs()
    (profile,) = await store.load("profiles", [account_id])
    traits = await _traits(ranking_store, account_id)
    steps = forecast(
        ((entry_day, amount) for entry_day, amount, _ in account.history.entries()),
        day=day,
        window_days=policy.window_days,
        new_start_days=policy.new_start_days,
        first_purchase_day=account.first_purchase_day,
        tier=member.tier,
        gates_of=tiers.gates,
    )
    stage = account.stage(policy.new_start_days)
    return Explanation(
        account_id=account_id,
        population=population,
        as_of=format_instant(clock_us),
        stage=stage,
        segment=member.segment,
        lapsed=member.lapsed,
        rolling_revenue_minor=account.revenue_minor,
        base_currency=policy.base_currency,
        first_purchase_on=None if stage is Stage.PROSPECT else format_day(account.first_purchase_day),
        position_revenue=_position(tiers, member, Basis.REVENUE) if ranked else None,
        position_accounts=_position(tiers, member, Basis.ACCOUNTS) if ranked else None,
        basis=policy.basis,
        cutoffs_minor=CutoffsData(key=key, enterprise=enterprise),
        to_next_tier_up_minor=distance.up if distance else None,
        to_next_tier_down_minor=distance.down if distance else None,
        sequence=member.sequence,
        risk=_risk(policy, member, day),
        worth=await _worth(policy, ranking_store, member, traits, population, day),
        playbook=_playbook(policy, member, traits),
        profile={field: value for field, (value, _) in decode_profile(profile).fields.items()},
        forecast=[_forecast_step(step) for step in steps],
        changes=await _changes(reader, account_id),
    )


async def _account(store: ShardStore, account_id: str) -> tuple[Account, int]:
    """The account with its whole history, and its shard's clock."""
    claim = await store.peek()
    (document,) = await store.load("documents", [account_id])
    if claim is None or document is None:
        raise UnknownAccount(f"no valid event of account {account_id} was applied yet")
    (index,) = await store.load("history", [f"{account_id}|index"])
    account = decode_account(account_id, document, index)
    numbers = [block.number for block in account.history.closed]
    blocks = await store.load("history", [f"{account_id}|{number}" for number in numbers])
    account.history.blocks = {number: block for number, block in zip(numbers, blocks, strict=True) if block is not None}
    return account, claim.state.get("clock_us", 0)


async def _members(store: ShardStore, of_population: str) -> dict[str, Member]:
    members = {}
    async for account_id, document in store.scan("documents"):
        member, population = decode_member(account_id, document)
        if population == of_population:
            members[account_id] = member
    return members


async def _changes(reader: LogReader, account_id: str) -> list[ChangeData]:
    key = account_id.encode()
    await reader.refresh()
    partition = partition_of(key, reader.partition_count(Topic.SEGMENT_CHANGES))
    latest: deque[ChangeData] = deque(maxlen=CHANGES_SHOWN)
    async for _, record in reader.read({(Topic.SEGMENT_CHANGES, partition): 0}):
        if record.key == key and record.value is not None:
            change = ChangeData.model_validate_json(record.value)
            if not latest or change.sequence > latest[-1].sequence:  # a repeated one is the same record
                latest.append(change)
    return list(latest)


def _position(tiers: Tiers, member: Member, basis: Basis) -> float:
    above, total = tiers.position(member.revenue_minor, basis)
    return above * 10**9 // total / 10**9


def _playbook(policy: Policy, member: Member, traits: Traits) -> PlaybookData | None:
    if member.segment is None:
        return None
    playbook = policy.playbook(member.segment, traits.needs)
    return PlaybookData(**playbook.document(), needs=list(traits.needs))


async def _traits(store: ShardStore, account_id: str) -> Traits:
    (document,) = await store.load("traits", [account_id])
    return decode_traits(document)


async def _worth(
    policy: Policy, store: ShardStore, member: Member, traits: Traits, population: str, day: int
) -> Worth | None:
    if not member.version:
        return None
    assessor, classes = Assessor(policy), await read_classes(store)
    assessment = classes.assess(assessor, member, traits, population, day)
    potential = assessment.potential
    return Worth(
        potential=None if potential is None else potential_data(potential, assessor.potential),
        priority=priority_data(assessment),
        reasons=priority_reasons(assessment, policy, member.tier),
    )


def _risk(policy: Policy, member: Member, day: int) -> RiskExplanation | None:
    risk, rules = member.risk, RiskRules.of(policy)
    if risk is None or not risk.days_bought:
        return None
    day = max(day, risk.last_day)
    history, odds = risk.history(day), risk.odds(rules, day)
    parts = risk.parts(rules, day, odds)
    above = LEVELS[LEVELS.index(risk.level) + 1 :]
    next_day = risk.rises_on(rules, day) if above else NEVER
    return RiskExplanation(
        level=risk.level,
        score=round(score_of(odds), 4),
        parts=[PartData.model_validate(part) for part in part_documents(parts)],
        is_calibrated=rules.is_calibrated,
        horizon_days=rules.horizon_days,
        rhythm=RhythmData.model_validate(rhythm_document(history)),
        reasons=reasons(history, parts),
        revenue_at_risk_minor=rules.revenue_at_risk_minor(history, member.revenue_minor, odds),
        sequence=risk.sequence,
        next_level=above[0] if above else None,
        next_level_on=format_day(next_day) if next_day < NEVER else None,
    )


def _forecast_step(step: Step) -> ForecastStep:
    return ForecastStep(
        on=format_day(step.day),
        rolling_revenue_minor=step.rolling_revenue_minor,
        segment=step.segment,
        lapsed=step.lapsed,
    )
