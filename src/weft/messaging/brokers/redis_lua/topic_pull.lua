-- KEYS settings, groups, expiring, waiting, lease, later, clock, partitions.
-- ARGV limit, how long it would wait, channel#consumer, its former place among those that wait, group, partitions.
local known = redis.call('HGET', KEYS[1], 'partitions')
if known ~= ARGV[6] then
  return redis.error_reply(known and 'WEFTPARTITIONS' or MISSING)
end
local expiring, waiting, lease, later, clock = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local partitions = { unpack(KEYS, 8) }
local limit, wait, group = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[5]
local now = now_ms()
remove_expired(KEYS[1], KEYS[2], expiring, waiting, partitions, now)
local packed = redis.call('HGET', KEYS[2], group)
if not packed then
  return redis.error_reply('WEFTGROUP')
end
local settings = cjson.decode(packed)
if ARGV[4] ~= '' then
  redis.call('ZREM', waiting, ARGV[4])
end
relinquish(clock, ARGV[3])
if settings.expires > 0 then
  redis.call('ZADD', expiring, whole(now + settings.expires + wait), group)
end
drop_old(KEYS[1], partitions, now)

local function wanted(fields)
  return is_wanted(settings, field(fields, 't'))
end

local deadline = now + settings.visibility
take_again(later, lease, partitions, group, limit, now, deadline, wanted)
take_again(lease, lease, partitions, group, limit, now, deadline, wanted)

local complete = true
if known == '0' then
  complete = take_new(0, partitions[1], lease, group, limit, deadline, wanted)
else
  -- One message of each at a time; another partition comes first each time.
  for turn = 0, #partitions - 1 do
    local number = (now + turn) % #partitions
    local stream = partitions[number + 1]
    if #taken < limit and redis.call('XPENDING', stream, group)[1] == 0 then
      complete = take_new(number, stream, lease, group, #taken + 1, deadline, wanted) and complete
    end
  end
end

local due = first_of(later)
local expires = first_of(lease)
if expires and (not due or expires < due) then
  due = expires
end
if #taken > 0 then
  if redis.call('EXISTS', waiting) == 1 then
    if #taken >= limit or not complete or room(limit) <= 0 then
      wake(waiting, group, now)
    elseif due then
      alarm(waiting, clock, group, due, now)
    end
  end
  return { 0, '', unpack(taken) }
end
if wait > 0 and complete then
  return { stand_by(waiting, clock, group, ARGV[3], wait, due, now) }
end
if due then
  alarm(waiting, clock, group, due, now)
end
return { complete and 0 or -1, '' }
