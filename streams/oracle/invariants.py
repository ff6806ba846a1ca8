"""What must hold between the log and the state, one function for each: it returns what breaks the rule.

A row that is returned says (subject, expected, found). All of them assume an installation at rest, and a database
that has worked out what it expects.
"""

from collections.abc import Callable, Iterator

from streams.oracle.database import Database, Row

Invariant = Callable[[Database], Iterator[Row]]


# -- accounts ----------------------------------------------------------------------------------------------


def readable(database: Database) -> Iterator[Row]:
    """Every event record that is no dead letter can be read by who knows nothing but the contract."""
    return database.rows("""
        SELECT concat(topic, '[', shard, ']'), 'a record that can be read', concat('offset ', log_offset)
        FROM records
        CROSS JOIN completeness
        WHERE are_dead_letters_complete AND NOT is_dead AND (
            account_id IS NULL OR event_id IS NULL OR revenue_day IS NULL
            OR (topic = 'purchases' AND amount_minor IS NULL)
        )
        ORDER BY topic, shard, log_offset
    """)


def known_accounts(database: Database) -> Iterator[Row]:
    """The state holds exactly the accounts that the log holds events of, each in its own shard."""
    return database.rows("""
        SELECT
            account_id,
            CASE WHEN expected.day IS NULL THEN 'nothing' ELSE concat('an account in shard ', shard) END,
            CASE WHEN accounts.day IS NULL THEN 'nothing' ELSE concat('an account in shard ', shard) END
        FROM accounts
        FULL JOIN expected USING (account_id, shard)
        JOIN account_shards USING (shard)
        CROSS JOIN completeness
        WHERE (accounts.day IS NULL AND are_dead_letters_complete)
            OR (expected.day IS NULL AND account_shards.is_complete)
        ORDER BY account_id
    """)


def revenue(database: Database) -> Iterator[Row]:
    """An account's rolling revenue is the sum of its purchases of the window, each once, in base currency."""
    return database.rows("""
        SELECT account_id, expected.revenue_minor::VARCHAR, accounts.revenue_minor::VARCHAR
        FROM accounts
        JOIN expected USING (account_id, shard)
        WHERE expected.is_certain AND accounts.revenue_minor <> expected.revenue_minor
        ORDER BY account_id
    """)


def first_purchase(database: Database) -> Iterator[Row]:
    """An account's first purchase is the earliest of all, however long ago."""
    return database.rows("""
        SELECT
            account_id,
            coalesce((DATE '1970-01-01' + expected.first_purchase_day)::VARCHAR, 'nothing'),
            coalesce((DATE '1970-01-01' + accounts.first_purchase_day)::VARCHAR, 'nothing')
        FROM accounts
        JOIN expected USING (account_id, shard)
        WHERE expected.is_certain AND accounts.first_purchase_day IS DISTINCT FROM expected.first_purchase_day
        ORDER BY account_id
    """)


def stage(database: Database) -> Iterator[Row]:
    """An account's stage is what its first purchase makes of it on the day that its shard's clock shows."""
    return database.rows("""
        SELECT account_id, judged.stage, found.stage
        FROM judged
        JOIN (
            SELECT account_id, shard, stage_of(first_purchase_day, day, new_start_days) AS stage
            FROM accounts
            CROSS JOIN rules
        ) AS found USING (account_id, shard)
        WHERE judged.stage <> found.stage
        ORDER BY account_id
    """)


# -- ranking -----------------------------------------------------------------------------------------------


def announced(database: Database) -> Iterator[Row]:
    """Once its shard's clock is set, an account is a member of one population, and has been announced."""
    return database.rows("""
        WITH memberships AS (
            SELECT account_id, count(*) AS members, count(segment) AS told FROM members GROUP BY account_id
        )
        SELECT
            account_id,
            CASE WHEN judged.day > 0 THEN '1 member, 1 announced' ELSE '0 members, 0 announced' END,
            concat(
                coalesce(memberships.members, 0), ' members, ', coalesce(memberships.told, 0), ' announced',
                CASE WHEN judged.day > 0 AND NOT accounts.is_announced THEN ', no standing sent' END
            )
        FROM judged
        LEFT JOIN accounts USING (account_id, shard)
        FULL JOIN memberships USING (account_id)
        WHERE CASE
            WHEN judged.day > 0 THEN memberships.members IS DISTINCT FROM 1
                OR memberships.told IS DISTINCT FROM 1 OR accounts.is_announced IS DISTINCT FROM true
            ELSE memberships.members > 0
        END
        ORDER BY account_id
    """)


