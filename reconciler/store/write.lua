-- Write some fields of one agent: compare stamps field by field, write only what wins, count the version,
-- append history, publish. Atomic, one round trip. The meaning is that of merge.py; the differential test
-- holds the two together. Values are opaque JSON texts: nothing here parses one.
--
-- KEYS  1 hash  2 sidecar  3 history stream
-- ARGV  1 channel  2 agent  3 event name  4 origin  5 priority  6 history length, 0 for none
--       7 "1" if a write found that the channels may be used  8 "<max skew in µs> <seconds a deleted agent's sidecar
--         is kept> <version floor: a refilled server goes on counting; left out if it was not looked up>"
--       9 number of `seen` triples; each: hash field, digest of the foreign text the caller has read there,
--         and for `context` the same content framed; `last_update` stands for a hash that is not there
--       then the changes, 6 each: field, kind, text, at ("" for now), by, old as JSON ("" for what is there)
--       `old` is given where the text has been read (adoption): then only a text that is still foreign is taken
--       or, with 9 "" (live, by the origin, no floor, no last_update, nothing deleted, no name that JSON escapes, no raw
--         newline in a value): the changes, 3 each: field, kind or what a context member begins with, text
--       last: not after this moment (µs of this server's clock), when the caller will have given up; a blank, a minute
--         that is near (s since 1970), a blank, and how its ISO 8601 begins; "" for whenever
-- kinds s plain text · j JSON text kept as plain text · c context member · x tombstone · a tombstones for every
--       field (the only one then) · f forget the stamp of a field that is not there
--
-- Sidecar: `version`; `by`, "<at> <by>" of the first write; `=`, the digest of the context text; and the registers, `@` of
-- last_update, `:<key>` of a context member, `.<field>` of any other: "<at> <kind> <digest> <by>". Where " <by>" is left
-- out it is who wrote first, and <at> counts from then (but in `@`); then " c -" and, in `@`, " s -" are left out too:
-- a small number alone takes Redis 2 to 10 bytes. No field that is there has a later stamp than last_update.
-- Context framing: "{\n" members joined by ",\n" "\n}". A raw newline cannot occur inside a JSON string, so
-- lines are members, and a member is found by a newline and its key. Any other shape was written by somebody else
-- and must be adopted first.
--
-- Returns {version, seconds, µs, flags, touched}: the newest stamp that was written in two parts, the server's time if
-- none was; and a letter for each change:
-- w won, s the same value (only its stamp moved), o older than what is there; capital where a stamp too far in the
-- future was clamped.
-- Returns {-3} when a version is needed and neither the sidecar nor the caller has one.
-- Returns {-1, hash field} when a text there is not recognised, {-2, field} for a value with a raw newline,
-- {-4, seconds, µs} when it is too late.
-- Nothing can be undone: whatever may be refused (a wrong type, no memory, no right) is refused by a read, by the
-- check of the channels or by the first write, before anything is changed or said.
--
-- usual.lua stands before this, in the same script. Its are: hash meta history channel agent, the functions of Lua by
-- their short names, time stop SPECIAL, forbidden publish usual.

if ARGV[9] == '' then
  local answer = ARGV[7] == '1' and stop < 100 and usual()
  if answer then return answer end
  stop = 2 * stop - 9  -- every change in full
  for i = (stop - 15) / 6, 0, -1 do
    local short, full = 10 + 3 * i, 10 + 6 * i
    ARGV[full], ARGV[full + 1], ARGV[full + 2], ARGV[full + 3], ARGV[full + 4], ARGV[full + 5] =
      ARGV[short], #ARGV[short + 1] > 1 and 'c' or ARGV[short + 1], ARGV[short + 2], '', ARGV[4], ''
  end
  ARGV[9] = '0'
end
local function iso_time(at)
  local micros = at % 1000000
  local seconds = (at - micros) / 1000000
  local rest = seconds % 86400
  local z = (seconds - rest) / 86400 + 719468
  local doe = z % 146097
  local yoe = doe - (doe - doe % 1460) / 1460 + (doe - doe % 36524) / 36524 - (doe - doe % 146096) / 146096
  yoe = (yoe - yoe % 365) / 365
  local doy = doe - 365 * yoe - (yoe - yoe % 4) / 4 + (yoe - yoe % 100) / 100
  local mp = (5 * doy + 2 - (5 * doy + 2) % 153) / 153
  local days, month, minute = 153 * mp + 2, mp < 10 and mp + 3 or mp - 9, rest % 3600
  return format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', yoe + (z - doe) / 146097 * 400 + (month <= 2 and 1 or 0), month,
    doy - (days - days % 5) / 5 + 1, (rest - minute) / 3600, (minute - minute % 60) / 60, minute % 60, micros)
