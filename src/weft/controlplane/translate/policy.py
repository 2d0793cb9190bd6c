"""Which destinations there are, and which policy and route are in force for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from weft.controlplane.translate.destination import Destination, of_capability, of_type
from weft.model.agent import Instance
from weft.model.agent_spec import AgentSpec
from weft.model.external_agent import ExternalAgentSpec
from weft.model.resource import AnyResource
from weft.model.route import Mirror, RouteSpec, SplitTarget
from weft.model.target import Target
from weft.model.traffic import TrafficPolicySpec


def declared_destinations(resources: Iterable[AnyResource]) -> frozenset[Destination]:
    """What agents can address because a resource names it, running or not."""
    found: set[Destination] = set()
    for resource in resources:
        if isinstance(resource.spec, AgentSpec | ExternalAgentSpec):
            found.add(of_type(resource.metadata.name))
            found.update(of_capability(each) for each in resource.spec.capabilities)
        elif isinstance(resource.spec, RouteSpec):
            found.update(_routed(resource.spec))
    return frozenset(found)


def running_destinations(instances: Iterable[Instance]) -> frozenset[Destination]:
    """What agents can address because an instance of it is registered, whatever its status."""
    found: set[Destination] = set()
    for instance in instances:
        found.add(of_type(instance.type))
        found.update(of_capability(each) for each in instance.capabilities)
    return frozenset(found)


def declared_routes(resources: Iterable[AnyResource]) -> Mapping[Destination, RouteSpec]:
    """The Route of every destination that has one."""
    return {
        target_destination(each.spec.destination): each.spec
        for each in resources
        if isinstance(each.spec, RouteSpec)
    }


def policy_for(destination: Destination, resources: Iterable[AnyResource]) -> TrafficPolicySpec:
    """The policy in force: the destination's own, whose missing fields the mesh's default gives."""
    policies = [each.spec for each in resources if isinstance(each.spec, TrafficPolicySpec)]
    whole = Destination(destination.kind, destination.name)
    default = next((each for each in policies if each.target is None), TrafficPolicySpec())
    own = next((each for each in policies if each.target and target_destination(each.target) == whole), None)
    if own is None:
        return default
    return default.model_copy(update={field: getattr(own, field) for field in own.model_fields_set})


def target_destination(target: Target) -> Destination:
    """What a resource is about, as a destination."""
    return of_type(target.type) if target.type is not None else of_capability(target.capability or "")


def _routed(route: RouteSpec) -> Iterable[Destination]:
    """Where a Route's splits and mirrors lead."""
    own_type = route.destination.type
    for rule in route.rules:
        parts: list[SplitTarget | Mirror] = [*(rule.split or ()), *([rule.mirror] if rule.mirror else [])]
        for part in parts:
            target = part.type or own_type
            if target is not None:
                yield of_type(target, part.version)
