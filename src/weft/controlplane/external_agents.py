"""Which destinations lead to agents without a sidecar, where these are, and who may call them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from weft.controlplane.caller_identity import caller_identities
from weft.controlplane.translate.destination import Destination, of_capability, of_type
from weft.controlplane.translate.endpoints import Endpoint
from weft.controlplane.translate.external_clusters import ExternalForm
from weft.controlplane.translate.outbound_access import NO_EXTERNAL_CALLS, ExternalCalls, Guard
from weft.model.access import Mode
from weft.model.agent import Instance, Locality
from weft.model.agent_spec import AgentSpec
from weft.model.decision import (
    AccessPolicies,
    AccessTarget,
    TargetKind,
    access_policies,
    concerns,
    is_from,
)
from weft.model.external_agent import ExternalAgentSpec
from weft.model.gateway import GatewaySpec
from weft.model.node import Node
from weft.model.outside_host import is_ip
from weft.model.resource import AnyResource

MAX_CALLERS = 4096
"""For how many callers it is kept what they may call."""


@dataclass(frozen=True, slots=True)
class _Declared:
    """All that is made of."""

    agents: Mapping[str, ExternalAgentSpec] = field(default_factory=dict)
    """By their types: those that no agent with a sidecar is in the way of."""
    behind: Mapping[Destination, tuple[str, ...]] = field(default_factory=dict)
    """The types of them that a destination leads to."""
    policies: AccessPolicies = field(default_factory=dict)
    """Those that are enforced, and about any of them."""
    labels_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of all who have an identity, by SPIFFE ID; nobody where that makes no difference."""
    revoked: frozenset[str] = frozenset()

    @property
    def targets(self) -> list[AccessTarget]:
        """The agents, as policies see them."""
        return [
            AccessTarget(TargetKind.AGENT, name, spec.version, frozenset(spec.capabilities))
            for name, spec in self.agents.items()
        ]

    @property
    def decides_routes(self) -> tuple[object, ...]:
        """What callers' routes depend on: not on addresses, which come and go."""
        return self.behind, self.targets, self.policies, self.labels_of, self.revoked


class ExternalAgents:
    """The agents without a sidecar, by what was last given to `update`."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain
        self._declared = _Declared()
        self._callers: dict[str, ExternalCalls] = {}
        self._alike: dict[tuple[Guard, ...], ExternalCalls] = {}

    def update(
        self,
        resources: Iterable[AnyResource],
        instances: Iterable[Instance],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> bool:
        """Take over what is declared and running now; whether anybody's routes may have changed by that."""
        declared = self._read(tuple(resources), instances, labels_of, revoked)
        before, self._declared = self._declared, declared
        if declared.decides_routes == before.decides_routes:
            return False
        self._callers.clear()
        self._alike.clear()
        return True

    def forms(self, destinations: Iterable[Destination]) -> Mapping[Destination, ExternalForm]:
        """How those of `destinations` are reached that lead to such agents."""
        return {each: form for each in destinations if (form := self._form(each)) is not None}

    def endpoints(self, destination: Destination) -> frozenset[Endpoint]:
        """Where the agents behind `destination` are; nowhere if a name is among it (`ExternalForm.named`)."""
        form = self._form(destination)
        if form is None or form.named:
            return frozenset()
        return frozenset(
            Endpoint(text, text, 1, Locality(), spec.version)
            for spec in self._specs(destination)
            for text in spec.endpoints
        )

    def calls_of(self, node: Node) -> ExternalCalls:
        """What the routes of `node` need to know; the same object for all who are treated alike."""
        if not self._declared.agents:
            return NO_EXTERNAL_CALLS
        if node.key not in self._callers:
            while len(self._callers) >= MAX_CALLERS:
                del self._callers[next(iter(self._callers))]
            guards = tuple(self._guards(node))
            known = self._alike.setdefault(
                guards, ExternalCalls(self._declared.behind, guards, self._declared.policies)
            )
            self._callers[node.key] = known
        return self._callers[node.key]

    def _form(self, destination: Destination) -> ExternalForm | None:
        names = self._declared.behind.get(Destination(destination.kind, destination.name))
        if names is None:
            return None
        # Those that share a capability have the same of both, or could not be declared.
        first = self._declared.agents[names[0]]
        addresses = {each for spec in self._specs(destination) for each in spec.addresses}
        named = sorted(addresses, key=str) if any(not is_ip(each.host) for each in addresses) else ()
        return ExternalForm(first.protocol, first.tls, tuple(named))

    def _specs(self, destination: Destination) -> list[ExternalAgentSpec]:
        names = self._declared.behind.get(Destination(destination.kind, destination.name), ())
        specs = (self._declared.agents[name] for name in names)
        return [each for each in specs if destination.version in {None, each.version}]

    def _guards(self, node: Node) -> Iterable[Guard]:
        declared = self._declared
        if not declared.policies and not declared.revoked:
            return
        for identity in caller_identities(node, declared.labels_of, self._trust_domain):
            labels = declared.labels_of.get(str(identity), {})
            revoked = str(identity) in declared.revoked
            own = {
                name: spec
                for name, spec in declared.policies.items()
                if is_from(spec, identity, labels, self._trust_domain)
            }
            for target in declared.targets:
                names = tuple(sorted(name for name, spec in own.items() if concerns(spec, target)))
                if names or revoked:
                    yield Guard(target, names, revoked)

    def _read(
        self,
        resources: tuple[AnyResource, ...],
        instances: Iterable[Instance],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> _Declared:
        external = {
            each.metadata.name: each.spec for each in resources if isinstance(each.spec, ExternalAgentSpec)
        }
        if not external:
            return _Declared()
        own = _with_sidecars(resources, instances)
        agents = {name: spec for name, spec in sorted(external.items()) if of_type(name) not in own}
        behind: dict[Destination, tuple[str, ...]] = {of_type(name): (name,) for name in agents}
        for name, spec in agents.items():
            for each in {of_capability(one) for one in spec.capabilities} - own:
                behind[each] = (*behind.get(each, ()), name)
        targets = _Declared(agents).targets
        policies = {
            name: spec
            for name, spec in access_policies(resources).items()
            if spec.mode is Mode.ENFORCE and any(concerns(spec, each) for each in targets)
        }
        labels = dict(labels_of) if policies or revoked else {}
        return _Declared(agents, behind, policies, labels, frozenset(revoked))


def _with_sidecars(resources: Iterable[AnyResource], instances: Iterable[Instance]) -> set[Destination]:
    """What agents with sidecars are behind: that is called by mutual TLS, or not at all."""
    found: set[Destination] = set()
    for each in resources:
        if isinstance(each.spec, AgentSpec | GatewaySpec):
            found.add(of_type(each.metadata.name))
        if isinstance(each.spec, AgentSpec):
            found.update(of_capability(one) for one in each.spec.capabilities)
    for instance in instances:
        found.add(of_type(instance.type))
        found.update(of_capability(one) for one in instance.capabilities)
    return found
