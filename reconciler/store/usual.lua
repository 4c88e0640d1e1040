-- The first part of write.lua, where the arguments are told; both are one script. Here is what every write needs, and a
-- short way for the usual one. test_usual.py holds the short way to the long one, byte for byte.

-- Tables and functions are made anew by every call, and cost more than what is done with them: hence few, and late.

local hash, meta, history, channel, agent = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local unpack, call, find, format, match, sub = unpack or table.unpack, redis.call, string.find, string.format, string.match, string.sub
local time, stop = call('TIME'), #ARGV - 1
local micros, late = sub('00000' .. time[2], -6), ARGV[stop + 1]
local digits = time[1] .. micros  -- now, in µs; texts of 16 digits compare as numbers do, and cost less
if late ~= '' and digits > sub(late, 1, 16) then return {-4, time[1], time[2]} end
local SPECIAL = '[%z\1-\31"\\]'

local function forbidden()
  return redis.error_reply('NOPERM this user may not publish on ' .. channel .. ' and ' .. channel .. ':*')
end

-- The last step, when everything else is written. The rights were checked before, by this write or an earlier one;
-- if they were taken away since, it is said: the write stands, and the history has its event.
local function publish(event)
  local all, own = redis.pcall('PUBLISH', channel, event), redis.pcall('PUBLISH', channel .. ':' .. agent, event)
  if type(all) == 'table' or type(own) == 'table' then return forbidden() end
end

-- The usual write: a few values get new ones, now, in the order in which they stand. It does what is done below, with
-- hardly a table; nothing is returned, and nothing written, when anything else is asked for or found.
local function usual()
  local second = late ~= '' and time[1] - sub(late, 18, 27) or 60
  if second < 0 or second > 59 then return end
  local origin, fields, marks = ARGV[4], {'context'}, {'version', 'by', '=', '@'}
  for i = 10, stop, 3 do
    if #ARGV[i + 1] == 1 then fields[#fields + 1], marks[#marks + 1] = ARGV[i], '.' .. ARGV[i] end
  end
  local texts, entries = call('HMGET', hash, unpack(fields)), call('HMGET', meta, unpack(marks))
  local context, first, mark, last, version = texts[1], entries[2] or '', entries[3], entries[4], tonumber(entries[1])
  local since = digits - (tonumber(sub(first, 1, 16)) or 1e16)
  if not version or #entries[1] > 15 or since < 0 or sub(first, 17, 17) ~= ' ' or not last or sub(last, 1, 16) >= digits
    or #last ~= 16 and sub(last, 17, 19) ~= ' s ' then return end
  local digest, iso = redis.sha1hex, sub(late, 29) .. (second < 10 and '0' or '') .. second .. '.' .. micros .. 'Z'
  local by, at, tail = '', format('%.0f', since), ',"at":"' .. iso .. '","by":"' .. origin .. '"}'
  local stamp = at
  if sub(first, 18) ~= origin then by, at, stamp = ' ' .. origin, digits, digits .. ' c - ' .. origin end
  local to_meta, to_hash, size, said, pieces, from, plain = {}, {'last_update', iso}, 0, {''}, {}, 1, 1
  local flags, data, comma, opening = '', '', '', '{"field":"'
  for i = 10, stop, 3 do
    local name, kind, json, old = ARGV[i], ARGV[i + 1], ARGV[i + 2], nil
    size = size + 2
    if #kind > 1 then
      if from == 1 and (not context or sub(digest(context), 1, 16) ~= mark) then return end
      local _, colon = find(context, '\n' .. kind, from, true)
      if not colon then return end
      local ends = find(context, '\n', colon, true) - 1
      if ends < #context - 2 then ends = ends - 1 end  -- a comma
      old, to_meta[size - 1], to_meta[size] = sub(context, colon + 1, ends), ':' .. sub(name, 9), stamp
      pieces[#pieces + 1], pieces[#pieces + 2], from = sub(context, from, colon), json, ends + 1
      if json ~= old then data, comma = data .. comma .. kind .. json, ',' end
    else
      plain = plain + 1
      old = texts[plain]
      local text, entry = json, entries[plain + 3]
      if not old or not entry or texts[name]
        or not find(entry, '^%d+ ' .. kind .. ' ' .. sub(digest(old), 1, 16)) then return end
      texts[name] = true  -- not twice
      if kind == 's' then
        if find(old, SPECIAL) or find(text, SPECIAL) then return end
        old, json = '"' .. old .. '"', '"' .. text .. '"'
      end
      to_meta[size - 1], to_meta[size] = '.' .. name, at .. ' ' .. kind .. ' ' .. sub(digest(text), 1, 16) .. by
      if json ~= old then to_hash[#to_hash + 1], to_hash[#to_hash + 2] = name, text end
    end
    if json == old then
      flags = flags .. 's'
    else
      flags = flags .. 'w'
      said[#said + 1] = opening .. name .. '","op":"update","old":' .. old .. ',"new":' .. json .. tail
      opening = ',{"field":"'
    end
  end
  if not said[2] then return end
  if from > 1 then
    pieces[#pieces + 1] = sub(context, from)
    context = table.concat(pieces)
    to_hash[#to_hash + 1], to_hash[#to_hash + 2] = 'context', context
    to_meta[size + 1], to_meta[size + 2], size = '=', sub(digest(context), 1, 16), size + 2
  end
  local number = format('%d', version + 1)
  to_meta[size + 1], to_meta[size + 2], to_meta[size + 3] = 'version', number, '@'
  to_meta[size + 4] = by == '' and digits or digits .. ' s -' .. by
  said[1] = '{"agent":"' .. agent .. '","event":"' .. ARGV[3] .. '","timestamp":"' .. iso .. '","data":{' .. data
    .. '},"v":1,"id":"' .. agent .. ':' .. number .. '","version":' .. number .. ',"origin":"' .. origin
    .. '","priority":"' .. ARGV[5] .. '","changes":['
  said[#said + 1] = ']}'
  local event = table.concat(said)
  if ARGV[6] ~= '0' then call('XADD', history, 'MAXLEN', '=', ARGV[6], number .. '-0', 'event', event) end
  call('HSET', meta, unpack(to_meta))
  call('HSET', hash, unpack(to_hash))
  return publish(event) or {version + 1, time[1], time[2], flags, digits}
end
