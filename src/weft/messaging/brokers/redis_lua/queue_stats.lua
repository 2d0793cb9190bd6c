-- KEYS settings, lane 0-2, lease 0-2, later 0-2, delayed, dead.
-- Returns ready, in flight, delayed, dead, age of the oldest in ms (-1: none), total.
local total = redis.call('HGET', KEYS[1], 'total')
if not total then
  return redis.error_reply(MISSING)
end
local now = now_ms()
local past, future = whole(now), '(' .. whole(now)
local ready = redis.call('ZCOUNT', KEYS[11], '-inf', past)
local delayed = redis.call('ZCOUNT', KEYS[11], future, '+inf')
local in_flight = 0
local oldest
for lane = 0, 2 do
  local stream, lease, later = KEYS[2 + lane], KEYS[5 + lane], KEYS[8 + lane]
  local expired = redis.call('ZCOUNT', lease, '-inf', past)
  local due = redis.call('ZCOUNT', later, '-inf', past)
  local fresh = redis.call('XLEN', stream) - redis.call('XPENDING', stream, 'w')[1]
  ready = ready + fresh + expired + due
  in_flight = in_flight + redis.call('ZCARD', lease) - expired
  delayed = delayed + redis.call('ZCARD', later) - due
  -- The first that is not put off: messages put off are few, or else it takes the first hundred for all.
  local from = '-'
  for _ = 1, 100 do
    local entry = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    if not entry then
      break
    end
    local till = tonumber(redis.call('ZSCORE', later, lane .. ':' .. entry[1]) or 0)
    if till <= now then
      local sent = tonumber(field(entry[2], 's'))
      oldest = math.min(oldest or sent, sent)
      break
    end
    from = '(' .. entry[1]
  end
end
return { ready, in_flight, delayed, redis.call('XLEN', KEYS[12]), oldest and math.max(now - oldest, 0) or -1, tonumber(total) }
