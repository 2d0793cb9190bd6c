-- The members of a JSON object, without parsing what is in them. Bodies of many megabytes are jumped through:
-- whatever is nested is skipped, strings at the speed of memchr.

local byte, find, sub = string.byte, string.find, string.sub

-- Where the next character is that is no white space.
local function skip_space(text, at)
  local code = byte(text, at)
  if code and code > 32 then return at end
  local _, last = find(text, "^[ \t\r\n]*", at)
  return last + 1
end

-- Where the string ends whose first character is at `at`; nil if it does not.
local function string_end(text, at)
  while true do
    local quote = find(text, '"', at, true)
    if not quote then return nil end
    local before = quote - 1
    while byte(text, before) == 92 do before = before - 1 end
    if (quote - before) % 2 == 1 then return quote end
    at = quote + 1
  end
end

-- Where the object or array ends whose bracket is at `at`; nil if it does not.
local function nested_end(text, at)
  local depth = 0
  while true do
    at = find(text, '["%[%]{}]', at)
    if not at then return nil end
    local code = byte(text, at)
    if code == 34 then
      at = string_end(text, at + 1)
      if not at then return nil end
    elseif code == 123 or code == 91 then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then return at end
    end
    at = at + 1
  end
end

-- Where the value ends that begins at `at`; nil if there is none.
local function value_end(text, at)
  local code = byte(text, at)
  if code == 34 then return string_end(text, at + 1) end
  if code == 123 or code == 91 then return nested_end(text, at) end
  local _, last = find(text, "^[%w%.+-]+", at)
  return last
end

-- A key as servers may take it that do not mind its case; some fold even these two signs.
local function folded(key)
  return (string.lower((string.gsub(string.gsub(key, "\197\191", "s"), "\226\132\170", "k"))))
end

-- Where the values of the object's members begin and end, for those members that are `wanted` (a set).
-- Nil and what is wrong, if it is no object, or if it is one that servers could read in different ways.
local function members(text, wanted)
  local first, last = {}, {}
  local at = skip_space(text, 1)
  if byte(text, at) ~= 123 then return nil, "the body is not a JSON object" end
  at = skip_space(text, at + 1)
  if byte(text, at) == 125 then return first, last end
  while true do
    if byte(text, at) ~= 34 then return nil, "the body is not valid JSON: a member's name was expected" end
    local closing = string_end(text, at + 1)
    if not closing then return nil, "the body is not valid JSON: it ends within a string" end
    local key = sub(text, at + 1, closing - 1)
    at = skip_space(text, closing + 1)
    if byte(text, at) ~= 58 then return nil, "the body is not valid JSON: ':' was expected" end
    at = skip_space(text, at + 1)
    local value_last = value_end(text, at)
    if not value_last then return nil, "the body is not valid JSON: a value is missing or does not end" end
    if wanted[key] then
      if first[key] then return nil, "the body says '" .. key .. "' twice" end
      first[key], last[key] = at, value_last
    elseif find(key, "\\", 1, true) then
      return nil, "the body has a member whose name is written with an escape"
    elseif #key < 64 and not find(key, "^[%l%d_]*$") and wanted[folded(key)] then
      return nil, "the body has a member whose name differs from '" .. folded(key) .. "' by its case only"
    end
    at = skip_space(text, value_last + 1)
    local code = byte(text, at)
    if code == 125 then break end
    if code ~= 44 then return nil, "the body is not valid JSON: ',' or '}' was expected" end
    at = skip_space(text, at + 1)
  end
  if skip_space(text, at + 1) <= #text then return nil, "the body is not valid JSON: it goes on behind its end" end
  return first, last
end

-- What stands for `text` between the quotes of a string, in ASCII.
local function escaped(text)
  return (string.gsub(text, '[%c"\\\127-\255]', function(char)
    return string.format("\\u%04x", string.byte(char))
  end))
end
