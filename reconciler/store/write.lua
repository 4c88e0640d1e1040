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
--       `old` is given where the text has been read (adoption): then only a text that is still foreign is taken
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
-- Nothing can be undone: whatever may be refused (a wrong type, no memory, no right) is refused by a read, by the
-- check of the channels or by the first write, before anything is changed or said.

local hash, meta, history = KEYS[1], KEYS[2], KEYS[3]
local channel, agent, event_name, origin = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local skew, keep, floor_version, ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local unpack = unpack or table.unpack
local byte, find, floor, format, match, sub = string.byte, string.find, math.floor, string.format, string.match, string.sub
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local ESCAPES = {['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t',
                 ['\b'] = '\\b', ['\f'] = '\\f'}
local function escape(char)
  return ESCAPES[char] or format('\\u%04x', byte(char))
end
local function quote(text)
  if find(text, '[%z\1-\31"\\]') then text = string.gsub(text, '[%z\1-\31"\\]', escape) end
  return '"' .. text .. '"'
end

local function whole(number)
  return format('%.0f', number)
end

local iso_of = {}
local function iso(at)
  if iso_of[at] then return iso_of[at] end
  local seconds = floor(at / 1000000)
  local days = floor(seconds / 86400)
  local rest, z = seconds - days * 86400, days + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  iso_of[at] = format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ',
    yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - floor((153 * mp + 2) / 5) + 1,
    floor(rest / 3600), floor(rest / 60) % 60, rest % 60, at - seconds * 1000000)
  return iso_of[at]
end

