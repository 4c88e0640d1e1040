-- A digest of each key of the agents, a part of them in each call. Writes nothing.
--
-- ARGV  1 cursor, "0" to begin  2 how many keys to look at
-- Returns the next cursor, "0" at the end, and a text for each key: a digest of all it holds, and its name.
--
-- The digest is the CRC64 with which every DUMP ends: to hash it once more took as long as all the rest.

local call, sub = redis.call, string.sub
local answer = call('SCAN', ARGV[1], 'MATCH', 'memory:[ams]*', 'COUNT', ARGV[2])
local found, count = {}, 0
for _, key in ipairs(answer[2]) do
  local begins = sub(key, 1, 12)
  if begins == 'memory:agent' or begins == 'memory:meta:' or key == 'memory:shared' then
    count = count + 1
    found[count] = sub(call('DUMP', key) or '', -8) .. key
  end
end
return {answer[1], found}
