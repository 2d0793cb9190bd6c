-- KEYS stream, lease, later, waiting, clock.
-- ARGV group of the stream, group that waits, lane or partition, id, number of the delivery, delay.
if not holds(KEYS[1], ARGV[1], ARGV[4], ARGV[5]) then
  return 0
end
local member = ARGV[3] .. ':' .. ARGV[4]
local now = now_ms()
local delay = tonumber(ARGV[6])
redis.call('ZREM', KEYS[2], member)
redis.call('ZADD', KEYS[3], whole(now + delay), member)
if delay > 0 then
  alarm(KEYS[4], KEYS[5], ARGV[2], now + delay, now)
else
  wake(KEYS[4], ARGV[2], now)
end
return 1
