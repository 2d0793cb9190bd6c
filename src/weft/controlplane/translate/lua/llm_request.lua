-- What a call to a model asks for, read from its body into headers and metadata; and the answer to it, where
-- that is not for the agent as it comes. Runs behind the prelude, which defines `wire`, and the other scripts.

local ENDPOINTS = {
  ["/v1/chat/completions"] = "chat", ["/v1/completions"] = "completions",
  ["/v1/responses"] = "responses", ["/v1/embeddings"] = "embeddings",
}

local WANTED = {
  model = true, stream = true, stream_options = true, n = true, best_of = true,
  max_tokens = true, max_completion_tokens = true, max_output_tokens = true,
  messages = true, prompt = true, input = true,
}

-- What bounds an answer, and how many there are of it: only what providers go by there.
local BOUNDS = {
  chat = { "max_completion_tokens", "max_tokens" }, completions = { "max_tokens" },
  responses = { "max_output_tokens" }, embeddings = {},
}
local TIMES = { chat = { "n" }, completions = { "n", "best_of" }, responses = {}, embeddings = {} }

local OPTIONS = { include_usage = true }

local MOST = 1000000000

-- What else may go into a header, and with it into logs: of what agents set, nothing but ASCII.
local function plain(value)
  return string.sub((string.gsub(value, "[^\32-\126]", "?")), 1, 256)
end

local function refuse(handle, status, code, message, param, policy)
  local headers = {
    [":status"] = status, ["content-type"] = "application/json", ["x-weft-error"] = code,
    ["x-weft-policy"] = policy,
  }
  handle:respond(headers, error_body(status, code, message, param))
end

-- A whole number, 0 where it is missing, null or bounds nothing; nil if it is something else.
local function whole(text, first, last)
  if not first then return 0 end
  local written = string.sub(text, first, last)
  if written == "null" then return 0 end
  local number = string.find(written, "^-?%d+[%d%.eE+-]*$") and tonumber(written)
  if not number or number ~= math.floor(number) then return nil end
  return math.max(0, math.min(number, MOST))
end

