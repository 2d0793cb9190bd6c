"""Listeners (LDS): where a sidecar's Envoy takes calls from its agent, and for its agent."""

from __future__ import annotations

from dataclasses import replace

from envoy.config.core.v3.base_pb2 import TrafficDirection
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.dynamic_forward_proxy.v3.dynamic_forward_proxy_pb2 import (
    FilterConfig as DynamicForwardProxy,
)
from envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2 import (
    Config as HeaderToMetadata,
)
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from weft.controlplane.translate import llm_logs, trace_logs
from weft.controlplane.translate.access import add_access_filters
from weft.controlplane.translate.access_log import access_log
from weft.controlplane.translate.call_stats import call_stats
from weft.controlplane.translate.call_tree import add_hop, add_tree_filter, too_late
from weft.controlplane.translate.denial_log import call_log, connection_log, egress_log, outbound_log
from weft.controlplane.translate.denied import denied_replies, outbound_denied_replies
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.egress import CONNECT
from weft.controlplane.translate.forward import FORWARD_FILTER, dns_cache
from weft.controlplane.translate.http_listener import (
    UNTRUSTED_HEADERS,
    add_filter,
    add_manager,
    connection_manager,
    new_listener,
)
from weft.controlplane.translate.inbound_routes import INBOUND_ROUTES
from weft.controlplane.translate.llm_asking import ATTEMPT_HEADER
from weft.controlplane.translate.llm_errors import llm_replies
from weft.controlplane.translate.llm_filters import add_llm_filters
from weft.controlplane.translate.llm_streams import streams_listener, streams_manager
from weft.controlplane.translate.outbound_access import OUTBOUND_ACCESS_FILTER
from weft.controlplane.translate.outside_listener import outside_listener
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
from weft.controlplane.translate.telemetry import LOG_FILTER
from weft.controlplane.translate.tls import secure_chain
from weft.controlplane.translate.tool_errors import session_reply, tool_replies
from weft.controlplane.translate.tool_filters import add_inbound_tool_filters, add_outbound_tool_filters
from weft.controlplane.translate.tracing import UNKNOWN, Reporter, follow, trace_inbound, trace_outbound
from weft.model.gateway import GatewaySpec
from weft.model.hops import MAX_HOPS
from weft.model.llm_wire import HEADER_PREFIX, LLM_HOST
from weft.model.mcp_wire import MESH_HEADERS
from weft.model.node import Address, Inbound, Node

OUTBOUND_LISTENER = "outbound"
INBOUND_LISTENER = "inbound"

CONNECTION_LIFETIME = 1800.0
"""Seconds after which a caller must connect anew, calls in flight aside: with the identity it has then.

Half the life of an SVID, by default: for no longer can one that has ended still be of use.
"""


def listeners(
    node: Node,
    *,
    connection_lifetime: float = CONNECTION_LIFETIME,
    gateway: GatewaySpec | None = None,
    max_hops: int = MAX_HOPS,
    gateway_sampling: float | None = None,
) -> list[Listener]:
    """The listeners of `node`: outbound, inbound if it has an agent, and outside if that is a `gateway`.

    `connection_lifetime`: seconds after which callers must connect anew. `max_hops`: agents that a call tree
    may pass. `gateway_sampling`: percent of the gateway's calls that begin a trace; None: as `node` says.
    """
    own = node.inbound.type if node.inbound is not None else None
    reporter = Reporter.of(node)
    result = [
        outbound_listener(node.outbound, own, guarded=node.stream_guard, max_hops=max_hops, reporter=reporter)
    ]
    if node.stream_guard:
        behind_guard = streams_manager()
        _take_routes(behind_guard, ROUTE_CONFIGURATION)
        result.append(streams_listener(behind_guard))
    if node.inbound is not None:
        result.append(
            inbound_listener(node.inbound, connection_lifetime=connection_lifetime, reporter=reporter)
        )
    if node.outside is not None and gateway is not None:
        if gateway_sampling is not None:
            reporter = replace(reporter, sampling=gateway_sampling)
        result.append(outside_listener(node.outside, gateway, reporter))
    return result


