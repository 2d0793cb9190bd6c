-- KEYS stream, lease, settings, waiting. ARGV group, partition, id, number of the delivery, its place in its partition.
if not holds(KEYS[1], ARGV[1], ARGV[3], ARGV[4]) then
  return 0
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[2] .. ':' .. ARGV[3])
local known = redis.call('HMGET', KEYS[3], 'partitions', 'n' .. ARGV[2])
if known[1] ~= '0' and tonumber(known[2] or 0) > tonumber(ARGV[5]) then
  wake(KEYS[4], ARGV[1], now_ms()) -- what was behind it may be delivered now
end
return 1
