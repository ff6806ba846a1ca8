-- The one atomic write of a shard. Refuses (returns 0) where the stored owner, progress or number of commits is not
-- what the caller loaded or last wrote: another worker owns the shard now, or the store went back in time, or this
-- commit was carried out before and its answer got lost. (Not every commit moves the progress on: due work does not.)
-- KEYS: the shard's meta hash, then the keys that are written.
-- ARGV: owner, expected progress, expected commits, then for each write: command, index of its key in KEYS, count,
-- arguments.
local meta = redis.call('HMGET', KEYS[1], 'owner', 'progress', 'commits')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or (meta[3] or '0') ~= ARGV[3] then return 0 end
-- An error midway would leave half a commit behind, so what this user may not do is found out first.
local at = 4
while at <= #ARGV do
  if not redis.acl_check_cmd(ARGV[at], KEYS[tonumber(ARGV[at + 1])]) then
    return redis.error_reply('NOPERM nothing was written: no right to ' .. ARGV[at] .. ' on ' .. KEYS[tonumber(ARGV[at + 1])])
  end
  at = at + 3 + tonumber(ARGV[at + 2])
end
at = 4
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
