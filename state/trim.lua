-- Drops the oldest outgoing records, which are published, and remembers how far the told topic was written. Once only,
-- also if it is asked again because the answer got lost. Refuses (returns 0) where the store has fewer commits than it was
-- seen to have: it went back in time, and would seem to know what was told, and does not.
-- KEYS: meta hash, outbox list. ARGV: owner, commits that were seen, records trimmed before, count, told.
local meta = redis.call('HMGET', KEYS[1], 'owner', 'commits', 'trimmed')
if meta[1] ~= ARGV[1] or tonumber(meta[2] or 0) < tonumber(ARGV[2]) then return 0 end
local trimmed, before, count = tonumber(meta[3] or 0), tonumber(ARGV[3]), tonumber(ARGV[4])
if trimmed ~= before then return trimmed == before + count and 1 or 0 end
-- both or neither
if not (redis.acl_check_cmd('LTRIM', KEYS[2]) and redis.acl_check_cmd('HSET', KEYS[1])) then
  return redis.error_reply('NOPERM nothing was dropped: no right to LTRIM on ' .. KEYS[2] .. ', or HSET on ' .. KEYS[1])
end
redis.call('LTRIM', KEYS[2], count, -1)
redis.call('HSET', KEYS[1], 'trimmed', before + count)
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'told', ARGV[5]) end
return 1
