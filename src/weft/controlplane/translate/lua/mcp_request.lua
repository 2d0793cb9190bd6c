-- A request to `tools.mesh`: what is for one of its servers becomes a call of that, by the rules for any call;
-- all else is the control plane's. Runs behind the prelude, which defines `wire`, and the other scripts.

-- Where a request says what it is about, and under which prefix the context has that.
local KINDS = {
  ["tools/call"] = { member = "name", prefix = "t:" },
  ["prompts/get"] = { member = "name", prefix = "p:" },
  ["resources/read"] = { member = "uri", prefix = "r:" },
  ["completion/complete"] = {},
}
local REFERENCES = {
  ["ref/prompt"] = { member = "name", prefix = "p:" },
  ["ref/resource"] = { member = "uri", prefix = "r:" },
}

local OLD_VERSIONS = {
  ["2024-11-05"] = true, ["2025-03-26"] = true, ["2025-06-18"] = true, ["2025-11-25"] = true,
}

local MESSAGE = { jsonrpc = true, id = true, method = true, params = true }
local PARAMS = { name = true, uri = true, ref = true, arguments = true, _meta = true }
local REFERENCE = { type = true, name = true, uri = true }

local VERSION_KEY = wire.META_PREFIX .. "protocolVersion"
local CAPABILITIES_KEY = wire.META_PREFIX .. "clientCapabilities"
local META = {
  [VERSION_KEY] = true, [CAPABILITIES_KEY] = true, progressToken = true,
  traceparent = true, tracestate = true, baggage = true,
}
local TRACE = { "traceparent", "tracestate", "baggage" }

local MOST_NAME, MOST_ID, MOST_SESSION, MOST_TRACE = 4096, 256, 512, 8192

-- Ids that no other request in the mesh has: in one session with a server may be calls of many clients, who all
-- count from 1. Other Envoys, and other threads of this one, begin elsewhere.
local counted, own = 0, nil

local function new_id(handle)
  own = own or handle:timestamp() .. "-" .. string.match(tostring({}), "0x(%x+)")
  counted = counted + 1
  return string.format("weft-%s-%d", own, counted)
end

-- Envoy closes the connection with what it answers itself with 400, so that status comes with the answer's half.
local function refuse(handle, call, code, message, data)
  handle:streamInfo():dynamicMetadata():set(wire.METADATA, "status", status_of(code, call.id, call.old))
  handle:respond(
    { [":status"] = "200", ["content-type"] = "application/json" },
    error_message(call.id, code, message, data))
end

local OWN_HOSTS = {
  ["tools.mesh"] = true, ["tools.mesh.localhost"] = true, localhost = true, ["127.0.0.1"] = true, ["[::1]"] = true,
}

-- Pages of a browser reach the listener too, by its name on this machine; none of them is an agent.
local function is_foreign(origin)
  local host = string.match(string.lower(origin), "^https?://([^/]+)$")
  return not host or not OWN_HOSTS[(string.gsub(host, ":%d+$", ""))]
end