def standing(database: Database) -> Iterator[Row]:
    """The ranking stage knows each account as the account stage does."""
    return database.rows("""
        SELECT
            account_id,
            concat(judged.stage, ' with ', judged.revenue_minor),
            concat(members.stage, ' with ', members.revenue_minor)
        FROM members
        JOIN judged USING (account_id)
        WHERE judged.day > 0
            AND (members.stage <> judged.stage OR members.revenue_minor <> judged.revenue_minor)
        ORDER BY account_id
    """)


def segment(database: Database) -> Iterator[Row]:
    """An account's segment is its stage, or one of the tiers that its position and the band allow.

    With a band of 0 that is one tier.
    """
    return database.rows("""
        SELECT account_id, array_to_string(allowed.segments, ' or '), members.current_segment
        FROM members
        JOIN allowed USING (account_id)
        WHERE NOT list_contains(allowed.segments, members.current_segment)
        ORDER BY account_id
    """)


def population(database: Database) -> Iterator[Row]:
    """An account is ranked where its attributes put it, and that is what the world was told last."""
    return database.rows("""
        SELECT account_id, populations.population, concat(members.population, ', told ', last_told.population)
        FROM members
        JOIN populations USING (account_id)
        LEFT JOIN (SELECT * FROM last_told WHERE subject = 'segment') AS last_told USING (account_id)
        WHERE members.population <> populations.population OR last_told.population <> populations.population
        ORDER BY account_id
    """)


def told(database: Database) -> Iterator[Row]:
    """The world was told the segment that an account has."""
    return database.rows("""
        SELECT account_id, current_segment, coalesce(segment, 'nothing')
        FROM members
        WHERE segment IS DISTINCT FROM current_segment
        ORDER BY account_id
    """)


# -- risk --------------------------------------------------------------------------------------------------


def rhythm(database: Database) -> Iterator[Row]:
    """The ranking stage knows how often each account has bought, counted by days, and when first and last."""
    return database.rows("""
        SELECT account_id, expected, found
        FROM (
            SELECT
                account_id,
                CASE WHEN rhythms.account_id IS NULL THEN 'nothing'
                    ELSE concat(rhythms.days_bought, ' days, ', rhythms.first_day, ' to ', rhythms.last_day) END
                    AS expected,
                CASE WHEN risks.account_id IS NULL THEN 'nothing'
                    ELSE concat(risks.days_bought, ' days, ', risks.first_day, ' to ', risks.last_day) END AS found
            FROM rhythms
            FULL JOIN (SELECT * FROM risks WHERE days_bought > 0) AS risks USING (account_id)
            JOIN judged USING (account_id)
            WHERE judged.day > 0 AND judged.is_certain
        )
        WHERE expected <> found
        ORDER BY account_id
    """)


def evidence(database: Database) -> Iterator[Row]:
    """The ranking stage knows when an account last asked to cancel, and so on, and when it last fell by a tier."""
    return database.rows("""
        SELECT
            concat(account_id, ' ', name),
            coalesce(expected.day::VARCHAR, 'never'),
            coalesce(found.day::VARCHAR, 'never')
        FROM (
            SELECT account_id, name, expected_evidence.day
            FROM expected_evidence
            JOIN rhythms USING (account_id)
        ) AS expected
        FULL JOIN (
            SELECT account_id, name, evidence.day FROM evidence JOIN rhythms USING (account_id)
        ) AS found USING (account_id, name)
        CROSS JOIN completeness
        WHERE expected.day IS DISTINCT FROM found.day AND are_changes_complete
        ORDER BY account_id, name
    """)


def engagement(database: Database) -> Iterator[Row]:
    """The ranking stage knows who engages less than half as often as in its own past."""
    return database.rows("""
        SELECT
            account_id,
            CASE WHEN fallen.account_id IS NULL THEN 'as ever' ELSE 'fallen' END,
            CASE WHEN risks.engagement_fell THEN 'fallen' ELSE 'as ever' END
        FROM risks
        JOIN rhythms USING (account_id)
        LEFT JOIN fallen USING (account_id)
        WHERE risks.engagement_fell <> (fallen.account_id IS NOT NULL)
        ORDER BY account_id
    """)


