-- A call on its way to a provider, once for each attempt. What the attempt before has changed in the headers is
-- still there; the body is as it was. Runs behind the prelude, which defines `wire` and `providers`.

function envoy_on_request(handle)
  local provider = providers[tonumber(handle:headers():get("x-envoy-attempt-count"))]
  local request = handle:streamInfo():dynamicMetadata():get(wire.REQUEST_METADATA)
  local body = provider.renamed and handle:body(true)
  local headers = handle:headers()
  if provider.model then
    local text = body:getBytes(0, body:length())
    body:setBytes(string.sub(text, 1, request.at - 1) .. '"' .. provider.model .. '"'
      .. string.sub(text, request.at + request.length))
  end
  -- The attempt before may have had another name in it.
  if body and headers:get("content-length") then
    headers:replace("content-length", tostring(body:length()))
  end
  local query = request.query
  if provider.query then
    query = (query and query .. "&" or "?") .. provider.query
  end
  headers:replace(":path", provider.path .. request.path .. (query or ""))
end
