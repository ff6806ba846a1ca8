-- Drops the oldest outgoing records, which are published, and remembers how far the told topic was written.
-- KEYS: meta hash, outbox list. ARGV: owner, count, told.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('LTRIM', KEYS[2], ARGV[2], -1)
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'told', ARGV[3]) end
return 1