def outbound_listener(
    address: Address,
    own: str | None = None,
    *,
    guarded: bool = False,
    max_hops: int = MAX_HOPS,
    reporter: Reporter = UNKNOWN,
) -> Listener:
    """The HTTP proxy through which an agent of type `own`, or who has none, reaches the mesh.

    Its routes come by RDS. `guarded`: its Envoy can load the stream guard, and has the listener behind it.
    `max_hops`: agents that a call tree may pass. `reporter`: who tells of the calls.
    """
    manager = connection_manager(OUTBOUND_LISTENER)
    _take_routes(manager, ROUTE_CONFIGURATION)
    manager.local_reply_config.mappers.extend(
        [*llm_replies(), *tool_replies(), too_late(), *outbound_denied_replies(), *outbound_replies().mappers]
    )
    mutation = manager.early_header_mutation_extensions.add(name="destination")
    mutation.typed_config.Pack(_destination_from_request(address, own))
    manager.upgrade_configs.add(upgrade_type=CONNECT)
    add_llm_filters(manager, guarded=guarded)
    add_outbound_tool_filters(manager)
    add_filter(manager, LOG_FILTER, HeaderToMetadata(), disabled=True)
    # Behind that for tools: it goes by what a call is for.
    add_tree_filter(manager, max_hops)
    # What few routes need costs all calls something, so it is off but where a route turns it on.
    add_filter(manager, OUTBOUND_ACCESS_FILTER, RBAC(), disabled=True)
    add_filter(manager, FAULT_FILTER, HTTPFault(), disabled=True)
    add_filter(manager, INSTANCE_FILTER, HeaderToMetadata(), disabled=True)
    add_filter(manager, FORWARD_FILTER, DynamicForwardProxy(dns_cache_config=dns_cache()), disabled=True)
    attempts = [llm_logs.attempt_log(), trace_logs.attempt_log()]
    router = Router(suppress_envoy_headers=True, upstream_log=attempts)
    add_filter(manager, "envoy.filters.http.router", router)
    manager.access_log.extend(
        [
            *egress_log(),
            *outbound_log(),
            llm_logs.call_log(),
            *call_stats(),
            trace_logs.error_log(),
            *access_log(),
        ]
    )
    trace_outbound(manager, reporter)
    still_runs = manager.access_log_options.access_log_flush_interval
    still_runs.CopyFrom(duration(llm_logs.STILL_RUNS_INTERVAL))
    listener = new_listener(OUTBOUND_LISTENER, TrafficDirection.OUTBOUND, address)
    add_manager(listener, manager)
    return listener


def inbound_listener(
    inbound: Inbound, *, connection_lifetime: float = CONNECTION_LIFETIME, reporter: Reporter = UNKNOWN
) -> Listener:
    """Where other sidecars send the agent's calls; its routes come by RDS, with what AccessPolicies say.

    `connection_lifetime`: seconds after which callers must connect anew. `reporter`: who tells of the calls.
    """
    manager = connection_manager(INBOUND_LISTENER)
    _take_routes(manager, INBOUND_ROUTES)
    manager.local_reply_config.CopyFrom(inbound_replies())
    manager.local_reply_config.mappers.extend([session_reply(), *denied_replies(inbound.type)])
    lifetime = manager.common_http_protocol_options.max_connection_duration
    lifetime.CopyFrom(duration(connection_lifetime))
    mutation = manager.early_header_mutation_extensions.add(name="caller")
    mutation.typed_config.Pack(_caller_from_certificate())
    add_access_filters(manager)
    add_inbound_tool_filters(manager)
    add_filter(manager, "envoy.filters.http.router", Router(suppress_envoy_headers=True))
    listener = new_listener(INBOUND_LISTENER, TrafficDirection.INBOUND, inbound.listen)
    secure_chain(listener.filter_chains[0])
    listener.access_log.extend(connection_log())
    manager.access_log.extend(call_log())
    trace_inbound(manager, reporter)
    add_manager(listener, manager)
    return listener


def _take_routes(manager: HttpConnectionManager, name: str) -> None:
    manager.rds.route_config_name = name
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = ApiVersion.V3


def _destination_from_request(listening: Address, own: str | None) -> HeaderMutation:
    """Name the destination, from `x-weft-to` or else the host, in the header that picks the virtual host.

    The listener's own address, below `/v1/`, is that of models: for clients that take a base URL.
    """
    mutation = HeaderMutation()
    destination = mutation.mutations.add()
    destination.append.CopyFrom(header(DESTINATION_HEADER, "%REQ(x-weft-to?:authority)%"))
    models = header(DESTINATION_HEADER, f"%CEL({_own_models(listening)} ? '{LLM_HOST}' : '')%")
    mutation.mutations.add().append.CopyFrom(models)
    for name in (*UNTRUSTED_HEADERS, ATTEMPT_HEADER, *MESH_HEADERS):
        mutation.mutations.add().remove = name
    # What tells Envoy and the scheduler of a call to a model nobody says but the script that reads it.
    mutation.mutations.add().remove_on_match.key_matcher.prefix = HEADER_PREFIX
    follow(mutation)
    if own is not None:
        add_hop(mutation, own)
    return mutation


def _own_models(listening: Address) -> str:
    """Of which calls it is true that they are for models at the listener's own address; as CEL."""
    own = " || ".join(f"request.host == '{each}'" for each in (listening, f"localhost:{listening.port}"))
    return f"({own}) && request.path.startsWith('/v1/') && !('x-weft-to' in request.headers)"


def _caller_from_certificate() -> HeaderMutation:
    """Name the caller as its certificate does, whatever the request says."""
    mutation = HeaderMutation()
    for name in UNTRUSTED_HEADERS:
        mutation.mutations.add().remove = name
    mutation.mutations.add().append.CopyFrom(header(CALLER_HEADER, "%DOWNSTREAM_PEER_URI_SAN%"))
    return mutation
