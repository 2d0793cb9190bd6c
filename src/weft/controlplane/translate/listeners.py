"""Listeners (LDS): where a sidecar's Envoy takes calls from its agent, and for its agent."""

from __future__ import annotations

from envoy.config.core.v3.address_pb2 import Address as EnvoyAddress
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.base_pb2 import TrafficDirection
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.core.v3.protocol_pb2 import HttpProtocolOptions
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.dynamic_forward_proxy.v3.dynamic_forward_proxy_pb2 import (
    FilterConfig as DynamicForwardProxy,
)
from envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2 import (
    Config as HeaderToMetadata,
)
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from google.protobuf.message import Message

from weft.controlplane.translate.access import add_access_filters
from weft.controlplane.translate.denial_log import call_log, connection_log, egress_log
from weft.controlplane.translate.denied import denied_replies
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.egress import CONNECT
from weft.controlplane.translate.forward import FORWARD_FILTER, dns_cache
from weft.controlplane.translate.inbound_routes import INBOUND_ROUTES
from weft.controlplane.translate.replies import (
    CALLER_HEADER,
    DESTINATION_HEADER,
    header,
    inbound_replies,
    outbound_replies,
)
from weft.controlplane.translate.routes import (
    FAULT_FILTER,
    INSTANCE_FILTER,
    ROUTE_CONFIGURATION,
)
from weft.controlplane.translate.tls import secure_chain
from weft.model.node import Address, Inbound, Node

OUTBOUND_LISTENER = "outbound"
INBOUND_LISTENER = "inbound"

MAX_REQUEST_HEADERS_KB = 60
"""Larger request headers are answered with 431."""

HEADERS_TIMEOUT = 10.0
"""Seconds a client may take to send its request headers: bounds what slow or idle ones can hold."""

MAX_REQUEST_HEADERS = 100
"""A request with more header fields is answered with 431."""

IDLE_TIMEOUT = 600.0
"""Seconds for which a client's connection is kept without a call."""

CONNECTION_LIFETIME = 1800.0
"""Seconds after which a caller must connect anew, calls in flight aside: with the identity it has then.

Half the life of an SVID, by default: for no longer can one that has ended still be of use.
"""

_UNTRUSTED_HEADERS = (
    CALLER_HEADER,
    "x-forwarded-client-cert",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-force-trace",
    "x-envoy-decorator-operation",
)
"""Headers by which a caller could pose as another, or override its Envoy's timeouts and retry rule."""


def listeners(node: Node, *, connection_lifetime: float = CONNECTION_LIFETIME) -> list[Listener]:
    """The listeners of `node`: outbound, and inbound if it has an agent.

    `connection_lifetime`: seconds after which callers must connect anew.
    """
    result = [outbound_listener(node.outbound)]
    if node.inbound is not None:
        result.append(inbound_listener(node.inbound, connection_lifetime=connection_lifetime))
    return result


def outbound_listener(address: Address) -> Listener:
    """The HTTP proxy through which an agent reaches the mesh; its routes come by RDS."""
    manager = _connection_manager(OUTBOUND_LISTENER)
    _take_routes(manager, ROUTE_CONFIGURATION)
    manager.local_reply_config.CopyFrom(outbound_replies())
    mutation = manager.early_header_mutation_extensions.add(name="destination")
    mutation.typed_config.Pack(_destination_from_request())
    manager.upgrade_configs.add(upgrade_type=CONNECT)
    # What few routes need costs all calls something, so it is off but where a route turns it on.
    _add_filter(manager, FAULT_FILTER, HTTPFault(), disabled=True)
    _add_filter(manager, INSTANCE_FILTER, HeaderToMetadata(), disabled=True)
    _add_filter(manager, FORWARD_FILTER, DynamicForwardProxy(dns_cache_config=dns_cache()), disabled=True)
    _add_filter(manager, "envoy.filters.http.router", Router(suppress_envoy_headers=True))
    manager.access_log.extend(egress_log())
    listener = _listener(OUTBOUND_LISTENER, TrafficDirection.OUTBOUND, address)
    _add_manager(listener, manager)
    return listener


