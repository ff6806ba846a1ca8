-- What the oracle compares. "shard" is a partition of the account stage, "log_offset" an offset in a topic.
-- Money is HUGEINT, in minor units; days are days since 1970-01-01; instants are microseconds since then.

-- The policy.
CREATE TABLE rules (
    window_days INTEGER, new_start_days INTEGER, band_bp INTEGER, by_revenue BOOLEAN, base_currency VARCHAR,
    engagement_days INTEGER, engagement_factor DOUBLE, r DOUBLE, alpha_days DOUBLE, a DOUBLE, b DOUBLE, horizon_days INTEGER, kept_days INTEGER
);
CREATE TABLE evidence_rules (name VARCHAR, factor DOUBLE, days INTEGER);
CREATE TABLE risk_boundaries (score DOUBLE, lower_score DOUBLE);
CREATE TABLE boundaries (share_bp INTEGER);
CREATE TABLE rates (currency VARCHAR, numerator HUGEINT, denominator HUGEINT);

-- The state.
CREATE TABLE account_shards (shard INTEGER, day INTEGER, is_complete BOOLEAN);
CREATE TABLE inputs (
    topic VARCHAR, shard INTEGER, progress BIGINT, first_offset BIGINT, records BIGINT,
    applied BIGINT, duplicates BIGINT, dead_letters BIGINT
);
CREATE TABLE accounts (
    account_id VARCHAR, shard INTEGER, day INTEGER, first_purchase_day INTEGER, revenue_minor HUGEINT,
    is_announced BOOLEAN
);
CREATE TABLE risks (
    account_id VARCHAR, first_day INTEGER, last_day INTEGER, days_bought INTEGER, engagement_fell BOOLEAN, level VARCHAR, told_level VARCHAR,
    sequence BIGINT, effective_at_us BIGINT
);
CREATE TABLE evidence (account_id VARCHAR, name VARCHAR, day INTEGER);
CREATE TABLE members (
    account_id VARCHAR, ranking_shard INTEGER, population VARCHAR, stage VARCHAR, revenue_minor HUGEINT,
    current_segment VARCHAR, segment VARCHAR, sequence BIGINT, effective_at_us BIGINT
);
-- In which population each account is by its attributes.
CREATE TABLE populations (account_id VARCHAR, population VARCHAR);
-- What accounts' attributes say of them, as their profiles have it ("expected") and as the ranking stage knows it.
CREATE TABLE traits (
    account_id VARCHAR, origin VARCHAR, class VARCHAR, fit INTEGER, owner VARCHAR, region VARCHAR
);
CREATE TABLE classes (
    population VARCHAR, class VARCHAR, accounts BIGINT, buyers BIGINT, established BIGINT, revenue_minor HUGEINT,
    revenue_squared HUGEINT
);
CREATE TABLE places (list VARCHAR, entry VARCHAR);
-- Whether everybody is in place on the worklists, and the class of accounts without attributes.
CREATE TABLE worklists (are_settled BOOLEAN, no_class VARCHAR);

-- The log, as it came.
CREATE TABLE raw_events (topic VARCHAR, shard INTEGER, log_offset BIGINT, payload VARCHAR);
CREATE TABLE raw_changes (
    topic VARCHAR, part INTEGER, log_offset BIGINT, key VARCHAR, ce_id VARCHAR, input_offset BIGINT,
    fingerprint VARCHAR, payload VARCHAR
);

-- The log.
CREATE TABLE completeness (are_dead_letters_complete BOOLEAN, are_changes_complete BOOLEAN);
CREATE TABLE dead_letters (topic VARCHAR, shard INTEGER, log_offset BIGINT);
CREATE TABLE records (
    topic VARCHAR, shard INTEGER, log_offset BIGINT, is_dead BOOLEAN, account_id VARCHAR, event_id VARCHAR,
    revenue_day INTEGER, amount_minor HUGEINT, is_refund BOOLEAN, occurred_day INTEGER, kind VARCHAR
);
-- Of segments and of risk: "subject" says of which, "previous" and "current" are segments or levels.
CREATE TABLE changes (
    subject VARCHAR, part INTEGER, log_offset BIGINT, key VARCHAR, ce_id VARCHAR, input_offset BIGINT,
    fingerprint VARCHAR, account_id VARCHAR, population VARCHAR, sequence BIGINT, previous VARCHAR, current VARCHAR,
    effective_at_us BIGINT
);
CREATE TABLE compacted AS SELECT * FROM changes;

-- The UTC day of an RFC 3339 date-time, by counting minutes; NULL for anything else.
CREATE MACRO day_of(text) AS (
    (
        (try_cast(left(text, 10) AS DATE) - DATE '1970-01-01') * 1440
        + try_cast(substr(text, 12, 2) AS INTEGER) * 60
        + try_cast(substr(text, 15, 2) AS INTEGER)
        - CASE
            WHEN upper(right(text, 1)) = 'Z' THEN 0
            ELSE (CASE substr(right(text, 6), 1, 1) WHEN '-' THEN -1 WHEN '+' THEN 1 END) * (
                try_cast(substr(right(text, 5), 1, 2) AS INTEGER) * 60 + try_cast(right(text, 2) AS INTEGER)
            )
        END
    ) // 1440
);

-- amount * numerator / denominator, halves to even. In parts, because the product may need more than 127 bits.
CREATE MACRO converted(amount, numerator, denominator) AS (
    amount * (numerator // denominator)
    + (amount * (numerator % denominator)) // denominator
    + CASE
        WHEN 2 * ((amount * (numerator % denominator)) % denominator) > denominator THEN 1
        WHEN 2 * ((amount * (numerator % denominator)) % denominator) < denominator THEN 0
        ELSE (amount * (numerator // denominator) + (amount * (numerator % denominator)) // denominator) % 2
    END
);

CREATE MACRO stage_of(first_purchase_day, on_day, new_start_days) AS (
    CASE
        WHEN first_purchase_day IS NULL OR first_purchase_day > on_day THEN 'prospect'
        WHEN on_day - first_purchase_day < new_start_days THEN 'new_start'
        ELSE 'established'
    END
);

-- The probability, in percent, that who bought on so many days, so long apart, buys nothing in the horizon: MBG/NBD.
CREATE MACRO score_of(days_bought, recency, age, r, alpha, a, b, horizon) AS (
    100 * (1 - (1 - pow((alpha + age) / (alpha + age + horizon), r + days_bought - 1)) / (
        1 + a / (b + days_bought - 1) * pow((alpha + age) / (alpha + recency), r + days_bought - 1)
    ))
);
