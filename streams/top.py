"""Whom to work on now: the head of the worklists, each account with its reasons and its next step."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple

from pydantic import BaseModel
from redis.asyncio import Redis

from segmentation.classification import Classifier, Traits, attributes_of
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.money import format_amount, format_minor
from segmentation.policy import Policy, comparable
from segmentation.population import Member
from segmentation.potential import Potential, PotentialRules
from segmentation.risk import score_of
from segmentation.segments import TIERS, Segment
from segmentation.worklist import SEPARATOR, Assessment, Assessor, account_of, class_name
from state.documents import decode_member, decode_profile, decode_traits
from state.founding import require_founding
from state.keys import StageName
from state.shard_store import ShardStore
from streams.applying import in_force
from streams.partitions import partition_of
from streams.settings import Settings
from streams.worklists import Classes, read_classes

PAGE = 200
SPARE = 10
"""More accounts than are asked for are assessed again: since they were put into their places, time has gone on."""


class PotentialData(BaseModel):
    """What an account may bring."""

    horizon_days: int
    expected_minor: int
    low_minor: int
    high_minor: int
    """Of accounts like this one, 80 % bring something between these two; of prospects, if they buy at all."""
    conversion: float | None
    """Of a prospect: the share of its class that has bought."""
    class_path: list[str] | None
    """The class that it rests on; None: it rests on the account's own purchases."""
    accounts: int
    """So many established accounts it rests on."""
    is_calibrated: bool
    """Whether the policy has a model of this installation's accounts; else others' are taken for them."""


class PriorityData(BaseModel):
    """How much there is at stake, and what that is made of."""

    score_minor: int
    potential_minor: int
    revenue_at_risk_minor: int
    fit_minor: int
    closeness_minor: int


class TopAccount(BaseModel):
    """Somebody to work on."""

    account_id: str
    population: str
    segment: str
    owner: str
    region: str
    rolling_revenue_minor: int
    priority: PriorityData
    potential: PotentialData | None
    """None: no account is established yet, so nobody knows."""
    reasons: list[str]
    """In words, what counts most first."""
    next_step: str
    role: str


class Top(BaseModel):
    """The head of a list."""

    as_of_us: int
    accounts: list[TopAccount]
    unplaced: int
    """Accounts that something has happened to and that are not in their places yet."""


class Wanted(NamedTuple):
    """Of whom the list is to be; None: of all."""

    segment: Segment | None = None
    owner: str | None = None
    population: str | None = None
    region: str | None = None

    def has(self, candidate: "Candidate") -> bool:
        """Whether an account is meant."""
        member, traits, population = candidate
        return (
            (self.segment is None or member.current_segment is self.segment)
            and (self.owner is None or traits.owner == self.owner)
            and (self.population is None or population == self.population)
            and (self.region is None or traits.region == comparable(self.region))
        )


class Candidate(NamedTuple):
    """Somebody who may be on the list."""

    member: Member
    traits: Traits
    population: str


async def top(settings: Settings, policy: Policy, redis: Redis, count: int, wanted: Wanted) -> Top:
    """The accounts that are wanted with the greatest priority, that one first.

    O(classes + accounts that are looked at): as many as are asked for, and SPARE, of each segment, and of each class
    with prospects; of an owner all of his; of a region or population as many as it takes, from the head of each list.
    Raises NoInstallation, RedisError.
    """
    founding = await require_founding(redis, settings.redis_prefix)
    policy = in_force(founding, policy)
    assessor, found, clocks, unplaced = Assessor(policy), list[TopAccount](), [0], 0
    for number in range(founding.partitions):
        store = ShardStore(redis, settings.redis_prefix, StageName.RANKING, number)
        claim = await store.peek()
        if claim is None:
            continue
        clock_us = claim.state.get("clock_us", 0)
        clocks.append(clock_us)
        unplaced += claim.state.get("unplaced", 0)
        classes = await read_classes(store)
        candidates: dict[str, Candidate] = {}
        is_walked = wanted.owner is not None or wanted.region is not None or wanted.population is not None
        for entries in _lists(store, classes, wanted, PAGE if is_walked else min(PAGE, count + SPARE)):
            matching = 0
            async for candidate in _candidates(store, entries):
                if wanted.has(candidate):
                    candidates[candidate.member.account_id] = candidate
                    matching += 1
                    if matching >= count + SPARE and wanted.owner is None:
                        break
        day = clock_us // MICROSECONDS_PER_DAY
        for candidate in candidates.values():
            found.append(_account(policy, assessor, candidate, classes.assess(assessor, *candidate, day)))
    # of equal ones the last by name first, as the lists have them: a longer page begins with the shorter one
    found.sort(key=lambda account: (account.priority.score_minor, account.account_id), reverse=True)
    accounts = found[:count]
    await _explain_fit(settings, policy, redis, founding.partitions, accounts)
    return Top(as_of_us=max(clocks), accounts=accounts, unplaced=unplaced)


Pages = AsyncIterator[list[str]]
"""The entries of one list, in order, a page at a time."""


