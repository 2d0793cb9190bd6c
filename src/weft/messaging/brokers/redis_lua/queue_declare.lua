-- KEYS settings, lane 0-2. ARGV visibility, max_length.
redis.call('HSET', KEYS[1], 'visibility', ARGV[1], 'max_length', ARGV[2])
redis.call('HSETNX', KEYS[1], 'total', 0)
for lane = 2, 4 do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[lane], 'w', '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP') then
    return made
  end
end
return 1
