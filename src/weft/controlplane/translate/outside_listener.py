"""The listener of a gateway, where callers from outside the mesh come in.

`POST /v1/agents/<type>`, and whatever is below that path, goes by way of the sidecar's own outbound listener
to the agent, by the same routes, retries and policies as calls from inside: its body never reaches Python.
Before that Envoy asks the gateway's process, by headers alone, whether the caller may. All else goes to that
process, which asks for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.core.v3.base_pb2 import TrafficDirection
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.buffer.v3.buffer_pb2 import Buffer, BufferPerRoute
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz, ExtAuthzPerRoute
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from envoy.type.v3.http_status_pb2 import ServiceUnavailable

from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.http_listener import (
    UNTRUSTED_HEADERS,
    add_filter,
    add_manager,
    connection_manager,
    new_listener,
)
from weft.controlplane.translate.inbound_routes import AGENT_CLUSTER
from weft.controlplane.translate.mesh_tunnel import MESH_CLUSTER
from weft.controlplane.translate.replies import header, outside_replies
from weft.controlplane.translate.tls import HANDSHAKE_TIMEOUT
from weft.controlplane.translate.tracing import UNKNOWN, Reporter, never_traced, trace_outside
from weft.model.agent_card import CARD_BASE_HEADER, CARD_OF_HEADER
from weft.model.gateway import GatewaySpec, TlsFiles
from weft.model.mcp_wire import MESH_HEADERS
from weft.model.names import MESH_DOMAIN
from weft.model.node import Address
from weft.model.telemetry_wire import TRACE_HEADER

OUTSIDE_LISTENER = "outside"

AUTHORIZE_PREFIX = "/authorize"
"""Put before the path when the gateway's process is asked about a call."""

AUTHORIZE_TIMEOUT = 5.0
"""Seconds in which it must answer; later the call is refused with 503."""

REQUEST_TIMEOUT = 30.0
"""Seconds in which a request must have come, body and all; then it is answered with 408."""

SUBMITTER_HEADER = "x-weft-submitter"
"""On a call through a gateway: who called, as the gateway found out. Never trusted from outside."""

DOOR_HEADER = "x-weft-door"
"""On a request to a gateway's process: `outside` if it came through the outside listener."""

CONTEXT_HEADER = "x-weft-context"
"""Which conversation a call belongs to: the gateway's process says how it is called inside."""

_MAX_LENGTH = 2**63 - 1
_AUTHZ_FILTER = "envoy.filters.http.ext_authz"
_BUFFER_FILTER = "envoy.filters.http.buffer"
_CREDENTIALS = ("authorization", "x-api-key")
_UNTRUSTED = (
    SUBMITTER_HEADER,
    DOOR_HEADER,
    CARD_BASE_HEADER,
    CARD_OF_HEADER,
    "x-weft-to",
    "x-weft-destination",
    "x-weft-hops",
    "x-weft-budget",
    "x-weft-deadline",
    # What sidecars say beside what they hand over, and members beside what they ask.
    "x-weft-task",
    "x-weft-attempt",
    "x-weft-lease",
    "x-weft-lease-seconds",
    "x-weft-topic",
    "x-weft-event",
    "x-weft-delivery",
    "x-weft-key",
    "x-weft-class",
    TRACE_HEADER,
    *MESH_HEADERS,
)
_DIRECT = "/v1/agents/([a-z0-9-]+)"
_BELOW = f"{_DIRECT}(/.*)"
_OWN_PATHS = ("/v1/", "/docs", "/openapi.json")
_HEALTH_PATHS = ("/health", "/ready")


def outside_listener(address: Address, gateway: GatewaySpec, reporter: Reporter = UNKNOWN) -> Listener:
    """Where `gateway` takes callers from outside the mesh. `reporter`: who tells of their calls."""
    manager = connection_manager(OUTSIDE_LISTENER)
    manager.local_reply_config.CopyFrom(outside_replies(gateway.max_body_bytes))
    manager.request_timeout.CopyFrom(duration(REQUEST_TIMEOUT))
    manager.early_header_mutation_extensions.add(name="outside").typed_config.Pack(_not_from_inside())
    manager.route_config.CopyFrom(_routes(gateway))
    # Reads the whole request before passing it on, so that what is too large never begins. Behind the
    # question to the gateway it would get in one piece what came meanwhile, and not count it.
    limit = Buffer()
    limit.max_request_bytes.value = gateway.max_body_bytes
    add_filter(manager, _BUFFER_FILTER, limit)
    add_filter(manager, _AUTHZ_FILTER, _authorization())
    add_filter(manager, "envoy.filters.http.router", Router(suppress_envoy_headers=True))
    listener = new_listener(OUTSIDE_LISTENER, TrafficDirection.INBOUND, address)
    if gateway.tls is not None:
        _secure(listener, gateway.tls)
    trace_outside(manager, reporter, _tags(reporter))
    add_manager(listener, manager)
    return listener


def _tags(reporter: Reporter) -> Mapping[str, str]:
    return {
        "weft.gateway": reporter.service,
        # As it was rewritten for the agent: whom the call goes to.
        "weft.authority": "%REQ(:AUTHORITY):256%",
        "weft.submitter": f"%REQ({SUBMITTER_HEADER}):200%",
    }


