-- Answers of servers behind `tools.mesh`, as the client can read them: its own id, its own generation's results,
-- and errors of MCP where the mesh or a server says something else. Runs behind the other scripts.

local ANSWER = { id = true, result = true, error = true }
local RESULT = { resultType = true, ttlMs = true, cacheScope = true }
local PROBLEM = { detail = true }

local MOST_PROBLEM = 65536

local function respond(handle, call, code, message, data)
  local said = error_message(call.id, code, message, data)
  handle:body(true):setBytes(said)
  local headers = handle:headers()
  headers:replace(":status", status_of(code, call.id, call.old))
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(#said))
  headers:remove("content-encoding")
end

-- An error of the mesh: what its problem details say.
local function mesh_error(handle, call, kind)
  local body = handle:body(true)
  local text = body:length() <= MOST_PROBLEM and body:getBytes(0, body:length()) or ""
  local headers = handle:headers()
  headers:remove("x-weft-refused")
  if kind == "denied" and call.method then
    headers:remove("x-weft-policy")
    headers:remove("x-weft-error")
    return respond(handle, call, unknown(call))
  end
  local first, last = members(text, PROBLEM)
  local detail = first and string_at(text, first.detail, last.detail)
  respond(handle, call, INTERNAL, escaped(detail or "the mesh could not carry out the request"),
    '{"code":"' .. escaped(kind) .. '"}')
end

-- The members that a client of 2026-07-28 misses in a result of before.
local function missing(call, result)
  local first = members(result, RESULT)
  if not first then return nil end
  local added = {}
  if not first.resultType then added[1] = '"resultType":"complete"' end
  if call.method == "resources/read" then
    if not first.ttlMs then added[#added + 1] = '"ttlMs":0' end
    if not first.cacheScope then added[#added + 1] = '"cacheScope":"private"' end
  end
  return added
end

local function wants_input(result)
  local first, last = members(result, RESULT)
  return first and string_at(result, first.resultType, last.resultType) == "input_required"
end

-- The answer as the client reads it; nil and what is wrong if it is none.
local function as_read(call, text)
  local first, last = members(text, ANSWER)
  if not first then return nil, "the server's answer cannot be read: " .. last end
  local edits = {}
  if first.id then
    edits[1] = { first.id, last.id, call.id }
  else
    edits[1] = insertion(text, find(text, "{", 1, true), { '"id":' .. call.id })
  end
  if first.result then
    local result = sub(text, first.result, last.result)
    if byte(result) ~= 123 then return nil, "the server's result is no object" end
    if call.server_old and not call.old then
      local added = missing(call, result)
      if not added then return nil, "the server's result cannot be read" end
      if #added > 0 then edits[2] = insertion(text, first.result, added) end
    elseif call.old and not call.server_old and wants_input(result) then
      return nil, "the server wants input of the client, which only clients of MCP 2026-07-28 can give"
    end
  elseif not first.error then
    return nil, "the server's answer has neither a result nor an error"
  end
  return edited(text, edits)
end

local function too_large(call)
  return string.format("the answer of '%s' has more than %d bytes", call.shown, call.most)
end

local function whole(handle, call)
  local headers = handle:headers()
  local length = tonumber(headers:get("content-length") or "")
  if not call.edits and length and length <= call.most then return end
  local body = handle:body(true)
  if body:length() > call.most then return respond(handle, call, INTERNAL, too_large(call)) end
  if not call.edits then return end
  local text, wrong = as_read(call, body:getBytes(0, body:length()))
  if not text then return respond(handle, call, INTERNAL, escaped(wrong)) end
  body:setBytes(text)
  headers = handle:headers()
  headers:replace("content-length", tostring(#text))
  if call.old then headers:replace(":status", "200") end
end

-- What an event carries, and its other lines; nil if it carries nothing.
local function data_of(event)
  local data, others = {}, {}
  for line in string.gmatch(event, "[^\r\n]+") do
    local value = string.match(line, "^data: ?(.*)$")
    if value then data[#data + 1] = value else others[#others + 1] = line end
  end
  return #data > 0 and table.concat(data, "\n"), others
end

local function event_of(others, text)
  others[#others + 1] = "data: " .. string.gsub(text, "[\r\n]+", " ")
  return table.concat(others, "\n") .. "\n\n"
end

-- The event as the client reads it: only the one with the answer changes.
local function event_as_read(call, event)
  if not call.edits or call.sent and not find(event, call.sent, 1, true) then return event end
  local data, others = data_of(event)
  local first = data and members(data, ANSWER)
  if not first or not first.result and not first.error then return event end
  local text, wrong = as_read(call, data)
  return event_of(others, text or error_message(call.id, INTERNAL, escaped(wrong)))
end

local function events(handle, call)
  -- The event that is under way: its parts, their bytes, and the last of these, where its end may have begun.
  local parts, size, tail, over = {}, 0, "", false
  for chunk in handle:bodyChunks() do
    local text = chunk:getBytes(0, chunk:length())
    local out, from, at = {}, 1, 1
    local joined, before = tail .. text, #tail
    while not over do
      local _, ending = find(joined, "\r?\n\r?\n", at)
      if not ending then break end
      parts[#parts + 1] = sub(text, from, ending - before)
      local event = table.concat(parts)
      if #event > call.most then break end
      out[#out + 1] = event_as_read(call, event)
      parts, size, tail = {}, 0, ""
      from, at = ending - before + 1, ending + 1
    end
    if not over then
      local rest = sub(text, from)
      parts[#parts + 1] = rest
      size = size + #rest
      tail = sub(tail .. rest, -3)
      if size > call.most then
        out[#out + 1] = event_of({}, error_message(call.id, INTERNAL, too_large(call)))
        parts, over = {}, true
      end
    end
    chunk:setBytes(table.concat(out))
  end
end

function envoy_on_response(handle)
  local known = handle:streamInfo():dynamicMetadata():get(wire.METADATA)
  if not known then return end
  local call, headers = known.call, handle:headers()
  if known.status then headers:replace(":status", known.status) end
  if not call then return end
  local kind = headers:get("x-weft-error")
  if kind then return mesh_error(handle, call, kind) end
  if not call.method then return end
  -- The sidecar's, not the client's.
  headers:remove(wire.SESSION_HEADER)
  local status, content = headers:get(":status"), headers:get("content-type") or ""
  if headers:get("content-encoding") then
    respond(handle, call, INTERNAL, "the server's answer is compressed")
  elseif status == "200" and find(content, "^text/event%-stream") then
    headers:remove("content-length")
    events(handle, call)
  elseif find(content, "^application/json") then
    whole(handle, call)
  else
    respond(handle, call, INTERNAL, "the server answered with status " .. status .. " and no JSON")
  end
end
