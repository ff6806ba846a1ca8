-- The oldest outgoing records, for the owner only: another one may publish what the owner has long published.
-- KEYS: meta hash, outbox list. ARGV: owner, how many at most.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
return redis.call('LRANGE', KEYS[2], 0, tonumber(ARGV[2]) - 1)
