"""What all listeners for HTTP have in common: their limits, and the headers that nobody outside may set."""

from __future__ import annotations

from envoy.config.core.v3.address_pb2 import Address as EnvoyAddress
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.protocol_pb2 import HttpProtocolOptions
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import FilterConfig
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.message import Message

from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.replies import CALLER_HEADER
from weft.model.node import Address
from weft.model.telemetry_wire import RECORD_HEADER

MAX_REQUEST_HEADERS_KB = 60
"""Larger request headers are answered with 431."""

HEADERS_TIMEOUT = 10.0
"""Seconds a client may take to send its request headers: bounds what slow or idle ones can hold."""

MAX_REQUEST_HEADERS = 100
"""A request with more header fields is answered with 431."""

IDLE_TIMEOUT = 600.0
"""Seconds for which a client's connection is kept without a call."""

UNTRUSTED_HEADERS = (
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
    "x-client-trace-id",
    RECORD_HEADER,
)
"""Headers by which a caller could pose as another, or override its Envoy's timeouts, retries and tracing."""


def connection_manager(name: str) -> HttpConnectionManager:
    """A connection manager with the limits that all have; `name` is that of its statistics."""
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


def add_filter(manager: HttpConnectionManager, name: str, config: Message, *, disabled: bool = False) -> None:
    """Add an HTTP filter, behind those that are there."""
    manager.http_filters.add(name=name, disabled=disabled).typed_config.Pack(config)


def turned_on() -> FilterConfig:
    """For a route: a filter that is off elsewhere is on, as it was configured."""
    result = FilterConfig()
    result.config.SetInParent()
    return result


def new_listener(name: str, direction: int, address: Address) -> Listener:
    """A listener whose one filter chain is yet empty."""
    socket = SocketAddress(address=address.host, port_value=address.port)
    # A drain closes listeners by their direction: agents that stop still call others.
    listener = Listener(name=name, address=EnvoyAddress(socket_address=socket), traffic_direction=direction)
    listener.filter_chains.add()
    return listener


def add_manager(listener: Listener, manager: HttpConnectionManager) -> None:
    """Have the filter chain of `listener` end in `manager`."""
    listener.filter_chains[0].filters.add(name="http").typed_config.Pack(manager)