end

local now = time[1] * 1000000 + time[2]
local max_skew, keep, floor = match(ARGV[8], '^(%d+) (%d+) (%d*)$')

local ESCAPES
local function escape(char)
  return ESCAPES[char] or format('\\u%04x', string.byte(char))
end
local function quote(text)
  if find(text, SPECIAL) then
    ESCAPES = ESCAPES or {['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t',
                          ['\b'] = '\\b', ['\f'] = '\\f'}
    text = string.gsub(text, SPECIAL, escape)
  end
  return '"' .. text .. '"'
end

local written_at, digits, iso  -- a time as it is written: µs, and ISO 8601
local function write_time(at)
  if at ~= written_at then written_at, digits, iso = at, format('%.0f', at), iso_time(at) end
end

local function digest(text)
  return text and sub(redis.sha1hex(text), 1, 16) or '-'
end

local function register_of(name)
  if sub(name, 1, 8) == 'context.' then return ':' .. sub(name, 9) end
  return name == 'last_update' and '@' or '.' .. name
end

-- What is asked: the hash fields and registers that the changes touch.
local touched, hash_names, meta_names, contexts = {}, {'last_update'}, {'version', 'by', '=', '@'}, 0
local function touch(name)
  if not touched[name] and name ~= 'last_update' then
    touched[name] = 'known'
    hash_names[#hash_names + 1] = name
    if name ~= 'context' then meta_names[#meta_names + 1] = '.' .. name end
  end
end

local seen, first = nil, 10 + 3 * ARGV[9]
for i = 10, first - 1, 3 do
  seen = seen or {}
  seen[ARGV[i]] = i
  touch(ARGV[i])
end
if ARGV[first + 1] == 'a' then  -- as if it were said of every field by name
  local at, by, stored = ARGV[first + 3], ARGV[first + 4], call('HGETALL', meta)
  for i = 1, #stored, 2 do
    local space, field = match(stored[i], '^([.:])(.*)$')
    if space == ':' then field = 'context.' .. field end
    if field and field ~= 'last_update' and (match(stored[i + 1], '^%d+$') or match(stored[i + 1], '^%d+ [sjc]')) then
      ARGV[stop + 1], ARGV[stop + 2], ARGV[stop + 3], ARGV[stop + 4] = field, 'x', '', at
      ARGV[stop + 5], ARGV[stop + 6] = by, ''
      stop = stop + 6
    end
  end
  stored = call('HKEYS', hash)
  for i = 1, #stored do touch(stored[i]) end
  first = first + 6
end
for i = first, stop, 6 do
  local name, kind = ARGV[i], ARGV[i + 1]
  if kind ~= 's' and find(ARGV[i + 2], '\n', 1, true) then return {-2, name} end
  if sub(name, 1, 8) == 'context.' then
    contexts = contexts + 1
    if kind ~= 'f' then touch('context') end
    meta_names[#meta_names + 1] = ':' .. sub(name, 9)
  elseif kind ~= 'f' then
    touch(name)
  else
    meta_names[#meta_names + 1] = '.' .. name
  end
end

local function read(key, names)  -- in parts, because unpack has its limit
  if #names <= 1000 then return call('HMGET', key, unpack(names)) end
  local found = {}
  for i = 1, #names, 1000 do
    local values = call('HMGET', key, unpack(names, i, math.min(i + 999, #names)))
    for j = 1, #values do found[i + j - 1] = values[j] end
  end
  return found
end

local texts, entries, ahead = {}, {}, false
local values = read(hash, hash_names)
for i = 1, #hash_names do texts[hash_names[i]] = values[i] end
values = read(meta, meta_names)
local birth, writer = match(values[2] or '', '^(%d+) (.*)$')
local to_meta = {}
if not birth or #birth > 18 then  -- a new sidecar, a damaged one, or a former version's: all in full, under longer names
  local stored = call('HGETALL', meta)
  for i = 1, #stored, 2 do
    local name, text = stored[i], stored[i + 1]
    local new = name == '=context' and '=' or match(name, '^%.') and register_of(sub(name, 2)) or name
    local lost = match(name, '^[.:@]') and not match(text, '^%d+ %a %S+ ')
    if new ~= name and not lost then call('HSET', meta, new, text) end
    if new ~= name or lost then call('HDEL', meta, name) end
  end
  values = read(meta, meta_names)
  birth, writer = now, ARGV[4]
  to_meta[1], to_meta[2] = 'by', format('%.0f ', now) .. writer
end
birth = tonumber(birth)
local version, mark_of_context = tonumber(match(values[1] or '', '^%d+$')), values[3]
if version and #values[1] > 15 then version = nil end  -- nobody counted that far
for i = 4, #meta_names do
  if values[i] then
    local name, text = meta_names[i], values[i]
    local at, kind, mark, by = match(text, '^%d+$'), name == '@' and 's' or 'c', '-', nil
    if not at then at, kind, mark = match(text, '^(%d+) ([sjcx]) (%S+)$') end
    if not at then at, kind, mark, by = match(text, '^(%d+) ([sjcx]) (%S+) (.*)$') end
    if at and #at < 19 then  -- longer is no stamp
      at = at + ((by or name == '@') and 0 or birth)
      ahead = ahead or at >= now
      entries[name] = {at = at, kind = kind, digest = mark, by = by or writer}
    end
  end
end

-- Nothing is overwritten that is not recognised: it is what was last written here, or what the caller has read.
for name in pairs(touched) do
  local expected
  if name == 'context' then
    expected = mark_of_context or '-'
  else
    local entry = entries['.' .. name]
    expected = entry and entry.kind ~= 'x' and entry.digest or '-'
  end
  local actual = digest(texts[name])
  if actual ~= expected then
    local i = seen and seen[name]
    if not i or ARGV[i + 1] ~= actual then return {-1, name} end
    if name == 'context' then texts.context = ARGV[i + 2] ~= '' and ARGV[i + 2] end
    touched[name] = 'foreign'
  end
end

-- A hash that somebody removed, with all that it had, is no empty one: who wrote into it would delete the rest.
local was_there = entries['@']
if was_there and was_there.kind == 's' and not texts.last_update and not (seen and seen.last_update)
  and call('EXISTS', hash) == 0 then return {-1, 'last_update'} end

-- The members of the context that are asked for: where each stands and its JSON, nil for one that is not there.
local context, members = texts.context, {}
if not context or context == '{}' then context = '{\n}' end
local function place(key, start, value)
  local last = find(context, '\n', value, true) - 1
  if last < #context - 2 then last = last - 1 end  -- a comma
  members[key] = {key = key, start = start, value = value, last = last, json = sub(context, value, last)}
end

if contexts > 50 then  -- all in one go
  local start = 2
  while start < #context - 1 do
    local ends = find(context, '["\\]', start + 2)
    while sub(context, ends, ends) ~= '"' do ends = find(context, '["\\]', ends + 2) end  -- the key's, not an escaped one
    place(sub(context, start + 1, ends), start, ends + 2)
    start = find(context, '\n', ends, true)
  end
end

-- Field by field: who wins?
local flags, data, listed, won, lost, grown = {}, {}, {}, 0, 0, 0
local newest, newest_by, forget, edits, added, dirty = -1, '', nil, nil, nil, nil
local context_dirty, last, moved = touched.context == 'foreign', was_there, false
local last_at, last_kind, last_by = last and last.at or 0, last and last.kind or 'x', last and last.by or ''
local by_text, by_json

local function pack(register, kind, mark, by)
  local last = register == '@'
  if by ~= writer or written_at < birth and not last then return digits .. ' ' .. kind .. ' ' .. mark .. ' ' .. by end
  local at = last and digits or format('%.0f', written_at - birth)
  return kind == (last and 's' or 'c') and at or at .. ' ' .. kind .. ' ' .. mark
end

local function below(a, b)  -- by bytes: Lua's own < follows the server's locale
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function set_plain(name, text, current)
  texts[name] = text
  grown = grown + (text and 1 or 0) - (current and 1 or 0)
  dirty = dirty or {}
  if not dirty[name] then dirty[#dirty + 1], dirty[name] = name, true end
end

local function set_member(member, json)
  if not member.dirty then
    if member.start then
      edits = edits or {}
      edits[#edits + 1] = member
    else
      added = added or {}
      added[#added + 1] = member
    end
  end
  member.json, member.dirty, context_dirty = json, true, true
end

local function decide(i, at)
  local name, kind, text, by, adopts = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4], ARGV[i + 5]
  local register, key, member, current = register_of(name), nil, nil, nil
  local entry = entries[register]
  local known = entry and entry.kind ~= 'x'
  if sub(name, 1, 8) == 'context.' then
    key = quote(sub(name, 9))
    member = members[key]
    if not member then
      local start, ends = find(context, '\n' .. key .. ':', 1, true)
      if start then place(key, start, ends + 1) else members[key] = {key = key} end
      member = members[key]
    end
    current = member.json
  elseif texts[name] then
    current = entry and entry.kind == 'j' and texts[name] or quote(texts[name])
  end
  if kind == 'f' then
    if entry and entry.at == at and not (known and current) then
      forget = forget or {}
      forget[#forget + 1] = register
    end
    return 's'
  elseif name == 'last_update' then
    if at > last_at or last_kind == 'x' then last_at, last_kind, last_by = at, 's', by end
    moved = true
    return 's'
  elseif adopts ~= '' and entry and touched[key and 'context' or name] ~= 'foreign'
    and (kind ~= 'x' or current or not known) then
    return 's'  -- somebody else adopted it meanwhile; not what went with a removed hash, of which nobody said so yet
  end
  local json = kind == 's' and quote(text) or kind ~= 'x' and text or nil
  local refills = known and not current and json  -- an older value is better than none, with its own stamp
  if entry and not refills and at <= entry.at then  -- the order of merge.py
    if at < entry.at then return 'o' end
    if by ~= entry.by then
      if below(by, entry.by) then return 'o' end
    else
      local there, given = known and current or '', json or ''
      if there == given then return 's' end
      if below(given, there) then return 'o' end
    end
  end
  local old, op, wins = current, json and 'update' or 'delete', json ~= current
  if adopts ~= '' then  -- what was there is gone, so only the caller can tell what changed
    old = known and adopts or nil
    wins = (known or json) and (old == 'null' or json ~= old)
  end
  if json and not old then op = 'create' end
  if entry then
    entry.at, entry.kind, entry.by = at, kind, by
  else
    entries[register] = {at = at, kind = kind, by = by}
  end
  write_time(at)
  to_meta[#to_meta + 1] = register
  to_meta[#to_meta + 1] = pack(register, kind, (kind == 's' or kind == 'j') and digest(text) or '-', by)
  if json ~= current then
    if key then set_member(member, json) else set_plain(name, json and text, current) end
  end
  if at > newest and (json or wins) then newest, newest_by = at, by end
  if not wins then return 's' end
  json, won = json or 'null', won + 1
  if op == 'delete' then lost = lost + 1 end
  if key then data[#data + 1] = key .. ':' .. json end
  if by ~= by_text then by_text, by_json = by, quote(by) end
  listed[won] = '{"field":' .. (key and '"context.' .. sub(key, 2) or quote(name)) .. ',"op":"' .. op .. '","old":'
    .. (old or 'null') .. ',"new":' .. json .. ',"at":"' .. iso .. '","by":' .. by_json .. '}'
  return 'w'
end

local top = now
if ahead then
  for i = first, stop, 6 do
    local entry = entries[register_of(ARGV[i])]
    if entry and entry.at >= top and ARGV[i + 3] == '' then top = entry.at + 1 end
  end
end
for i = first, stop, 6 do
  local at = ARGV[i + 3]
  if at == '' then
    flags[#flags + 1] = decide(i, top)
  else
    at = tonumber(at)
    if at > now + max_skew and ARGV[i + 5] == '' then
      flags[#flags + 1] = string.upper(decide(i, now))
    else
      flags[#flags + 1] = decide(i, at)
    end
  end
end
if newest >= 0 and (newest > last_at or last_kind == 'x') then
  last_at, last_kind, last_by, moved = newest, 's', newest_by, true
end

-- The context as it will be: what is not touched is copied in pieces, what is new comes last.
if context_dirty then
  local pieces, from = {}, 1
  if edits then
    if #edits > 1 then table.sort(edits, function(a, b) return a.start < b.start end) end
    for i = 1, #edits do
      local member = edits[i]
      if member.json then
        pieces[#pieces + 1], pieces[#pieces + 2] = sub(context, from, member.value - 1), member.json
        from = member.last + 1
      else
        pieces[#pieces + 1] = sub(context, from, member.start - 1)
        from = member.last + (member.last < #context - 2 and 2 or 1)
      end
    end
  end
  pieces[#pieces + 1] = sub(context, from, -3)
  context = table.concat(pieces)
  if sub(context, -1) == ',' then context = sub(context, 1, -2) end  -- the last one went
  if added then
    pieces = {}
    for i = 1, #added do
      if added[i].json then pieces[#pieces + 1] = '\n' .. added[i].key .. ':' .. added[i].json end
    end
    if #pieces > 0 and context ~= '{' then context = context .. ',' end
    context = context .. table.concat(pieces, ',')
  end
  context = context .. '\n}'
end

-- Is anything left of an agent that lost a field? Then it is deleted, and so is its hash.
local deleted = false
if lost > 0 then
  local left = call('HLEN', hash) - call('HEXISTS', hash, 'context') - (texts.last_update and 1 or 0)
  if touched.context then left = left + #context - 3
  else left = left + math.max(call('HSTRLEN', hash, 'context') - 2, 0) end
  deleted = left + grown == 0
end

-- A version for what won, and its event.
local event, number
if won > 0 then
  if not version then  -- the sidecar was lost: history knows how far it had counted
    if floor == '' then return {-3} end
    local info = redis.pcall('XINFO', 'STREAM', history)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then version = tonumber(match(info[i + 1], '^%d+')) end
    end
  end
  version = math.max(version or 0, tonumber(floor) or 0) + 1
  number = format('%.0f', version)
  write_time(newest)
  local named = quote(agent)
  local origin = ARGV[4] == by_text and by_json or quote(ARGV[4])
  event = '{"agent":' .. named .. ',"event":' .. (deleted and '"agent_deleted"' or quote(ARGV[3]))
    .. ',"timestamp":"' .. iso .. '","data":{' .. table.concat(data, ',') .. '},"v":1,"id":' .. sub(named, 1, -2)
    .. ':' .. number .. '","version":' .. number .. ',"origin":' .. origin .. ',"priority":"' .. ARGV[5]
    .. '","changes":[' .. table.concat(listed, ',') .. ']}'
  local may = redis.acl_check_cmd  -- from Redis 7 on
  if ARGV[7] ~= '1' and may and not (may('PUBLISH', channel, '') and may('PUBLISH', channel .. ':' .. agent, '')) then
    return forbidden()
  end
end

-- What the keys must learn.
local to_hash, to_drop = {}, nil
for i = 1, dirty and #dirty or 0 do
  local name = dirty[i]
  if texts[name] then
    to_hash[#to_hash + 1], to_hash[#to_hash + 2] = name, texts[name]
  else
    to_drop = to_drop or {}
    to_drop[#to_drop + 1] = name
  end
end
if event then
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = 'version', number
end
if context_dirty and (#context > 3 or texts.context) and not deleted then
  if #context == 3 then context = '{}' end
  to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'context', context
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '=', digest(context)
elseif (context_dirty or deleted) and mark_of_context then
  forget = forget or {}
  forget[#forget + 1] = '='
end
write_time(last_at)
if deleted then
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '@', pack('@', 'x', '-', last_by)
elseif last_kind == 's' and (moved or #to_hash > 0 and not texts.last_update) then
  to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'last_update', iso
  to_meta[#to_meta + 1], to_meta[#to_meta + 2] = '@', pack('@', 's', '-', last_by)
elseif seen and seen.last_update then
  forget = forget or {}
  forget[#forget + 1] = '@'
end

local function send(command, key, list)  -- in parts, because unpack has its limit
  if not list or #list == 0 then return end
  for i = 1, #list, 1000 do call(command, key, unpack(list, i, math.min(i + 999, #list))) end
end

-- History first: of all writes it is the one most likely to be refused. What subscribers hear is true already.
if event and ARGV[6] ~= '0' then
  call('XADD', history, 'MAXLEN', '=', ARGV[6], number .. '-0', 'event', event)
end
if to_meta[1] ~= 'by' or to_meta[3] then send('HSET', meta, to_meta) end
send('HDEL', meta, forget)
if deleted then
  call('DEL', hash)
  call('EXPIRE', meta, keep)
  call('EXPIRE', history, keep)
else
  send('HSET', hash, to_hash)
  send('HDEL', hash, to_drop)
  if moved and last and last.kind == 'x' then  -- it was deleted, and is back
    call('PERSIST', meta)
    call('PERSIST', history)
  end
end
local at = newest >= 0 and newest or top
micros = at % 1000000
return event and publish(event)
  or {version or 0, format('%.0f', (at - micros) / 1000000), format('%.0f', micros), table.concat(flags), digits}
