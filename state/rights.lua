-- Which of these commands may not be carried out on all of these keys by the user who asks. Writes nothing.
-- KEYS: any. ARGV: commands. Returns those commands, and SCRIPT LOAD, which other scripts may have made unneeded for now.
local missing = {}
if not redis.acl_check_cmd('SCRIPT', 'LOAD', '') then missing[1] = 'SCRIPT LOAD' end
for _, command in ipairs(ARGV) do
  for _, key in ipairs(KEYS) do
    if not redis.acl_check_cmd(command, key) then
      missing[#missing + 1] = command
      break
    end
  end
end
return missing
