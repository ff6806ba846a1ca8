-- The oldest outgoing records, for the owner only: another one may publish what the owner has long published.
-- Refuses (returns false) also where fewer records were trimmed than the owner knows of: the store went back in time.
-- KEYS: meta hash, outbox list. ARGV: owner, how many at most, records trimmed so far. Returns commits, the records.
local meta = redis.call('HMGET', KEYS[1], 'owner', 'commits', 'trimmed')
if meta[1] ~= ARGV[1] or tonumber(meta[3] or 0) < tonumber(ARGV[3]) then return false end
return {meta[2] or '0', redis.call('LRANGE', KEYS[2], 0, tonumber(ARGV[2]) - 1)}
