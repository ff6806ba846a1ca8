-- Which of these commands may not be carried out on which of these keys by the user who asks. Writes nothing.
-- KEYS: any. ARGV: commands. Returns "COMMAND on key" for each that is missing.
local missing = {}
for _, command in ipairs(ARGV) do
  for _, key in ipairs(KEYS) do
    if not redis.acl_check_cmd(command, key) then missing[#missing + 1] = command .. ' on ' .. key end
  end
end
return missing
