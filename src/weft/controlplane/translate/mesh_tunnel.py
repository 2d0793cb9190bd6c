"""Tunnels to names of the mesh: for clients that open one even for `http://`, as Node's fetch does.

What comes through the tunnel is taken like any other request: it ends at the sidecar's own outbound listener.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.route.v3.route_components_pb2 import (
    FilterConfig,
    HeaderMatcher,
    Route,
    RouteAction,
    VirtualHost,
)

from weft.controlplane.translate.answers import any_tunnel
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.egress import CONNECT
from weft.controlplane.translate.tracing import never_traced

MESH_CLUSTER = "mesh"
"""The sidecar's own outbound listener; it stands in the sidecar's bootstrap."""

_HTTP = ":80"


def take_tunnels(hosts: Iterable[VirtualHost]) -> None:
    """Have the virtual hosts of the mesh take tunnels to their port for HTTP."""
    for host in hosts:
        host.routes.append(_tunnel(host.typed_per_filter_config))


def _tunnel(filters: Iterable[str]) -> Route:
    """Without `filters`, which the host turns on: some wait for a request's end, and a tunnel has none."""
    port = HeaderMatcher(name=":authority")
    port.string_match.suffix = _HTTP
    action = RouteAction(cluster=MESH_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    action.upgrade_configs.add(upgrade_type=CONNECT).connect_config.SetInParent()
    # What comes through it has spans of its own.
    route = never_traced(Route(name="tunnel", match=any_tunnel(port), route=action))
    for name in filters:
        route.typed_per_filter_config[name].Pack(FilterConfig(disabled=True))
    return route
