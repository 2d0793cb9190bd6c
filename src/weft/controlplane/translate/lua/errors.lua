-- Errors as OpenAI's clients read them.

local TYPES = {
  ["403"] = "permission_error", ["404"] = "invalid_request_error", ["413"] = "invalid_request_error",
  ["400"] = "invalid_request_error", ["502"] = "server_error",
}

local function escaped(text)
  return (string.gsub(text, '[%c"\\\127-\255]', function(char)
    return string.format("\\u%04x", string.byte(char))
  end))
end

local function error_body(status, code, message, param)
  return string.format(
    '{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}',
    escaped(message), TYPES[status], param and '"' .. param .. '"' or "null", code)
end
