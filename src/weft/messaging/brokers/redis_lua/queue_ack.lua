-- KEYS lane, lease. ARGV lane, id, number of the delivery.
if not holds(KEYS[1], 'w', ARGV[2], ARGV[3]) then
  return 0
end
redis.call('XACK', KEYS[1], 'w', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. ARGV[2])
return 1
