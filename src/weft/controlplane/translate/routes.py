"""Routes (RDS): which call goes where, how long it may take, and what may be repeated when it fails."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3.route_components_pb2 import (
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
)
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2 import (
    Config as HeaderToMetadata,
)
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import (
    PreviousPrioritiesConfig,
)
from envoy.type.v3.percent_pb2 import FractionalPercent

from weft.controlplane.translate.answers import any_call, no_such_agent
from weft.controlplane.translate.call_tree import note_timeout, tree_routes
from weft.controlplane.translate.card_routes import card_routes
from weft.controlplane.translate.clusters import CONTROL_CLUSTER
from weft.controlplane.translate.destination import Destination, DestinationKind, by_context, of_type
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.egress import Outside, outside_hosts
from weft.controlplane.translate.endpoints import INSTANCE_KEY
from weft.controlplane.translate.external_routes import suit_external
from weft.controlplane.translate.llm_pools import NO_MODELS, Models
from weft.controlplane.translate.llm_routes import MAX_LISTED_BYTES, llm_host
from weft.controlplane.translate.mesh_tunnel import take_tunnels
from weft.controlplane.translate.outbound_access import NO_EXTERNAL_CALLS, ExternalCalls
from weft.controlplane.translate.replies import (
    DESTINATION_HEADER,
    REFUSED_HEADER,
    header,
)
from weft.controlplane.translate.telemetry import (
    NO_TELEMETRY,
    Telemetries,
    log_calls,
    name_host,
    sample,
    sample_others,
    turn_on_log,
)
from weft.controlplane.translate.tool_routes import tools_host
from weft.controlplane.translate.tracing import never_traced
from weft.model.hops import MAX_HOPS
from weft.model.mcp_catalogue import NO_TOOLS, McpCatalogue
from weft.model.mcp_wire import TOOLS_HOST
from weft.model.names import LOCALHOST_DOMAIN, MESH_DOMAIN
from weft.model.route import Fault, HeaderChanges, HeaderMatch, PathMatch, RequestMatch, RouteRule, RouteSpec
from weft.model.traffic import BalancingPolicy, Retries, TrafficPolicySpec

ROUTE_CONFIGURATION = "outbound"
"""Name of the one RouteConfiguration that all sidecars share."""

FAULT_FILTER = "envoy.filters.http.fault"
INSTANCE_FILTER = "envoy.filters.http.header_to_metadata"
"""Filters of the outbound listener that are off, but where a route has a configuration for them."""

CONTEXT_HEADER = "x-weft-context"
"""Which conversation a call belongs to."""

_NOT_PROCESSED = "connect-failure,refused-stream,reset-before-request,retriable-headers"
"""What makes a retry safe for any call: it never reached an agent, or the agent said so itself."""

_MAYBE_PROCESSED = f"{_NOT_PROCESSED},gateway-error,reset"
"""What is retried besides where an Idempotency-Key makes repeating harmless."""

_HOST_SELECTION_ATTEMPTS = 5
"""How often a retry draws again when it draws an instance that was tried already."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """One of the ways in which the same rule treats a call."""

    streaming: bool
    idempotent: bool
    by_context: bool = False
    """Only where the policy says that conversations prefer one instance."""

    def headers(self) -> list[HeaderMatcher]:
        matchers = []
        if self.streaming:
            accept = HeaderMatcher(name="accept")
            accept.string_match.contains = "text/event-stream"
            matchers.append(accept)
        if self.idempotent:
            matchers.append(HeaderMatcher(name="idempotency-key", present_match=True))
        if self.by_context:
            matchers.append(HeaderMatcher(name=CONTEXT_HEADER, present_match=True))
        return matchers


_VARIANTS = tuple(
    _Variant(streaming, idempotent) for streaming in (True, False) for idempotent in (True, False)
)
"""The most specific first, since the first route that matches is taken."""

_CONTEXT_VARIANTS = tuple(replace(each, by_context=True) for each in _VARIANTS)


def route_configuration(
    policies: Mapping[Destination, TrafficPolicySpec],
    routes: Mapping[Destination, RouteSpec],
    outside: Outside = Outside(),  # noqa: B008 - frozen
    models: Models = NO_MODELS,
    cards: Collection[Destination] = (),
    tools: McpCatalogue = NO_TOOLS,
    telemetry: Telemetries = NO_TELEMETRY,
    external: ExternalCalls = NO_EXTERNAL_CALLS,
    *,
    max_hops: int = MAX_HOPS,
) -> RouteConfiguration:
    """All virtual hosts: `policies` names every destination that exists, with the policy in force for it.

    `outside` is what the caller may reach that is not the mesh's own, `models` which models it has. For A2A
    cards of those in `cards` the control plane is asked; all others are asked for theirs themselves.
    `tools` is what servers of MCP have, `telemetry` what is to be told of calls, `external` which agents have
    no sidecar, and what the caller may ask of them. A call tree may pass `max_hops` agents.
    """
    configuration = RouteConfiguration(
        name=ROUTE_CONFIGURATION, vhost_header=DESTINATION_HEADER, ignore_port_in_host_matching=True
    )
    configuration.validate_clusters.value = False
    addressable = [each for each in policies if each.version is None and not each.by_context]
    for destination in sorted(addressable, key=lambda each: each.cluster):
        policy = policies[destination]
        rules = routes[destination].rules if destination in routes else ()
        card = destination in cards
        hosts = [_destination_host(destination, policy, rules, card=card, telemetry=telemetry)]
        suit_external(hosts[0], destination, rules, external)
        if destination.kind is DestinationKind.TYPE and not external.lead_from([destination]):
            hosts.append(_instance_host(destination, policy, card=card, telemetry=telemetry))
        for host in hosts:
            _limit_trees(host, max_hops)
            name_host(host, destination.name)
            log_calls(host, telemetry.of(destination).access_log)
        configuration.virtual_hosts.extend(hosts)
    configuration.max_direct_response_body_size_bytes.value = MAX_LISTED_BYTES
    tool_calls = tools_host(tools, control=CONTROL_CLUSTER, fault_filter=FAULT_FILTER)
    name_host(tool_calls, TOOLS_HOST)
    configuration.virtual_hosts.append(_control_host(max_hops))
    others = [llm_host(models), tool_calls, _unknown_host()]
    for each in others:
        log_calls(each, telemetry.default.access_log)
    if telemetry.any_log:
        # Which filters a call passes is settled before the script names its destination.
        turn_on_log(tool_calls)
    configuration.virtual_hosts.extend(others)
    take_tunnels(configuration.virtual_hosts)
    for each in outside_hosts(outside):
        log_calls(each, telemetry.default.access_log)
        configuration.virtual_hosts.append(each)
    sample_others(configuration.virtual_hosts, telemetry.default.tracing.sampling_percent)
    return configuration


def _destination_host(
    destination: Destination,
    policy: TrafficPolicySpec,
    rules: Iterable[RouteRule],
    *,
    card: bool,
    telemetry: Telemetries,
) -> VirtualHost:
    # Agents see in `x-envoy-attempt-count` whether a call was tried elsewhere before.
    host = VirtualHost(
        name=destination.cluster, domains=destination.domains, include_request_attempt_count=True
    )
    if card:
        host.routes.extend(card_routes(host.name))
    variants = (*_CONTEXT_VARIANTS, *_VARIANTS) if policy.load_balancing.context_affinity else _VARIANTS
    for rule in (*rules, RouteRule()):
        for match in rule.match or (RequestMatch(),):
            for route in _rule_routes(destination, policy, rule, match, variants):
                sample(route, rule, telemetry.sampling(destination))
                host.routes.append(route)
    return host


def _instance_host(
    destination: Destination, policy: TrafficPolicySpec, *, card: bool, telemetry: Telemetries
) -> VirtualHost:
    """`<instance>.<type>.mesh`: the instance becomes the metadata by which the balancer finds it."""
    host = VirtualHost(name=f"instance/{destination.name}", domains=destination.instance_domains)
    config = HeaderToMetadata()
    rule = config.request_rules.add(header=DESTINATION_HEADER)
    rule.on_header_present.metadata_namespace = "envoy.lb"
    rule.on_header_present.key = INSTANCE_KEY
    # What has more labels than an instance's host is no instance's: it stays whole, and matches none.
    rule.on_header_present.regex_value_rewrite.pattern.regex = rf"^([^.]+)\.{destination.name}\..*$"
    rule.on_header_present.regex_value_rewrite.substitution = r"\1"
    host.typed_per_filter_config[INSTANCE_FILTER].Pack(config)
    if card:
        host.routes.extend(card_routes(host.name))
    for route in _rule_routes(destination, policy, RouteRule(), RequestMatch(), _VARIANTS):
        sample(route, RouteRule(), telemetry.sampling(destination))
        host.routes.append(route)
    return host


def _limit_trees(host: VirtualHost, max_hops: int) -> None:
    """Put before all routes of `host` those for calls that bring limits of their tree."""
    faults = any(FAULT_FILTER in each.typed_per_filter_config for each in host.routes)
    routes = [*tree_routes(max_hops, beside=FAULT_FILTER if faults else ""), *host.routes]
    del host.routes[:]
    host.routes.extend(routes)


def _control_host(max_hops: int) -> VirtualHost:
    domains = [f"control.{MESH_DOMAIN}", f"control.{LOCALHOST_DOMAIN}", "control"]
    host = VirtualHost(name="control", domains=domains)
    action = RouteAction(cluster=CONTROL_CLUSTER, timeout=duration(0))
    host.routes.append(Route(name="control", match=RouteMatch(prefix="/"), route=action))
    _limit_trees(host, max_hops)
    name_host(host, "control")
    for route in host.routes:
        # Spans themselves come by it.
        never_traced(route)
    return host


def _unknown_host() -> VirtualHost:
    domains = [f"*.{MESH_DOMAIN}", f"*.{LOCALHOST_DOMAIN}"]
    host = VirtualHost(name="unknown", domains=domains)
    host.routes.append(no_such_agent(any_call()))
    name_host(host, "unknown")
    return host


def _rule_routes(
    destination: Destination,
    policy: TrafficPolicySpec,
    rule: RouteRule,
    match: RequestMatch,
    variants: Iterable[_Variant],
) -> Iterable[Route]:
    for variant in variants:
        route = Route(name=rule.name or "default", match=_match(match, variant))
        route.route.CopyFrom(_action(destination, policy, rule, variant))
        note_timeout(route)
        _change_headers(route, rule)
        if rule.fault is not None:
            route.typed_per_filter_config[FAULT_FILTER].Pack(_fault(rule.fault))
        yield route


def _action(
    destination: Destination, policy: TrafficPolicySpec, rule: RouteRule, variant: _Variant
) -> RouteAction:
    timeout = rule.timeout if rule.timeout is not None else policy.timeout
    idle_timeout = rule.idle_timeout if rule.idle_timeout is not None else policy.idle_timeout
    retries = rule.retries if rule.retries is not None else policy.retries
    action = RouteAction(
        timeout=duration(0 if variant.streaming else timeout),
        idle_timeout=duration(idle_timeout if variant.streaming else 0),
        retry_policy=_retry_policy(retries, variant),
    )
    _set_clusters(action, by_context(destination) if variant.by_context else destination, rule)
    if rule.mirror is not None:
        mirror = action.request_mirror_policies.add(
            cluster=of_type(rule.mirror.type or destination.name, rule.mirror.version).cluster
        )
        mirror.runtime_fraction.default_value.CopyFrom(_percent(rule.mirror.percent))
    if variant.by_context:
        action.hash_policy.add().header.header_name = CONTEXT_HEADER
    elif policy.load_balancing.policy is BalancingPolicy.CONSISTENT_HASH:
        action.hash_policy.add().header.header_name = policy.load_balancing.hash_on.header
    return action


def _set_clusters(action: RouteAction, destination: Destination, rule: RouteRule) -> None:
    if not rule.split:
        action.cluster = destination.cluster
        return
    if destination.by_context:
        # A conversation stays with the part that it began with, too.
        action.weighted_clusters.use_hash_policy.value = True
    for target in rule.split:
        part = of_type(target.type or destination.name, target.version)
        if part == replace(destination, version=part.version, by_context=False) and destination.by_context:
            part = by_context(part)
        weighted = action.weighted_clusters.clusters.add(name=part.cluster)
        weighted.weight.value = target.weight


def _retry_policy(retries: Retries, variant: _Variant) -> RetryPolicy:
    policy = RetryPolicy(
        retry_on=_MAYBE_PROCESSED if variant.idempotent else _NOT_PROCESSED,
        retriable_headers=[HeaderMatcher(name=REFUSED_HEADER, present_match=True)],
        host_selection_retry_max_attempts=_HOST_SELECTION_ATTEMPTS,
    )
    policy.num_retries.value = retries.attempts
    if variant.idempotent and not variant.streaming and retries.per_try_timeout:
        policy.per_try_timeout.CopyFrom(duration(retries.per_try_timeout))
    predicate = policy.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
    predicate.typed_config.Pack(PreviousHostsPredicate())
    # The other instances of a dead one's zone may have died with it: the next try is for the next nearest.
    policy.retry_priority.name = "envoy.retry_priorities.previous_priorities"
    policy.retry_priority.typed_config.Pack(PreviousPrioritiesConfig(update_frequency=1))
    return policy


def _match(match: RequestMatch, variant: _Variant) -> RouteMatch:
    result = _path(match.path)
    if match.method:
        method = result.headers.add(name=":method")
        method.string_match.exact = match.method
    result.headers.extend(_header(each) for each in match.headers)
    result.headers.extend(variant.headers())
    return result


def _path(path: PathMatch | None) -> RouteMatch:
    if path is None:
        return RouteMatch(prefix="/")
    if path.exact is not None:
        return RouteMatch(path=path.exact)
    if path.regex is not None:
        result = RouteMatch()
        result.safe_regex.regex = path.regex
        return result
    return RouteMatch(prefix=path.prefix or "/")


def _header(match: HeaderMatch) -> HeaderMatcher:
    matcher = HeaderMatcher(name=match.name)
    if match.exact is not None:
        matcher.string_match.exact = match.exact
    elif match.prefix is not None:
        matcher.string_match.prefix = match.prefix
    elif match.regex is not None:
        matcher.string_match.safe_regex.regex = match.regex
    else:
        matcher.present_match = match.present is not False
    return matcher


def _change_headers(route: Route, rule: RouteRule) -> None:
    if rule.request_headers is not None:
        route.request_headers_to_add.extend(_additions(rule.request_headers))
        route.request_headers_to_remove.extend(rule.request_headers.remove)
    if rule.response_headers is not None:
        route.response_headers_to_add.extend(_additions(rule.response_headers))
        route.response_headers_to_remove.extend(rule.response_headers.remove)


def _additions(changes: HeaderChanges) -> Iterable[HeaderValueOption]:
    for name, value in sorted(changes.set.items()):
        yield header(name, _literal(value))
    for name, value in sorted(changes.add.items()):
        option = header(name, _literal(value))
        option.append_action = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
        yield option


def _literal(value: str) -> str:
    """Envoy reads `%...%` in a header's value as a command; a declared value is meant as it stands."""
    return value.replace("%", "%%")


def _fault(fault: Fault) -> HTTPFault:
    result = HTTPFault()
    if fault.delay is not None:
        result.delay.fixed_delay.CopyFrom(duration(fault.delay.duration))
        result.delay.percentage.CopyFrom(_percent(fault.delay.percent))
    if fault.abort is not None:
        result.abort.http_status = fault.abort.status
        result.abort.percentage.CopyFrom(_percent(fault.abort.percent))
    return result


def _percent(percent: float) -> FractionalPercent:
    return FractionalPercent(numerator=round(percent * 10_000), denominator=FractionalPercent.MILLION)
