-- KEYS settings, partitions. ARGV partitions, max_age, max_bytes.
local now = redis.call('HGET', KEYS[1], 'partitions')
if now and now ~= ARGV[1] then
  return redis.error_reply('WEFTCONFLICT ' .. now)
end
redis.call('HSET', KEYS[1], 'partitions', ARGV[1], 'max_age', ARGV[2], 'max_bytes', ARGV[3])
local partitions = { unpack(KEYS, 2) }
drop_old(KEYS[1], partitions, now_ms())
drop_beyond(KEYS[1], partitions)
return 1