local function below(a, b)  -- by bytes: Lua's own < follows the server's locale
  for i = 1, math.min(#a, #b) do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function digest(text)
  return text and sub(redis.sha1hex(text), 1, 16) or '-'
end

local function call(command, key, list)  -- in parts, because unpack has its limit
  for i = 1, #list, 1000 do redis.call(command, key, unpack(list, i, math.min(i + 999, #list))) end
end

local function read(key, names)  -- a field that is not there becomes false
  local found = {}
  for i = 1, #names, 1000 do
    local last = math.min(i + 999, #names)
    local values = redis.call('HMGET', key, unpack(names, i, last))
    for j = i, last do found[names[j]] = values[j - i + 1] end
  end
  return found
end

local function member_key(line)  -- the quoted key that begins a line, and where it ends
  local stop = match(line, '^"[^"\\]*()"')
  if stop then return sub(line, 1, stop), stop end
  local i = 2
  while i <= #line do
    local at, _, char = find(line, '(["\\])', i)
    if not at then return nil end
    if char == '"' then return sub(line, 1, at), at end
    i = at + 2
  end
end

-- What is asked: the changes, and the hash fields and registers they touch.
local touched, hash_names, meta_names = {}, {'last_update'}, {'version', '=context', '.last_update'}
local function touch(name)
  if not touched[name] and name ~= 'last_update' then
    touched[name] = 'known'
    hash_names[#hash_names + 1] = name
    meta_names[#meta_names + 1] = '.' .. name
  end
end

local changes = {}
local function ask(name, kind, text, at, by, old)
  local key = sub(name, 1, 8) == 'context.' and sub(name, 9)
  local place = key and 'context' or name
  changes[#changes + 1] = {name = name, kind = kind, text = text, at = at ~= '' and tonumber(at), by = by,
    old = old ~= '' and old, key = key and quote(key), place = place}
  if kind ~= 'f' then touch(place) end
  if key or kind == 'f' then meta_names[#meta_names + 1] = '.' .. name end
end

local seen, position = {}, 10
for _ = 1, tonumber(ARGV[9]) do
  local name = ARGV[position]
  seen[name] = {digest = ARGV[position + 1], framed = ARGV[position + 2]}
  touch(name)
  position = position + 3
end
for i = position, #ARGV, 6 do
  local name, kind, text, at, by, old = unpack(ARGV, i, i + 5)
  if kind == 'a' then
    local stored = redis.call('HGETALL', meta)
    for j = 1, #stored, 2 do
      local field = match(stored[j], '^%.(.*)$')
      if field and field ~= 'last_update' and match(stored[j + 1], '^%d+ [sjc]') then
        ask(field, 'x', '', at, by, '')
      end
    end
    for _, field in ipairs(redis.call('HKEYS', hash)) do touch(field) end
  else
    if (kind == 'c' or kind == 'j') and find(text, '\n', 1, true) then return {-2, name} end
    ask(name, kind, text, at, by, old)
  end
end

local texts, stored = read(hash, hash_names), read(meta, meta_names)
local entries = {}
for name, packed in pairs(stored) do
  local at, kind, mark, by = match(packed or '', '^(%d+) (%a) (%S+) (.*)$')
  if at and sub(name, 1, 1) == '.' then
    entries[sub(name, 2)] = {at = tonumber(at), kind = kind, digest = mark, by = by}
  end
end

-- Nothing is overwritten that is not recognised: it is what was last written here, or what the caller has read.
for name in pairs(touched) do
  local entry = entries[name]
  local expected = entry and entry.kind ~= 'x' and entry.digest or '-'
  if name == 'context' then expected = stored['=context'] or '-' end
  local actual = digest(texts[name])
  if actual ~= expected then
    if not seen[name] or seen[name].digest ~= actual then return {-1, name} end
    if name == 'context' then texts.context = seen.context.framed ~= '' and seen.context.framed end
    touched[name] = 'foreign'
  end
end

local lines, index = {}, {}
if touched.context and texts.context and texts.context ~= '{}' then
  for line in string.gmatch(sub(texts.context, 3, -3), '[^\n]+') do
    if sub(line, -1) == ',' then line = sub(line, 1, -2) end
    local key, stop = member_key(line)
    if not key then return {-1, 'context'} end
    lines[#lines + 1] = {key = key, json = sub(line, stop + 2)}
    index[key] = lines[#lines]
  end
end

-- Field by field: who wins?
local won, stamped, forget = {}, {}, {}
local context_dirty, dirty, plain_dirty, grown, lost = touched.context == 'foreign', {}, {}, 0, 0
local newest, newest_by, retimed = -1, '', false
local last = entries.last_update or {at = 0, kind = 'x', by = ''}

local function current_json(change, entry)  -- what is there, nil for nothing
  if change.key then return index[change.key] and index[change.key].json or nil end
  local text = texts[change.name]
  if text then return entry and entry.kind == 'j' and text or quote(text) end
end

local function set(change, json, current)
  if change.key then
    local line = index[change.key]
    if not line then
      line = {key = change.key}
      lines[#lines + 1], index[change.key] = line, line
    end
    line.json, context_dirty = json, true
  else
    texts[change.name] = json and change.text or false
    if not plain_dirty[change.name] then dirty[#dirty + 1] = change.name end
    plain_dirty[change.name] = true
    grown = grown + (json and 1 or 0) - (current and 1 or 0)
  end
end

local function move_time(at, by)
  if at > last.at or last.kind == 'x' then last = {at = at, kind = 's', by = by, moved = true} end
end

local function newer(change, at, entry, json, current)  -- the order of merge.py; nil for the same write again
  if not entry or at > entry.at then return true end
  if at < entry.at then return false end
  if change.by ~= entry.by then return below(entry.by, change.by) end
  local there, given = entry.kind ~= 'x' and current or '', json or ''
  if there == given then return nil end
  return below(there, given)
end

local function decide(change, at)
  local name, entry = change.name, entries[change.name]
  local current = current_json(change, entry)
  local known = entry and entry.kind ~= 'x'
  if change.kind == 'f' then
    if entry and entry.at == at and not (known and current) then forget[#forget + 1] = '.' .. name end
    return 's'
  elseif name == 'last_update' then
    move_time(at, change.by)
    retimed = true
    return 's'
  elseif change.old and entry and touched[change.place] ~= 'foreign' then
    return 's'  -- somebody else adopted it meanwhile
  end
  local json
  if change.kind == 's' then json = quote(change.text) elseif change.kind ~= 'x' then json = change.text end
  local wins
  if known and not current and json then
    at, wins = math.max(at, entry.at), true  -- its value is lost: an older one is better than none
  else
    wins = newer(change, at, entry, json, current)
  end
  if not wins then return wins == nil and 's' or 'o' end
  local old, op, flag = current, json and 'update' or 'delete', json ~= current and 'w' or 's'
  if change.old then  -- adopted: what was there is gone, so only the caller can tell what changed
    old = known and change.old or nil
    flag = (known or json) and (old == 'null' or json ~= old) and 'w' or 's'
  end
  if json and not old then op = 'create' end
  entries[name] = {at = at, kind = change.kind, by = change.by}
  stamped[#stamped + 1] = {change, at}
  if json ~= current then set(change, json, current) end
  if flag == 'w' then
    won[#won + 1] = {change = change, at = at, op = op, old = old or 'null', new = json or 'null'}
    if not json then lost = lost + 1 end
  end
  if at > newest and (json or flag == 'w') then newest, newest_by = at, change.by end
  return flag
end

local top, flags = now, {}
for _, change in ipairs(changes) do
  local entry = entries[change.name]
  if not change.at and entry and entry.at >= top then top = entry.at + 1 end
end
for i, change in ipairs(changes) do
  local at, late = change.at or top, change.at and not change.old and change.at > now + skew
  local flag = decide(change, late and now or at)
  flags[i] = late and string.upper(flag) or flag
end
if newest >= 0 then move_time(newest, newest_by) end

-- Is anything left of an agent that lost a field? Then it is deleted, and so is its hash.
local members = {}
for _, line in ipairs(lines) do
  if line.json then members[#members + 1] = line.key .. ':' .. line.json end
end
local deleted = false
if lost > 0 then
  local left = redis.call('HLEN', hash) - redis.call('HEXISTS', hash, 'context') - (texts.last_update and 1 or 0)
  if touched.context then left = left + #members
  else left = left + math.max(redis.call('HSTRLEN', hash, 'context') - 2, 0) end
  deleted = left + grown == 0
end

-- A version for what won, and its event.
local version, event = tonumber(stored.version or ''), nil
if #won > 0 then
  if not version then  -- the sidecar was lost: history knows how far it had counted
    local info = redis.pcall('XINFO', 'STREAM', history)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then version = tonumber(match(info[i + 1], '^%d+')) end
    end
  end
  version = math.max(version or 0, floor_version) + 1
  local data, listed = {}, {}
  for i, item in ipairs(won) do
    local change = item.change
    if change.key then data[#data + 1] = change.key .. ':' .. item.new end
    listed[i] = '{"field":' .. quote(change.name) .. ',"op":"' .. item.op .. '","old":' .. item.old
      .. ',"new":' .. item.new .. ',"at":"' .. iso(item.at) .. '","by":' .. quote(change.by) .. '}'
  end
  local number = whole(version)
  event = '{"agent":' .. quote(agent) .. ',"event":' .. quote(deleted and 'agent_deleted' or event_name)
    .. ',"timestamp":"' .. iso(newest) .. '","data":{' .. table.concat(data, ',') .. '},"v":1,"id":'
    .. quote(agent .. ':' .. number) .. ',"version":' .. number .. ',"origin":' .. quote(origin)
    .. ',"changes":[' .. table.concat(listed, ',') .. ']}'
  local may = redis.acl_check_cmd  -- from Redis 7 on
  if may and not (may('PUBLISH', channel, '') and may('PUBLISH', channel .. ':' .. agent, '')) then
    return redis.error_reply('NOPERM this user may not publish on ' .. channel .. ' and ' .. channel .. ':*')
  end
end

-- What the keys must learn.
local to_hash, to_drop, to_meta = {}, {}, {}
for _, name in ipairs(dirty) do
  if texts[name] then
    to_hash[#to_hash + 1], to_hash[#to_hash + 2] = name, texts[name]
  else
    to_drop[#to_drop + 1] = name
  end
end
for _, item in ipairs(stamped) do
  local change, at = item[1], item[2]
  local mark = (change.kind == 's' or change.kind == 'j') and digest(change.text) or '-'
  to_meta[#to_meta + 1] = '.' .. change.name
  to_meta[#to_meta + 1] = whole(at) .. ' ' .. change.kind .. ' ' .. mark .. ' ' .. change.by
end
if event then
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = 'version', whole(version)
end
if context_dirty and (#members > 0 or texts.context) and not deleted then
  local text = #members > 0 and '{\n' .. table.concat(members, ',\n') .. '\n}' or '{}'
  to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'context', text
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '=context', digest(text)
elseif (context_dirty or deleted) and stored['=context'] then
  forget[#forget + 1] = '=context'
end
if deleted then
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '.last_update', whole(last.at) .. ' x - ' .. last.by
elseif last.kind == 's' and (last.moved or retimed or #to_hash > 0 and not texts.last_update) then
  local text = iso(last.at)
  to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'last_update', text
  to_meta[#to_meta + 1] = '.last_update'
  to_meta[#to_meta + 1] = whole(last.at) .. ' s ' .. digest(text) .. ' ' .. last.by
end

-- History first: of all writes it is the one most likely to be refused. What subscribers hear is true already.
if event and keep > 0 then
  redis.call('XADD', history, 'MAXLEN', '=', keep, whole(version) .. '-0', 'event', event)
end
call('HSET', meta, to_meta)
call('HDEL', meta, forget)
if deleted then
  redis.call('DEL', hash)
  redis.call('EXPIRE', meta, ttl)
  redis.call('EXPIRE', history, ttl)
else
  call('HSET', hash, to_hash)
  call('HDEL', hash, to_drop)
  if last.moved and entries.last_update and entries.last_update.kind == 'x' then  -- it was deleted, and is back
    redis.call('PERSIST', meta)
    redis.call('PERSIST', history)
  end
end
if event then
  redis.call('PUBLISH', channel, event)
  redis.call('PUBLISH', channel .. ':' .. agent, event)
end

return {version or 0, whole(now), table.concat(flags), whole(last.at)}
