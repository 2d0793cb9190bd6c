-- KEYS settings, groups, expiring, waiting, partitions. ARGV partitions.
-- Returns messages, bytes, first sequence, last sequence, then of each group: name, pending, in flight.
local known = redis.call('HGET', KEYS[1], 'partitions')
if known ~= ARGV[1] then
  return redis.error_reply(known and 'WEFTPARTITIONS' or MISSING)
end
local partitions = { unpack(KEYS, 5) }
local now = now_ms()
remove_expired(KEYS[1], KEYS[2], KEYS[3], KEYS[4], partitions, now)
drop_old(KEYS[1], partitions, now)
local size = drop_beyond(KEYS[1], partitions, true)
local last = tonumber(redis.call('HGET', KEYS[1], 'seq') or 0)
local messages, first = 0, last + 1
for _, stream in ipairs(partitions) do
  messages = messages + redis.call('XLEN', stream)
  local entry = first_entry(stream)
  if entry then
    first = math.min(first, sequence_of(entry[1]))
  end
end

-- What no consumer of a group has had yet. With a pattern they have to be looked at: the first few hundred are,
-- and those behind are all counted.
local function behind(stream, newest, delivered, settings)
  local count, looked = 0, 0
  local from = '(' .. delivered
  bytes = 0
  while true do
    local entry = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    if not entry then
      return count
    end
    if settings.all or looked >= 300 or bytes >= ENOUGH then
      return count + newest - tonumber(field(entry[2], 'n')) + 1
    end
    if is_wanted(settings, field(entry[2], 't')) then
      count = count + 1
    end
    bytes = bytes + #field(entry[2], 'b')
    looked = looked + 1
    from = '(' .. entry[1]
  end
end

local groups = {}
local packed = redis.call('HGETALL', KEYS[2])
for at = 1, #packed, 2 do
  local settings = cjson.decode(packed[at + 1])
  settings.all = settings.pattern == '' and not settings.only_root
  groups[packed[at]] = { settings = settings, pending = 0 }
end
for number, stream in ipairs(partitions) do
  local newest = tonumber(redis.call('HGET', KEYS[1], 'n' .. (number - 1)) or 0)
  local found = redis.pcall('XINFO', 'GROUPS', stream)
  for _, info in ipairs(found.err and {} or found) do
    local group = groups[field(info, 'name')]
    if group then
      local delivered = field(info, 'last-delivered-id')
      group.pending = group.pending + behind(stream, newest, delivered, group.settings)
    end
  end
end
local base = string.match(KEYS[1], '^(.*):settings$')
local answer = { messages, size, first, last }
for name, group in pairs(groups) do
  local lease = base .. ':lease:' .. name
  local expired = redis.call('ZCOUNT', lease, '-inf', whole(now))
  answer[#answer + 1] = name
  answer[#answer + 1] = group.pending + expired + redis.call('ZCARD', base .. ':later:' .. name)
  answer[#answer + 1] = redis.call('ZCARD', lease) - expired
end
return answer
