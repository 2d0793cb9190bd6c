-- KEYS settings, lane 0-2, lease 0-2, later 0-2, delayed, held. ARGV how many of each kind at most.
-- Returns how many are gone, and 1 if there may be more.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply(MISSING)
end
local most = tonumber(ARGV[1])
local now = now_ms()
local gone, more = redis.call('ZCARD', KEYS[11]), 0
redis.call('UNLINK', KEYS[11], KEYS[12])
for lane = 0, 2 do
  local stream, lease, later = KEYS[2 + lane], KEYS[5 + lane], KEYS[8 + lane]
  for _, timers in ipairs({ { later, '+inf' }, { lease, whole(now) } }) do
    local waiting = redis.call('ZRANGEBYSCORE', timers[1], '-inf', timers[2], 'LIMIT', 0, most)
    for _, member in ipairs(waiting) do
      local id = string.match(member, ':(.+)$')
      redis.call('ZREM', timers[1], member)
      redis.call('XACK', stream, 'w', id)
      gone = gone + redis.call('XDEL', stream, id)
    end
    if #waiting == most then
      more = 1
    end
  end
  local pending = redis.call('XPENDING', stream, 'w')[1]
  if pending == 0 then
    gone = gone + redis.call('XTRIM', stream, 'MAXLEN', 0)
  else
    local group = redis.call('XINFO', 'GROUPS', stream)[1]
    local entries = redis.call('XRANGE', stream, '(' .. field(group, 'last-delivered-id'), '+', 'COUNT', most)
    for _, entry in ipairs(entries) do
      gone = gone + redis.call('XDEL', stream, entry[1])
    end
    if #entries == most then
      more = 1
    end
  end
end
return { gone, more }
