-- Names in MCP: as JSON has them, and as headers have them. Runs behind json.lua.

local ESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

local function utf8_of(code)
  local char, floor = string.char, math.floor
  if code < 128 then return char(code) end
  if code < 2048 then return char(192 + floor(code / 64), 128 + code % 64) end
  if code < 65536 then
    return char(224 + floor(code / 4096), 128 + floor(code / 64) % 64, 128 + code % 64)
  end
  return char(240 + floor(code / 262144), 128 + floor(code / 4096) % 64, 128 + floor(code / 64) % 64,
    128 + code % 64)
end

-- The character that `\uXXXX` at `at` means, and where the text goes on; nil if it means none.
local function unicode_at(text, at)
  local code = tonumber(string.match(text, "^\\u(%x%x%x%x)", at) or "", 16)
  if not code or code >= 0xDC00 and code <= 0xDFFF then return nil end
  if code < 0xD800 or code > 0xDFFF then return utf8_of(code), at + 6 end
  local low = tonumber(string.match(text, "^\\u(%x%x%x%x)", at + 6) or "", 16)
  if not low or low < 0xDC00 or low > 0xDFFF then return nil end
  return utf8_of(0x10000 + (code - 0xD800) * 1024 + low - 0xDC00), at + 12
end

-- What the string of JSON means that stands from `first` to `last`; nil if it is none.
local function string_at(text, first, last)
  if not first or byte(text, first) ~= 34 then return nil end
  local inner = sub(text, first + 1, last - 1)
  if find(inner, "[%z\1-\31]") then return nil end
  if not find(inner, "\\", 1, true) then return inner end
  local parts, at = {}, 1
  while true do
    local slash = find(inner, "\\", at, true)
    if not slash then break end
    parts[#parts + 1] = sub(inner, at, slash - 1)
    local kind = sub(inner, slash + 1, slash + 1)
    local meant
    if kind == "u" then
      meant, at = unicode_at(inner, slash)
    else
      meant, at = ESCAPES[kind], slash + 2
    end
    if not meant then return nil end
    parts[#parts + 1] = meant
  end
  parts[#parts + 1] = sub(inner, at)
  return table.concat(parts)
end

-- A string of JSON that means `text`, which is UTF-8.
local function quoted(text)
  return '"' .. string.gsub(text, '[%z\1-\31"\\\127]', function(char)
    return string.format("\\u%04x", byte(char))
  end) .. '"'
end

local function encoded(handle, name)
  return "=?base64?" .. handle:base64Escape(name) .. "?="
end

-- Whether a header can hold `name` as it is (SEP-2243).
local function is_plain(name)
  return not find(name, "[^\32-\126]") and not find(name, "^ ") and not find(name, " $")
    and not find(name, "^=%?base64%?.*%?=$")
end

-- The value of a header that means `name`.
local function header_of(handle, name)
  return is_plain(name) and name or encoded(handle, name)
end

-- Whether the value of a header means `name`.
local function means(handle, value, name)
  return value == name and is_plain(name) or value == encoded(handle, name)
end