def risk_level(database: Database) -> Iterator[Row]:
    """An account's level of risk is one that its score and the band allow."""
    return database.rows("""
        SELECT
            account_id,
            concat(
                array_to_string(list_slice(['low', 'watch', 'high'], lowest + 1, highest + 1), ' or '),
                ' with ', round(score, 6)
            ),
            level
        FROM risks
        JOIN allowed_levels USING (account_id)
        CROSS JOIN completeness
        WHERE are_changes_complete
            AND NOT list_contains(list_slice(['low', 'watch', 'high'], lowest + 1, highest + 1), level)
        ORDER BY account_id
    """)


def risk_told(database: Database) -> Iterator[Row]:
    """The world was told the level of risk that an account has; `low` where it was told nothing."""
    return database.rows("""
        SELECT account_id, level, told_level
        FROM risks
        WHERE level <> told_level AND days_bought > 0
        ORDER BY account_id
    """)


# -- changes -----------------------------------------------------------------------------------------------


def change_identity(database: Database) -> Iterator[Row]:
    """Every record of the changes can be read, and its key and `ce_id` say what its data say."""
    return database.rows("""
        SELECT
            concat(subject, ' changes[', part, ']'),
            coalesce(concat(account_id, ':', sequence), 'a change of an account'),
            concat('offset ', log_offset, ' with key ', key, ' and id ', ce_id)
        FROM changes
        WHERE account_id IS NULL OR sequence IS NULL OR current IS NULL OR effective_at_us IS NULL
            OR key IS DISTINCT FROM account_id OR ce_id IS DISTINCT FROM concat(account_id, ':', sequence)
        ORDER BY subject, part, log_offset
    """)


def chain(database: Database) -> Iterator[Row]:
    """An account's changes have the sequences 1, 2, 3, ... without a gap, and appear first in this order."""
    return database.rows("""
        SELECT concat(subject, ' of ', account_id), concat('sequence ', expected), concat('sequence ', sequence)
        FROM (
            SELECT
                subject,
                account_id,
                sequence,
                CASE
                    WHEN before IS NOT NULL THEN before + 1
                    WHEN are_changes_complete THEN 1
                    ELSE sequence
                END AS expected
            FROM (
                SELECT
                    subject,
                    account_id,
                    sequence,
                    lag(sequence) OVER (PARTITION BY subject, account_id ORDER BY log_offset) AS before
                FROM told
            )
            CROSS JOIN completeness
        )
        WHERE sequence <> expected
        ORDER BY subject, account_id, sequence
    """)


def links(database: Database) -> Iterator[Row]:
    """A change begins with what the one before it ended with, the first one with no segment, or with low risk.

    It ends with something else, or in another population.
    """
    return database.rows("""
        SELECT
            concat(subject, ' of ', account_id, ':', sequence),
            concat('from ', coalesce(before, 'nothing')),
            concat('from ', coalesce(previous, 'nothing'))
        FROM (
            SELECT
                * EXCLUDE (before),
                CASE WHEN before IS NULL AND sequence = 1 AND subject = 'risk' THEN 'low' ELSE before END AS before
            FROM (
                SELECT
                    *,
                    lag(current) OVER (PARTITION BY subject, account_id ORDER BY sequence) AS before,
                    lag(population) OVER (PARTITION BY subject, account_id ORDER BY sequence) AS was_in
                FROM told
            )
        )
        WHERE (before IS NOT NULL OR sequence = 1) AND (
            previous IS DISTINCT FROM before
            OR (current IS NOT DISTINCT FROM before AND (subject = 'risk' OR population IS NOT DISTINCT FROM was_in))
        )
        ORDER BY subject, account_id, sequence
    """)


def effective_order(database: Database) -> Iterator[Row]:
    """`effective_at` never goes back within an account."""
    return database.rows("""
        SELECT
            concat(subject, ' of ', account_id, ':', sequence),
            concat('not before ', make_timestamp(before)),
            make_timestamp(effective_at_us)::VARCHAR
        FROM (
            SELECT *, lag(effective_at_us) OVER (PARTITION BY subject, account_id ORDER BY sequence) AS before
            FROM told
        )
        WHERE effective_at_us < before
        ORDER BY subject, account_id, sequence
    """)


def republished(database: Database) -> Iterator[Row]:
    """A change that is in the log twice is the same, byte for byte, in the same partition."""
    return database.rows("""
        SELECT
            concat(subject, ' of ', account_id, ':', sequence),
            '1 form',
            concat(variants, ' forms in ', parts, ' partitions')
        FROM told
        WHERE variants > 1 OR parts > 1
        ORDER BY subject, account_id, sequence
    """)


