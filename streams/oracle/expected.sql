-- What the log says that the state must be.

-- Each event once: of several with one id, the first in the log.
CREATE TABLE events AS
SELECT
    account_id,
    shard,
    topic,
    event_id,
    arg_min(revenue_day, log_offset) AS revenue_day,
    arg_min(amount_minor, log_offset) AS amount_minor,
    arg_min(is_refund, log_offset) AS is_refund,
    arg_min(occurred_day, log_offset) AS occurred_day,
    arg_min(kind, log_offset) AS kind,
    min(revenue_day) AS earliest_day,
    min(revenue_day) <> max(revenue_day)
    OR coalesce(min(amount_minor) <> max(amount_minor), false)
    OR bool_or(is_refund) <> bool_and(is_refund) AS differ
FROM records
WHERE NOT is_dead AND account_id IS NOT NULL AND event_id IS NOT NULL AND revenue_day IS NOT NULL
GROUP BY account_id, shard, topic, event_id;

-- An account is certain unless a part of the log that counts is gone, or an id was used again for another event: that
-- is a duplicate while the first one's day is in the window, and nothing in the log says when it left.
CREATE TABLE expected AS
SELECT
    events.account_id,
    events.shard,
    account_shards.day,
    min(events.revenue_day) FILTER (events.topic = 'purchases' AND NOT events.is_refund) AS first_purchase_day,
    coalesce(
        sum(events.amount_minor) FILTER (
            events.topic = 'purchases'
            AND events.revenue_day > account_shards.day - rules.window_days
            AND events.revenue_day <= account_shards.day
        ),
        0
    ) AS revenue_minor,
    bool_and(
        account_shards.is_complete
        AND NOT (
            events.topic = 'purchases' AND events.differ
            AND events.earliest_day <= account_shards.day - rules.window_days
        )
    ) AS is_certain
FROM events
JOIN account_shards USING (shard)
CROSS JOIN rules
GROUP BY events.account_id, events.shard, account_shards.day;

-- Each account with the stage and revenue it must have, as far as that is certain, else with those it has.
CREATE TABLE judged AS
WITH facts AS (
    SELECT
        account_id,
        shard,
        coalesce(expected.is_certain, false) AS is_certain,
        CASE WHEN expected.is_certain OR accounts.account_id IS NULL
            THEN expected.first_purchase_day ELSE accounts.first_purchase_day END AS first_purchase_day,
        CASE WHEN expected.is_certain OR accounts.account_id IS NULL
            THEN expected.revenue_minor ELSE accounts.revenue_minor END AS revenue_minor
    FROM accounts
    FULL JOIN expected USING (account_id, shard)
    CROSS JOIN completeness
    WHERE accounts.account_id IS NOT NULL OR are_dead_letters_complete
),
staged AS (
    SELECT
        facts.*,
        account_shards.day,
        stage_of(facts.first_purchase_day, account_shards.day, rules.new_start_days) AS stage,
        populations.population
    FROM facts
    JOIN account_shards USING (shard)
    CROSS JOIN rules
    LEFT JOIN populations USING (account_id)
)
SELECT *, day > 0 AND stage = 'established' AND revenue_minor > 0 AS is_ranked
FROM staged;

-- For each revenue the weight above it and all weight, and the tiers that are allowed there: 0 is the best. With a band
-- of 0 there is one. A boundary can be above an account from share - band on, and must be from share + band on.
CREATE TABLE levels AS
WITH weights AS (
    SELECT
        population,
        revenue_minor,
        sum(CASE WHEN by_revenue THEN revenue_minor ELSE 1::HUGEINT END) AS weight
    FROM judged
    CROSS JOIN rules
    WHERE is_ranked
    GROUP BY population, revenue_minor
),
positions AS (
    SELECT
        population,
        revenue_minor,
        coalesce(
            sum(weight) OVER (
                PARTITION BY population ORDER BY revenue_minor DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ),
            0
        ) AS above,
        sum(weight) OVER (PARTITION BY population) AS total
    FROM weights
)
SELECT
    population,
    revenue_minor,
    above,
    total,
    count(*) FILTER (above * 10000 >= (share_bp + band_bp) * total) AS best_tier,
    count(*) FILTER (above * 10000 >= (share_bp - band_bp) * total) AS worst_tier
FROM positions
CROSS JOIN boundaries
CROSS JOIN rules
GROUP BY population, revenue_minor, above, total;

CREATE TABLE allowed AS
SELECT
    judged.account_id,
    judged.population,
    CASE
        WHEN judged.stage <> 'established' THEN [judged.stage]
        WHEN NOT judged.is_ranked THEN ['commercial']
        ELSE list_slice(['key', 'enterprise', 'commercial'], levels.best_tier + 1, levels.worst_tier + 1)
    END AS segments
FROM judged
LEFT JOIN levels USING (population, revenue_minor)
WHERE judged.day > 0;

-- How each account has bought.
CREATE TABLE rhythms AS
WITH bought AS (
    SELECT
        account_id, shard, revenue_day,
        max(revenue_day) OVER (PARTITION BY account_id) - rules.kept_days < revenue_day AS is_kept
    FROM events
    CROSS JOIN rules
    WHERE topic = 'purchases' AND NOT is_refund
)
SELECT
    bought.account_id,
    any_value(account_shards.day) AS day,
    min(revenue_day) AS first_day,
    max(revenue_day) AS last_day,
    count(DISTINCT revenue_day) AS days_bought
FROM bought
JOIN account_shards USING (shard)
JOIN expected USING (account_id, shard)
WHERE is_kept AND revenue_day <= account_shards.day AND expected.is_certain
GROUP BY bought.account_id;

