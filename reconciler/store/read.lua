-- The hash and the sidecar of one agent, as they were at one moment. Writes nothing.
--
-- A transaction would do the same, but a cluster has none over the slots of several agents.
--
-- KEYS  1 hash  2 sidecar
-- Returns both as flat arrays; the number of the key that is not a hash.

local found = {}
for index, key in ipairs(KEYS) do
  local answer = redis.pcall('HGETALL', key)
  if answer.err then
    if string.find(tostring(answer.err), 'WRONGTYPE', 1, true) then return index end
    return answer
  end
  found[index] = answer
end
return found