def last_change(database: Database) -> Iterator[Row]:
    """The last change of an account in the log is the one that the ranking stage knows as told last."""
    return database.rows("""
        SELECT concat(subject, ' of ', account_id), expected, found
        FROM (
            SELECT
                subject,
                account_id,
                CASE WHEN last_told.sequence IS NULL THEN 'nothing' ELSE concat(
                    last_told.sequence, ' ', last_told.current, ' ', make_timestamp(last_told.effective_at_us)
                ) END AS expected,
                CASE WHEN known_told.sequence IS NULL THEN 'nothing' ELSE concat(
                    known_told.sequence, ' ', known_told.current, ' ', make_timestamp(known_told.effective_at_us)
                ) END AS found
            FROM last_told
            FULL JOIN known_told USING (subject, account_id)
        )
        CROSS JOIN completeness
        WHERE expected <> found AND (expected <> 'nothing' OR are_changes_complete)
        ORDER BY subject, account_id
    """)


def compacted(database: Database) -> Iterator[Row]:
    """The compacted topic's latest of each account is what the ranking stage told last."""
    return database.rows("""
        SELECT concat(subject, ' of ', account_id), expected, found
        FROM (
            SELECT
                subject,
                account_id,
                CASE WHEN known_told.sequence IS NULL THEN 'nothing'
                    ELSE concat(known_told.sequence, ' ', known_told.current) END AS expected,
                CASE WHEN last_compacted.account_id IS NULL THEN 'nothing'
                    ELSE concat(last_compacted.sequence, ' ', last_compacted.current) END AS found
            FROM known_told
            FULL JOIN last_compacted USING (subject, account_id)
        )
        WHERE expected <> found
        ORDER BY subject, account_id
    """)


def compacted_bytes(database: Database) -> Iterator[Row]:
    """The compacted topic's latest of each account is its last change, byte for byte."""
    return database.rows("""
        SELECT
            concat(subject, ' of ', account_id),
            concat('the bytes of change ', last_told.sequence),
            concat('others, for ', last_compacted.sequence)
        FROM last_told
        JOIN last_compacted USING (subject, account_id)
        WHERE last_told.fingerprint <> last_compacted.fingerprint
        ORDER BY subject, account_id
    """)


# -- counters ----------------------------------------------------------------------------------------------


def consumed(database: Database) -> Iterator[Row]:
    """Of each input as many records lie before the progress as were applied, duplicates and dead letters.

    Where the log has lost its beginning it may hold fewer.
    """
    return database.rows("""
        SELECT
            concat(topic, '[', shard, ']'),
            concat(records, ' consumed'),
            concat(applied, ' applied + ', duplicates, ' duplicates + ', dead_letters, ' dead letters')
        FROM inputs
        WHERE records IS NOT NULL AND CASE
            WHEN first_offset = 0 THEN records <> applied + duplicates + dead_letters
            ELSE records > applied + duplicates + dead_letters
        END
        ORDER BY topic, shard
    """)


def dead_letters(database: Database) -> Iterator[Row]:
    """The dead-letters topic names as many records of each input, each once, as were counted."""
    return database.rows("""
        SELECT
            concat(topic, '[', shard, ']'),
            concat(inputs.dead_letters, ' dead letters'),
            concat(coalesce(found.named, 0), ' named')
        FROM inputs
        FULL JOIN (
            SELECT topic, shard, count(*) AS named FROM dead_letters GROUP BY topic, shard
        ) AS found USING (topic, shard)
        CROSS JOIN completeness
        WHERE coalesce(inputs.dead_letters, 0) <> coalesce(found.named, 0) AND are_dead_letters_complete
        ORDER BY topic, shard
    """)


def first_ones_applied(database: Database) -> Iterator[Row]:
    """No event counts as a duplicate the first time: at least as many were applied as there are different ones."""
    return database.rows("""
        SELECT
            concat(topic, '[', shard, ']'),
            concat('at least ', different, ' applied'),
            concat(applied, ' applied')
        FROM inputs
        JOIN (
            SELECT topic, shard, count(*) AS different FROM events GROUP BY topic, shard
        ) USING (topic, shard)
        CROSS JOIN completeness
        WHERE are_dead_letters_complete AND applied < different
        ORDER BY topic, shard
    """)


