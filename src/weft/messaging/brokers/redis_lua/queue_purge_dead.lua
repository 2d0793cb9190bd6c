-- KEYS settings, dead, dead ids.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply(MISSING)
end
local gone = redis.call('XLEN', KEYS[2])
redis.call('UNLINK', KEYS[2], KEYS[3])
return gone
