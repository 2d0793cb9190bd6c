-- Errors as clients of MCP read them. Runs behind json.lua.

local PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, INTERNAL = -32700, -32600, -32602, -32603
local HEADER_MISMATCH, UNSUPPORTED_VERSION, RESOURCE_NOT_FOUND = -32020, -32022, -32002

-- The HTTP status of an error (2026-07-28). Clients of before end their sessions at some, so to those it is
-- 200, if it answers a request.
local STATUS = {
  [PARSE_ERROR] = "400", [INVALID_REQUEST] = "400", [INVALID_PARAMS] = "400",
  [HEADER_MISMATCH] = "400", [UNSUPPORTED_VERSION] = "400",
}

local function status_of(code, id, old)
  if old and id ~= "null" then return "200" end
  return STATUS[code] or "200"
end

-- `id` and `data` are JSON already; `message` is what stands between the quotes of a string of JSON.
local function error_message(id, code, message, data)
  return string.format('{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"%s"%s}}',
    id, code, message, data and ',"data":' .. data or "")
end

-- A name in a message, for people.
local function shown(name)
  return escaped((string.gsub(sub(name, 1, 128), "%c", "?")))
end

-- What there is not, or not for this caller, who shall not learn which.
local UNKNOWN = {
  ["tools/call"] = "Unknown tool: ", ["prompts/get"] = "Unknown prompt: ",
  ["resources/read"] = "Resource not found: ", ["completion/complete"] = "Nothing to complete: ",
}

local function unknown(call)
  local code = INVALID_PARAMS
  if call.old and call.method == "resources/read" then code = RESOURCE_NOT_FOUND end
  return code, UNKNOWN[call.method] .. shown(call.name)
end
