-- Errors as OpenAI's clients read them.

local TYPES = {
  ["403"] = "permission_error", ["404"] = "invalid_request_error", ["413"] = "invalid_request_error",
  ["400"] = "invalid_request_error", ["502"] = "server_error",
}

local function error_body(status, code, message, param)
  return string.format(
    '{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}',
    escaped(message), TYPES[status], param and '"' .. param .. '"' or "null", code)
end
