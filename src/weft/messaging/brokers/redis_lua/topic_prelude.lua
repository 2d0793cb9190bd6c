-- What scripts about topics share. An entry's id is `time-sequence`; its fields say beside the message `n`, its
-- place in its partition, and `c`, the bytes published in the topic before it.

local ALL_SEQUENCES = '18446744073709551615'

local function sequence_of(id)
  return tonumber(string.match(id, '%-(%d+)$'))
end

local function time_of(id)
  return tonumber(string.match(id, '^(%d+)%-'))
end

local function first_entry(stream)
  return redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
end

-- Whether a group gets messages with that subtopic (nil: none).
local function is_wanted(settings, subtopic)
  if settings.only_root then
    return not subtopic
  end
  if settings.pattern == '' then
    return true
  end
  return subtopic ~= nil and string.find(subtopic, settings.pattern) ~= nil
end

-- The keys of a group begin with the topic's, which have the same hash tag: all are in one slot.
local function remove_group(settings, groups, expiring, waiting, partitions, group)
  if redis.call('HDEL', groups, group) == 0 then
    return
  end
  redis.call('ZREM', expiring, group)
  for _, stream in ipairs(partitions) do
    redis.pcall('XGROUP', 'DESTROY', stream, group)
  end
  local base = string.match(settings, '^(.*):settings$')
  for _, name in ipairs({ 'lease', 'later', 'clock' }) do
    redis.call('UNLINK', base .. ':' .. name .. ':' .. group)
  end
  local now = now_ms()
  while redis.call('ZRANGEBYLEX', waiting, '[' .. group .. '|', '(' .. group .. '}', 'LIMIT', 0, 1)[1] do
    wake(waiting, group, now)
  end
end

local function remove_expired(settings, groups, expiring, waiting, partitions, now)
  for _, group in ipairs(redis.call('ZRANGEBYSCORE', expiring, '-inf', whole(now), 'LIMIT', 0, 10)) do
    remove_group(settings, groups, expiring, waiting, partitions, group)
    redis.call('ZREM', expiring, group)
  end
end

local function drop_old(settings, partitions, now)
  local age = tonumber(redis.call('HGET', settings, 'max_age'))
  for _, stream in ipairs(partitions) do
    redis.call('XTRIM', stream, 'MINID', whole(now - age))
  end
end

local function oldest(firsts, count)
  local found
  for number = 1, count do
    local entry = firsts[number]
    if entry and (not found or sequence_of(entry[1]) < sequence_of(firsts[found][1])) then
      found = number
    end
  end
  return found
end

-- Drop the oldest beyond the limit, and as many more as make room for a while. `floor` in the settings is what
-- had been published before the oldest when it was last looked for: never more than it is now.
local function drop_beyond(settings, partitions, force)
  local known = redis.call('HMGET', settings, 'c', 'floor', 'max_bytes')
  local total, floor, most = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3])
  if total - floor <= most and not force then
    return total - floor
  end
  local firsts = {}
  for number, stream in ipairs(partitions) do
    firsts[number] = first_entry(stream)
  end
  local target = most
  for _ = 1, 256 do
    local found = oldest(firsts, #partitions)
    floor = found and tonumber(field(firsts[found][2], 'c')) or total
    if not found or total - floor <= target then
      break
    end
    target = most - most / 16
    redis.call('XTRIM', partitions[found], 'MAXLEN', redis.call('XLEN', partitions[found]) - 1)
    firsts[found] = first_entry(partitions[found])
  end
  redis.call('HSET', settings, 'floor', whole(floor))
  return total - floor
end
