"""Routes (RDS) of an inbound listener: to the agent, and nowhere else, for those who may call it.

What AccessPolicies say stands here and not in the listener, since a change of a listener ends its
connections, and lets them go on by old rules until then. Changed routes hold for the next call on each.
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from weft.controlplane.translate.access import Access, restrict
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.replies import DESTINATION_HEADER
from weft.model.decision import AccessTarget

INBOUND_ROUTES = "inbound"
"""The name of these routes, of which every sidecar with an agent has its own."""

AGENT_CLUSTER = "agent"
"""The sidecar's own agent; it stands in the sidecar's bootstrap, since only the sidecar knows it."""


def inbound_routes(agent: AccessTarget, access: Access) -> RouteConfiguration:
    """The routes to `agent`. The caller's Envoy times its calls."""
    action = RouteAction(cluster=AGENT_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    # The agent may have closed an idle connection just as a call was put on it: nothing was sent yet.
    action.retry_policy.retry_on = "reset-before-request"
    host = VirtualHost(name="agent", domains=["*"])
    host.routes.append(Route(name="agent", match=RouteMatch(prefix="/"), route=action))
    # What the caller's Envoy noted for itself is none of the agent's business.
    routes = RouteConfiguration(
        name=INBOUND_ROUTES,
        virtual_hosts=[host],
        request_headers_to_remove=[DESTINATION_HEADER, "x-envoy-external-address"],
    )
    restrict(routes, agent, access)
    return routes
