-- A digest of each key of the agents, a part of them in each call. Writes nothing.
--
-- ARGV  1 cursor, "0" to begin  2 how many keys to look at
-- Returns the next cursor, "0" at the end, and a text for each key: a digest of all it holds, and its name.

local answer = redis.call('SCAN', ARGV[1], 'MATCH', 'memory:[ams]*', 'COUNT', ARGV[2])
local found = {}
for _, key in ipairs(answer[2]) do
  local begins = string.sub(key, 1, 12)
  if begins == 'memory:agent' or begins == 'memory:meta:' or key == 'memory:shared' then
    found[#found + 1] = redis.sha1hex(redis.call('DUMP', key) or '') .. key
  end
end
return {answer[1], found}
