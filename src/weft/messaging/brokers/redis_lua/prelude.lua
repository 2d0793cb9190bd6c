-- What scripts share. Times are milliseconds since 1970 by the server's clock.

local RECHECK = 5000 -- as in redis_consumer.py: nobody waits longer without looking
local CHUNK = 16 -- messages read at once
local ENOUGH = 16 * 1024 * 1024 -- bytes after which a pull brings no more
local READER = 'c' -- one name for all consumers: a delivery is told by its message and its number
local MISSING = 'WEFTMISSING'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Who waits stands in a sorted set, all at score 0, as `group|until when|channel#consumer`. The one who has
-- waited longest is told; one whose process is gone hears nothing, and then the next is told.
local function wake(waiting, group, now)
  while true do
    local first = redis.call('ZRANGEBYLEX', waiting, '[' .. group .. '|', '(' .. group .. '}', 'LIMIT', 0, 1)[1]
    if not first then
      return
    end
    redis.call('ZREM', waiting, first)
    local till, channel, consumer = string.match(first, '|(%d+)|(.-)#(%d+)$')
    if tonumber(till) >= now and redis.call('PUBLISH', channel, consumer) > 0 then
      return
    end
  end
end

-- The clock says until when one of those who wait does so for what is due next, as `time consumer`.
local function planned_for(clock)
  local time, consumer = string.match(redis.call('GET', clock) or '', '^(%d+) (.*)$')
  return tonumber(time or 0), consumer
end

-- A consumer that pulls, or leaves, watches the clock no more.
local function relinquish(clock, consumer)
  local _, watcher = planned_for(clock)
  if watcher == consumer then
    redis.call('DEL', clock)
  end
end

-- Something becomes due sooner than whoever watches the clock expects: have somebody look.
local function alarm(waiting, clock, group, due, now)
  if due - now >= RECHECK then
    return
  end
  local planned = planned_for(clock)
  if planned < now or planned > due then
    wake(waiting, group, now)
  end
end

local function first_of(timers)
  local first = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
  return tonumber(first[2])
end

-- Put the consumer among those that wait. One of them watches the clock: it waits until what is due next.
local function stand_by(waiting, clock, group, consumer, wait, due, now)
  local pause = wait
  if due and due - now < wait then
    local planned = planned_for(clock)
    if planned < now or planned > due then
      pause = math.max(due - now, 1)
      redis.call('SET', clock, whole(now + pause) .. ' ' .. consumer, 'PX', whole(pause + 1000))
    end
  end
  redis.call('ZREMRANGEBYLEX', waiting, '[' .. group .. '|', '(' .. group .. '|' .. string.format('%015.0f', now))
  local place = group .. '|' .. string.format('%015.0f', now + pause) .. '|' .. consumer
  redis.call('ZADD', waiting, 0, place)
  return pause, place
end

-- How often the message was delivered, if it is under way.
local function deliveries(stream, group, id)
  local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
  if pending.err or not pending[1] then
    return nil
  end
  return pending[1][4]
end

-- Whether that delivery is the last one there was of its message.
local function holds(stream, group, id, number)
  return deliveries(stream, group, id) == tonumber(number)
end

local function field(fields, name)
  for at = 1, #fields, 2 do
    if fields[at] == name then
      return fields[at + 1]
    end
  end
  return nil
end

-- What one pull has taken so far.
local taken = {}
local bytes = 0

local function add(number, entry, count)
  taken[#taken + 1] = { number, entry[1], count, entry[2] }
  for _, value in ipairs(entry[2]) do
    bytes = bytes + #value
  end
end

local function room(limit)
  if bytes >= ENOUGH then
    return 0
  end
  return limit - #taken
end

-- Take messages again that are due in `timers`: not acknowledged in time, or handed back.
local function take_again(timers, lease, streams, group, limit, now, deadline, wanted)
  while room(limit) > 0 do
    local due = redis.call('ZRANGEBYSCORE', timers, '-inf', whole(now), 'LIMIT', 0, 1)[1]
    if not due then
      return
    end
    local number, id = string.match(due, '^(%d+):(.+)$')
    local stream = streams[tonumber(number) + 1]
    local entry = redis.call('XCLAIM', stream, group, READER, 0, id)[1]
    redis.call('ZREM', timers, due)
    if entry and wanted(entry[2]) then
      redis.call('ZADD', lease, whole(deadline), due)
      add(tonumber(number), entry, deliveries(stream, group, id))
    else
      redis.call('XACK', stream, group, id)
    end
  end
end

-- Take messages that nobody has had. Returns false if it stopped early, at many that are not wanted.
local function take_new(number, stream, lease, group, limit, deadline, wanted)
  local skipped = 0
  while room(limit) > 0 do
    if skipped >= 1000 then
      return false
    end
    local count = math.min(room(limit), CHUNK)
    local read = redis.call('XREADGROUP', 'GROUP', group, READER, 'COUNT', count, 'STREAMS', stream, '>')
    if not read then
      return true
    end
    for _, entry in ipairs(read[1][2]) do
      if wanted(entry[2]) then
        redis.call('ZADD', lease, whole(deadline), number .. ':' .. entry[1])
        add(number, entry, 1)
      else
        redis.call('XACK', stream, group, entry[1])
        skipped = skipped + 1
      end
    end
  end
  return true
end