def _not_from_inside() -> HeaderMutation:
    mutation = HeaderMutation()
    for name in (*UNTRUSTED_HEADERS, *_UNTRUSTED):
        mutation.mutations.add().remove = name
    mutation.mutations.add().append.CopyFrom(header(DOOR_HEADER, OUTSIDE_LISTENER))
    return mutation


def _authorization() -> ExtAuthz:
    authz = ExtAuthz(failure_mode_allow=False)
    authz.status_on_error.code = ServiceUnavailable
    service = authz.http_service
    service.server_uri.uri = f"http://{AGENT_CLUSTER}"
    service.server_uri.cluster = AGENT_CLUSTER
    service.server_uri.timeout.CopyFrom(duration(AUTHORIZE_TIMEOUT))
    service.path_prefix = AUTHORIZE_PREFIX
    for name in (*_CREDENTIALS, DOOR_HEADER, CONTEXT_HEADER):
        authz.allowed_headers.patterns.add(exact=name)
    answer = service.authorization_response
    for name in (SUBMITTER_HEADER, CONTEXT_HEADER):
        answer.allowed_upstream_headers.patterns.add(exact=name)
    # What is left of the caller's rate. A refusal goes back with all its headers anyway.
    answer.allowed_client_headers_on_success.patterns.add(prefix="ratelimit")
    return authz


def _routes(gateway: GatewaySpec) -> RouteConfiguration:
    routes = [
        _too_large(gateway.max_body_bytes),
        _to_agents(),
        _below_agents("https" if gateway.tls is not None else "http"),
        *map(_to_gateway, _OWN_PATHS),
        *(never_traced(_to_gateway(path)) for path in _HEALTH_PATHS),
    ]
    host = VirtualHost(name="gateway", domains=["*"], routes=routes)
    return RouteConfiguration(name=OUTSIDE_LISTENER, virtual_hosts=[host])


def _too_large(max_body_bytes: int) -> Route:
    """Refuses whoever says beforehand that it sends too much; others are found out when they have."""
    match = RouteMatch(prefix="/")
    length = match.headers.add(name="content-length").range_match
    length.start, length.end = max_body_bytes + 1, _MAX_LENGTH
    route = Route(name="too large", match=match)
    route.direct_response.status = 413
    route.typed_per_filter_config[_AUTHZ_FILTER].Pack(ExtAuthzPerRoute(disabled=True))
    # At once, and not when the body has come.
    route.typed_per_filter_config[_BUFFER_FILTER].Pack(BufferPerRoute(disabled=True))
    return route


def _to_agents() -> Route:
    match = RouteMatch()
    match.safe_regex.regex = _DIRECT
    match.headers.add(name=":method").string_match.exact = "POST"
    action = RouteAction(cluster=MESH_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    action.regex_rewrite.pattern.regex = f"^{_DIRECT}"
    action.regex_rewrite.substitution = "/rpc"
    action.host_rewrite_path_regex.pattern.regex = f"^{_DIRECT}$"
    action.host_rewrite_path_regex.substitution = rf"\1.{MESH_DOMAIN}"
    # What the caller proved itself with is for the gateway, and none of the agent's business.
    return Route(
        name="agents", match=match, route=action, request_headers_to_remove=[*_CREDENTIALS, DOOR_HEADER]
    )


def _below_agents(scheme: str) -> Route:
    """An agent's own paths, as A2A needs them. Its card is to lead back here, so it is told where that is."""
    match = RouteMatch()
    match.safe_regex.regex = _BELOW
    action = RouteAction(cluster=MESH_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    action.regex_rewrite.pattern.regex = f"^{_BELOW}$"
    action.regex_rewrite.substitution = r"\2"
    action.host_rewrite_path_regex.pattern.regex = f"^{_BELOW}$"
    action.host_rewrite_path_regex.substitution = rf"\1.{MESH_DOMAIN}"
    return Route(
        name="below agents",
        match=match,
        route=action,
        request_headers_to_add=[header(CARD_BASE_HEADER, f"{scheme}://%REQ(:AUTHORITY)%")],
        request_headers_to_remove=[*_CREDENTIALS, DOOR_HEADER],
    )


def _to_gateway(path: str) -> Route:
    match = RouteMatch(prefix=path) if path.endswith("/") else RouteMatch(path=path)
    action = RouteAction(cluster=AGENT_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    action.retry_policy.retry_on = "reset-before-request"
    route = Route(name=path, match=match, route=action)
    route.typed_per_filter_config[_AUTHZ_FILTER].Pack(ExtAuthzPerRoute(disabled=True))
    # Or anybody's bodies would be held here. The process first looks who sends them, and has limits.
    route.typed_per_filter_config[_BUFFER_FILTER].Pack(BufferPerRoute(disabled=True))
    return route


def _secure(listener: Listener, files: TlsFiles) -> None:
    context = DownstreamTlsContext()
    certificate = context.common_tls_context.tls_certificates.add()
    certificate.certificate_chain.filename = files.certificate
    certificate.private_key.filename = files.key
    context.common_tls_context.alpn_protocols.extend(["h2", "http/1.1"])
    [chain] = listener.filter_chains
    chain.transport_socket.name = "envoy.transport_sockets.tls"
    chain.transport_socket.typed_config.Pack(context)
    chain.transport_socket_connect_timeout.CopyFrom(duration(HANDSHAKE_TIMEOUT))
