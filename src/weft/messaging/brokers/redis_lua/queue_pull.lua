-- KEYS settings, lane 0-2, lease 0-2, later 0-2, delayed, held, waiting, clock.
-- ARGV limit, how long it would wait, channel#consumer, its former place among those that wait.
local visibility = tonumber(redis.call('HGET', KEYS[1], 'visibility'))
if not visibility then
  return redis.error_reply(MISSING)
end
local lanes = { KEYS[2], KEYS[3], KEYS[4] }
local delayed, held, waiting, clock = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local limit, wait = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
if ARGV[4] ~= '' then
  redis.call('ZREM', waiting, ARGV[4])
end
relinquish(clock, ARGV[3])

for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'LIMIT', 0, 100)) do
  local packed = redis.call('HGET', held, ticket)
  redis.call('ZREM', delayed, ticket)
  redis.call('HDEL', held, ticket)
  if packed then
    local message = cmsgpack.unpack(packed)
    redis.call('XADD', lanes[message[1] + 1], '*', unpack(message[2]))
  end
end

local function any()
  return true
end

for lane = 0, 2 do
  local lease, later = KEYS[5 + lane], KEYS[8 + lane]
  take_again(later, lease, lanes, 'w', limit, now, now + visibility, any)
  take_again(lease, lease, lanes, 'w', limit, now, now + visibility, any)
  take_new(lane, lanes[lane + 1], lease, 'w', limit, now + visibility, any)
end

local function due_next()
  local due = first_of(delayed)
  for timers = 5, 10 do
    local first = first_of(KEYS[timers])
    if first and (not due or first < due) then
      due = first
    end
  end
  return due
end

if #taken > 0 then
  if redis.call('EXISTS', waiting) == 1 then
    local due = due_next()
    local more = due and due <= now
    for lane = 1, 3 do
      more = more or redis.call('XLEN', lanes[lane]) > redis.call('XPENDING', lanes[lane], 'w')[1]
    end
    if more then
      wake(waiting, '', now)
    elseif due then
      alarm(waiting, clock, '', due, now)
    end
  end
  return { 0, '', unpack(taken) }
end
if wait > 0 then
  return { stand_by(waiting, clock, '', ARGV[3], wait, due_next(), now) }
end
local due = due_next()
if due then
  alarm(waiting, clock, '', due, now)
end
return { 0, '' }