# -- worklists ---------------------------------------------------------------------------------------------


def traits(database: Database) -> Iterator[Row]:
    """The ranking stage knows what each account's attributes say."""
    return database.rows("""
        SELECT account_id, expected.of_account, found.of_account
        FROM (
            SELECT account_id, concat_ws(', ', class, fit, owner, region) AS of_account
            FROM traits
            WHERE origin = 'expected'
        ) AS expected
        FULL JOIN (
            SELECT account_id, concat_ws(', ', class, fit, owner, region) AS of_account
            FROM traits
            WHERE origin = 'found'
        ) AS found USING (account_id)
        WHERE expected.of_account IS DISTINCT FROM found.of_account
        ORDER BY account_id
    """)


def class_figures(database: Database) -> Iterator[Row]:
    """What a class adds up to is the sum over its accounts."""
    return database.rows("""
        WITH counted AS (
            SELECT
                members.population,
                coalesce(traits.class, worklists.no_class) AS class,
                judged.stage,
                CASE WHEN judged.stage = 'established' THEN greatest(judged.revenue_minor, 0) ELSE 0 END AS revenue
            FROM members
            JOIN judged USING (account_id)
            CROSS JOIN worklists
            LEFT JOIN traits ON traits.account_id = members.account_id AND traits.origin = 'expected'
            WHERE worklists.are_settled AND judged.day > 0
        ),
        expected AS (
            SELECT
                population,
                class,
                concat_ws(
                    ', ', count(*), count(*) FILTER (stage <> 'prospect'), count(*) FILTER (stage = 'established'),
                    sum(revenue), sum(revenue * revenue)
                ) AS figures
            FROM counted
            GROUP BY population, class
        ),
        found AS (
            SELECT
                population,
                class,
                concat_ws(', ', accounts, buyers, established, revenue_minor, revenue_squared) AS figures
            FROM classes
            CROSS JOIN worklists
            WHERE are_settled
        )
        SELECT concat(population, ' / ', class), expected.figures, found.figures
        FROM expected
        FULL JOIN found USING (population, class)
        WHERE expected.figures IS DISTINCT FROM found.figures
        ORDER BY population, class
    """)


def places(database: Database) -> Iterator[Row]:
    """Each account is on the worklist of its segment and on no other one, and on its owner's."""
    return database.rows("""
        WITH described AS (
            SELECT
                members.account_id,
                members.current_segment,
                coalesce(traits.class, worklists.no_class) AS class,
                coalesce(traits.fit, 0) AS fit
            FROM members
            CROSS JOIN worklists
            LEFT JOIN traits ON traits.account_id = members.account_id AND traits.origin = 'expected'
            WHERE worklists.are_settled
        ),
        expected AS (
            SELECT
                concat('worklist_', current_segment) AS list,
                CASE
                    WHEN current_segment = 'prospect' THEN concat_ws(chr(0), class, format('{:03d}', fit), account_id)
                    ELSE account_id
                END AS entry
            FROM described
            UNION ALL
            SELECT 'owners', concat_ws(chr(0), owner, account_id)
            FROM traits
            CROSS JOIN worklists
            WHERE origin = 'expected' AND owner <> '' AND are_settled
        ),
        found AS (
            SELECT places.list, places.entry FROM places CROSS JOIN worklists WHERE are_settled
        )
        SELECT
            replace(entry, chr(0), ' '),
            CASE WHEN expected.list IS NULL THEN 'nowhere' ELSE concat('on ', expected.list) END,
            CASE WHEN found.list IS NULL THEN 'not there' ELSE concat('on ', found.list) END
        FROM (SELECT list, entry, list AS name FROM expected) AS expected
        FULL JOIN (SELECT list, entry, list AS name FROM found) AS found USING (list, entry)
        WHERE expected.name IS NULL OR found.name IS NULL
        ORDER BY entry, list
    """)


INVARIANTS: tuple[Invariant, ...] = (
    readable,
    known_accounts,
    revenue,
    first_purchase,
    stage,
    announced,
    standing,
    segment,
    population,
    told,
    rhythm,
    evidence,
    engagement,
    risk_level,
    risk_told,
    change_identity,
    chain,
    links,
    effective_order,
    republished,
    last_change,
    compacted,
    compacted_bytes,
    consumed,
    dead_letters,
    first_ones_applied,
    traits,
    class_figures,
    places,
)
