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

_METADATA = "weft.body"
"""The namespace of what is found: `method`, `name` (`params.name`), `broken`, and `shape` (`object`)."""

# To the filter that reads JSON, an array is an object without members; but it may be a batch of messages.
# Before the object may stand white space, and a byte order mark, which that filter and some agents skip.
_SHAPE_SCRIPT = f"""
function envoy_on_request(request)
  local body = request:body()
  local length = body and body:length() or 0
  if length == 0 or body:getBytes(0, math.min(length, 1024)):match("^[\\239\\187\\191]-%s*{{") then
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


def unreadable() -> Permission:
    """Bodies that are not empty, and no object in JSON; and those that nobody read."""
    no_object = Permission(not_rule=says("shape", "object"))
    return Permission(or_rules=Permission.Set(rules=[says("broken", "yes"), no_object]))


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
    copy.request_body_buffer_limit.value = MAX_READ_BODY_BYTES
    for each in (_JSON_FILTER, _SHAPE_FILTER):
        enabled = FilterConfig()
        enabled.config.SetInParent()
        copy.typed_per_filter_config[each].Pack(enabled)
    return copy
