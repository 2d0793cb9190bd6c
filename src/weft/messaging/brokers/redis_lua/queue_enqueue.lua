-- KEYS settings, lane 0-2, delayed, held, waiting, clock. ARGV lane, delay, then the message's fields.
local limit = tonumber(redis.call('HGET', KEYS[1], 'max_length'))
if not limit then
  return redis.error_reply(MISSING)
end
local length = redis.call('ZCARD', KEYS[5])
for lane = 2, 4 do
  length = length + redis.call('XLEN', KEYS[lane])
end
if length >= limit then
  return redis.error_reply('WEFTFULL ' .. whole(limit))
end
local now = now_ms()
local delay = tonumber(ARGV[2])
local fields = { 's', whole(now), unpack(ARGV, 3) }
redis.call('HINCRBY', KEYS[1], 'total', 1)
if delay > 0 then
  local ticket = redis.call('HINCRBY', KEYS[1], 'ticket', 1)
  redis.call('HSET', KEYS[6], ticket, cmsgpack.pack({ tonumber(ARGV[1]), fields }))
  redis.call('ZADD', KEYS[5], whole(now + delay), ticket)
  alarm(KEYS[7], KEYS[8], '', now + delay, now)
else
  redis.call('XADD', KEYS[2 + ARGV[1]], '*', unpack(fields))
  wake(KEYS[7], '', now)
end
return 1
