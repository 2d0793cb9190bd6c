"""What a caller may reach outside the mesh: the virtual hosts behind all of the mesh's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from envoy.config.route.v3.route_components_pb2 import (
    FilterConfig,
    HeaderMatcher,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
)
from envoy.extensions.filters.http.dynamic_forward_proxy.v3.dynamic_forward_proxy_pb2 import (
    PerRouteConfig as DynamicForwardProxy,
)

from weft.controlplane.translate.answers import answer, any_call, any_tunnel, no_such_agent
from weft.controlplane.translate.clusters import FORWARD_CLUSTER
from weft.controlplane.translate.credentials import Credential, credentials_of
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.forward import FORWARD_FILTER
from weft.controlplane.translate.replies import DESTINATION_HEADER, POLICY_HEADER, header
from weft.controlplane.translate.telemetry import name_route
from weft.controlplane.translate.tracing import WANTED_HEADER
from weft.errors import Denied, Unavailable
from weft.model.call_budget import BUDGET_HEADER
from weft.model.egress import AllowedHost, EgressMode, EgressSpec
from weft.model.hops import HOPS_HEADER
from weft.model.llm_wire import DEADLINE_HEADER
from weft.model.resource import AnyResource

CONNECT = "CONNECT"
"""How clients open a tunnel through an HTTP proxy, which they do for https."""

OUTSIDE = "outside"
"""The destination that hosts have together which nothing names."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HTTP_PORT = 80

_NONE_OF_THEIR_BUSINESS = (
    "x-envoy-external-address",
    HOPS_HEADER,
    BUDGET_HEADER,
    DEADLINE_HEADER,
    WANTED_HEADER,
)
"""What Envoy notes for itself and for the mesh, and outside hosts are not told."""


