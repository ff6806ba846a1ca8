-- The oldest outgoing records, for the owner only: another one may publish what the owner has long published.
-- Refuses (returns false) also where fewer records were trimmed than the owner knows of: the store went back in time.
-- KEYS: meta hash, outbox list. ARGV: owner, records trimmed so far, how many records at most, and after how many bytes
-- to stop. Returns commits, records trimmed so far, the records.
local meta = redis.call('HMGET', KEYS[1], 'owner', 'commits', 'trimmed')
if meta[1] ~= ARGV[1] or tonumber(meta[3] or 0) < tonumber(ARGV[2]) then return false end
local found, bytes = {}, 0
while #found < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local more = redis.call('LRANGE', KEYS[2], #found, math.min(#found + 99, ARGV[3] - 1))
  if #more == 0 then break end
  for _, record in ipairs(more) do
    found[#found + 1], bytes = record, bytes + #record
    if bytes >= tonumber(ARGV[4]) then break end
  end
end
return {meta[2] or '0', meta[3] or '0', found}
