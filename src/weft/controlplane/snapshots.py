"""The snapshot of every sidecar, kept up to date as resources and instances change.

What sidecars share is encoded once: clusters for all, routes for all that reach the same outside the mesh,
endpoints for all callers of one locality; only listeners are a sidecar's own. A change of instances touches
the load assignments it belongs to, no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from weft.aio.generation import Generation
from weft.controlplane.caller_models import CallerModels
from weft.controlplane.external_agents import ExternalAgents
from weft.controlplane.lease_configs import LeaseConfigs
from weft.controlplane.outside import OutsideWorld, SecretValue, unopened
from weft.controlplane.translate.access import Access, called
from weft.controlplane.translate.clusters import control_cluster, destination_cluster, forward_cluster
from weft.controlplane.translate.destination import Destination, by_context, of_type
from weft.controlplane.translate.egress import Outside
from weft.controlplane.translate.endpoints import Endpoint, endpoint, load_assignment
from weft.controlplane.translate.external_clusters import ExternalForm, external_cluster
from weft.controlplane.translate.inbound_routes import McpSide, inbound_routes, mcp_side
from weft.controlplane.translate.listeners import CONNECTION_LIFETIME, listeners
from weft.controlplane.translate.llm_clusters import scheduler_cluster
from weft.controlplane.translate.llm_pools import Models
from weft.controlplane.translate.outbound_access import ExternalCalls, Guard
from weft.controlplane.translate.policy import (
    declared_destinations,
    declared_routes,
    policy_for,
    running_destinations,
)
from weft.controlplane.translate.routes import route_configuration
from weft.controlplane.translate.telemetry import NO_TELEMETRY, Telemetries
from weft.controlplane.xds.snapshot import EncodedResource, Snapshot, encode
from weft.model.agent import Instance, Locality
from weft.model.decision import AccessTarget, access_policies
from weft.model.gateway import GatewaySpec
from weft.model.hops import MAX_HOPS
from weft.model.llm_lease import Lease
from weft.model.mcp_catalogue import NO_TOOLS, McpCatalogue
from weft.model.node import Address, Node
from weft.model.resource import AnyResource
from weft.model.route import RouteSpec
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, agent_id
from weft.model.traffic import BalancingPolicy, TrafficPolicySpec

DESTINATION_RETENTION = 600.0
"""Seconds for which a destination stays known after its last instance left: callers are told "no healthy
agent" rather than "no such agent", and clusters do not come and go with every restart."""

MAX_RETAINED = 256
"""How many destinations without any instance stay known at once, those that were seen last: each costs every
Envoy memory, and an agent may name others all the time."""

MAX_KINDS = 4096
"""For how many kinds of agents (by type, version, capabilities) routes are kept encoded at once."""

NO_LABELS: Mapping[str, Mapping[str, str]] = {}
"""Nobody was attested any label."""

MAX_LOCALITIES = 256
"""How many localities of callers are kept encoded at once."""

MAX_OUTSIDES = 256
"""For how many kinds of callers, who differ in what they reach outside, routes are kept encoded at once."""

Encoded = Mapping[str, EncodedResource]
Policies = Mapping[Destination, TrafficPolicySpec]
Forms = Mapping[Destination, ExternalForm]


