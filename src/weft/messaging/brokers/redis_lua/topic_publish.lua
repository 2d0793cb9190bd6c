-- KEYS settings, groups, waiting, partitions. ARGV partitions, partition, size, subtopic, then the message's fields.
local known = redis.call('HMGET', KEYS[1], 'partitions', 'at')
if known[1] ~= ARGV[1] then
  return redis.error_reply(known[1] and 'WEFTPARTITIONS' or MISSING)
end
local partitions = { unpack(KEYS, 4) }
local now = now_ms()
local at = whole(math.max(now, tonumber(known[2] or 0)))
local number = tonumber(ARGV[2])
local sequence = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local place = redis.call('HINCRBY', KEYS[1], 'n' .. number, 1)
local before = redis.call('HINCRBY', KEYS[1], 'c', ARGV[3]) - tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'at', at)
local subtopic = ARGV[4] ~= '' and ARGV[4] or nil
local fields = { 's', at, 'n', place, 'c', whole(before), unpack(ARGV, 5) }
if subtopic then
  fields[#fields + 1] = 't'
  fields[#fields + 1] = subtopic
end
redis.call('XADD', partitions[number + 1], at .. '-' .. sequence, unpack(fields))
drop_old(KEYS[1], partitions, now)
drop_beyond(KEYS[1], partitions)
if redis.call('EXISTS', KEYS[3]) == 1 then
  local groups = redis.call('HGETALL', KEYS[2])
  for index = 1, #groups, 2 do
    if is_wanted(cjson.decode(groups[index + 1]), subtopic) then
      wake(KEYS[3], groups[index], now)
    end
  end
end
return sequence