-- The id as it stands, which is a string or a whole number; nil if it is neither.
local function id_of(text, first, last)
  if not first then return nil end
  local id = sub(text, first, last)
  if #id > MOST_ID then return nil end
  if byte(id) == 34 then return string_at(id, 1, #id) and id end
  return find(id, "^-?%d+$") and id
end

-- What `_meta` has to say: the version and the trace, each where it is not there yet. The trace goes into headers
-- as well, where only `_meta` has it.
local function meta_edit(headers, text, call, params_first, first, last)
  local meta = first and sub(text, first, last)
  -- Some clients write slashes so; none of what else is there means anything else by it.
  if meta and find(meta, "\\/", 1, true) then
    meta = string.gsub(meta, "\\(.)", function(char) return char == "/" and "/" or nil end)
  end
  local from, to
  if meta then
    from, to = members(meta, META)
    if not from then return nil, "'_meta': " .. escaped(to) end
  else
    from, to = {}, {}
  end
  local added = {}
  if call.old then
    if not from[VERSION_KEY] then added[#added + 1] = '"' .. VERSION_KEY .. '":"' .. wire.VERSION .. '"' end
    if not from[CAPABILITIES_KEY] then added[#added + 1] = '"' .. CAPABILITIES_KEY .. '":{}' end
  else
    local version = string_at(meta or "", from[VERSION_KEY], to[VERSION_KEY])
    if not version then return nil, "_meta: '" .. VERSION_KEY .. "' is missing" end
    if version ~= wire.VERSION then
      return nil, "the header 'MCP-Protocol-Version' and _meta say different versions", HEADER_MISMATCH
    end
    if not from[CAPABILITIES_KEY] then return nil, "_meta: '" .. CAPABILITIES_KEY .. "' is missing" end
  end
  for _, name in ipairs(TRACE) do
    local value = headers:get(name)
    if value and not from[name] then
      added[#added + 1] = '"' .. name .. '":"' .. escaped(value) .. '"'
    elseif not value and from[name] then
      local said = string_at(meta, from[name], to[name])
      if said and said ~= "" and #said <= MOST_TRACE and not find(said, "[^\32-\126]") then
        headers:replace(name, said)
      end
    end
  end
  call.progress = from.progressToken ~= nil
  if #added == 0 then return meta and #meta ~= last - first + 1 and { first, last, meta } or false end
  if not meta then
    return insertion(text, params_first, { '"_meta":{' .. table.concat(added, ",") .. "}" })
  end
  local _, _, members_added = unpack(insertion(meta, 1, added))
  return { first, last, "{" .. members_added .. sub(meta, 2) }
end

-- What a call is about, and where the body says so; nil if it does not.
local function subject(text, call, at, first, last)
  local kind = KINDS[call.method]
  if call.method == "completion/complete" then
    if not first.ref then return nil end
    local reference = sub(text, at + first.ref, at + last.ref)
    local from, to = members(reference, REFERENCE)
    kind = from and REFERENCES[string_at(reference, from.type, to.type) or ""]
    if not kind then return nil end
    at = at + first.ref - 1
    first, last = from, to
  end
  local from, to = first[kind.member], last[kind.member]
  if not from or to - from > 6 * MOST_NAME then return nil end
  local name = string_at(text, at + from, at + to)
  return name, kind.prefix, at + from, at + to
end

-- Whose a resource is that nobody lists: that of the longest beginning of a template.
local function by_template(uri)
  local longest, found = 0, nil
  for _, each in ipairs(beginnings) do
    if #each.text > longest and sub(uri, 1, #each.text) == each.text then
      longest, found = #each.text, each.entry
    end
  end
  return found
end

-- What has a name, and what its server calls it.
local function look_up(prefix, name)
  -- Nothing has such a name.
  if #name > MOST_NAME or find(name, "%c") then return nil end
  local found = context[prefix .. name]
  if found and found.alias then
    name = found.alias
    found = context[prefix .. name]
  end
  found = found or prefix == "r:" and by_template(name) or nil
  return found, found and found.original or name
end

-- Parameters that a server of 2026-07-28 wants in headers too, which clients of before do not know of.
local function parameter_headers(handle, headers, entry, arguments)
  local wanted = {}
  for _, parameter in pairs(entry.headers) do wanted[parameter] = true end
  local from, to = members(arguments, wanted)
  if not from then return end
  for header, parameter in pairs(entry.headers) do
    if from[parameter] then
      local value = string_at(arguments, from[parameter], to[parameter])
        or sub(arguments, from[parameter], to[parameter])
      if value ~= "null" and not find(value, "^[{%[]") and #value <= MOST_NAME then
        headers:replace("mcp-param-" .. header, header_of(handle, value))
      end
    end
  end
end

local function set_headers(handle, headers, call, entry, server)
  local session = headers:get(wire.SESSION_HEADER)
  headers:remove(wire.SESSION_HEADER)
  if session and #session <= MOST_SESSION then headers:replace(wire.CLIENT_SESSION_HEADER, session) end
  headers:replace(wire.VERSION_HEADER, server.old and wire.OLD_VERSION or wire.VERSION)
  headers:replace(wire.METHOD_HEADER, call.method)
  if call.method == "completion/complete" then
    headers:remove(wire.NAME_HEADER)
  else
    headers:replace(wire.NAME_HEADER, header_of(handle, call.original))
  end
  headers:replace(wire.TOOL_HEADER, header_of(handle, call.name))
  if entry.idempotent then
    if not headers:get("idempotency-key") then headers:replace("idempotency-key", new_id(handle)) end
    -- An answer that has begun cannot be had from another server, but nobody waits for its beginning.
    if not call.progress then headers:replace(wire.WHOLE_HEADER, "1") end
  end
  if entry.timeout then
    local left = tonumber(headers:get(wire.TIMEOUT_HEADER) or "")
    headers:replace(wire.TIMEOUT_HEADER, string.format("%d", math.min(left or entry.timeout, entry.timeout)))
  end
  -- Answers are read on their way back.
  headers:remove("accept-encoding")
  headers:remove("origin")
  headers:replace(":path", server.path)
  headers:replace(":authority", entry.server .. ".mesh")
  headers:replace(wire.DESTINATION_HEADER, entry.server .. ".mesh")
end

-- What is wrong with the headers of a client of 2026-07-28.
local function disagreement(handle, headers, call)
  if headers:get(wire.METHOD_HEADER) ~= call.method then
    return "the header 'Mcp-Method' does not say the method of the body"
  end
  if call.method ~= "completion/complete" then
    local said = headers:get(wire.NAME_HEADER)
    if not said or not means(handle, said, call.name) then
      return "the header 'Mcp-Name' does not say the name in the body"
    end
  end
  return nil
end

-- Make of a request a call of the server whose it is.
local function forward(handle, headers, body, text, call, message_first, message_last)
  if not message_first.params then return refuse(handle, call, INVALID_PARAMS, "'params' are missing") end
  local params_first = message_first.params
  local params = sub(text, params_first, message_last.params)
  local first, last = members(params, PARAMS)
  if not first then return refuse(handle, call, INVALID_PARAMS, "'params': " .. escaped(last)) end
  local at = params_first - 1
  local name, prefix, name_first, name_last = subject(text, call, at, first, last)
  call.name = name or ""
  if not name then return refuse(handle, call, INVALID_PARAMS, "'params' do not say what is asked for") end
  if not call.old then
    local wrong = disagreement(handle, headers, call)
    if wrong then return refuse(handle, call, HEADER_MISMATCH, wrong) end
  end
  local edit, wrong, code = meta_edit(
    headers, text, call, params_first, first._meta and at + first._meta, last._meta and at + last._meta)
  if edit == nil then return refuse(handle, call, code or INVALID_PARAMS, wrong) end
  local entry, original = look_up(prefix, name)
  call.original = original
  local server = entry and context["s:" .. entry.server]
  if not server then return refuse(handle, call, unknown(call)) end
  local most = entry.request or wire.MAX_REQUEST
  if #text > most then
    return refuse(handle, call, INVALID_PARAMS, string.format(
      "the request has %d bytes; '%s' takes at most %d", #text, shown(name), most))
  end

  local edits = {}
  if edit then edits[1] = edit end
  if call.original ~= name then edits[#edits + 1] = { name_first, name_last, quoted(call.original) } end
  if server.old then
    call.sent = quoted(new_id(handle))
    edits[#edits + 1] = { message_first.id, message_last.id, call.sent }
  end
  if entry.headers and call.old and not server.old and first.arguments then
    parameter_headers(handle, headers, entry, sub(params, first.arguments, last.arguments))
  end
  if #edits > 0 then
    local changed = edited(text, edits)
    body:setBytes(changed)
    if headers:get("content-length") then headers:replace("content-length", tostring(#changed)) end
  end
  call.most = entry.result or wire.MAX_RESULT
  call.edits = (server.old or call.old) and true or nil
  call.server_old = server.old
  call.shown = shown(name)
  set_headers(handle, headers, call, entry, server)
  return true
end

local function read(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  -- By this, local replies know what they are for.
  metadata:set(wire.METADATA, "posted", true)
  local body = handle:body()
  -- While the body came, what was there before has lost its validity.
  local headers = handle:headers()
  local version = headers:get(wire.VERSION_HEADER)
  local call = { id = "null", old = (not version or OLD_VERSIONS[version]) and true or nil }
  local origin = headers:get("origin")
  if origin and is_foreign(origin) then
    return handle:respond({ [":status"] = "403", ["content-type"] = "application/json" },
      error_message("null", INVALID_REQUEST, "requests of pages from elsewhere are not taken"))
  end
  if headers:get("content-encoding") then
    return refuse(handle, call, INVALID_REQUEST, "the body is compressed: send it as it is")
  end
  local length = body and body:length() or 0
  local text = length > 0 and body:getBytes(0, length) or ""
  local start = byte(text, skip_space(text, 1))
  if start == 91 then return refuse(handle, call, INVALID_REQUEST, "batches are not taken: send one message") end
  local first, last = members(text, MESSAGE)
  if not first then return refuse(handle, call, PARSE_ERROR, escaped(last)) end
  local method = string_at(text, first.method, last.method)
  call.id = id_of(text, first.id, last.id) or "null"
  call.method = method
  if not method or not KINDS[method] then
    -- The control plane's.
    if call.id ~= "null" then
      handle:streamInfo():dynamicMetadata():set(wire.METADATA, "call", { id = call.id, old = call.old })
    end
    return
  end
  if string_at(text, first.jsonrpc, last.jsonrpc) ~= "2.0" then
    return refuse(handle, call, INVALID_REQUEST, "'jsonrpc' is not '2.0'")
  end
  if call.id == "null" then
    return refuse(handle, call, INVALID_REQUEST, "'id' must be a string or a whole number, of 256 bytes at most")
  end
  if version and not call.old and version ~= wire.VERSION then
    return refuse(handle, call, UNSUPPORTED_VERSION, "Unsupported protocol version",
      string.format('{"supported":["%s","%s"],"requested":"%s"}', wire.VERSION, wire.OLD_VERSION,
        escaped(sub(version, 1, 64))))
  end
  if forward(handle, headers, body, text, call, first, last) then
    metadata = handle:streamInfo():dynamicMetadata()
    metadata:set(wire.METADATA, "call", call)
    -- Of a tool that there is: calls are counted by it, and anything else is for callers to make up.
    if call.method == "tools/call" then metadata:set(wire.METADATA, wire.TOOL_KEY, call.name) end
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get(":method") == "POST" then read(handle) end
end