class Snapshots:
    """A SnapshotSource over the resources and instances last given to `update`."""

    def __init__(
        self,
        apis: Iterable[Address],
        *,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        secret_value: SecretValue = unopened,
        connection_lifetime: float = CONNECTION_LIFETIME,
        max_hops: int = MAX_HOPS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`apis`: where the control plane's API listens, which is what `control.mesh` leads to.

        `trust_domain`: the mesh's own; servers of no other are believed. `secret_value` opens the values of
        Secrets. `connection_lifetime`: seconds after which a caller must connect to a callee anew.
        `max_hops`: agents that a call tree may pass.
        """
        self._clock = clock
        self._wall_clock = wall_clock
        self._trust_domain = trust_domain
        self._connection_lifetime = connection_lifetime
        self._max_hops = max_hops
        fixed = (
            control_cluster(apis, trust_domain=trust_domain),
            forward_cluster(),
            scheduler_cluster(None, trust_domain=trust_domain),
        )
        self._fixed_clusters = {each.name: encode(each.name, each) for each in fixed}
        self._scheduler: Address | None = None
        self._leases = LeaseConfigs()
        self._last_seen: dict[Destination, float] = {}
        self._policies: Policies = {}
        self._routes_declared: Mapping[Destination, RouteSpec] = {}
        self._external = ExternalAgents(trust_domain)
        self._forms: Forms = {}
        """Of the destinations that lead to agents without a sidecar."""
        self._members: Mapping[Destination, frozenset[Endpoint]] = {}
        self._clusters: Encoded = self._fixed_clusters
        self._outside = OutsideWorld(secret_value)
        self._models = CallerModels(trust_domain, secret_value)
        self._routes: dict[tuple[Outside, Models, tuple[Guard, ...]], Encoded] = {}
        """By what they lead to outside the mesh, the models, and what stands between the caller and agents
        without a sidecar; encoded for the first who needs them."""
        self._endpoints: dict[Locality, Encoded] = {}
        self._access = Access(trust_domain=trust_domain)
        self._routes_both_ways: dict[
            tuple[Outside, Models, tuple[Guard, ...], AccessTarget, McpSide], Encoded
        ] = {}
        """Those of sidecars with an agent, by what they reach outside, their models, what their agent is."""
        self._tools = NO_TOOLS
        self._telemetry = NO_TELEMETRY
        self._without_card: frozenset[Destination] = frozenset()
        self._offered: Mapping[str, frozenset[str]] = {}
        """The capabilities of instances, by their keys: more than their sidecars said when they connected."""
        self._gateways: Mapping[str, GatewaySpec] = {}
        """By the agent types that are gateways."""
        self._generation = Generation()

    @property
    def generation(self) -> int:
        """Grows whenever any snapshot may have changed."""
        return self._generation.number

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._generation.later_than(generation)

    def snapshot(self, node: Node) -> Snapshot:
        """What `node` is to know now."""
        outside = self._outside.of(node.inbound.type if node.inbound is not None else None)
        models = self._models.of(node)
        return Snapshot(
            clusters=self._models.clusters(models, self._outside.clusters(outside, self._clusters)),
            endpoints=self._endpoints_for(node.locality),
            listeners=_encoded_listeners(
                node,
                self._connection_lifetime,
                self._gateway_of(node),
                self._max_hops,
                self._gateway_sampling(node),
            ),
            routes=self._routes_of(node, outside, models),
            secrets=self._models.secrets(models, self._outside.secrets(outside)),
            extensions=self._leases.of(
                node.key, tuple(each.name for each in models.pools), self._wall_clock()
            ),
        )

    def update_scheduler(self, scheduler: Address | None) -> None:
        """Have calls to models asked for at `scheduler`; None: nobody schedules at the moment."""
        if scheduler == self._scheduler:
            return
        self._scheduler = scheduler
        cluster = scheduler_cluster(scheduler, trust_domain=self._trust_domain)
        changed = {cluster.name: encode(cluster.name, cluster)}
        self._fixed_clusters = {**self._fixed_clusters, **changed}
        self._clusters = {**self._clusters, **changed}
        self._generation.advance()

    def update_leases(self, leases: Mapping[str, Lease]) -> None:
        """Take over what sidecars may send to models without asking, by the `key` of their Nodes.

        All leases there are: who is left out has none. Those that are no longer fresh are given to nobody.
        """
        if self._leases.update(leases):
            self._generation.advance()

    def update_tools(self, tools: McpCatalogue) -> None:
        """Take over what servers of MCP have for `tools.mesh`; notes make no difference."""
        tools = replace(tools, notes={})
        if tools == self._tools:
            return
        self._tools, self._routes, self._routes_both_ways = tools, {}, {}
        self._generation.advance()

    def update_cards(self, with_card: Collection[Destination], without_card: Collection[Destination]) -> None:
        """Take over which destinations have an A2A card, and which are known to have none.

        One that is known to have none is taken for that until it has one, or is forgotten.
        """
        known = (self._without_card | frozenset(without_card)) - frozenset(with_card)
        known &= self._last_seen.keys()
        if known == self._without_card:
            return
        self._without_card, self._routes = known, {}
        self._generation.advance()

    def update(
        self,
        instances: Iterable[Instance],
        resources: Iterable[AnyResource],
        *,
        labels_of: Mapping[str, Mapping[str, str]] = NO_LABELS,
        revoked: Collection[str] = (),
    ) -> None:
        """Take over what is declared and running now; the generation grows if sidecars must hear of it.

        `labels_of`: the labels that the authority attested to each SPIFFE ID; `revoked`: the SPIFFE IDs that
        count no more.
        """
        instances, resources = tuple(instances), tuple(resources)
        known = self._known(declared_destinations(resources) | running_destinations(instances))
        policies = {destination: policy_for(destination, resources) for destination in known}
        policies |= {
            by_context(destination): policy
            for destination, policy in policies.items()
            if policy.load_balancing.context_affinity
        }
        routes = declared_routes(resources)
        # Nobody is revoked, as a rule: ten thousand identities need not be made for that.
        trusted = (
            [each for each in instances if self._identity(each) not in revoked] if revoked else instances
        )
        members = _members(policies, trusted)
        changed = self._update_external(resources, instances, labels_of, revoked)
        forms = self._external.forms(policies)
        members |= {each: self._external.endpoints(each) for each in forms}
        changed |= self._update_routing(policies, routes, forms)
        changed |= self._outside.update(resources)
        changed |= self._update_endpoints(policies, members)
        changed |= self._update_access(resources, labels_of, revoked)
        changed |= self._update_gateways(resources)
        changed |= self._update_models(resources, labels_of, revoked)
        changed |= self._update_offered(instances)
        changed |= self._update_telemetry(resources)
        self._policies, self._routes_declared, self._members = policies, routes, members
        self._forms = forms
        if changed:
            self._generation.advance()

    def _known(self, current: frozenset[Destination]) -> frozenset[Destination]:
        now = self._clock()
        gone = [
            (destination, seen)
            for destination, seen in self._last_seen.items()
            if destination not in current and now - seen < DESTINATION_RETENTION
        ]
        gone.sort(key=lambda each: each[1], reverse=True)
        self._last_seen = {**dict(gone[:MAX_RETAINED]), **dict.fromkeys(current, now)}
        return frozenset(self._last_seen)

    def _update_external(
        self,
        resources: Iterable[AnyResource],
        instances: Iterable[Instance],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> bool:
        if not self._external.update(resources, instances, labels_of, revoked):
            return False
        self._routes, self._routes_both_ways = {}, {}
        return True

    def _update_routing(
        self, policies: Policies, routes: Mapping[Destination, RouteSpec], forms: Forms
    ) -> bool:
        if policies == self._policies and routes == self._routes_declared and forms == self._forms:
            return False
        clusters = {
            destination.cluster: self._clusters[destination.cluster]
            if self._policies.get(destination) == policy
            and self._forms.get(destination) == forms.get(destination)
            else self._encoded_cluster(destination, policy, forms.get(destination))
            for destination, policy in policies.items()
        }
        self._clusters = {**self._fixed_clusters, **clusters}
        self._routes = {}
        return True

    def _encoded_cluster(
        self, destination: Destination, policy: TrafficPolicySpec, form: ExternalForm | None
    ) -> EncodedResource:
        if form is not None:
            return encode(destination.cluster, external_cluster(destination, policy, form))
        cluster = destination_cluster(destination, policy, trust_domain=self._trust_domain)
        return encode(destination.cluster, cluster)

    def _update_endpoints(
        self, policies: Policies, members: Mapping[Destination, frozenset[Endpoint]]
    ) -> bool:
        gone = self._policies.keys() - policies.keys()
        moved = [
            destination
            for destination, policy in policies.items()
            if members[destination] != self._members.get(destination)
            or policy != self._policies.get(destination)
        ]
        if not gone and not moved:
            return False
        for locality, encoded in self._endpoints.items():
            kept = {
                name: each for name, each in encoded.items() if name not in {each.cluster for each in gone}
            }
            self._endpoints[locality] = kept | _encoded_endpoints(locality, moved, policies, members)
        return True

    def _routes_to(self, outside: Outside, models: Models, external: ExternalCalls) -> Encoded:
        key = (outside, models, external.guards)
        if key not in self._routes:
            while len(self._routes) >= MAX_OUTSIDES:
                del self._routes[next(iter(self._routes))]
            self._routes[key] = _encoded_routes(
                self._policies,
                self._routes_declared,
                outside,
                models,
                self._without_card | self._forms.keys(),
                self._tools,
                self._telemetry,
                external,
                max_hops=self._max_hops,
            )
        return self._routes[key]

    def _identity(self, instance: Instance) -> str:
        return str(agent_id(self._trust_domain, instance.type, instance.id))

    def _update_access(
        self,
        resources: Iterable[AnyResource],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> bool:
        policies = access_policies(resources)
        by_label = any(each.labels for spec in policies.values() for each in spec.callers)
        access = Access(
            policies, self._trust_domain, dict(labels_of) if by_label else NO_LABELS, frozenset(revoked)
        )
        if access == self._access:
            return False
        self._access, self._routes_both_ways = access, {}
        return True

    def _update_models(
        self,
        resources: Iterable[AnyResource],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> bool:
        if not self._models.update(resources, labels_of, revoked):
            return False
        self._routes, self._routes_both_ways = {}, {}
        return True

    def _update_offered(self, instances: Iterable[Instance]) -> bool:
        offered = {each.key: each.capabilities for each in instances if each.capabilities}
        changed = offered != self._offered
        self._offered = offered
        return changed

    def _update_gateways(self, resources: Iterable[AnyResource]) -> bool:
        gateways = {each.metadata.name: each.spec for each in resources if isinstance(each.spec, GatewaySpec)}
        changed = gateways != self._gateways
        self._gateways = gateways
        return changed

    def _update_telemetry(self, resources: Iterable[AnyResource]) -> bool:
        telemetry = Telemetries.declared(resources)
        if telemetry == self._telemetry:
            return False
        self._telemetry, self._routes, self._routes_both_ways = telemetry, {}, {}
        return True

    def _gateway_sampling(self, node: Node) -> float | None:
        """Of listeners, only those of gateways need it: a change of a listener ends its connections."""
        if node.inbound is None or node.outside is None:
            return None
        return self._telemetry.sampling(of_type(node.inbound.type))

    def _gateway_of(self, node: Node) -> GatewaySpec | None:
        return self._gateways.get(node.inbound.type) if node.inbound is not None else None

    def _routes_of(self, node: Node, outside: Outside, models: Models) -> Encoded:
        """The routes from `node` and to its agent."""
        external = self._external.calls_of(node)
        routes = self._routes_to(outside, models, external)
        if node.inbound is None:
            return routes
        target = called(node.inbound)
        # An A2A agent's skills are capabilities too, and known once it runs.
        offered = self._offered.get(node.key, frozenset())
        target = replace(target, capabilities=target.capabilities | offered)
        mcp = mcp_side(node.inbound, self._tools)
        key = (outside, models, external.guards, target, mcp)
        known = self._routes_both_ways.get(key, {})
        if routes.items() <= known.items():
            return known
        while len(self._routes_both_ways) >= MAX_KINDS:
            del self._routes_both_ways[next(iter(self._routes_both_ways))]
        record = self._telemetry.records(node.inbound.type)
        to_agent = inbound_routes(target, self._access, mcp, record=record)
        self._routes_both_ways[key] = {**routes, to_agent.name: encode(to_agent.name, to_agent)}
        return self._routes_both_ways[key]

    def _endpoints_for(self, locality: Locality) -> Encoded:
        if locality not in self._endpoints:
            while len(self._endpoints) >= MAX_LOCALITIES:
                del self._endpoints[next(iter(self._endpoints))]
            self._endpoints[locality] = _encoded_endpoints(
                locality, self._policies, self._policies, self._members
            )
        return self._endpoints[locality]


def _members(
    destinations: Iterable[Destination], instances: Iterable[Instance]
) -> dict[Destination, frozenset[Endpoint]]:
    found: dict[Destination, set[Endpoint]] = {destination: set() for destination in destinations}
    parts = [
        destination for destination in found if destination.version is not None or destination.by_context
    ]
    for instance in instances:
        reachable = endpoint(instance)
        if reachable is None:
            continue
        for destination in running_destinations([instance]):
            found[destination].add(reachable)
        for destination in parts:
            if destination.includes(instance):
                found[destination].add(reachable)
    return {destination: frozenset(endpoints) for destination, endpoints in found.items()}


def _encoded_endpoints(
    locality: Locality,
    destinations: Iterable[Destination],
    policies: Policies,
    members: Mapping[Destination, frozenset[Endpoint]],
) -> dict[str, EncodedResource]:
    result = {}
    for destination in destinations:
        policy = policies[destination]
        assignment = load_assignment(
            destination.cluster,
            members[destination],
            locality,
            weighted=policy.load_balancing.policy is BalancingPolicy.WEIGHTED,
            failover=policy.locality.failover,
        )
        result[destination.cluster] = encode(destination.cluster, assignment)
    return result


def _encoded_routes(
    policies: Policies,
    routes: Mapping[Destination, RouteSpec],
    outside: Outside,
    models: Models,
    without_card: Collection[Destination],
    tools: McpCatalogue,
    telemetry: Telemetries,
    external: ExternalCalls,
    *,
    max_hops: int,
) -> Encoded:
    cards = policies.keys() - without_card
    configuration = route_configuration(
        policies, routes, outside, models, cards, tools, telemetry, external, max_hops=max_hops
    )
    return {configuration.name: encode(configuration.name, configuration)}


@lru_cache(maxsize=4096)
def _encoded_listeners(
    node: Node,
    connection_lifetime: float,
    gateway: GatewaySpec | None,
    max_hops: int,
    gateway_sampling: float | None,
) -> Encoded:
    result = listeners(
        node,
        connection_lifetime=connection_lifetime,
        gateway=gateway,
        max_hops=max_hops,
        gateway_sampling=gateway_sampling,
    )
    return {each.name: encode(each.name, each) for each in result}
