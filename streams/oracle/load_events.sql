-- A part of an event topic's partition: its good records parsed, and those that are dead letters marked.
INSERT INTO records
WITH chunk AS (
    SELECT unnest($offsets::BIGINT[]) AS log_offset, unnest($payloads::VARCHAR[]) AS payload
),
marked AS (
    SELECT chunk.log_offset, chunk.payload, dead.log_offset IS NOT NULL AS is_dead
    FROM chunk
    LEFT JOIN (SELECT log_offset FROM dead_letters WHERE topic = $topic AND shard = $shard) AS dead
        USING (log_offset)
),
parsed AS (
    SELECT
        log_offset,
        is_dead,
        CASE WHEN NOT is_dead AND json_valid(payload) THEN json_extract_string(
            payload,
            ['$.account_id', '$.event_id', '$.occurred_at', '$.amount_minor', '$.currency', '$.kind', '$.purchased_at']
        ) END AS fields
    FROM marked
),
typed AS (
    SELECT
        log_offset,
        is_dead,
        fields[1] AS account_id,
        fields[2] AS event_id,
        fields[6] IS NOT DISTINCT FROM 'refund' AS is_refund,
        day_of(CASE WHEN fields[6] = 'refund' AND fields[7] IS NOT NULL THEN fields[7] ELSE fields[3] END) AS revenue_day,
        try_cast(fields[4] AS HUGEINT) AS amount,
        fields[5] AS currency
    FROM parsed
)
SELECT
    $topic,
    $shard,
    typed.log_offset,
    typed.is_dead,
    typed.account_id,
    typed.event_id,
    typed.revenue_day,
    CASE WHEN $topic = 'purchases' THEN
        converted(typed.amount, rates.numerator, rates.denominator) * CASE WHEN typed.is_refund THEN -1 ELSE 1 END
    END,
    typed.is_refund
FROM typed
LEFT JOIN rates USING (currency)
