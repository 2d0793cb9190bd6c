"""The filters for calls by way of `tools.mesh`; off, but where that virtual host or routes turn them on.

At the caller's, a script finds out what a request is for, and makes of it a call of the server whose it is:
from there on it is routed, balanced and repeated like any other. At the callee's, a call to a server with
sessions gets one, from the sidecar's service; and what may be made again is not answered by halves.
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import FilterConfig
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz
from envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua, LuaPerRoute
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.message import Message

from weft.controlplane.translate.call_tree import TREE_FILTER
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.http_listener import add_filter, turned_on
from weft.controlplane.translate.replies import ERROR_HEADER, REFUSED_HEADER
from weft.controlplane.translate.tool_context import context_text, tool_context
from weft.controlplane.translate.tool_scripts import answer_script, request_script, whole_script
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.mcp_wire import (
    SESSION_HEADER,
    SESSION_QUESTION,
    SESSIONS_CLUSTER,
    SESSIONS_PATH,
    VERSION_HEADER,
)

SCRIPT_FILTER = "weft.tools.script"
SESSION_FILTER = "weft.tools.session"
WHOLE_FILTER = "weft.tools.whole"

_SESSION_TIMEOUT = 10.0
"""Seconds for the sidecar's service to have a session with the server."""


def add_outbound_tool_filters(manager: HttpConnectionManager) -> None:
    """For the listener through which agents call."""
    script = Lua(clear_route_cache={"value": True})
    script.default_source_code.inline_string = answer_script()
    add_filter(manager, SCRIPT_FILTER, script, disabled=True)


def outbound_tool_filters_on(catalogue: McpCatalogue, *, fault_filter: str) -> dict[str, Message]:
    """For the way to `tools.mesh`: the filters' configurations, by their names.

    Which filters a call passes is settled before the script names its destination: `fault_filter`, too, which
    does nothing but where the destination's Route says so.
    """
    script = LuaPerRoute()
    script.source_code.inline_string = request_script(context_text(tool_context(catalogue)))
    faults = FilterConfig()
    faults.config.Pack(HTTPFault())
    return {SCRIPT_FILTER: script, TREE_FILTER: turned_on(), fault_filter: faults}


def add_inbound_tool_filters(manager: HttpConnectionManager) -> None:
    """For the listener to which others' sidecars send calls. Add them behind those of access."""
    add_filter(manager, SESSION_FILTER, _sessions(), disabled=True)
    whole = Lua()
    whole.default_source_code.inline_string = whole_script()
    add_filter(manager, WHOLE_FILTER, whole, disabled=True)


def _sessions() -> ExtAuthz:
    config = ExtAuthz(transport_api_version="V3")
    for each in SESSION_QUESTION:
        config.allowed_headers.patterns.add(exact=each)
    config.status_on_error.code = 503
    service = config.http_service
    service.server_uri.uri = f"http://{SESSIONS_CLUSTER}"
    service.server_uri.cluster = SESSIONS_CLUSTER
    service.server_uri.timeout.CopyFrom(duration(_SESSION_TIMEOUT))
    service.path_prefix = SESSIONS_PATH
    for each in (SESSION_HEADER, VERSION_HEADER):
        service.authorization_response.allowed_upstream_headers.patterns.add(exact=each)
    for each in ("content-type", ERROR_HEADER, REFUSED_HEADER):
        service.authorization_response.allowed_client_headers.patterns.add(exact=each)
    return config
