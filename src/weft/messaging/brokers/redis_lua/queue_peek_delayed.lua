-- KEYS delayed, held. ARGV first, last. Returns lane and fields of each.
local found = {}
for _, ticket in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  local packed = redis.call('HGET', KEYS[2], ticket)
  if packed then
    found[#found + 1] = cmsgpack.unpack(packed)
  end
end
return found
