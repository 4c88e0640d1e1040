-- Write some fields of one agent: compare stamps field by field, write only what wins, count the version,
-- append history, publish. Atomic, one round trip. The meaning is that of merge.py; the differential test
-- holds the two together. Values are opaque JSON texts: nothing here parses one.
--
-- KEYS  1 hash  2 sidecar  3 history stream
-- ARGV  1 channel  2 agent  3 event name  4 origin  5 max skew in µs  6 history length, 0 for none
--       7 version floor (a refilled server goes on counting)  8 seconds a deleted agent's sidecar is kept
--       9 number of `seen` triples; each: hash field, digest of the foreign text the caller has read there,
--         and for `context` the same content framed
--       then the changes, 6 each: field, kind, text, at ("" for now), by, old as JSON ("" for what is there)
-- kinds s plain text · j JSON text kept as plain text · c context member · x tombstone · a tombstones for every
--       field (the field is "") · f forget the stamp of a field that is not there
--
-- Sidecar: `version`; `=context`, the digest of the context text; `.<field>`: "<at> <kind> <digest> <by>".
-- Context framing: "{\n" members joined by ",\n" "\n}". A raw newline cannot occur inside a JSON string, so
-- lines are members. Any other shape was written by somebody else and must be adopted first.
--
-- Returns {version, now, flags, touched}; flags has a letter for each change: w won, s the same value
-- (only its stamp moved), o older than what is there; capital where a stamp too far in the future was clamped.
-- Returns {-1, hash field} when a text there is not recognised, {-2, field} for a value with a raw newline.

local hash, meta, history = KEYS[1], KEYS[2], KEYS[3]
local channel, agent, event_name, origin = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local skew, keep, floor_version, ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local unpack = unpack or table.unpack
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local ESCAPES = {['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t',
                 ['\b'] = '\\b', ['\f'] = '\\f'}
local function quote(text)
  return '"' .. string.gsub(text, '[%z\1-\31"\\]', function(char)
    return ESCAPES[char] or string.format('\\u%04x', string.byte(char))
  end) .. '"'
end

local function iso(at)
  local seconds = math.floor(at / 1000000)
  local days = math.floor(seconds / 86400)
  local rest, z = seconds - days * 86400, days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ',
    yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, at - seconds * 1000000)
end

local function below(a, b)  -- by bytes: Lua's own < follows the server's locale
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function digest(text)
  return text and string.sub(redis.sha1hex(text), 1, 16) or '-'
end

