-- KEYS settings, groups, expiring, waiting, partitions.
-- ARGV partitions, group, its settings, expires, start by sequence, start by time (empty: neither).
local known = redis.call('HMGET', KEYS[1], 'partitions', 'seq')
if known[1] ~= ARGV[1] then
  return redis.error_reply(known[1] and 'WEFTPARTITIONS' or MISSING)
end
local partitions = { unpack(KEYS, 5) }
local now = now_ms()
remove_expired(KEYS[1], KEYS[2], KEYS[3], KEYS[4], partitions, now)
drop_old(KEYS[1], partitions, now)
local group = ARGV[2]

-- The id behind which everything has that sequence or a larger one: both time and sequence grow along a stream.
local function before_sequence(stream, sequence)
  local low = first_entry(stream)
  if sequence <= 1 or not low then
    return '0-0'
  end
  local high = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local from, till = time_of(low[1]), time_of(high[1]) + 1
  while from < till do
    local middle = math.floor((from + till) / 2)
    local entry = redis.call('XRANGE', stream, whole(middle), '+', 'COUNT', 1)[1]
    if not entry or sequence_of(entry[1]) >= sequence then
      till = middle
    else
      from = middle + 1
    end
  end
  return whole(from - 1) .. '-' .. whole(sequence - 1)
end

local function start(stream)
  local sequence, time = tonumber(ARGV[5]), tonumber(ARGV[6])
  if sequence then
    -- One that is yet to come: from now on.
    if sequence > tonumber(known[2] or 0) then
      return '$'
    end
    return before_sequence(stream, sequence)
  end
  if time then
    return time < 1 and '0-0' or whole(time - 1) .. '-' .. ALL_SEQUENCES
  end
  return '$'
end

if redis.call('HEXISTS', KEYS[2], group) == 0 then
  for _, stream in ipairs(partitions) do
    redis.call('XGROUP', 'CREATE', stream, group, start(stream), 'MKSTREAM')
  end
end
redis.call('HSET', KEYS[2], group, ARGV[3])
local expires = tonumber(ARGV[4])
if expires > 0 then
  redis.call('ZADD', KEYS[3], whole(now + expires), group)
else
  redis.call('ZREM', KEYS[3], group)
end
return 1
