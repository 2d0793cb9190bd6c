"""What a single resource says that cannot all hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from weft.errors import InvalidRequest
from weft.model.access import AccessPolicySpec, AccessRule, Action, Effect
from weft.model.agent_spec import AgentSpec
from weft.model.budget import BudgetSpec
from weft.model.decision import RESERVED_POLICY_NAMES
from weft.model.egress import EgressMode, EgressSpec
from weft.model.external_agent import ExternalAgentSpec, ExternalTls
from weft.model.gateway import GatewaySpec
from weft.model.llm_contradictions import of_budget, of_pool
from weft.model.message_broker import BrokerSpec
from weft.model.messaging_contradictions import of_broker, of_channel, of_gateway
from weft.model.model_pool import ModelPoolSpec
from weft.model.names import check_type
from weft.model.outside_host import is_ip
from weft.model.queue import QueueSpec
from weft.model.resource import AnyResource
from weft.model.route import Mirror, RouteRule, RouteSpec, SplitTarget
from weft.model.secret import SecretSpec
from weft.model.spec import Spec
from weft.model.target import Target
from weft.model.telemetry import TelemetrySpec
from weft.model.tool import ToolSpec
from weft.model.tool_contradictions import of_tool
from weft.model.topic import TopicSpec
from weft.model.traffic import BalancingPolicy, TrafficPolicySpec
from weft.model.yaml_tree import Path

Contradiction = tuple[Path, str]
"""Where it is, and what is wrong."""

_WITHOUT_SLOW_START = frozenset({BalancingPolicy.RANDOM, BalancingPolicy.CONSISTENT_HASH})


def contradictions(resource: AnyResource) -> Iterator[Contradiction]:
    """Everything in `resource` that does not go together."""
    found = _CHECKS.get(type(resource.spec))
    return iter(()) if found is None else found(resource)


def _of_agent(name: str, spec: AgentSpec) -> Iterator[Contradiction]:
    try:
        check_type(name)
    except InvalidRequest as error:
        yield ("metadata", "name"), error.detail
    if spec.port is not None and spec.run is not None and spec.run.replicas > 1:
        yield (
            ("spec", "port"),
            f"{spec.run.replicas} replicas on one machine cannot share a port: omit it, and listen at $PORT",
        )
    if spec.run is not None and not spec.run.command[0]:
        yield ("spec", "run", "command", 0), "the program's name is empty"


def _of_external(name: str, spec: ExternalAgentSpec) -> Iterator[Contradiction]:
    try:
        check_type(name)
    except InvalidRequest as error:
        yield ("metadata", "name"), error.detail
    if spec.tls is ExternalTls.SERVER:
        for index, address in enumerate(spec.addresses):
            if is_ip(address.host):
                yield ("spec", "endpoints", index), "goes by its name with tls: certificates are of names"


def _of_policy(spec: TrafficPolicySpec) -> Iterator[Contradiction]:
    balancing = spec.load_balancing
    hashes = balancing.policy is BalancingPolicy.CONSISTENT_HASH
    if "hash_on" in balancing.model_fields_set and not hashes:
        message = f"goes with policy consistentHash only, not with {balancing.policy.value}"
        yield ("spec", "loadBalancing", "hashOn"), message
    if balancing.slow_start and balancing.policy in _WITHOUT_SLOW_START:
        yield ("spec", "loadBalancing", "slowStart"), f"does not go with policy {balancing.policy.value}"


def _of_telemetry(spec: TelemetrySpec) -> Iterator[Contradiction]:
    if spec.target is None or "recording" not in spec.model_fields_set:
        return
    if spec.target.capability is not None:
        message = "goes with a type: an agent does not know by which of its capabilities it was called"
        yield ("spec", "recording"), message


def _of_secret(spec: SecretSpec) -> Iterator[Contradiction]:
    for index, injection in enumerate(spec.inject):
        if injection.key not in spec.data:
            yield ("spec", "inject", index, "key"), "names no value of data"
        if injection.ca is not None and not injection.tls:
            yield ("spec", "inject", index, "ca"), "goes with tls only"


def _of_egress(spec: EgressSpec) -> Iterator[Contradiction]:
    if spec.allow and spec.mode is not EgressMode.LIST:
        yield ("spec", "allow"), f"goes with mode {EgressMode.LIST} only"


def _of_access(name: str, spec: AccessPolicySpec) -> Iterator[Contradiction]:
    if name in RESERVED_POLICY_NAMES:
        yield ("metadata", "name"), f"{name!r} is what reports say where no policy decided: choose another"
    possible = frozenset[Action]().union(*(each.actions for each in spec.destinations)) or frozenset(Action)
    for index, rule in enumerate(spec.rules):
        for field, message in _of_access_rule(rule, spec.effect, possible):
            yield ("spec", "rules", index, field), message


def _of_access_rule(
    rule: AccessRule, effect: Effect | None, possible: frozenset[Action]
) -> Iterator[tuple[str, str]]:
    wanted = frozenset(rule.actions) or frozenset(Action)
    if not wanted & possible:
        yield "actions", f"cannot be done to what `to` names: {', '.join(sorted(possible))} can"
    elif rule.is_of_http and Action.CALL not in wanted & possible:
        field = next(each for each in ("methods", "paths", "mcp", "a2a") if getattr(rule, each))
        yield field, "only calls of agents have that: this rule would never match"
    if rule.reads_bodies and not rule.paths and effect is Effect.ALLOW:
        field = "mcp" if rule.mcp else "a2a"
        message = "goes with paths where it allows: elsewhere the agent may not read the body at all"
        yield field, message


def _of_route(spec: RouteSpec) -> Iterator[Contradiction]:
    for index, rule in enumerate(spec.rules):
        for path, message in (*_of_split(rule, spec.destination), *_of_mirror(rule, spec.destination)):
            yield ("spec", "rules", index, *path), message


def _of_split(rule: RouteRule, destination: Target) -> Iterator[Contradiction]:
    if rule.split and not any(part.weight for part in rule.split):
        yield ("split",), "gives nobody a share: at least one weight must be above 0"
    seen = set()
    for index, part in enumerate(rule.split or ()):
        place = (_type_of(part, destination), part.version)
        if place[0] is None:
            yield ("split", index), _which_type(destination)
        elif place in seen:
            yield ("split", index), "is there already: add up their weights"
        seen.add(place)


def _of_mirror(rule: RouteRule, destination: Target) -> Iterator[Contradiction]:
    mirror = rule.mirror
    if mirror is None:
        return
    if _type_of(mirror, destination) is None:
        yield ("mirror",), _which_type(destination)
    elif mirror.version is None and _type_of(mirror, destination) == destination.type:
        yield ("mirror",), f"leads {destination} to itself: every call would be made twice"


def _type_of(part: SplitTarget | Mirror, destination: Target) -> str | None:
    return part.type or destination.type


def _which_type(destination: Target) -> str:
    return f"must name a type, since the destination, {destination}, is offered by any number of them"


_CHECKS: Mapping[type[Spec], Callable[[AnyResource], Iterator[Contradiction]]] = {
    AgentSpec: lambda resource: _of_agent(resource.metadata.name, resource.spec),
    RouteSpec: lambda resource: _of_route(resource.spec),
    TrafficPolicySpec: lambda resource: _of_policy(resource.spec),
    AccessPolicySpec: lambda resource: _of_access(resource.metadata.name, resource.spec),
    SecretSpec: lambda resource: _of_secret(resource.spec),
    EgressSpec: lambda resource: _of_egress(resource.spec),
    TopicSpec: of_channel,
    QueueSpec: of_channel,
    BrokerSpec: of_broker,
    GatewaySpec: of_gateway,
    ModelPoolSpec: of_pool,
    BudgetSpec: of_budget,
    ToolSpec: of_tool,
    ExternalAgentSpec: lambda resource: _of_external(resource.metadata.name, resource.spec),
    TelemetrySpec: lambda resource: _of_telemetry(resource.spec),
}
