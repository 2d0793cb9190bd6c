"""AccessPolicies about agents without a sidecar, which the caller's Envoy enforces: nobody is beside them to.

Who the caller is need not be looked up there, since an outbound listener has one: what comes to it of the
policies is settled before. They come to what `weft.model.decision` says, but for rules about what bodies say:
no body is read here, so such a rule denies every POST that it may be about, and allows none. Policies and a
default that are on trial make no difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from envoy.config.rbac.v3 import rbac_pb2 as rules_pb2
from envoy.config.rbac.v3.rbac_pb2 import Permission, Policy
from envoy.config.route.v3.route_components_pb2 import VirtualHost
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC, RBACPerRoute

from weft.controlplane.translate.access import (
    ANYONE,
    ANYTHING,
    about_calls,
    ambiguous_paths,
    any_of,
    negated,
    permissions_of,
)
from weft.controlplane.translate.destination import Destination
from weft.model.access import Effect
from weft.model.decision import AMBIGUOUS, REVOKED, AccessPolicies, AccessTarget, default_of

OUTBOUND_ACCESS_FILTER = "weft.access.outbound"
"""Filter of the outbound listener that is off, but for hosts that lead to agents without a sidecar."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What is in force between one caller and one agent without a sidecar; without one, all may pass."""

    target: AccessTarget
    policies: tuple[str, ...]
    """The names of the policies that are about both, and enforced."""
    revoked: bool = False
    """Whether the caller's identity is."""


@dataclass(frozen=True, slots=True)
class ExternalCalls:
    """What a caller's routes need to know of agents without a sidecar."""

    behind: Mapping[Destination, Collection[str]] = field(default_factory=dict)
    """The types of such agents, by the destinations (without version) that lead to them."""
    guards: tuple[Guard, ...] = ()
    """All that concern the caller; several for one agent must all let a call pass."""
    policies: AccessPolicies = field(default_factory=dict)

    def lead_from(self, destinations: Iterable[Destination]) -> bool:
        """Whether any of `destinations` leads to such an agent."""
        return any(_whole(each) in self.behind for each in destinations)

    def guard(self, host: VirtualHost, destinations: Iterable[Destination]) -> None:
        """Have `host`, from which calls go to `destinations`, let pass what all such agents of them take."""
        types = {name for each in destinations for name in self.behind.get(_whole(each), ())}
        rules = _denials([each for each in self.guards if each.target.name in types], self.policies)
        if rules is not None:
            host.typed_per_filter_config[OUTBOUND_ACCESS_FILTER].Pack(RBACPerRoute(rbac=RBAC(rules=rules)))


NO_EXTERNAL_CALLS = ExternalCalls()
"""Every agent has a sidecar."""


def _denials(guards: Iterable[Guard], policies: AccessPolicies) -> rules_pb2.RBAC | None:
    """What is denied, by the name of the policy that does; None: nothing."""
    denied: dict[str, list[Permission]] = {}
    for guard in guards:
        own = about_calls(guard.target, {name: policies[name] for name in guard.policies})
        for name, permissions in _of_one(own, revoked=guard.revoked):
            denied.setdefault(name, []).extend(permissions)
    if not denied:
        return None
    rules = rules_pb2.RBAC(action=rules_pb2.RBAC.DENY)
    for name, permissions in denied.items():
        rules.policies[name].CopyFrom(Policy(permissions=permissions, principals=[ANYONE]))
    return rules


def _of_one(own: AccessPolicies, *, revoked: bool) -> Iterable[tuple[str, list[Permission]]]:
    if revoked:
        yield REVOKED, [ANYTHING]
    if ambiguous := ambiguous_paths(own):
        yield AMBIGUOUS, ambiguous
    for name, spec in own.items():
        if spec.effect is Effect.DENY:
            yield name, permissions_of(spec)
    default, effect = default_of(own)
    if effect is Effect.DENY:
        allowed = [
            each for spec in own.values() if spec.effect is Effect.ALLOW for each in permissions_of(spec)
        ]
        yield default, [negated(any_of(allowed)) if allowed else ANYTHING]


def _whole(destination: Destination) -> Destination:
    return Destination(destination.kind, destination.name)
