-- KEYS stream, lease, settings or groups. ARGV group of the stream, field, lane or partition, id, number.
local member = ARGV[3] .. ':' .. ARGV[4]
local settings = redis.call('HGET', KEYS[3], ARGV[2])
if not settings or not redis.call('ZSCORE', KEYS[2], member) or not holds(KEYS[1], ARGV[1], ARGV[4], ARGV[5]) then
  return 0
end
local visibility = tonumber(settings) or cjson.decode(settings).visibility
redis.call('ZADD', KEYS[2], 'XX', whole(now_ms() + visibility), member)
return 1
