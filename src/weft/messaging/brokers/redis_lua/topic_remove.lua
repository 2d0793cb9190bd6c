-- KEYS settings, groups, expiring, waiting, partitions.
local partitions = { unpack(KEYS, 5) }
for _, group in ipairs(redis.call('HKEYS', KEYS[2])) do
  remove_group(KEYS[1], KEYS[2], KEYS[3], KEYS[4], partitions, group)
end
redis.call('UNLINK', unpack(KEYS))
return 1
