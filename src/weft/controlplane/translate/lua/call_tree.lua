-- The limits of a call tree, for calls that bring some: how long it may take, and through how many agents it may go.
-- Runs behind the prelude, which defines `wire` and `limits`. It is not reached but by such calls.

local MOST_SHOWN = 64

-- What agents send may hold anything; into JSON goes what needs no escape.
local function plain(text)
  return (string.gsub(string.gsub(text, "[^\32-\126]", "?"), '["\\]', "?"))
end

local function refuse(handle, status, code, detail)
  local title = string.gsub(code, "-", " ")
  local body = string.format(
    '{"type":"%s%s","title":"%s","status":%d,"detail":"%s"}', wire.PROBLEM, code, title, status, plain(detail))
  handle:respond(
    { [":status"] = tostring(status), ["content-type"] = wire.MEDIA_TYPE, [wire.ERROR_HEADER] = code }, body)
end

local function names_in(text)
  local names = {}
  for part in string.gmatch(text, "[^,]+") do
    local name = string.match(part, "^%s*(.-)%s*$")
    if name ~= "" then names[#names + 1] = name end
  end
  return names
end

-- How many of the last agents are the circle that the way goes round: `weft.model.hops.cycle_of`, in Lua.
local function circle(names)
  local function turns(length)
    for back = 0, length - 1 do
      if names[#names - back] ~= names[#names - back - length] then return false end
    end
    return true
  end
  for length = 1, math.floor(#names / 2) do
    if turns(length) then return length end
  end
  for length = 1, #names - 1 do
    if names[#names - length] == names[#names] then return length end
  end
  return 0
end

local function way(names, first, last)
  return table.concat(names, " -> ", first, last)
end

local function too_far(all)
  local names = {}
  for at = math.max(1, #all - MOST_SHOWN + 1), #all do names[#names + 1] = all[at] end
  local length, round = circle(names), ""
  if length > 0 then
    local first = #names - length + 1
    round = "it goes round and round: " .. way(names, first, #names) .. " -> " .. names[first] .. "; "
  end
  return "the call tree has passed " .. limits.hops .. " agents, and may pass no more; " .. round
    .. "its way was " .. way(names, 1, #names)
end

-- Chooses the call's own route, and has it take no longer than what is left, nor than that route lets it.
local function bound(handle, headers, left)
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(wire.METADATA, wire.CHECKED, true)
  handle:clearRouteCache()
  local own = tonumber(headers:get(wire.TIMEOUT_HEADER) or handle:metadata():get("timeout"))
  if own and own <= left then
    headers:replace(wire.TIMEOUT_HEADER, string.format("%d", own))
  else
    metadata:set(wire.METADATA, wire.BOUNDED, true)
    headers:replace(wire.DURATION_HEADER, string.format("%d", left))
    headers:replace(wire.TIMEOUT_HEADER, string.format("%d", left + limits.grace))
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local hops = headers:get(wire.HOPS_HEADER)
  -- As the route counts that brought the call here: a name may be missing between two commas.
  local _, commas = string.gsub(hops or "", ",", "")
  if commas >= limits.hops then
    return refuse(handle, 508, "loop-detected", too_far(names_in(hops)))
  end
  local deadline = headers:get(wire.DEADLINE_HEADER)
  if deadline then
    if not string.find(deadline, "^%d+$") or #deadline > 15 then
      return refuse(handle, 400, "invalid-request",
        wire.DEADLINE_HEADER .. " must be a whole number of milliseconds since 1970")
    end
    local left = tonumber(deadline) - handle:timestamp()
    if left <= 0 then
      return refuse(handle, 504, "timed-out", "the deadline of the call tree had passed " .. string.format("%d", -left)
        .. " ms before this call of '" .. (headers:get(wire.DESTINATION_HEADER) or "") .. "' began")
    end
    bound(handle, headers, left)
  end
end
