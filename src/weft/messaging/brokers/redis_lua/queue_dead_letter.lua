-- KEYS settings, lane, lease, dead, dead ids. ARGV lane, id, number of the delivery, reason.
if not holds(KEYS[2], 'w', ARGV[2], ARGV[3]) then
  return 0
end
local entry = redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2])[1]
redis.call('XACK', KEYS[2], 'w', ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. ARGV[2])
if not entry then
  return 0
end
local id = field(entry[2], 'i')
local place = redis.call('XADD', KEYS[4], '*', 'l', ARGV[1], 'r', ARGV[4], unpack(entry[2]))
local others = redis.call('HGET', KEYS[5], id)
redis.call('HSET', KEYS[5], id, others and others .. ' ' .. place or place)

-- As many as the queue may be long: the oldest make room.
local limit = tonumber(redis.call('HGET', KEYS[1], 'max_length') or 0)
for _ = 1, 10 do
  if redis.call('XLEN', KEYS[4]) <= limit then
    break
  end
  local oldest = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
  local its_id = field(oldest[2], 'i')
  redis.call('XDEL', KEYS[4], oldest[1])
  local left = {}
  for each in string.gmatch(redis.call('HGET', KEYS[5], its_id) or '', '%S+') do
    if each ~= oldest[1] then
      left[#left + 1] = each
    end
  end
  if #left > 0 then
    redis.call('HSET', KEYS[5], its_id, table.concat(left, ' '))
  else
    redis.call('HDEL', KEYS[5], its_id)
  end
end
return 1
