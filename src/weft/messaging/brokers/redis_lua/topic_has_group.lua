-- KEYS settings, groups, expiring, waiting, partitions. ARGV partitions, group.
local known = redis.call('HGET', KEYS[1], 'partitions')
if known ~= ARGV[1] then
  return redis.error_reply(known and 'WEFTPARTITIONS' or MISSING)
end
remove_expired(KEYS[1], KEYS[2], KEYS[3], KEYS[4], { unpack(KEYS, 5) }, now_ms())
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then
  return redis.error_reply('WEFTGROUP')
end
return 1
