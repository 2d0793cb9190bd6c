"""What must hold among resources: no two of them may contradict each other, and none itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from weft.model.access import AccessPolicySpec
from weft.model.agent_spec import AgentSpec
from weft.model.contradictions import contradictions
from weft.model.duration import format_duration
from weft.model.egress import EgressSpec
from weft.model.external_agent import ExternalAgentSpec
from weft.model.gateway import GatewaySpec
from weft.model.llm_contradictions import llm_inconsistencies
from weft.model.message_broker import DEFAULT_BROKER, BrokerSpec
from weft.model.resource import AnyResource
from weft.model.route import RouteRule, RouteSpec
from weft.model.secret import SecretSpec
from weft.model.target import Target
from weft.model.telemetry import TelemetrySpec
from weft.model.tool_contradictions import tool_inconsistencies
from weft.model.topic import DEAD_LETTERS, TopicSpec
from weft.model.traffic import TrafficPolicySpec
from weft.model.yaml_tree import Path

_NO_SECOND_TRY = "is longer than the timeout of {}: no second try would ever be made"


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One contradiction, told of the resource that should change."""

    key: str
    path: Path
    message: str


def inconsistencies(resources: Iterable[AnyResource]) -> list[Inconsistency]:
    """Every contradiction in a whole set of resources, in which later ones are to blame."""
    resources = list(resources)
    routes = [each for each in resources if isinstance(each.spec, RouteSpec)]
    policies = [each for each in resources if isinstance(each.spec, TrafficPolicySpec)]
    timeouts = _timeouts(policies)
    return [
        *(Inconsistency(each.key, *found) for each in resources for found in contradictions(each)),
        *_twice(routes, "destination"),
        *_twice(policies, "target"),
        *_twice((each for each in resources if isinstance(each.spec, TelemetrySpec)), "target"),
        *_slow_tries_of_policies(policies, timeouts),
        *_slow_tries_of_routes(routes, timeouts),
        *_cycles(routes),
        *_second_default(resources),
        *_injected_twice(each for each in resources if isinstance(each.spec, SecretSpec)),
        *_second_broker(resources),
        *_gateways_that_are_agents(resources),
        *_external_and_not(resources),
        *_external_unlike(each for each in resources if isinstance(each.spec, ExternalAgentSpec)),
        *_dead_letters_without_topic(resources),
        *(Inconsistency(each.key, path, message) for each, path, message in llm_inconsistencies(resources)),
        *(Inconsistency(each.key, path, message) for each, path, message in tool_inconsistencies(resources)),
        *_egress_twice(each for each in resources if isinstance(each.spec, EgressSpec)),
    ]


def _second_broker(resources: Iterable[AnyResource]) -> Iterator[Inconsistency]:
    for each in resources:
        if isinstance(each.spec, BrokerSpec) and each.metadata.name != DEFAULT_BROKER:
            message = f"a mesh has one Broker, which is called {DEFAULT_BROKER!r}"
            yield Inconsistency(each.key, ("metadata", "name"), message)


def _gateways_that_are_agents(resources: Collection[AnyResource]) -> Iterator[Inconsistency]:
    agents = {each.metadata.name for each in resources if isinstance(each.spec, AgentSpec)}
    for each in resources:
        if isinstance(each.spec, GatewaySpec) and each.metadata.name in agents:
            message = f"there is an Agent {each.metadata.name!r}: a gateway is the only agent of its type"
            yield Inconsistency(each.key, ("metadata", "name"), message)


def _external_and_not(resources: Collection[AnyResource]) -> Iterator[Inconsistency]:
    """Calls go to agents with sidecars or to others: not by chance to the one or the other."""
    own = {
        each.metadata.name: each.kind for each in resources if isinstance(each.spec, AgentSpec | GatewaySpec)
    }
    offering = {
        capability: each.metadata.name
        for each in resources
        if isinstance(each.spec, AgentSpec)
        for capability in each.spec.capabilities
    }
    for each in resources:
        if not isinstance(each.spec, ExternalAgentSpec):
            continue
        if kind := own.get(each.metadata.name):
            message = f"there is {kind} {each.metadata.name!r}: agents of a type have sidecars, or none has"
            yield Inconsistency(each.key, ("metadata", "name"), message)
        for index, capability in enumerate(each.spec.capabilities):
            if capability in offering:
                message = (
                    f"Agent {offering[capability]!r} offers {capability!r}: agents with a capability have "
                    "sidecars, or none has"
                )
                yield Inconsistency(each.key, ("spec", "capabilities", index), message)


def _external_unlike(external: Iterable[AnyResource]) -> Iterator[Inconsistency]:
    """One capability, one way to call it."""
    first: dict[str, AnyResource] = {}
    for each in external:
        for index, capability in enumerate(each.spec.capabilities):
            other = first.setdefault(capability, each)
            if (other.spec.protocol, other.spec.tls) != (each.spec.protocol, each.spec.tls):
                message = (
                    f"ExternalAgent {other.metadata.name!r} offers {capability!r} by another protocol, or "
                    "with another tls: have both the same"
                )
                yield Inconsistency(each.key, ("spec", "capabilities", index), message)


def _dead_letters_without_topic(resources: Collection[AnyResource]) -> Iterator[Inconsistency]:
    topics = {each.metadata.name for each in resources if isinstance(each.spec, TopicSpec)} | {DEAD_LETTERS}
    for each in resources:
        wanted = each.spec.dead_letter if isinstance(each.spec, TopicSpec) else None
        if wanted is not None and wanted not in topics:
            message = f"there is no Topic {wanted!r} for its dead letters: declare it, or leave this out"
            yield Inconsistency(each.key, ("spec", "deadLetter"), message)