-- The changes, each once, as the log has them first.
CREATE TABLE told AS
SELECT
    subject,
    account_id,
    sequence,
    unnest(arg_min({
        'log_offset': log_offset,
        'previous': previous,
        'current': current,
        'population': population,
        'effective_at_us': effective_at_us,
        'fingerprint': fingerprint
    }, log_offset)),
    count(DISTINCT fingerprint) AS variants,
    count(DISTINCT part) AS parts
FROM changes
WHERE account_id IS NOT NULL AND sequence IS NOT NULL
GROUP BY subject, account_id, sequence;

CREATE TABLE last_told AS
SELECT
    subject,
    account_id,
    unnest(arg_max({
        'sequence': sequence,
        'previous': previous,
        'current': current,
        'population': population,
        'is_move': is_move,
        'effective_at_us': effective_at_us,
        'fingerprint': fingerprint
    }, sequence))
FROM (
    SELECT *, population <> lag(population) OVER (PARTITION BY subject, account_id ORDER BY sequence) AS is_move
    FROM told
)
GROUP BY subject, account_id;

-- What multiplies the odds for some days: the latest day of each kind.
CREATE TABLE expected_evidence AS
SELECT account_id, name, max(day) AS day
FROM (
    SELECT account_id, CASE WHEN topic = 'purchases' THEN 'refund' ELSE kind END AS name, occurred_day AS day
    FROM events
    WHERE (topic = 'purchases' AND is_refund) OR topic = 'engagements'
    UNION ALL
    SELECT account_id, 'tier_fall', (effective_at_us // 86400000000)::INTEGER
    FROM last_told
    WHERE subject = 'segment' AND is_move IS NOT true AND list_position(['key', 'enterprise', 'commercial'], current)
        > list_position(['key', 'enterprise', 'commercial'], previous)
)
WHERE name IN (SELECT name FROM evidence_rules)
GROUP BY account_id, name;

-- Who engages less than half as often as in its own past, if that was one day in eight at least.
CREATE TABLE fallen AS
WITH spans AS (
    SELECT engagement_days, greatest(1, engagement_days // 3) AS recent_days FROM rules
),
engaged AS (
    SELECT DISTINCT account_id, occurred_day
    FROM events
    WHERE topic = 'engagements' AND kind NOT IN ('cancel_request', 'support_ticket')
),
counted AS (
    SELECT
        account_id,
        count(*) FILTER (occurred_day > judged.day - recent_days) AS recent,
        count(*) FILTER (occurred_day <= judged.day - recent_days) AS past
    FROM engaged
    JOIN judged USING (account_id)
    CROSS JOIN spans
    WHERE occurred_day > judged.day - engagement_days AND occurred_day <= judged.day
    GROUP BY account_id
)
SELECT account_id
FROM counted
CROSS JOIN spans
WHERE past * 8 >= engagement_days - recent_days
    AND 2 * recent * (engagement_days - recent_days) < past * recent_days;

-- The levels of risk that are allowed: with a band, or where the shards' clocks show different days, there may be several.
-- Which one an account has is decided on a day between the first that a clock shows and its own shard's.
CREATE TABLE allowed_levels AS
WITH days AS (
    SELECT account_id, unnest(range(greatest(least(first_clock_day, day), last_day), day + 1)) AS on_day
    FROM rhythms
    CROSS JOIN (SELECT min(day) AS first_clock_day FROM account_shards WHERE day > 0)
),
factors AS (
    SELECT days.account_id, days.on_day, product(evidence_rules.factor) AS factor
    FROM days
    JOIN expected_evidence AS evidence USING (account_id)
    JOIN evidence_rules USING (name)
    WHERE evidence.day <= days.on_day AND days.on_day < evidence.day + evidence_rules.days
    GROUP BY days.account_id, days.on_day
),
chances AS (
    SELECT
        account_id,
        on_day,
        score_of(days_bought, last_day - first_day, on_day - first_day, r, alpha_days, a, b, horizon_days) / 100 AS chance
    FROM days
    JOIN rhythms USING (account_id)
    CROSS JOIN rules
),
scores AS (
    SELECT
        account_id,
        on_day,
        100 * raised.factor * chance / (1 - chance + raised.factor * chance) AS score
    FROM chances
    CROSS JOIN rules
    LEFT JOIN fallen USING (account_id)
    LEFT JOIN factors USING (account_id, on_day)
    CROSS JOIN LATERAL (
        SELECT coalesce(factors.factor, 1)
            * CASE WHEN fallen.account_id IS NULL THEN 1 ELSE engagement_factor END AS factor
    ) AS raised
)
SELECT
    account_id,
    max(score) AS score,
    min(surely) AS lowest,
    max(perhaps) AS highest
FROM (
    SELECT
        account_id,
        on_day,
        any_value(scores.score) AS score,
        count(*) FILTER (scores.score >= risk_boundaries.score + 1e-9) AS surely,
        count(*) FILTER (scores.score >= risk_boundaries.lower_score - 1e-9) AS perhaps
    FROM scores
    CROSS JOIN risk_boundaries
    GROUP BY account_id, on_day
)
GROUP BY account_id;

CREATE TABLE last_compacted AS
SELECT
    subject,
    key AS account_id,
    unnest(arg_max({
        'sequence': sequence,
        'current': current,
        'fingerprint': fingerprint
    }, log_offset))
FROM compacted
GROUP BY subject, key;

-- What the ranking stage takes for told last.
CREATE TABLE known_told AS
SELECT 'segment' AS subject, account_id, sequence, segment AS current, effective_at_us FROM members WHERE sequence > 0
UNION ALL
SELECT 'risk', account_id, sequence, told_level, effective_at_us FROM risks WHERE sequence > 0;
