-- The one atomic write of a shard. Refuses (returns 0) where the stored owner or progress is not what the caller
-- loaded or last wrote: another worker owns the shard now, or the store went back in time.
-- KEYS: the shard's meta hash, then the keys that are written.
-- ARGV: owner, expected progress, then for each write: command, index of its key in KEYS, count, arguments.
local meta = redis.call('HMGET', KEYS[1], 'owner', 'progress')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 0 end
local at = 3
while at <= #ARGV do
  local command, key, last = ARGV[at], KEYS[tonumber(ARGV[at + 1])], at + 2 + tonumber(ARGV[at + 2])
  at = at + 3
  while at <= last do
    -- unpack has a limit of about 8,000; an even number keeps field and value together
    local stop = math.min(at + 3999, last)
    redis.call(command, key, unpack(ARGV, at, stop))
    at = stop + 1
  end
end
return 1
