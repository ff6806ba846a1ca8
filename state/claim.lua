-- Takes a shard over. KEYS: meta hash. ARGV: the new owner. Returns progress, state, told, commits, trimmed; nothing
-- where no shard is.
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
return redis.call('HMGET', KEYS[1], 'progress', 'state', 'told', 'commits', 'trimmed')
