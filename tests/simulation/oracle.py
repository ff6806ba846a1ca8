"""All invariants of streams.oracle, once more in plain Python: quick enough to be asked after every schedule.

`resegment verify` works the same out in SQL; a sample of the schedules is given to both.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from segmentation.account import NEVER
from segmentation.classification import NO_TRAITS, Classifier, attributes_of
from segmentation.events import MICROSECONDS_PER_DAY
from segmentation.policy import WHOLE_BP, Policy
from segmentation.population import Member
from segmentation.potential import ClassFigures
from segmentation.worklist import owner_entry, prospect_entry
from streams.dead_letters import read_dead_letter
from streams.instants import parse_instant
from streams.messages import PolicySwitch, header
from streams.snapshot import Snapshot
from streams.topics import ACCOUNT_INPUTS, EVENT_TOPICS, Topic
from tests.simulation.load import Meaning
from tests.simulation.log import Record, SimulatedLog
from tests.simulation.operator import SILENT

TIERS = ("key", "enterprise", "commercial")


class Wrong(NamedTuple):
    """Something that breaks an invariant."""

    invariant: str
    subject: str
    expected: object
    found: object

    def __str__(self) -> str:
        return f"{self.invariant}: {self.subject}: expected {self.expected}, found {self.found}"


class Expected(NamedTuple):
    """An account as the log says that it must be."""

    shard: int
    day: int
    first_purchase_day: int
    revenue_minor: int
    stage: str
    bought: tuple[int, ...]
    """The days with a purchase up to `day`, in order."""
    evidence: tuple[int, int, int]
    """The last day of a request to cancel, of a support ticket, of a refund; 0: none."""
    engagement_fell: bool
    """It engages less than half as often as in its own past."""
    population: str

    @property
    def is_ranked(self) -> bool:
        """Whether it has a position."""
        return self.stage == "established" and self.revenue_minor > 0


def wrongs(snapshot: Snapshot, log: SimulatedLog, policy: Policy) -> Iterator[Wrong]:
    """What breaks an invariant in an installation at rest."""
    expected = _expected(snapshot, log, policy)
    yield from _accounts(snapshot, expected)
    yield from _segments(snapshot, expected, policy)
    yield from _risks(snapshot, log, expected, policy)
    for chains in (SEGMENTS, RISKS):
        yield from _changes(snapshot, log, chains)
    yield from _counters(snapshot, log)
    yield from _worklists(snapshot, expected, policy)


def all_records(log: SimulatedLog, topic: Topic) -> Iterator[Record]:
    """Every committed record of a topic that retention has left, in order by partition."""
    for number in range(log.count):
        place = log.places[topic, number]
        yield from place.read(0, place.end)[0]


def _expected(snapshot: Snapshot, log: SimulatedLog, policy: Policy) -> dict[str, Expected]:
    events: dict[tuple[str, Topic, str], Meaning] = {}
    shards: dict[str, int] = {}
    for (topic, number), meaning in log_meanings(log):
        events.setdefault((meaning.account_id, topic, meaning.event_id), meaning)
        shards[meaning.account_id] = number
    firsts: dict[str, int] = defaultdict(lambda: NEVER)
    bought: dict[str, set[int]] = defaultdict(set)
    evidence: dict[tuple[str, str], int] = defaultdict(int)
    engaged: dict[str, set[int]] = defaultdict(set)
    revenues: dict[str, int] = defaultdict(int)
    regions: dict[str, tuple[int, str]] = {}
    days = {shard.partition: shard.day for shard in snapshot.account_shards}
    for (account_id, topic, _), meaning in events.items():
        day = days[shards[account_id]]
        happened = "refund" if meaning.is_refund else meaning.engagement
        if happened is not None:
            evidence[account_id, happened] = max(evidence[account_id, happened], meaning.occurred_day)
            if happened == "login":
                engaged[account_id].add(meaning.occurred_day)
        if meaning.region is not None:
            stated = meaning.occurred_at_us, meaning.region
            regions[account_id] = max(stated, regions.get(account_id, stated))
        if topic is Topic.PURCHASES:
            if not meaning.is_refund:
                firsts[account_id] = min(firsts[account_id], meaning.day)
                if meaning.day <= day:
                    bought[account_id].add(meaning.day)
            if day - policy.window_days < meaning.day <= day:
                revenues[account_id] += meaning.amount_minor
    return {
        account_id: Expected(
            shard,
            days[shard],
            firsts[account_id],
            revenues[account_id],
            _stage(firsts[account_id], days[shard], policy.new_start_days),
            tuple(sorted(bought[account_id])),
            (
                evidence[account_id, "cancel_request"],
                evidence[account_id, "support_ticket"],
                evidence[account_id, "refund"],
            ),
            _has_fallen(engaged[account_id], days[shard], policy.engagement_days),
            _population(regions.get(account_id), policy),
        )
        for account_id, shard in shards.items()
    }


def _population(region: tuple[int, str] | None, policy: Policy) -> str:
    if policy.population is None:
        return "all"
    return (region[1].strip().lower() if region else "") or "unknown"


def log_meanings(log: SimulatedLog) -> Iterator[tuple[tuple[Topic, int], Meaning]]:
    """What every good event record means, those that retention took included."""
    for topic in EVENT_TOPICS:
        for number in range(log.count):
            for meaning in log.places[topic, number].meanings:
                if isinstance(meaning, Meaning):
                    yield (topic, number), meaning


def _stage(first_purchase_day: int, day: int, new_start_days: int) -> str:
    if first_purchase_day > day:
        return "prospect"
    return "new_start" if day - first_purchase_day < new_start_days else "established"


def _accounts(snapshot: Snapshot, expected: Mapping[str, Expected]) -> Iterator[Wrong]:
    for shard in snapshot.account_shards:
        known = {account_id for account_id, about in expected.items() if about.shard == shard.partition}
        if known != shard.accounts.keys():
            yield Wrong("known_accounts", f"shard {shard.partition}", sorted(known), sorted(shard.accounts))
        for account_id in sorted(known & shard.accounts.keys()):
            account, about = shard.accounts[account_id], expected[account_id]
            if account.revenue_minor != about.revenue_minor:
                yield Wrong("revenue", account_id, about.revenue_minor, account.revenue_minor)
            if account.first_purchase_day != about.first_purchase_day:
                yield Wrong("first_purchase", account_id, about.first_purchase_day, account.first_purchase_day)


def _segments(snapshot: Snapshot, expected: Mapping[str, Expected], policy: Policy) -> Iterator[Wrong]:
    members = {account_id: member for account_id, (member, _) in snapshot.members().items()}
    for account_id, (_, population) in snapshot.members().items():
        if account_id in expected and population != expected[account_id].population:
            yield Wrong("population", account_id, expected[account_id].population, population)
    if len(members) != sum(len(its) for shard in snapshot.ranking_shards for its in shard.populations.values()):
        yield Wrong("announced", "members", "each once", [shard.populations for shard in snapshot.ranking_shards])
    clocked = {account_id: about for account_id, about in expected.items() if about.day > 0}
    if clocked.keys() != members.keys():
        yield Wrong("announced", "members", sorted(clocked), sorted(members))
    allowed: dict[str, tuple[str, ...]] = {}
    for population in {about.population for about in clocked.values()}:
        allowed |= _allowed({name: a for name, a in clocked.items() if a.population == population}, policy)
    announced = {a: account.announced for s in snapshot.account_shards for a, account in s.accounts.items()}
    for account_id in sorted(clocked.keys() & members.keys()):
        member, about = members[account_id], clocked[account_id]
        if not announced.get(account_id):
            yield Wrong("announced", account_id, "a standing sent", "none")
        if (member.stage, member.revenue_minor) != (about.stage, about.revenue_minor):
            wanted = f"{about.stage} with {about.revenue_minor}"
            yield Wrong("standing", account_id, wanted, f"{member.stage} with {member.revenue_minor}")
        if member.current_segment not in allowed[account_id]:
            yield Wrong("segment", account_id, allowed[account_id], str(member.current_segment))
        if member.segment != member.current_segment:
            yield Wrong("told", account_id, str(member.current_segment), member.segment)


def _allowed(expected: Mapping[str, Expected], policy: Policy) -> dict[str, tuple[str, ...]]:
    by_revenue = policy.basis == "revenue"
    weights = [
        (about.revenue_minor, about.revenue_minor if by_revenue else 1)
        for about in expected.values()
        if about.is_ranked
    ]
    total = sum(weight for _, weight in weights)
    allowed = {}
    for account_id, about in expected.items():
        if about.is_ranked:
            above = sum(weight for revenue, weight in weights if revenue > about.revenue_minor)
            best = sum(above * WHOLE_BP >= (share + policy.band_bp) * total for share in policy.boundaries)
            worst = sum(above * WHOLE_BP >= (share - policy.band_bp) * total for share in policy.boundaries)
            allowed[account_id] = TIERS[best : worst + 1]
        else:
            allowed[account_id] = ("commercial",) if about.stage == "established" else (about.stage,)
    return allowed


def _risks(snapshot: Snapshot, log: SimulatedLog, expected: Mapping[str, Expected], policy: Policy) -> Iterator[Wrong]:
    falls = _falls(log)
    members = {account_id: member for account_id, (member, _) in snapshot.members().items()}
    first_day = min((about.day for about in expected.values() if about.day > 0), default=0)
    for account_id in sorted(members):
        about, risk = expected[account_id], members[account_id].risk
        rhythm = (about.bought[0], about.bought[-1], len(about.bought)) if about.bought else None
        known = (risk.first_day, risk.last_day, risk.days_bought) if risk and risk.days_bought else None
        if known != rhythm:
            yield Wrong("rhythm", account_id, rhythm, known)
        elif risk is not None and rhythm is not None:
            evidence = (*about.evidence, falls.get(account_id, 0))
            if risk.evidence_days != evidence:
                yield Wrong("evidence", account_id, evidence, risk.evidence_days)
            if risk.engagement_fell is not about.engagement_fell:
                yield Wrong("engagement", account_id, about.engagement_fell, risk.engagement_fell)
            scores = [
                _score(about.bought, evidence, day, policy, fell=about.engagement_fell)
                for day in range(max(min(first_day, about.day), rhythm[1]), about.day + 1)
            ]
            allowed = [
                level
                for number, level in enumerate(("low", "watch", "high"))
                if any(_may_be(number, score, policy) for score in scores)
            ]
            if risk.level not in allowed:
                yield Wrong("risk_level", account_id, f"{allowed} with {scores}", str(risk.level))
            if risk.told_level != risk.level:
                yield Wrong("risk_told", account_id, str(risk.level), str(risk.told_level))


def _falls(log: SimulatedLog) -> dict[str, int]:
    """The day of each account's last change, where that was a fall of tier."""
    last: dict[str, dict[str, Any]] = {}
    for record in all_records(log, Topic.SEGMENT_CHANGES):
        data = orjson.loads(record.value or b"null")
        if data["sequence"] >= last.get(data["account_id"], data)["sequence"]:
            last[data["account_id"]] = data
    return {
        account_id: parse_instant(data["effective_at"]) // MICROSECONDS_PER_DAY
        for account_id, data in last.items()
        if data["direction"] == "down"
    }


