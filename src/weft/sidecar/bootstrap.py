"""What Envoy is started with: who it is, and where it gets everything else from. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.model import telemetry_wire
from weft.model.llm_wire import STREAMS
from weft.model.mcp_wire import SESSIONS_CLUSTER
from weft.model.node import Address, AgentProtocol, Inbound, Node
from weft.model.sds import IDENTITY, OWN_TRUST, SYSTEM_ROOTS, secret_path
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SCHEME, Role

XDS_CLUSTER = "xds"
"""The control plane."""

OUTBOUND_LISTENER = "outbound"
INBOUND_LISTENER = "inbound"
OUTSIDE_LISTENER = "outside"
MESH_CLUSTER = "mesh"
"""The sidecar's own outbound listener: for calls into the mesh that came to its Envoy another way, through a
gateway or in a tunnel."""
AGENT_CLUSTER = "agent"
"""The agent on loopback: the inbound listener sends calls to it, its requests in flight are the load."""

_SESSIONS_SOCKET = "mcp.sock"

_THRESHOLDS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
_UNLIMITED = 1_000_000

_SOCKET_MODE = 0o600
_TYPE = "type.googleapis.com/"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UPSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_CONNECT_TIMEOUT = "2s"

# Common servers close idle connections after 2 s (gunicorn) or 5 s (uvicorn, Node). A call that is put on a
# connection just as the server closes it is lost, so Envoy closes first; a new one on loopback costs little.
_AGENT_IDLE_TIMEOUT = "1.5s"

# Each worth a counter in every listener, cluster and connection: only those that somebody reads are kept.
_STATS = (
    {"prefix": f"cluster.{AGENT_CLUSTER}."},
    {"prefix": "cluster_manager."},
    {"prefix": "control_plane."},
    {"prefix": "listener_manager."},
    {"prefix": "server."},
    {
        "safe_regex": {
            "regex": r"http\.(inbound|outbound|outside)\.(downstream_rq|downstream_cx_(http2_)?active).*"
        }
    },
    {"prefix": f"{telemetry_wire.CALLS_SCOPE}."},
    {"prefix": f"{telemetry_wire.ALL_CALLS_SCOPE}."},
)


def bootstrap(
    node: Node,
    *,
    xds: Sequence[Address],
    admin_socket: Path,
    max_connections: int,
    trust_domain: str = DEFAULT_TRUST_DOMAIN,
    system_roots: Path | None = None,
    mcp_sessions: Path | None = None,
) -> dict[str, Any]:
    """Envoy's bootstrap configuration for `node`, JSON types only.

    The control plane finds `node` again in `node.metadata.fields["weft"]` (`Node.from_metadata`).
    `max_connections` is how many connections Envoy accepts at once, over all its listeners. Envoy takes the
    control plane for genuine if its SPIFFE ID is that of one in `trust_domain`. It must be started in the
    directory with the files of `weft.sidecar.sds`. `system_roots` is the file with the authorities by which
    hosts outside the mesh are believed; without it none is, where a Secret does not name its own.
    `mcp_sessions` is the socket at which the sidecar keeps sessions with an agent that is an MCP server.
    """
    clusters = [
        _xds_cluster(xds, trust_domain),
        _telemetry_cluster(xds, trust_domain),
        _mesh_cluster(node.outbound, max_connections),
    ]
    if node.inbound is not None:
        clusters.append(_agent_cluster(node.inbound, max_connections))
    if node.stream_guard:
        clusters.append(_streams_cluster(max_connections))
    if mcp_sessions is not None:
        clusters.append(_sessions_cluster(mcp_sessions, max_connections))
    return {
        "node": _node(node),
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": _SOCKET_MODE}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": _RECONNECT}}],
            },
            "cds_config": _FROM_ADS,
            "lds_config": _FROM_ADS,
        },
        "static_resources": {"clusters": clusters, "secrets": _secrets(system_roots)},
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": list(_STATS)}},
            "histogram_bucket_settings": [_BUCKETS],
        },
        # Histograms can be read only from the last flush on.
        "stats_flush_interval": "1s",
        # A cluster that is not used has no statistics.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": _overload_manager(max_connections),
        "layered_runtime": {"layers": [{"name": "weft", "static_layer": _RUNTIME}]},
        "bootstrap_extensions": [_internal_listeners()] if node.stream_guard else [],
    }


# The nth attempt of a call to a model is for its pool's nth provider, and has that one's key and model name:
# also where a provider before it has no address at the moment.
_RUNTIME: dict[str, Any] = {
    "envoy.reloadable_features.composite_cluster_skip_clusters_without_hosts": False,
    # Spans wait for each other so long, in milliseconds, or until there are so many: each batch is a call.
    "tracing.opentelemetry.flush_interval_ms": 1000,
    "tracing.opentelemetry.min_flush_spans": 256,
}

_BUCKETS: dict[str, Any] = {
    "match": {"prefix": f"{telemetry_wire.CALLS_SCOPE}."},
    "buckets": list(telemetry_wire.BUCKETS),
}


# Without a timeout Envoy is not ready before it has its configuration: with one it would claim to be ready
# while it knows nothing, if the control plane happens to be down.
_FROM_ADS: dict[str, Any] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}

_RECONNECT: dict[str, Any] = {"retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"}}


def _node(node: Node) -> dict[str, Any]:
    return {
        "id": node.key,
        "cluster": node.inbound.type if node.inbound else "caller",
        "locality": {"region": node.locality.region, "zone": node.locality.zone},
        "metadata": {"weft": node.metadata()},
    }


def _secrets(system_roots: Path | None) -> list[dict[str, Any]]:
    if system_roots is None:
        return []
    context = {"trusted_ca": {"filename": str(system_roots)}}
    return [{"name": SYSTEM_ROOTS, "validation_context": context}]


def _xds_cluster(addresses: Sequence[Address], trust_domain: str) -> dict[str, Any]:
    http2 = {
        # A control plane whose machine is gone sends no reset: ask, and go to another.
        "connection_keepalive": {"interval": "10s", "timeout": "5s"}
    }
    options = {
        "explicit_http_config": {"http2_protocol_options": http2},
        # One stream is all it carries, and a new one comes with the certificate that there is then.
        "common_http_protocol_options": {"max_requests_per_connection": 1},
    }
    return {
        **_cluster(XDS_CLUSTER, addresses, options),
        # While nobody schedules calls to models, all that wait ask here, and then another replica.
        "circuit_breakers": {"thresholds": [dict.fromkeys(_THRESHOLDS, _UNLIMITED)]},
        "transport_socket": _control_plane_tls(trust_domain),
    }


def _telemetry_cluster(addresses: Sequence[Address], trust_domain: str) -> dict[str, Any]:
    """The control plane, for spans and logs: a batch is a call, and not worth a connection of its own."""
    options: dict[str, Any] = {
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
        # A new one comes with the certificate that there is then.
        "common_http_protocol_options": {"max_connection_duration": "300s"},
    }
    return {
        **_cluster(telemetry_wire.CLUSTER, addresses, options),
        "transport_socket": _control_plane_tls(trust_domain),
    }


def _control_plane_tls(trust_domain: str) -> dict[str, Any]:
    control = {"san_type": "URI", "matcher": {"prefix": f"{SCHEME}{trust_domain}/{Role.CONTROL}/"}}
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [_secret(IDENTITY)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [control]},
            "validation_context_sds_secret_config": _secret(OWN_TRUST),
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        # A resumed session is not verified again: none is.
        "typed_config": {
            "@type": _TYPE + _UPSTREAM_TLS,
            "common_tls_context": context,
            "max_session_keys": 0,
        },
    }


def _secret(name: str) -> dict[str, Any]:
    source = {"path_config_source": {"path": secret_path(name)}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _agent_cluster(inbound: Inbound, max_requests: int) -> dict[str, Any]:
    version = "http2_protocol_options" if inbound.protocol is AgentProtocol.H2C else "http_protocol_options"
    options = {
        "explicit_http_config": {version: {}},
        "common_http_protocol_options": {"idle_timeout": _AGENT_IDLE_TIMEOUT},
    }
    # How much an agent takes is for itself to say, and for its callers' policy: no limit of Envoy's own.
    cluster = {**_cluster(AGENT_CLUSTER, [inbound.agent], options), **_limits(max_requests)}
    # For routes on which the agent is to be called by its own address.
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["hostname"] = str(inbound.agent)
    return cluster


def _mesh_cluster(outbound: Address, max_requests: int) -> dict[str, Any]:
    options: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}
    return {**_cluster(MESH_CLUSTER, [outbound], options), **_limits(max_requests)}


def _streams_cluster(max_requests: int) -> dict[str, Any]:
    """From the stream guard to the listener behind it, within Envoy."""
    options: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    address = {"envoy_internal_address": {"server_listener_name": STREAMS}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    assignment = {"cluster_name": STREAMS, "endpoints": endpoints}
    return {**_cluster(STREAMS, [], options), "load_assignment": assignment, **_limits(max_requests)}


def sessions_socket(runtime_directory: Path, inbound: Inbound | None) -> Path | None:
    """Where the sidecar of that runtime directory keeps sessions with its agent; None: that is no MCP server.

    A socket, since nobody else on the machine has to ask there. It is no longer than that of Envoy's admin.
    """
    if inbound is None or inbound.protocol not in {AgentProtocol.MCP, AgentProtocol.MCP_STDIO}:
        return None
    return runtime_directory / _SESSIONS_SOCKET


def _sessions_cluster(socket: Path, max_requests: int) -> dict[str, Any]:
    options: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}]
    assignment = {"cluster_name": SESSIONS_CLUSTER, "endpoints": endpoints}
    return {
        **_cluster(SESSIONS_CLUSTER, [], options),
        "load_assignment": assignment,
        **_limits(max_requests),
    }


def _internal_listeners() -> dict[str, Any]:
    config = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
    return {"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": _TYPE + config}}


def _limits(max_requests: int) -> dict[str, Any]:
    limits = ("max_connections", "max_pending_requests", "max_requests")
    return {"circuit_breakers": {"thresholds": [dict.fromkeys(limits, max_requests)]}}


def _cluster(name: str, addresses: Sequence[Address], http_options: dict[str, Any]) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": each.host, "port_value": each.port}}}}
        for each in addresses
    ]
    return {
        "name": name,
        "type": "STATIC" if all(_is_ip(each.host) for each in addresses) else "STRICT_DNS",
        "connect_timeout": _CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {"@type": _TYPE + _HTTP_OPTIONS, **http_options},
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _overload_manager(max_connections: int) -> dict[str, Any]:
    monitor = "envoy.resource_monitors.global_downstream_max_connections"
    config = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "resource_monitors": [
            {
                "name": monitor,
                "typed_config": {
                    "@type": _TYPE + config,
                    "max_active_downstream_connections": max_connections,
                },
            }
        ]
    }
