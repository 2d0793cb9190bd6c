-- A streamed call behind the stream guard: what the listener before it has learnt of the call, from headers back
-- into metadata. Runs behind the prelude, which defines `wire`.

local TEXTS = {
  call = wire.CALL_HEADER, model = wire.MODEL_HEADER, pool = wire.POOL_HEADER, endpoint = wire.ENDPOINT_HEADER,
  tenant = wire.TENANT_HEADER, context = wire.CONTEXT_HEADER, key = wire.KEY_HEADER,
}
local NUMBERS = {
  stream = wire.STREAM_HEADER, prompt = wire.PROMPT_HEADER, output = wire.OUTPUT_HEADER,
  tokens = wire.TOKENS_HEADER,
}

function envoy_on_request(handle)
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  for key, name in pairs(TEXTS) do
    local value = headers:get(name)
    if value then metadata:set(wire.METADATA, key, value) end
  end
  for key, name in pairs(NUMBERS) do
    metadata:set(wire.METADATA, key, tonumber(headers:get(name)) or 0)
  end
  -- Only where a provider has another name for the model, or other paths.
  local at, length = string.match(headers:get(wire.PLACE_HEADER) or "", "^(%d+) (%d+)$")
  if not at then return end
  local path, query = string.match(headers:get(":path"), "^/v1([^?]*)(.*)$")
  metadata:set(wire.REQUEST_METADATA, "path", path)
  metadata:set(wire.REQUEST_METADATA, "at", tonumber(at))
  metadata:set(wire.REQUEST_METADATA, "length", tonumber(length))
  if query ~= "" then metadata:set(wire.REQUEST_METADATA, "query", query) end
end
