-- What there is, from the text CONTEXT (see tool_context.py), read once: by key, and the beginnings of templates.

local context, beginnings = {}, {}

do
  local NUMBERS = { timeout = true, request = true, result = true }

  local function meant(text)
    if not find(text, "%", 1, true) then return text end
    return (string.gsub(text, "%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end))
  end

  local function fields_of(text)
    local fields = {}
    for name, value in string.gmatch(text, "\t([^\t=]+)=([^\t]*)") do
      local header = string.match(name, "^header%.(.+)$")
      if header then
        fields.headers = fields.headers or {}
        fields.headers[header] = meant(value)
      else
        fields[name] = NUMBERS[name] and tonumber(value) or meant(value)
      end
    end
    return fields
  end

  -- Most tools of a server are alike.
  local alike = {}
  for key, text in string.gmatch(CONTEXT, "([^\t\n]+)([^\n]*)") do
    local fields = alike[text]
    if not fields then
      fields = fields_of(text)
      alike[text] = fields
    end
    key = meant(key)
    if sub(key, 1, 2) == "b:" then
      beginnings[#beginnings + 1] = { text = sub(key, 3), entry = fields }
    else
      context[key] = fields
    end
  end
end