local function read(key, names)
  local found = {}
  for i = 1, #names, 1000 do
    local last = math.min(i + 999, #names)
    local values = redis.call('HMGET', key, unpack(names, i, last))
    for j = i, last do found[names[j]] = values[j - i + 1] end
  end
  return found
end

local function write(key, pairs_list)
  for i = 1, #pairs_list, 1000 do
    redis.call('HSET', key, unpack(pairs_list, i, math.min(i + 999, #pairs_list)))
  end
end

local function member_key(line)  -- the quoted key that begins a line, and where it ends
  local stop = string.match(line, '^"[^"\\]*()"')
  if stop then return string.sub(line, 1, stop), stop end
  local i = 2
  while i <= #line do
    local at, _, char = string.find(line, '(["\\])', i)
    if not at then return nil end
    if char == '"' then return string.sub(line, 1, at), at end
    i = at + 2
  end
end

-- What is asked: the changes, and the hash fields and registers they touch.
local seen, position = {}, 10
for _ = 1, tonumber(ARGV[9]) do
  seen[ARGV[position]] = {ARGV[position + 1], ARGV[position + 2]}
  position = position + 3
end
local changes = {}
for i = position, #ARGV, 6 do
  local name, kind = ARGV[i], ARGV[i + 1]
  if kind == 'a' then
    local stored = redis.call('HGETALL', meta)
    for j = 1, #stored, 2 do
      local field = string.match(stored[j], '^%.(.*)$')
      if field and field ~= 'last_update' and string.match(stored[j + 1], '^%d+ [sjc]') then
        changes[#changes + 1] = {name = field, kind = 'x', text = '', at = ARGV[i + 3], by = ARGV[i + 4], old = ''}
      end
    end
  else
    if string.find(ARGV[i + 2], '\n', 1, true) and kind == 'c' then return {-2, name} end
    changes[#changes + 1] =
      {name = name, kind = kind, text = ARGV[i + 2], at = ARGV[i + 3], by = ARGV[i + 4], old = ARGV[i + 5]}
  end
end

local touched, hash_names, meta_names = {}, {'last_update'}, {'version', '=context', '.last_update'}
local function touch(name)
  if not touched[name] then
    touched[name] = true
    hash_names[#hash_names + 1] = name
  end
end
for name in pairs(seen) do touch(name) end
for _, change in ipairs(changes) do
  local key = string.match(change.name, '^context%.(.*)$')
  change.key = key and quote(key)
  if change.name ~= 'last_update' then
    if change.kind ~= 'f' then touch(key and 'context' or change.name) end
    meta_names[#meta_names + 1] = '.' .. change.name
  end
end
for name in pairs(seen) do
  if name ~= 'context' then meta_names[#meta_names + 1] = '.' .. name end
end
local texts, stored = read(hash, hash_names), read(meta, meta_names)

local entries = {}
for name, packed in pairs(stored) do
  if packed and string.sub(name, 1, 1) == '.' then
    local at, kind, mark, by = string.match(packed, '^(%d+) (%a) (%S+) (.*)$')
    entries[string.sub(name, 2)] = {at = tonumber(at), kind = kind, digest = mark, by = by}
  end
end

-- Nothing is overwritten that is not recognised: it is what was last written here, or what the caller has read.
for name in pairs(touched) do
  if name ~= 'last_update' then
    local expected
    if name == 'context' then expected = stored['=context'] or '-'
    else expected = entries[name] and entries[name].kind ~= 'x' and entries[name].digest or '-' end
    local actual = digest(texts[name])
    if actual ~= expected then
      if not seen[name] or seen[name][1] ~= actual then return {-1, name} end
      if name == 'context' then texts.context = seen.context[2] ~= '' and seen.context[2] or false end
      touched[name] = 'foreign'
    end
  end
end

local lines, index = {}, {}
if touched.context and texts.context and texts.context ~= '{}' then
  for line in string.gmatch(string.sub(texts.context, 3, -3), '[^\n]+') do
    if string.sub(line, -1) == ',' then line = string.sub(line, 1, -2) end
    local key, stop = member_key(line)
    if not key then return {-1, 'context'} end
    lines[#lines + 1] = {key, string.sub(line, stop + 2)}
    index[key] = #lines
  end
end

-- Field by field: who wins?
local flags, won, stamped, to_hash, to_drop, forget = {}, {}, {}, {}, {}, {}
local last = entries.last_update or {at = 0, kind = 'x', by = ''}
local newest, context_dirty = 0, touched.context == 'foreign'
local top = now
for _, change in ipairs(changes) do
  local entry = entries[change.name]
  if change.at == '' and entry and entry.at >= top then top = entry.at + 1 end
end
for i, change in ipairs(changes) do
  local entry, clamped = entries[change.name], false
  local at = change.at == '' and top or tonumber(change.at)
  if change.at ~= '' and at > now + skew then at, clamped = now, true end
  local current, current_json
  if change.key then
    current = index[change.key] and lines[index[change.key]][2]
    current_json = current
  else
    current = texts[change.name]
    if current then current_json = entry and entry.kind == 'j' and current or quote(current) end
  end
  local new_json = change.kind == 's' and quote(change.text) or change.kind ~= 'x' and change.text or nil
  local flag
  if change.kind == 'f' then
    flag = 's'
    if entry and entry.at == at and (entry.kind == 'x' or not current) then
      forget[#forget + 1] = '.' .. change.name
    end
  elseif change.name == 'last_update' then
    flag = 's'
    if at > last.at or last.kind == 'x' then last = {at = at, kind = 's', by = change.by, moved = true} end
  else
    local is = entry and entry.kind ~= 'x' and current_json or ''
    local known = entry and entry.kind ~= 'x'
    if known and not current and at < entry.at then at = entry.at end  -- its value is lost: an older one is better than none
    local newer = not entry or at > entry.at
    if not newer and at == entry.at then
      if known and not current then newer = new_json ~= nil
      elseif change.by ~= entry.by then newer = below(entry.by, change.by)
      elseif is ~= (new_json or '') then newer = below(is, new_json or '')
      else newer = nil end
    end
    if newer then
      local old, op = change.old, change.kind == 'x' and 'delete' or 'update'
      if old == '' then
        old = current_json or 'null'
        flag = old ~= (new_json or 'null') and 'w' or 's'
        if old == 'null' and not current then op = 'create' end
      else  -- adopted: what was there is gone, so the hash cannot tell what changed
        flag = (known or old ~= (new_json or 'null')) and 'w' or 's'
        if not known and old == 'null' then op = 'create' end
      end
      entries[change.name] = {at = at, kind = change.kind, by = change.by}
      stamped[#stamped + 1] = {change, at}
      if change.key then
        if current ~= (new_json or false) and (current or new_json) then
          context_dirty = true
          local where = index[change.key]
          if new_json and not where then
            lines[#lines + 1] = {change.key, new_json}
            index[change.key] = #lines
          elseif where then lines[where][2] = new_json or false end
        end
      elseif new_json then
        to_hash[#to_hash + 1] = change.name
        to_hash[#to_hash + 1] = change.text
      elseif current then to_drop[#to_drop + 1] = change.name end
      if flag == 'w' then won[#won + 1] = {change, at, old, new_json or 'null', op} end
      if at > newest and (new_json or flag == 'w') then newest = at end
    else
      flag = newer == nil and 's' or 'o'
    end
  end
  flags[i] = clamped and string.upper(flag) or flag
end

local kept = {}
for _, line in ipairs(lines) do
  if line[2] then kept[#kept + 1] = line[1] .. ':' .. line[2] end
end

-- Is anything left of an agent that lost a field? Then it is deleted, and so is its hash.
local deleted, lost = false, 0
for _, item in ipairs(won) do
  if item[1].kind == 'x' then lost = lost + 1 end
end
if lost > 0 then
  local plain = redis.call('HLEN', hash) - (texts.last_update and 1 or 0) - redis.call('HEXISTS', hash, 'context')
  for i = 1, #to_hash, 2 do
    if not texts[to_hash[i]] then plain = plain + 1 end
  end
  local members = touched.context and #kept or math.max(redis.call('HSTRLEN', hash, 'context') - 2, 0)
  deleted = plain - #to_drop + members == 0
end

-- A version for what won: history first, because it is the write most likely to be refused.
local version = tonumber(stored.version or 0)
if #won > 0 then
  if not stored.version then
    local info = redis.pcall('XINFO', 'STREAM', history)
    if type(info) == 'table' and not info.err then
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then version = tonumber(string.match(info[i + 1], '^%d+')) end
      end
    end
  end
  version = math.max(version, floor_version) + 1
  local number = string.format('%.0f', version)
  local data, listed = {}, {}
  for i, item in ipairs(won) do
    local change, at, old, new = item[1], item[2], item[3], item[4]
    if change.key then data[#data + 1] = change.key .. ':' .. new end
    listed[i] = '{"field":' .. quote(change.name) .. ',"op":"' .. item[5] .. '","old":' .. old .. ',"new":' .. new
      .. ',"at":"' .. iso(at) .. '","by":' .. quote(change.by) .. '}'
  end
  local event = '{"agent":' .. quote(agent) .. ',"event":' .. quote(deleted and 'agent_deleted' or event_name)
    .. ',"timestamp":"' .. iso(newest) .. '","data":{' .. table.concat(data, ',') .. '},"v":1,"id":'
    .. quote(agent .. ':' .. number) .. ',"version":' .. number .. ',"origin":' .. quote(origin)
    .. ',"changes":[' .. table.concat(listed, ',') .. ']}'
  if keep > 0 then redis.call('XADD', history, 'MAXLEN', '=', keep, number .. '-0', 'event', event) end
  redis.call('PUBLISH', channel, event)
  redis.call('PUBLISH', channel .. ':' .. agent, event)
end

-- Write what won.
local to_meta = {}
for _, item in ipairs(stamped) do
  local change, at = item[1], item[2]
  local mark = (change.kind == 's' or change.kind == 'j') and digest(change.text) or '-'
  to_meta[#to_meta + 1] = '.' .. change.name
  to_meta[#to_meta + 1] = string.format('%.0f', at) .. ' ' .. change.kind .. ' ' .. mark .. ' ' .. change.by
end
if #won > 0 then
  to_meta[#to_meta + 1] = 'version'
  to_meta[#to_meta + 1] = string.format('%.0f', version)
end
if context_dirty and (#kept > 0 or texts.context) and not deleted then
  local text = #kept > 0 and '{\n' .. table.concat(kept, ',\n') .. '\n}' or '{}'
  to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'context', text
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '=context', digest(text)
elseif context_dirty and stored['=context'] then
  forget[#forget + 1] = '=context'
end

local moved = newest > last.at or newest > 0 and last.kind == 'x'
if moved then last = {at = newest, kind = 's', by = origin, moved = true} end
if deleted then
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '.last_update', string.format('%.0f', last.at) .. ' x - ' .. last.by
elseif last.kind == 's' and (last.moved or not texts.last_update) then
  local text = iso(last.at)
  to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'last_update', text
  to_meta[#to_meta + 1] = '.last_update'
  to_meta[#to_meta + 1] = string.format('%.0f', last.at) .. ' s ' .. digest(text) .. ' ' .. last.by
end

write(meta, to_meta)
for i = 1, #forget, 1000 do redis.call('HDEL', meta, unpack(forget, i, math.min(i + 999, #forget))) end
if deleted then
  redis.call('DEL', hash)
  redis.call('EXPIRE', meta, ttl)
  redis.call('EXPIRE', history, ttl)
else
  write(hash, to_hash)
  for i = 1, #to_drop, 1000 do redis.call('HDEL', hash, unpack(to_drop, i, math.min(i + 999, #to_drop))) end
  if not texts.last_update and stored.version then  -- it was deleted, and is back
    redis.call('PERSIST', meta)
    redis.call('PERSIST', history)
  end
end

return {version, string.format('%.0f', now), table.concat(flags), string.format('%.0f', last.at)}