def _twice(resources: Iterable[AnyResource], field: str) -> Iterator[Inconsistency]:
    owners: dict[Target | None, str] = {}
    for each in resources:
        target: Target | None = getattr(each.spec, field)
        owner = owners.setdefault(target, each.metadata.name)
        if owner != each.metadata.name:
            what = f"{field} {target}" if target is not None else "the mesh's default (it has no target)"
            message = f"{each.kind} {owner!r} is for {what} already: there can be one only, so merge them"
            yield Inconsistency(each.key, ("spec", field), message)


def _second_default(resources: Iterable[AnyResource]) -> Iterator[Inconsistency]:
    defaults = [
        each
        for each in resources
        if isinstance(each.spec, AccessPolicySpec) and each.spec.default is not None
    ]
    for each in defaults[1:]:
        first, second = defaults[0].metadata.name, each.metadata.name
        message = (
            f"AccessPolicy {first!r} sets the mesh-wide default already: there can be one only, "
            f"so delete {first!r} or {second!r}"
        )
        yield Inconsistency(each.key, ("spec", "default"), message)


def _timeouts(policies: Iterable[AnyResource]) -> Mapping[Target | None, float]:
    """The time limit in force for every target that has a policy; None stands for all others."""
    specs: list[TrafficPolicySpec] = [each.spec for each in policies]
    default = next((each.timeout for each in specs if each.target is None), TrafficPolicySpec().timeout)
    own = {each.target: each.timeout if "timeout" in each.model_fields_set else default for each in specs}
    return {**own, None: default}


def _slow_tries_of_policies(
    policies: Iterable[AnyResource], timeouts: Mapping[Target | None, float]
) -> Iterator[Inconsistency]:
    for policy in policies:
        timeout = timeouts[policy.spec.target]
        if (policy.spec.retries.per_try_timeout or 0) > timeout:
            message = _NO_SECOND_TRY.format(format_duration(timeout))
            yield Inconsistency(policy.key, ("spec", "retries", "perTryTimeout"), message)


def _slow_tries_of_routes(
    routes: Iterable[AnyResource], timeouts: Mapping[Target | None, float]
) -> Iterator[Inconsistency]:
    for route in routes:
        usual = timeouts.get(route.spec.destination, timeouts[None])
        for index, rule in enumerate(route.spec.rules):
            timeout = rule.timeout if rule.timeout is not None else usual
            if rule.retries is not None and (rule.retries.per_try_timeout or 0) > timeout:
                message = _NO_SECOND_TRY.format(format_duration(timeout))
                yield Inconsistency(route.key, ("spec", "rules", index, "retries", "perTryTimeout"), message)


def _cycles(routes: Iterable[AnyResource]) -> Iterator[Inconsistency]:
    """Splits that lead from a type to others and back: whoever reads them expects them to be followed."""
    by_type = {each.spec.destination.type: each for each in routes if each.spec.destination.type is not None}
    order = {name: position for position, name in enumerate(by_type)}
    edges = {name: _other_types(route.spec.rules) - {name} for name, route in by_type.items()}
    while circle := _circle(edges):
        last = max(circle, key=order.__getitem__)
        turn = circle.index(last)
        path = " → ".join([*circle[turn:], *circle[:turn], last])
        yield Inconsistency(by_type[last].key, ("spec", "rules"), f"splits go in a circle: {path}")
        del edges[last]


def _other_types(rules: Iterable[RouteRule]) -> set[str]:
    return {part.type for rule in rules for part in rule.split or () if part.type is not None and part.weight}


def _circle(edges: Mapping[str, set[str]]) -> list[str]:
    """The nodes of one circle in the order in which it leads through them; empty if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        nodes: list[str] = error.args[1]
        return nodes[:0:-1]
    return []


def _injected_twice(secrets: Iterable[AnyResource]) -> Iterator[Inconsistency]:
    """Two headers for the same caller and host: which of them a call gets must not be a matter of chance."""
    owners: dict[tuple[str, str], str] = {}
    for secret in secrets:
        for index, injection in enumerate(secret.spec.inject):
            for caller in injection.for_types or (_EVERYONE,):
                others = [each for each in owners if each[0] == injection.host and _overlap(each[1], caller)]
                if others:
                    message = (
                        f"Secret {owners[others[0]]!r} is injected into calls to {injection.host} by "
                        f"{_callers(caller)} already"
                    )
                    yield Inconsistency(secret.key, ("spec", "inject", index, "host"), message)
                owners.setdefault((injection.host, caller), secret.metadata.name)


def _egress_twice(egresses: Iterable[AnyResource]) -> Iterator[Inconsistency]:
    owners: dict[str, str] = {}
    for egress in egresses:
        for caller in egress.spec.for_types or (_EVERYONE,):
            owner = owners.setdefault(caller, egress.metadata.name)
            if owner != egress.metadata.name:
                what = f"type {caller!r}" if caller else "the mesh's default (it has no for)"
                message = f"Egress {owner!r} is for {what} already: there can be one only, so merge them"
                yield Inconsistency(egress.key, ("spec", "for"), message)


_EVERYONE = ""
"""Stands for all types, where others are named one by one."""


def _overlap(one: str, other: str) -> bool:
    return one == other or _EVERYONE in {one, other}


def _callers(caller: str) -> str:
    return f"agents of type {caller!r}" if caller else "all agents"