def inbound_listener(inbound: Inbound, *, connection_lifetime: float = CONNECTION_LIFETIME) -> Listener:
    """Where other sidecars send the agent's calls; its routes come by RDS, with what AccessPolicies say.

    `connection_lifetime`: seconds after which callers must connect anew.
    """
    manager = _connection_manager(INBOUND_LISTENER)
    _take_routes(manager, INBOUND_ROUTES)
    manager.local_reply_config.CopyFrom(inbound_replies())
    manager.local_reply_config.mappers.extend(denied_replies(inbound.type))
    lifetime = manager.common_http_protocol_options.max_connection_duration
    lifetime.CopyFrom(duration(connection_lifetime))
    mutation = manager.early_header_mutation_extensions.add(name="caller")
    mutation.typed_config.Pack(_caller_from_certificate())
    add_access_filters(manager)
    _add_filter(manager, "envoy.filters.http.router", Router(suppress_envoy_headers=True))
    listener = _listener(INBOUND_LISTENER, TrafficDirection.INBOUND, inbound.listen)
    secure_chain(listener.filter_chains[0])
    listener.access_log.extend(connection_log())
    manager.access_log.extend(call_log())
    _add_manager(listener, manager)
    return listener


def _connection_manager(name: str) -> HttpConnectionManager:
    manager = HttpConnectionManager(
        stat_prefix=name,
        stream_idle_timeout=duration(0),
        request_headers_timeout=duration(HEADERS_TIMEOUT),
        server_header_transformation=HttpConnectionManager.PASS_THROUGH,
    )
    manager.use_remote_address.value = True
    manager.skip_xff_append = True
    manager.max_request_headers_kb.value = MAX_REQUEST_HEADERS_KB
    manager.forward_client_cert_details = HttpConnectionManager.SANITIZE
    # A chunked request with a content length is how requests are smuggled past a proxy.
    manager.http_protocol_options.allow_chunked_length = False
    options = manager.common_http_protocol_options
    options.idle_timeout.CopyFrom(duration(IDLE_TIMEOUT))
    options.max_headers_count.value = MAX_REQUEST_HEADERS
    # Many programs take `x_weft_caller` for `x-weft-caller`.
    options.headers_with_underscores_action = HttpProtocolOptions.DROP_HEADER
    return manager


def _take_routes(manager: HttpConnectionManager, name: str) -> None:
    manager.rds.route_config_name = name
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = ApiVersion.V3


def _destination_from_request() -> HeaderMutation:
    """Name the destination, from `x-weft-to` or else the host, in the header that picks the virtual host."""
    mutation = HeaderMutation()
    destination = mutation.mutations.add()
    destination.append.CopyFrom(header(DESTINATION_HEADER, "%REQ(x-weft-to?:authority)%"))
    for name in _UNTRUSTED_HEADERS:
        mutation.mutations.add().remove = name
    return mutation


def _caller_from_certificate() -> HeaderMutation:
    """Name the caller as its certificate does, whatever the request says."""
    mutation = HeaderMutation()
    for name in _UNTRUSTED_HEADERS:
        mutation.mutations.add().remove = name
    mutation.mutations.add().append.CopyFrom(header(CALLER_HEADER, "%DOWNSTREAM_PEER_URI_SAN%"))
    return mutation


def _add_filter(
    manager: HttpConnectionManager, name: str, config: Message, *, disabled: bool = False
) -> None:
    manager.http_filters.add(name=name, disabled=disabled).typed_config.Pack(config)


def _listener(name: str, direction: int, address: Address) -> Listener:
    """A listener whose one filter chain is yet empty."""
    socket = SocketAddress(address=address.host, port_value=address.port)
    # A drain closes listeners by their direction: agents that stop still call others.
    listener = Listener(name=name, address=EnvoyAddress(socket_address=socket), traffic_direction=direction)
    listener.filter_chains.add()
    return listener


def _add_manager(listener: Listener, manager: HttpConnectionManager) -> None:
    listener.filter_chains[0].filters.add(name="http").typed_config.Pack(manager)