-- A digest (FNV-1a) of how the prompt begins.
local function digest(text, first)
  local hash = bit.tobit(2166136261)
  for at = first, math.min(first + 1023, #text) do
    hash = bit.bxor(hash, string.byte(text, at))
    hash = bit.tobit(
      hash + bit.lshift(hash, 1) + bit.lshift(hash, 4) + bit.lshift(hash, 7) + bit.lshift(hash, 8)
      + bit.lshift(hash, 24))
  end
  return bit.tohex(hash)
end

-- The body with a stream's usage asked for; nil where it is already, and what is wrong where that cannot be told:
-- what two readers could read in different ways would be a stream that is not counted.
local function with_usage(text, first, last)
  if not first then
    local open = string.find(text, "{", 1, true)
    return string.sub(text, 1, open) .. '"stream_options":{"include_usage":true},' .. string.sub(text, open + 1)
  end
  local options = string.sub(text, first, last)
  if options == "null" then options = "{}" end
  local from, to = members(options, OPTIONS)
  if not from then return nil, "'stream_options' must be an object that says everything once" end
  local said, till = from.include_usage, to.include_usage
  if not said then
    local rest = string.sub(options, 2)
    options = '{"include_usage":true' .. (string.find(rest, "^%s*}") and "" or ",") .. rest
  elseif string.sub(options, said, till) == "true" then
    return nil
  else
    options = string.sub(options, 1, said - 1) .. "true" .. string.sub(options, till + 1)
  end
  return string.sub(text, 1, first - 1) .. options .. string.sub(text, last + 1)
end

local function model_of(text, first, last)
  if not first then return nil, "the body names no model" end
  if string.byte(text, first) ~= 34 then return nil, "'model' must be a string" end
  local model = string.gsub(string.sub(text, first + 1, last - 1), "\\/", "/")
  if string.find(model, "\\", 1, true) then return nil, "'model' must be written without escapes" end
  return model
end

-- The most tokens that the answer may have, 0 where the call does not say; nil and the member that makes no sense.
local function bound(text, endpoint, first, last)
  local output, times = 0, 1
  for _, name in ipairs(BOUNDS[endpoint]) do
    local number = whole(text, first[name], last[name])
    if not number then return nil, name end
    output = math.max(output, number)
  end
  for _, name in ipairs(TIMES[endpoint]) do
    local number = whole(text, first[name], last[name])
    if not number then return nil, name end
    times = math.max(times, number)
  end
  return math.min(output * times, MOST)
end

local function set(headers, metadata, header, key, value)
  headers:replace(header, tostring(value))
  metadata:set(wire.METADATA, key, value)
end

local function admit(handle, endpoint, path, query)
  local body = handle:body()
  -- While the body came, what was there before has lost its validity.
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  local length = body and body:length() or 0
  if length == 0 then return refuse(handle, "400", "invalid_request", "the request has no body") end
  if headers:get("content-encoding") then
    return refuse(handle, "400", "invalid_request", "the body is compressed: send it as it is")
  end
  local text = body:getBytes(0, length)
  local first, last = members(text, WANTED)
  if not first then return refuse(handle, "400", "invalid_request", last) end
  local model, wrong = model_of(text, first.model, last.model)
  if not model then return refuse(handle, "400", "invalid_request", wrong, "model") end
  local pools = handle:filterContext()
  local pool = string.find(model, "^%w[%w%._:/@+-]*$") and #model <= 128 and (pools:get(model) or pools:get("*"))
  if not pool then
    return refuse(handle, "404", "model_not_found", "no pool of the mesh that this agent may use serves the model '"
      .. string.sub(model, 1, 128) .. "'; see which there are at /v1/models", "model")
  end
  if pool.denied then
    return refuse(handle, "403", "denied", pool.message, "model", pool.denied)
  end
  if length > pool.most then
    return refuse(handle, "413", "request_too_large",
      "the body has " .. length .. " bytes; pool '" .. pool.name .. "' takes at most " .. string.format("%d", pool.most))
  end
  local stream = first.stream and string.sub(text, first.stream, last.stream) or "false"
  if stream ~= "true" and stream ~= "false" and stream ~= "null" then
    return refuse(handle, "400", "invalid_request", "'stream' must be true or false", "stream")
  end
  stream = stream == "true" and endpoint ~= "embeddings"
  local output, param = bound(text, endpoint, first, last)
  if not output then return refuse(handle, "400", "invalid_request", "'" .. param .. "' must be a whole number", param) end

  local edited
  if stream and (endpoint == "chat" or endpoint == "completions") then
    edited, wrong = with_usage(text, first.stream_options, last.stream_options)
    if wrong then return refuse(handle, "400", "invalid_request", wrong, "stream_options") end
  end

  local tokens = math.ceil(length / 4) + 1
  if endpoint ~= "embeddings" then tokens = tokens + (output > 0 and output or pool.assumed) end
  -- Envoy takes a larger number for none, and none from the lease.
  tokens = math.min(tokens, wire.NEVER_LEASED)
  if pool.asks or headers:get(wire.BUDGET_HEADER) or headers:get(wire.DEADLINE_HEADER) then
    tokens = wire.NEVER_LEASED
    headers:replace(wire.ASK_HEADER, "always")
  end
  set(headers, metadata, wire.MODEL_HEADER, "model", model)
  set(headers, metadata, wire.POOL_HEADER, "pool", pool.name)
  set(headers, metadata, wire.ENDPOINT_HEADER, "endpoint", endpoint)
  headers:replace(wire.STREAM_HEADER, stream and "1" or "0")
  if stream then metadata:set(wire.METADATA, "stream", 1) end
  set(headers, metadata, wire.PROMPT_HEADER, "prompt", length)
  set(headers, metadata, wire.OUTPUT_HEADER, "output", output)
  set(headers, metadata, wire.TOKENS_HEADER, "tokens", tokens)
  local tenant = pool.tenant and headers:get(pool.tenant)
  if tenant then set(headers, metadata, wire.TENANT_HEADER, "tenant", plain(tenant)) end
  local context, key = headers:get(wire.CONTEXT_HEADER), headers:get(wire.KEY_HEADER)
  if context then set(headers, metadata, wire.CONTEXT_HEADER, "context", plain(context)) end
  if key then set(headers, metadata, wire.KEY_HEADER, "key", plain(key)) end
  local prompt = pool.affine and (first.messages or first.prompt or first.input)
  if prompt then headers:replace(wire.PREFIX_HEADER, digest(text, prompt)) end

  -- Where things are in the body as it goes on from here, for what sets the model's name for each provider.
  local at = first.model
  if edited then
    if (first.stream_options or 0) < at then at = at + #edited - #text end
    body:setBytes(edited)
    if headers:get("content-length") then headers:replace("content-length", tostring(#edited)) end
  end
  if edited then metadata:set(wire.REQUEST_METADATA, "strip", true) end
  if pool.adapted then
    metadata:set(wire.REQUEST_METADATA, "path", path)
    metadata:set(wire.REQUEST_METADATA, "at", at)
    metadata:set(wire.REQUEST_METADATA, "length", last.model - first.model + 1)
    if query ~= "" then metadata:set(wire.REQUEST_METADATA, "query", query) end
    -- For those behind the stream guard, whose metadata are their own.
    if stream then
      headers:replace(wire.PLACE_HEADER, string.format("%d %d", at, last.model - first.model + 1))
    end
  end
  -- Calls by the listener's own address are from here on like those by name.
  headers:replace(wire.DESTINATION_HEADER, wire.LLM_HOST)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local metadata = handle:streamInfo():dynamicMetadata()
  -- By this, local replies know that it is such a call.
  metadata:set(wire.METADATA, "stream", 0)
  local path = headers:get(":path") or ""
  local bare = string.match(path, "^[^?]*")
  local endpoint = headers:get(":method") == "POST" and ENDPOINTS[bare]
  if endpoint then
    admit(handle, endpoint, string.sub(bare, 4), string.sub(path, #bare + 1))
  else
    headers:replace(wire.POOL_HEADER, wire.NO_POOL)
    headers:replace(wire.TOKENS_HEADER, "1")
    headers:replace(wire.DESTINATION_HEADER, wire.LLM_HOST)
  end
end
