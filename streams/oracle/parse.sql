-- What the log's payloads say.

-- The good records of the event topics parsed, and those that are dead letters marked.
INSERT INTO records
WITH marked AS (
    SELECT topic, shard, log_offset, payload, dead.is_named IS NOT NULL AS is_dead
    FROM raw_events
    LEFT JOIN (SELECT topic, shard, log_offset, true AS is_named FROM dead_letters) AS dead
        USING (topic, shard, log_offset)
),
parsed AS (
    SELECT
        topic,
        shard,
        log_offset,
        is_dead,
        CASE WHEN NOT is_dead AND json_valid(payload) THEN json_extract_string(payload, [
            '$.account_id', '$.event_id', '$.occurred_at', '$.amount_minor', '$.currency', '$.kind', '$.purchased_at'
        ]) END AS fields
    FROM marked
),
typed AS (
    SELECT
        topic,
        shard,
        log_offset,
        is_dead,
        fields[1] AS account_id,
        fields[2] AS event_id,
        topic = 'purchases' AND fields[6] IS NOT DISTINCT FROM 'refund' AS is_refund,
        day_of(CASE WHEN is_refund AND fields[7] IS NOT NULL THEN fields[7] ELSE fields[3] END) AS revenue_day,
        day_of(fields[3]) AS occurred_day,
        fields[6] AS kind,
        try_cast(fields[4] AS HUGEINT) AS amount,
        fields[5] AS currency
    FROM parsed
)
SELECT
    topic,
    shard,
    log_offset,
    is_dead,
    account_id,
    event_id,
    revenue_day,
    CASE WHEN topic = 'purchases' THEN
        converted(amount, rates.numerator, rates.denominator) * CASE WHEN is_refund THEN -1 ELSE 1 END
    END,
    is_refund,
    occurred_day,
    kind
FROM typed
LEFT JOIN rates USING (currency);

DROP TABLE raw_events;

-- The changes, and the compacted topic's.
CREATE TEMP TABLE parsed_changes AS
SELECT
    * EXCLUDE (payload, fields),
    fields[1] AS account_id,
    fields[2] AS population,
    try_cast(fields[3] AS BIGINT) AS sequence,
    CASE subject WHEN 'risk' THEN fields[6] ELSE fields[4] END AS previous,
    CASE subject WHEN 'risk' THEN fields[7] ELSE fields[5] END AS current,
    epoch_us(try_cast(fields[8] AS TIMESTAMP)) AS effective_at_us
FROM (
    SELECT
        CASE WHEN topic IN ('churn-risk', 'risks') THEN 'risk' ELSE 'segment' END AS subject,
        *,
        CASE WHEN json_valid(payload) THEN json_extract_string(payload, [
            '$.account_id', '$.population', '$.sequence', '$.previous_segment', '$.current_segment',
            '$.previous_level', '$.current_level', '$.effective_at'
        ]) END AS fields
    FROM raw_changes
);

INSERT INTO changes SELECT * EXCLUDE (topic) FROM parsed_changes WHERE topic IN ('segment-changes', 'churn-risk');

INSERT INTO compacted SELECT * EXCLUDE (topic) FROM parsed_changes WHERE topic IN ('segments', 'risks');

DROP TABLE parsed_changes;

DROP TABLE raw_changes;
