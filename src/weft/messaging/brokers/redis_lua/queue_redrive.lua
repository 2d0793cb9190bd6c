-- KEYS settings, lane 0-2, dead, dead ids, waiting. ARGV ids.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply(MISSING)
end
local now = now_ms()
local count = 0
for _, id in ipairs(ARGV) do
  for place in string.gmatch(redis.call('HGET', KEYS[6], id) or '', '%S+') do
    local entry = redis.call('XRANGE', KEYS[5], place, place)[1]
    if entry then
      local lane = tonumber(field(entry[2], 'l'))
      redis.call('XADD', KEYS[2 + lane], '*', unpack(entry[2], 5)) -- without its lane and reason
      redis.call('XDEL', KEYS[5], place)
      wake(KEYS[7], '', now)
      count = count + 1
    end
  end
  redis.call('HDEL', KEYS[6], id)
end
return count
