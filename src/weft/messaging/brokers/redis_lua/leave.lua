-- KEYS waiting, clock. ARGV group, place among those that wait, 1 if something is to be handed on.
-- A consumer waits no longer: what it was to see to, if anything, somebody else sees to.
if ARGV[2] ~= '' then
  redis.call('ZREM', KEYS[1], ARGV[2])
end
if ARGV[3] == '1' then
  redis.call('DEL', KEYS[2])
  wake(KEYS[1], ARGV[1], now_ms())
end
return 1
