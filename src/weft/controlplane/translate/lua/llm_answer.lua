-- Answers: none reaches a client that is not JSON or a stream of events, and of streams the usage is taken out
-- that the client had not asked for. What whole answers say of tokens becomes metadata, for the log: the body is
-- here in any case, and a filter that parses all of it takes longer than all of this.

local MOST_HELD = 1048576

-- Whether an event (or the beginning of one) could be the one with the usage.
local function may_be_usage(text)
  local start = "data: {"
  return string.sub(text, 1, #start) == string.sub(start, 1, #text)
    or string.find(text, "^data:{") ~= nil or string.find("data:{", text, 1, true) == 1
end

local function is_usage(event)
  return string.find(event, '^data: ?{') and string.find(event, '"choices"%s*:%s*%[%s*%]')
    and string.find(event, '"usage"%s*:%s*{')
end

-- What of `text` may go on, and what must wait for its end. Chunks may end anywhere.
local function without_usage(text)
  local kept, at = {}, 1
  while true do
    local _, last = string.find(text, "\r?\n\r?\n", at)
    if not last then break end
    local event = string.sub(text, at, last)
    if not is_usage(event) then kept[#kept + 1] = event end
    at = last + 1
  end
  local rest = string.sub(text, at)
  if rest == "" or #rest > MOST_HELD or not may_be_usage(rest) then
    return table.concat(kept) .. rest, "", rest ~= "" and rest
  end
  return table.concat(kept), rest, nil
end

local function strip_usage(handle)
  local held, passing = "", nil
  for chunk in handle:bodyChunks() do
    local text = held .. chunk:getBytes(0, chunk:length())
    if passing then
      -- In the midst of an event that goes on as it comes.
      local _, last = string.find(passing .. text, "\r?\n\r?\n")
      if last then
        local behind = last - #passing
        local head = string.sub(text, 1, behind)
        local tail
        tail, held, passing = without_usage(string.sub(text, behind + 1))
        text = head .. tail
        if passing then passing = string.sub(passing, -3) end
      else
        passing, held = string.sub(passing .. text, -3), ""
      end
    else
      text, held, passing = without_usage(text)
      if passing then passing = string.sub(passing, -3) end
    end
    chunk:setBytes(text)
  end
end

local function replace(handle, status, message)
  local headers = handle:headers()
  local said = error_body("502", "provider_error", message)
  handle:body(true):setBytes(said)
  headers = handle:headers()
  headers:replace(":status", status)
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(#said))
  headers:remove("content-encoding")
  headers:replace("x-weft-error", "provider_error")
end

local USAGE = { usage = true }

-- Where an answer says what, and the key it gets: chat, completions and embeddings, or else Responses.
local COUNTS = {
  { "prompt_tokens", '"prompt_tokens"%s*:%s*(%d+)', '"input_tokens"%s*:%s*(%d+)' },
  { "completion_tokens", '"completion_tokens"%s*:%s*(%d+)', '"output_tokens"%s*:%s*(%d+)' },
  { "total_tokens", '"total_tokens"%s*:%s*(%d+)' },
  { "cached_tokens", '"cached_tokens"%s*:%s*(%d+)' },
}

local function keep_usage(handle, text)
  local first, last = members(text, USAGE)
  if not first or not first.usage then return end
  local usage = string.sub(text, first.usage, last.usage)
  local metadata = handle:streamInfo():dynamicMetadata()
  for i = 1, #COUNTS do
    local count = COUNTS[i]
    local _, _, number = string.find(usage, count[2])
    if not number and count[3] then _, _, number = string.find(usage, count[3]) end
    if number then metadata:set(wire.METADATA, count[1], tonumber(number)) end
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local kind = headers:get("content-type") or ""
  local status = headers:get(":status")
  local who = "provider '" .. (headers:get(wire.PROVIDER_HEADER) or "unknown") .. "'"
  if string.find(kind, "text/event-stream", 1, true) then
    local request = handle:streamInfo():dynamicMetadata():get(wire.REQUEST_METADATA)
    if request and request.strip then
      headers:remove("content-length")
      strip_usage(handle)
    end
  elseif not string.find(kind, "json", 1, true) then
    local what = kind == "" and "without a content type" or "of type '" .. string.sub(kind, 1, 100) .. "'"
    replace(handle, tonumber(status) < 400 and "502" or status,
      who .. " gave an answer " .. what .. " with status " .. status .. ", where JSON was expected")
  elseif status == "401" then
    -- Some say which key it was that they do not take.
    replace(handle, "502", who .. " does not take the key that the mesh has for it (status 401)")
  elseif status == "200" then
    local body = handle:body(true)
    local text = body:getBytes(0, body:length())
    if string.find(text, "^%s*[{%[]") then
      keep_usage(handle, text)
    else
      replace(handle, "502", who .. " gave an answer that says it is JSON and is not")
    end
  end
end