@dataclass(frozen=True, slots=True)
class EgressRule:
    """An Egress that restricts a caller."""

    name: str
    allow: tuple[AllowedHost, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """What the outside of the mesh is to a caller: equal for all callers who are treated alike."""

    credentials: tuple[Credential, ...] = ()
    rule: EgressRule | None = None
    """None: every host may be reached."""


def egress_of(caller: str | None, egresses: Iterable[AnyResource]) -> EgressRule | None:
    """The rule in force for a type's agents: their own, else the mesh's default; None where all is open."""
    own = default = None
    for each in egresses:
        if not isinstance(each.spec, EgressSpec):
            continue
        if each.spec.for_types is None:
            default = each
        elif caller in each.spec.for_types:
            own = each
    egress = own or default
    if egress is None or egress.spec.mode is EgressMode.OPEN:
        return None
    return EgressRule(egress.metadata.name, egress.spec.allow)


def outside_of(caller: str | None, resources: Iterable[AnyResource]) -> Outside:
    """The outside as the agents of type `caller` have it; None stands for a sidecar without an agent."""
    resources = list(resources)
    return Outside(tuple(credentials_of(caller, resources)), egress_of(caller, resources))


def outside_hosts(outside: Outside) -> list[VirtualHost]:
    """The virtual hosts of everything that is not the mesh's own."""
    way_out = _way_out(outside)
    hosts = [_credential_host(each, way_out) for each in outside.credentials]
    return [*hosts, VirtualHost(name="forward", domains=["*"], routes=way_out)]


def _credential_host(credential: Credential, way_out: Iterable[Route]) -> VirtualHost:
    """An outside host to which calls get a header added; at other ports it is a host like any other."""
    injection = credential.injection
    host = VirtualHost(name=credential.cluster, domains=[injection.host])
    match = any_call(_matches(DESTINATION_HEADER, rf"{re.escape(injection.host)}(:{injection.port})?"))
    if credential.usable:
        action = RouteAction(
            cluster=credential.cluster, timeout=duration(0), host_rewrite_literal=_authority(credential)
        )
        # Nothing was sent yet: the host closed an idle connection just as the call was put on it.
        action.retry_policy.retry_on = "reset-before-request,connect-failure"
        # The host would take x-forwarded-proto for what itself is spoken to by, and send the agent to https.
        route = Route(
            name=credential.cluster,
            match=match,
            route=action,
            request_headers_to_remove=["x-forwarded-proto", "x-weft-to", *_NONE_OF_THEIR_BUSINESS],
        )
        host.routes.append(route)
    else:
        detail = (
            f"the value of Secret '{credential.secret}', which calls to {injection.host} need, cannot be "
            "opened; apply it anew"
        )
        host.routes.append(answer(credential.cluster, match, Unavailable, detail))
    name_route(host.routes[0], injection.host)
    host.routes.extend(way_out)
    return host


def _authority(credential: Credential) -> str:
    injection = credential.injection
    usual = 443 if injection.tls else _HTTP_PORT
    return injection.host if injection.port == usual else f"{injection.host}:{injection.port}"


def _way_out(outside: Outside) -> list[Route]:
    """Routes to hosts without a virtual host of their own, unless `x-weft-to` says the mesh was meant.

    What may pass is decided by the very header that says where it is sent.
    """
    addressed = HeaderMatcher(name="x-weft-to", present_match=True)
    routes = [no_such_agent(any_call(addressed)), no_such_agent(any_tunnel(addressed))]
    if outside.rule is None:
        return [*routes, _forward(any_call()), _tunnel(any_tunnel())]
    implied = [
        AllowedHost(host=each.injection.host, ports=(each.injection.port,)) for each in outside.credentials
    ]
    for each in (*outside.rule.allow, *implied):
        routes += [
            _forward(any_call(_matches(":authority", _authorities(each, implied=_HTTP_PORT))), each.host),
            _tunnel(any_tunnel(_matches(":authority", _authorities(each))), each.host),
        ]
    return [*routes, _denied(any_call(), outside.rule), _denied(any_tunnel(), outside.rule)]


def _forward(match: RouteMatch, whom: str = OUTSIDE) -> Route:
    action = RouteAction(cluster=FORWARD_CLUSTER, timeout=duration(0))
    return _forwarded("forward", match, action, whom)


def _tunnel(match: RouteMatch, whom: str = OUTSIDE) -> Route:
    action = RouteAction(cluster=FORWARD_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    action.upgrade_configs.add(upgrade_type=CONNECT).connect_config.SetInParent()
    return _forwarded("tunnel", match, action, whom)


def _forwarded(name: str, match: RouteMatch, action: RouteAction, whom: str) -> Route:
    route = Route(name=name, match=match, route=action, request_headers_to_remove=_NONE_OF_THEIR_BUSINESS)
    name_route(route, whom)
    turned_on = FilterConfig()
    turned_on.config.Pack(DynamicForwardProxy())
    route.typed_per_filter_config[FORWARD_FILTER].Pack(turned_on)
    return route


def _denied(match: RouteMatch, rule: EgressRule) -> Route:
    detail = (
        f"'%REQ(:AUTHORITY)%' is not among what Egress '{rule.name}' allows this agent to reach; "
        "whoever may change the Egress can add it there"
    )
    route = answer(f"egress/{rule.name}", match, Denied, detail)
    route.response_headers_to_add.append(header(POLICY_HEADER, f"egress/{rule.name}"))
    name_route(route, OUTSIDE)
    return route


def _authorities(allowed: AllowedHost, *, implied: int | None = None) -> str:
    """A regular expression for hosts with their ports; the one `implied` may be left out."""
    host = re.escape(allowed.host)
    if allowed.host.startswith("*."):
        host = rf"({_LABEL}\.)+{re.escape(allowed.host.removeprefix('*.'))}"
    ports = f":({'|'.join(str(each) for each in allowed.ports)})"
    return f"{host}({ports})?" if implied in allowed.ports else f"{host}{ports}"


def _matches(name: str, regex: str) -> HeaderMatcher:
    matcher = HeaderMatcher(name=name)
    matcher.string_match.safe_regex.regex = f"(?i){regex}"
    return matcher
