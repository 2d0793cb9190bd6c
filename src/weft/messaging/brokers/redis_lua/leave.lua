-- KEYS waiting, clock. ARGV group, place among those that wait, channel#consumer.
-- A consumer waits no longer: what it was to see to, if anything, somebody else sees to.
if ARGV[2] ~= '' then
  redis.call('ZREM', KEYS[1], ARGV[2])
end
relinquish(KEYS[2], ARGV[3])
wake(KEYS[1], ARGV[1], now_ms())
return 1