def _has_fallen(days: set[int], day: int, engagement_days: int) -> bool:
    recent_days = max(1, engagement_days // 3)
    recent = sum(day - recent_days < on <= day for on in days) / recent_days
    past_days = engagement_days - recent_days
    past = sum(day - engagement_days < on <= day - recent_days for on in days) / past_days
    return past >= 1 / 8 and recent < past / 2


def _score(bought: tuple[int, ...], evidence: tuple[int, ...], day: int, policy: Policy, *, fell: bool) -> float:
    """In percent, by the textbook."""
    assert policy.model is not None
    r, alpha, a, b = policy.model.buying
    x, recency, age, horizon = len(bought) - 1, bought[-1] - bought[0], day - bought[0], policy.risk.horizon_days
    alive = 1 / (1 + a / (b + x) * ((alpha + age) / (alpha + recency)) ** (r + x))
    silent: float = ((alpha + age) / (alpha + age + horizon)) ** (r + x)
    chance = float(1 - alive * (1 - silent))
    about = policy.risk.evidence
    odds = chance / (1 - chance) * (about.engagement_fall if fell else 1)
    factors = (about.cancel_request, about.support_ticket, about.refund, about.tier_fall)
    for factor, since in zip(factors, evidence, strict=True):
        if since and since <= day < since + about.days:
            odds *= factor
    return 100 * odds / (1 + odds)


def _may_be(level: int, score: float, policy: Policy) -> bool:
    """With the band a level may be held down to a lower score than it is reached at."""
    risk = policy.risk
    boundaries = (risk.watch, risk.high)
    reached = sum(score >= boundary - 1e-9 for boundary in boundaries)
    held = sum(score >= boundary - risk.band - 1e-9 for boundary in boundaries)
    surely = sum(score >= boundary + 1e-9 for boundary in boundaries)
    return surely <= level <= max(reached, held)


class Chains(NamedTuple):
    """A kind of changes, and how a member knows of its own."""

    changes: Topic
    latest: Topic
    previous: str
    current: str
    begins: str | None
    told: Callable[[Member], tuple[int, str | None]]


SEGMENTS = Chains(
    Topic.SEGMENT_CHANGES,
    Topic.SEGMENTS,
    "previous_segment",
    "current_segment",
    None,
    lambda member: (member.sequence, member.segment),
)
RISKS = Chains(
    Topic.CHURN_RISK,
    Topic.RISKS,
    "previous_level",
    "current_level",
    "low",
    lambda member: (member.risk.sequence, member.risk.told_level) if member.risk else (0, "low"),
)


def _changes(snapshot: Snapshot, log: SimulatedLog, kind: Chains) -> Iterator[Wrong]:
    chains: dict[str, list[tuple[dict[str, Any], Record]]] = defaultdict(list)
    for record in all_records(log, kind.changes):
        data = orjson.loads(record.value or b"null")
        account_id, sequence, chain = data["account_id"], data["sequence"], chains[data["account_id"]]
        if record.key != account_id.encode() or header(record.headers, "ce_id") != f"{account_id}:{sequence}":
            yield Wrong("change_identity", f"offset {record.offset}", f"{account_id}:{sequence}", record.key)
        if sequence <= len(chain):
            if _bytes(chain[sequence - 1][1]) != _bytes(record):
                yield Wrong("republished", f"{account_id}:{sequence}", chain[sequence - 1][0], data)
        elif sequence != len(chain) + 1:
            yield Wrong("chain", account_id, f"sequence {len(chain) + 1}", f"sequence {sequence}")
            return
        else:
            before = chain[-1][0] if chain else None
            previous = before[kind.current] if before else kind.begins
            has_moved = before is not None and data["population"] != before["population"]
            is_empty = data[kind.current] == previous and (kind is RISKS or not has_moved)
            was_in = before["population"] if before and has_moved else None
            if data[kind.previous] != previous or is_empty or data.get("previous_population", was_in) != was_in:
                yield Wrong("links", f"{account_id}:{sequence}", previous, data)
            if before and data["effective_at"] < before["effective_at"]:
                yield Wrong("effective_order", f"{account_id}:{sequence}", before["effective_at"], data["effective_at"])
            chain.append((data, record))
            of_policy = data["cause"]["kind"] if kind is SEGMENTS else data["trigger"]
            is_silent = of_policy == "policy_changed" and data["policy_version"].endswith(SILENT)
            if (data["mode"] == "silent") is not is_silent:
                yield Wrong("silent_mode", f"{account_id}:{sequence}", is_silent, data)
    latest = {(record.key or b"").decode(): record for record in all_records(log, kind.latest)}
    members = {account_id: member for account_id, (member, _) in snapshot.members().items()}
    for account_id in sorted(chains.keys() | latest.keys() | members.keys()):
        chain, member = chains[account_id], members.get(account_id)
        if member is not None and not chain and account_id not in latest and kind.told(member) == (0, kind.begins):
            continue
        if member is None or not chain or account_id not in latest:
            yield Wrong("last_change", account_id, "a member that was told of", (member, len(chain)))
            continue
        data, record = chain[-1]
        if (data["sequence"], data[kind.current]) != kind.told(member):
            yield Wrong("last_change", account_id, kind.told(member), data)
        if kind is SEGMENTS and data["population"] != snapshot.members()[account_id][1]:
            yield Wrong("last_change", account_id, snapshot.members()[account_id][1], data)
        if _bytes(record) != _bytes(latest[account_id]):
            yield Wrong("compacted_bytes", account_id, record.value, latest[account_id].value)


def _bytes(record: Record) -> tuple[object, ...]:
    return record.partition, record.key, record.value, tuple(record.headers)


def _counters(snapshot: Snapshot, log: SimulatedLog) -> Iterator[Wrong]:
    named = {
        (letter.topic, letter.partition, letter.offset)
        for record in all_records(log, Topic.DEAD_LETTERS)
        for letter in [read_dead_letter(record.key, record.value, record.headers)]
    }
    dead = Counter((topic, number) for topic, number, _ in named)
    bad = {(t, n): sum(m is None for m in log.places[t, n].meanings) for t in ACCOUNT_INPUTS for n in range(log.count)}
    for shard in snapshot.account_shards:
        for topic in ACCOUNT_INPUTS:
            place = topic, shard.partition
            counts, written = shard.counts(topic), len(log.places[place].meanings)
            if sum(counts.values()) != written:
                yield Wrong("consumed", f"{topic}[{shard.partition}]", f"{written} records", counts)
            # Of two policies with one number, which a store that goes back may forget, a shard takes the first. And one
            # that was refused may be no other than the one with which a store that was lost began anew.
            switches = sum(isinstance(meaning, PolicySwitch) for meaning in log.places[place].meanings)
            if not bad[place] <= counts["dead_letters"] <= dead[place] <= bad[place] + switches:
                found = f"{counts['dead_letters']} counted, {dead[place]} named"
                yield Wrong("dead_letters", f"{topic}[{shard.partition}]", bad[place], found)
            different = len({m[:2] for m in log.places[place].meanings if isinstance(m, Meaning)})
            if counts["applied"] < different:
                yield Wrong("first_ones_applied", f"{topic}[{shard.partition}]", different, counts["applied"])
    for ranking in snapshot.ranking_shards:
        partition = log.places[Topic.STANDINGS, ranking.partition]
        progress = ranking.progress.get(Topic.STANDINGS, 0)
        written = sum(ranking.begin <= record.offset < progress for record in partition.read(0, partition.end)[0])
        if not partition.first and sum(ranking.counts().values()) != written:
            yield Wrong("consumed", f"standings[{ranking.partition}]", written, ranking.counts())


def _worklists(snapshot: Snapshot, accounts: Mapping[str, Expected], policy: Policy) -> Iterator[Wrong]:
    classifier = Classifier.of(policy)
    expected = {
        account_id: classifier.traits(attributes_of(profile))
        for shard in snapshot.account_shards
        for account_id, profile in shard.profiles.items()
    }
    found = {account_id: traits for shard in snapshot.ranking_shards for account_id, traits in shard.traits.items()}
    if found != expected:
        yield Wrong("traits", "all accounts", expected, found)
    places = Counter(("owners", owner_entry(traits, name)) for name, traits in expected.items() if traits.owner)
    figures: dict[tuple[str, tuple[str, ...]], ClassFigures] = {}
    for account_id, (member, population) in snapshot.members().items():
        traits, about = expected.get(account_id, NO_TRAITS), accounts[account_id]
        figures.setdefault((population, traits.class_path), ClassFigures()).count(about.stage, about.revenue_minor)
        segment = member.current_segment
        places[f"worklist_{segment}", prospect_entry(traits, account_id) if segment == "prospect" else account_id] += 1
    listed = Counter(
        (name, entry)
        for shard in snapshot.ranking_shards
        for name, entries in shard.worklists.items()
        for entry in entries
    )
    if listed != places:
        yield Wrong("places", "all accounts", places - listed, listed - places)
    stored = {
        (population, path): of_class.numbers()
        for shard in snapshot.ranking_shards
        for population, classes in shard.classes.figures.items()
        for path, of_class in classes.items()
    }
    wanted = {name: of_class.numbers() for name, of_class in figures.items()}
    if stored != wanted:
        yield Wrong("class_figures", "all classes", wanted, stored)
