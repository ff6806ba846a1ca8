"""The oracle's database: the log and the state side by side, in tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from segmentation.account import NEVER, Profile
from segmentation.buying import KEPT_DAYS
from segmentation.classification import NO_TRAITS, Classifier, attributes_of
from segmentation.policy import Policy
from segmentation.risk import EVIDENCE, RiskRules
from segmentation.worklist import class_name
from streams.snapshot import ShardState, Snapshot
from streams.topics import ACCOUNT_INPUTS, EVENT_TOPICS, Topic

ROWS_AT_ONCE = 5_000
"""A part of a column that is handed to the database in one call."""

Row = tuple[Any, ...]


class CannotVerify(Exception):
    """The check could not be made; the message says what to do first."""


class EventRecord(NamedTuple):
    """A record of an event topic."""

    topic: str
    shard: int
    log_offset: int
    payload: str | None


class ChangeRecord(NamedTuple):
    """A record of `segment-changes` or `segments`."""

    topic: str
    part: int
    log_offset: int
    key: str | None
    ce_id: str | None
    input_offset: int | None
    fingerprint: str
    """Of key, value and headers, byte for byte."""
    payload: str | None


def _duckdb() -> ModuleType:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise CannotVerify("verifying needs DuckDB: pip install 'resegment[verify]'") from error
    return duckdb


def _sql(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


class Database:
    """One verification's tables, see schema.sql; a file of its own in a directory that the caller removes.

    For one thread at a time.
    """

    def __init__(self, directory: Path) -> None:
        """Raises CannotVerify where DuckDB is not installed."""
        # Nothing is to be fetched from anywhere: all that is used is part of DuckDB itself.
        config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        self._connection = _duckdb().connect(str(directory / "oracle.duckdb"), config=config)
        self._connection.execute(_sql("schema.sql"))
        self._connection.begin()  # up to `parse`: a commit for each part would cost as much as the part itself

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # -- asking ---------------------------------------------------------------------------------------------

    def rows(self, sql: str) -> Iterator[Row]:
        """The rows of a query, a part at a time."""
        cursor = self._connection.execute(sql)
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield from rows

    def one(self, sql: str) -> Row:
        """The only row of a query."""
        row: Row | None = self._connection.execute(sql).fetchone()
        assert row is not None
        return row

    # -- filling --------------------------------------------------------------------------------------------

    def insert(self, table: str, rows: Iterable[Sequence[Any]], select: str = "SELECT * FROM part") -> None:
        """Put rows into a table, or what a query makes of their columns c1, c2, ... in `part`."""
        part: list[Sequence[Any]] = []
        for row in rows:
            part.append(row)
            if len(part) == ROWS_AT_ONCE:
                self._insert(table, part, select)
                part = []
        if part:
            self._insert(table, part, select)

    def _insert(self, table: str, rows: list[Sequence[Any]], select: str) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        unnested = ", ".join(f"unnest(?) AS c{number}" for number in range(1, len(columns) + 1))
        self._connection.execute(f"INSERT INTO {table} WITH part AS (SELECT {unnested}) {select}", columns)

    def load_policy(self, policy: Policy) -> None:
        """The rules, and the exact ratios of the currencies."""
        rules = RiskRules.of(policy)
        self.insert(
            "rules",
            [
                (
                    policy.window_days,
                    policy.new_start_days,
                    policy.band_bp,
                    policy.basis == "revenue",
                    policy.base_currency,
                    policy.engagement_days,
                    rules.engagement_factor,
                    *rules.model,
                    rules.horizon_days,
                    KEPT_DAYS,
                )
            ],
        )
        risk = policy.risk
        self.insert(
            "evidence_rules",
            [(name, factor, rules.evidence_days) for name, factor in zip(EVIDENCE, rules.factors, strict=True)],
        )
        self.insert("risk_boundaries", [(score, score - risk.band) for score in (risk.watch, risk.high)])
        self.insert("boundaries", [(share_bp,) for share_bp in policy.boundaries])
        converter = policy.converter()
        self.insert(
            "rates",
            [(currency, *map(str, converter.ratio(currency))) for currency in converter.currencies],
            "SELECT c1, c2::HUGEINT, c3::HUGEINT FROM part",
        )

    def load_snapshot(self, snapshot: Snapshot, policy: Policy) -> None:
        """The state: accounts and members, and in which populations their attributes put them. O(n)."""
        classifier = Classifier.of(policy)
        self.insert(
            "populations",
            (
                (account_id, classifier.population(shard.profiles.get(account_id) or Profile()))
                for shard in snapshot.account_shards
                for account_id in shard.accounts
            ),
        )
        self.insert(
            "accounts",
            (
                (
                    account.account_id,
                    shard.partition,
                    account.day,
                    None if account.first_purchase_day == NEVER else account.first_purchase_day,
                    str(account.revenue_minor),
                    account.announced,
                )
                for shard in snapshot.account_shards
                for account in shard.accounts.values()
            ),
            "SELECT c1, c2, c3, c4, c5::HUGEINT, c6 FROM part",
        )
        self.insert(
            "members",
            (
                (
                    member.account_id,
                    shard.partition,
                    population,
                    str(member.stage),
                    str(member.revenue_minor),
                    str(member.current_segment),
                    str(member.segment) if member.segment is not None else None,
                    member.sequence,
                    member.effective_at_us,
                )
                for shard in snapshot.ranking_shards
                for population, members in shard.populations.items()
                for member in members.values()
            ),
            "SELECT c1, c2, c3, c4, c5::HUGEINT, c6, c7, c8, c9 FROM part",
        )

        self.insert(
            "risks",
            (
                (
                    member.account_id,
                    risk.first_day,
                    risk.last_day,
                    risk.days_bought,
                    risk.engagement_fell,
                    str(risk.level),
                    str(risk.told_level),
                    risk.sequence,
                    risk.effective_at_us,
                )
                for shard in snapshot.ranking_shards
                for members in shard.populations.values()
                for member in members.values()
                if (risk := member.risk) is not None
            ),
        )

        self.insert(
            "evidence",
            (
                (member.account_id, name, day)
                for shard in snapshot.ranking_shards
                for members in shard.populations.values()
                for member in members.values()
                if member.risk is not None
                for name, day in zip(EVIDENCE, member.risk.evidence_days, strict=True)
                if day
            ),
        )

    def load_worklists(self, snapshot: Snapshot, policy: Policy) -> None:
        """What is kept of whom to work on, beside what the attributes that accounts have stated say. O(n)."""
        classifier = Classifier.of(policy)
        expected = (
            (account_id, "expected", classifier.traits(attributes_of(profile)))
            for shard in snapshot.account_shards
            for account_id, profile in shard.profiles.items()
        )
        found = (
            (account_id, "found", traits)
            for shard in snapshot.ranking_shards
            for account_id, traits in shard.traits.items()
        )
        self.insert(
            "traits",
            (
                (account_id, origin, class_name(traits.class_path), traits.fit, traits.owner, traits.region)
                for account_id, origin, traits in chain(expected, found)
            ),
        )
        self.insert(
            "classes",
            (
                (population, class_name(path), *map(str, figures.numbers()))
                for shard in snapshot.ranking_shards
                for population, classes in shard.classes.figures.items()
                for path, figures in classes.items()
            ),
            "SELECT c1, c2, c3::BIGINT, c4::BIGINT, c5::BIGINT, c6::HUGEINT, c7::HUGEINT FROM part",
        )
        self.insert(
            "places",
            (
                (name, entry)
                for shard in snapshot.ranking_shards
                for name, entries in shard.worklists.items()
                for entry in entries
            ),
        )
        are_settled = not any(shard.unplaced for shard in snapshot.ranking_shards)
        self.insert("worklists", [(are_settled, class_name(NO_TRAITS.class_path))])

    def load_progress(
        self,
        snapshot: Snapshot,
        records: Mapping[tuple[Topic, int], int],
        firsts: Mapping[tuple[Topic, int], int],
    ) -> None:
        """How far each input is applied, what was counted, and where the log begins.

        `records`: how many records of each input the log has before the snapshot's progress. Of an input that is not
        in `records` they were not counted.
        """
        self.insert(
            "account_shards",
            [
                (
                    shard.partition,
                    shard.day,
                    all(not firsts[topic, shard.partition] for topic in EVENT_TOPICS)
                    and not any(first for (topic, _), first in firsts.items() if topic is Topic.DEAD_LETTERS),
                )
                for shard in snapshot.account_shards
            ],
        )
        inputs: list[tuple[Topic, ShardState, dict[str, int]]] = [
            *((topic, shard, shard.counts(topic)) for shard in snapshot.account_shards for topic in ACCOUNT_INPUTS),
            *((Topic.STANDINGS, ranking, ranking.counts()) for ranking in snapshot.ranking_shards),
        ]
        self.insert(
            "inputs",
            [
                (
                    str(topic),
                    shard.partition,
                    shard.progress.get(topic, 0),
                    firsts[topic, shard.partition],
                    records.get((topic, shard.partition)),
                    counts["applied"],
                    counts["duplicates"],
                    counts["dead_letters"],
                )
                for topic, shard, counts in inputs
            ],
        )
        self.insert(
            "completeness",
            [
                tuple(
                    not any(first for (topic, _), first in firsts.items() if topic in wanted)
                    for wanted in ((Topic.DEAD_LETTERS,), (Topic.SEGMENT_CHANGES, Topic.CHURN_RISK))
                )
            ],
        )

    def load_dead_letters(self, names: Iterable[tuple[str, int, int]]) -> None:
        """The records that are dead letters: (topic, partition, offset)."""
        self.insert("dead_letters", sorted(set(names)))

    def load_events(self, records: Iterable[EventRecord]) -> None:
        """Records of the event topics, good and bad."""
        self.insert("raw_events", records)

    def load_changes(self, records: Iterable[ChangeRecord]) -> None:
        """Records of `segment-changes` and of `segments`."""
        self.insert("raw_changes", records)

    def parse(self) -> None:
        """Read the payloads, once policy, dead letters, events and changes are loaded."""
        self._connection.commit()
        self._connection.execute(_sql("parse.sql"))

    def leave_out_later(self) -> None:
        """Take away what the log holds from after the state was read. Between `parse` and `expect`."""
        self._connection.execute(_sql("leave_out_later.sql"))

    def expect(self) -> None:
        """Work out from what was loaded what must be."""
        self._connection.execute(_sql("expected.sql"))