def _lists(store: ShardStore, classes: Classes, wanted: Wanted, page_size: int) -> Iterator[Pages]:
    """The lists that hold the accounts that are wanted, and perhaps others."""
    if wanted.owner is not None:
        yield _named(store, "owners", f"{wanted.owner}{SEPARATOR}", page_size)
        return
    for segment in Segment if wanted.segment is None else (wanted.segment,):
        if segment is not Segment.PROSPECT:
            yield _scored(store, f"worklist_{segment}", page_size)
            continue
        for path in classes.with_prospects():
            yield _named(store, "worklist_prospect", f"{class_name(path)}{SEPARATOR}", page_size)


async def _scored(store: ShardStore, name: str, page_size: int) -> Pages:
    first = 0
    while page := await store.best(name, first, page_size):
        yield page
        first += len(page)


async def _named(store: ShardStore, name: str, prefix: str, page_size: int) -> Pages:
    page = await store.last(name, prefix, page_size)
    while page:
        yield page
        page = await store.last(name, prefix, page_size, before=page[-1])


async def _candidates(store: ShardStore, entries: Pages) -> AsyncIterator[Candidate]:
    async for page in entries:
        account_ids = [account_of(entry) for entry in page]
        documents, traits = await store.load("documents", account_ids), await store.load("traits", account_ids)
        for account_id, document, of_account in zip(account_ids, documents, traits, strict=True):
            if document is not None:  # else its attributes are known and nothing else is yet
                member, population = decode_member(account_id, document)
                yield Candidate(member, decode_traits(of_account), population)


def potential_data(potential: Potential, rules: PotentialRules) -> PotentialData:
    """As it is told."""
    return PotentialData(
        horizon_days=rules.horizon_days,
        expected_minor=potential.expected_minor,
        low_minor=potential.low_minor,
        high_minor=potential.high_minor,
        conversion=None if potential.conversion is None else round(potential.conversion, 6),
        class_path=None if potential.class_path is None else list(potential.class_path),
        accounts=potential.accounts,
        is_calibrated=rules.spend is not None,
    )


def priority_data(assessment: Assessment) -> PriorityData:
    """As it is told."""
    priority = assessment.priority
    return PriorityData(score_minor=priority.score_minor, **priority._asdict())


def reasons(assessment: Assessment, policy: Policy, tier: int | None) -> list[str]:
    """Why an account has its priority, in words, what counts most first; parts that count nothing are left out."""
    parts, potential, said = assessment.priority, assessment.potential, list[tuple[int, str]]()
    currency = policy.base_currency
    if potential is not None and parts.potential_minor:
        days = policy.potential.horizon_days
        low, high = format_amount(potential.low_minor, currency), format_amount(potential.high_minor, currency)
        bounds = f"(80 %: {low} to {high}{'' if policy.model else ', uncalibrated'})"
        may = f"may bring {format_minor(potential.expected_minor, currency)} in {days} days {bounds}"
        said.append((parts.potential_minor, may + rests_on(potential)))
    if parts.revenue_at_risk_minor and assessment.odds is not None:
        at_risk = format_minor(assessment.revenue_at_risk_minor, currency)
        chance = f"{score_of(assessment.odds):.0f} % that nothing is bought in {policy.risk.horizon_days} days"
        said.append((parts.revenue_at_risk_minor, f"{at_risk} at risk: {chance}"))
    if parts.closeness_minor and tier:
        missing = format_minor(assessment.to_next_tier_minor or 0, currency)
        said.append((parts.closeness_minor, f"{missing} short of {TIERS[tier - 1]}"))
    return [text for _, text in sorted(said, key=lambda part: -part[0])]


def rests_on(potential: Potential) -> str:
    """On what an estimate rests, to follow it."""
    if potential.class_path is None:
        return ""
    name = " / ".join(potential.class_path) or "all accounts"
    conversion = "" if potential.conversion is None else f"; about {potential.conversion:.0%} of prospects buy"
    return f", as {potential.accounts:,} others do ({name}{conversion})"


def _account(policy: Policy, assessor: Assessor, candidate: Candidate, assessment: Assessment) -> TopAccount:
    member, traits, population = candidate
    playbook = policy.playbook(member.current_segment, traits.needs)
    potential = assessment.potential
    return TopAccount(
        account_id=member.account_id,
        population=population,
        segment=member.current_segment,
        owner=traits.owner,
        region=traits.region,
        rolling_revenue_minor=member.revenue_minor,
        priority=priority_data(assessment),
        potential=None if potential is None else potential_data(potential, assessor.potential),
        reasons=reasons(assessment, policy, member.tier),
        next_step=playbook.next_step,
        role=playbook.role,
    )


async def _explain_fit(
    settings: Settings, policy: Policy, redis: Redis, partitions: int, accounts: Iterable[TopAccount]
) -> None:
    """Which of the rules of the ideal customer profile hold is not kept; the accounts' attributes are.

    A round trip for each shard that has any of the accounts.
    """
    of_shard: dict[int, list[TopAccount]] = {}
    for account in accounts:
        if account.priority.fit_minor:
            of_shard.setdefault(partition_of(account.account_id.encode(), partitions), []).append(account)
    classifier = Classifier.of(policy)
    for number, its in of_shard.items():
        store = ShardStore(redis, settings.redis_prefix, StageName.ACCOUNTS, number)
        profiles = await store.load("profiles", [account.account_id for account in its])
        for account, profile in zip(its, profiles, strict=True):
            found = classifier.fit_reasons(attributes_of(decode_profile(profile)))
            account.reasons += [f"{text} ({points:+} points of fit)" for text, points in found]
