"""What bodies of requests say as JSON-RPC, read by Envoy where rules depend on it."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.rbac.v3.rbac_pb2 import Permission
from envoy.config.route.v3.route_components_pb2 import FilterConfig, Route, RouteMatch
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.json_to_metadata.v3.json_to_metadata_pb2 import JsonToMetadata
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

MAX_READ_BODY_BYTES = 4 * 1024 * 1024
"""Where rules depend on bodies, larger ones are answered with 413."""

_JSON_FILTER = "weft.bodies.json"
_SHAPE_FILTER = "weft.bodies.shape"

_MAX_STRINGS = 1000
"""Beside what decides; a body with more is not looked at for ever, but taken for unreadable."""

_METADATA = "weft.body"
"""The namespace of what is found: `method`, `name` (`params.name`), `broken`, and `shape` (`object`)."""

# To the filter that reads JSON, an array is an object without members; but it may be a batch of messages.
# Before the object may stand white space, and a byte order mark, which that filter and some agents skip.
# Of keys that are there twice some agents take the first, others the last; and some take "Method" for
# "method" (Go does, and "\u017f" for "s"). Where what decides is written so, nobody knows what it says.
_SHAPE_SCRIPT = f"""
local decisive = {{ {{method = true, params = true}}, {{name = true}} }}

local function said_once(text)
  local seen, strings = {{ {{}}, {{}} }}, 0
  local depth, key, in_params, at = 0, "", false, 1
  local byte = text:byte(at)
  while byte do
    if byte == 123 or byte == 91 then  -- an object or an array begins
      depth = depth + 1
      if depth == 2 then in_params = key == "params" end
    elseif byte == 125 or byte == 93 then
      depth = depth - 1
    elseif byte == 34 then  -- a string
      local first = at + 1
      at = first
      byte = text:byte(at)
      while byte ~= 34 do
        if not byte then return false end
        at = at + (byte == 92 and 2 or 1)
        byte = text:byte(at)
      end
      if depth == 1 or depth == 2 and in_params then
        strings = strings + 1
        if strings > {_MAX_STRINGS} then return false end
        if text:find("^%s*:", at + 1) then
          local name = text:sub(first, at - 1)
          local folded = name:gsub("\\197\\191", "s"):lower()
          if name:find("\\\\", 1, true) then return false end
          if decisive[depth][folded] then
            if folded ~= name or seen[depth][name] then return false end
            seen[depth][name] = true
          end
          if depth == 1 then key = name end
        end
      end
    end
    at = at + 1
    byte = text:byte(at)
  end
  return true
end

function envoy_on_request(request)
  local body = request:body()
  local length = body and body:length() or 0
  local text = length > 0 and body:getBytes(0, length) or ""
  if length == 0 or text:match("^[\\239\\187\\191]-%s*{{") and said_once(text) then
    request:streamInfo():dynamicMetadata():set("{_METADATA}", "shape", "object")
  end
end
"""


def says(key: str, value: str) -> Permission:
    """Bodies of which `key` (`method` or `name`) is `value`."""
    permission = Permission()
    permission.metadata.filter = _METADATA
    permission.metadata.path.add().key = key
    permission.metadata.value.string_match.exact = value
    return permission


def unambiguous() -> Permission:
    """Bodies that are empty, or an object that says the same to everybody who reads JSON."""
    return says("shape", "object")


def unreadable() -> Permission:
    """Bodies that are not unambiguous, or no JSON; and those that nobody read."""
    ambiguous = Permission(not_rule=unambiguous())
    return Permission(or_rules=Permission.Set(rules=[says("broken", "yes"), ambiguous]))


def add_body_filters(manager: HttpConnectionManager) -> None:
    """Have `manager` read the bodies of requests on those routes that turn it on."""
    # Envoy buffers as much as the window lets in, whatever the limit; by default that is 16 MiB.
    manager.http2_protocol_options.initial_stream_window_size.value = MAX_READ_BODY_BYTES
    for name, config in ((_JSON_FILTER, _json_filter()), (_SHAPE_FILTER, _shape_filter())):
        manager.http_filters.add(name=name, disabled=True).typed_config.Pack(config)


def read_bodies(routes: RouteConfiguration, matches: Iterable[RouteMatch]) -> None:
    """Have the bodies of requests that match read; their routes are copies of those there are."""
    matches = list(matches)
    for host in routes.virtual_hosts:
        usual = list(host.routes)
        del host.routes[:]
        host.routes.extend(_reading(route, match) for match in matches for route in usual)
        host.routes.extend(usual)


def _json_filter() -> JsonToMetadata:
    """Reads whatever a body is said to be: the agent may not care for that either."""
    config = JsonToMetadata()
    rules = config.request_rules
    rules.allow_empty_content_type = True
    rules.allow_content_types_regex.regex = ".*"
    for selectors in (("method",), ("params", "name")):
        rule = rules.rules.add()
        for each in selectors:
            rule.selectors.add().key = each
        rule.on_present.metadata_namespace, rule.on_present.key = _METADATA, selectors[-1]
        rule.on_error.metadata_namespace, rule.on_error.key = _METADATA, "broken"
        rule.on_error.value.string_value = "yes"
    return config


def _shape_filter() -> Lua:
    config = Lua()
    config.default_source_code.inline_string = _SHAPE_SCRIPT
    return config


def _reading(route: Route, match: RouteMatch) -> Route:
    copy = Route()
    copy.CopyFrom(route)
    copy.name = f"{route.name}, body read"
    copy.match.CopyFrom(match)
    copy.match.headers.extend(route.match.headers)
    copy.request_body_buffer_limit.value = MAX_READ_BODY_BYTES
    for each in (_JSON_FILTER, _SHAPE_FILTER):
        enabled = FilterConfig()
        enabled.config.SetInParent()
        copy.typed_per_filter_config[each].Pack(enabled)
    return copy
