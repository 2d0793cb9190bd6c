-- KEYS waiting, then everything else of the queue. Whoever waits looks again, and finds nothing.
local now = now_ms()
while redis.call('EXISTS', KEYS[1]) == 1 do
  wake(KEYS[1], '', now)
  if not redis.call('ZRANGEBYLEX', KEYS[1], '[|', '(}', 'LIMIT', 0, 1)[1] then
    break
  end
end
redis.call('UNLINK', unpack(KEYS))
return 1
