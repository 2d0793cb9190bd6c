"""Who can reach whom: what the AccessPolicies come to for every type of agents, towards all there is.

Each cell is what `weft can` answers to the same question, asked without a method, a path or a body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from weft.controlplane.explanation import (
    ACTIONS,
    ANY_INSTANCE,
    DEFAULT_METHOD,
    DEFAULT_PATH,
    Mesh,
    agents_meant,
    towards,
)
from weft.model.access import AccessPolicySpec, AccessRule, Action, Effect, Mode
from weft.model.agent_spec import AgentSpec
from weft.model.decision import (
    AccessPolicies,
    AccessRequest,
    AccessTarget,
    Decision,
    RpcCall,
    TargetKind,
    access_policies,
    concerns,
    decide,
    default_of,
    is_from,
)
from weft.model.resource import AnyResource
from weft.model.spiffe import Role, SpiffeId, parse_spiffe_id

_CHANNELS = {"Topic": TargetKind.TOPIC, "Queue": TargetKind.QUEUE, "ModelPool": TargetKind.POOL}


@dataclass(frozen=True, slots=True)
class ReachCell:
    """What holds between all agents of one type and one thing that they may reach."""

    caller: str
    callee: str
    decision: Decision
    """The first that denies, else the first: as `weft can` shows it."""
    actions: tuple[Action, ...]
    """What is allowed without exception."""
    partly: bool
    """Whether it depends: on the request, the action, the instance or the version."""


@dataclass(frozen=True, slots=True)
class _Caller:
    """Agents of one type that no policy tells apart, by one of them."""

    id: SpiffeId
    labels: Mapping[str, str]
    revoked: bool


class ReachMatrix:
    """All that can be asked of one moment of the mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._policies = access_policies(mesh.resources)

    @cached_property
    def callers(self) -> list[str]:
        """The types of agents that run or are declared, by name."""
        declared = {each.metadata.name for each in self._mesh.resources if isinstance(each.spec, AgentSpec)}
        return sorted(declared | {each.type for each in self._mesh.instances})

    @cached_property
    def callees(self) -> list[str]:
        """The same and agents without a sidecar, then topics, queues and pools, as `topic/x`."""
        return list(self._targets)

    def row(self, caller: str) -> list[ReachCell]:
        """What agents of the type `caller` reach: a cell for each of the callees."""
        same = self._classes[caller]
        return [self._cell(caller, same, callee) for callee in self.callees]

    def _cell(self, caller: str, same: Iterable[_Caller], callee: str) -> ReachCell:
        targets = self._targets[callee]
        found: dict[Action, list[Decision]] = {}
        possible: set[bool] = set()
        for action in sorted(ACTIONS[targets[0].kind], key=list(Action).index):
            for each, target in product(same, targets):
                policies = self._between(each, target)
                found.setdefault(action, []).append(self._decide(policies, each, action, target))
                possible |= {False} if each.revoked else _outcomes(policies, action, target)
        decisions = [each for of_action in found.values() for each in of_action]
        return ReachCell(
            caller,
            callee,
            next((each for each in decisions if not each.allowed), decisions[0]),
            tuple(action for action, each in found.items() if all(one.allowed for one in each)),
            partly=len(possible) > 1,
        )

    def _decide(
        self, policies: AccessPolicies, caller: _Caller, action: Action, target: AccessTarget
    ) -> Decision:
        request = AccessRequest(action, target)
        if target.kind is TargetKind.AGENT:
            called = AccessRequest(action, target, DEFAULT_METHOD, DEFAULT_PATH, RpcCall())
            request = towards(target, called, self._external)
        return decide(
            policies,
            caller.id,
            request,
            trust_domain=self._mesh.trust_domain,
            labels=caller.labels,
            revoked=[str(caller.id)] if caller.revoked else (),
        )

    def _between(self, caller: _Caller, target: AccessTarget) -> AccessPolicies:
        """The policies that may have a say, which are few: asking all for each cell would take long."""
        return {name: self._policies[name] for name in self._about[target] & self._by(caller)}

    def _by(self, caller: _Caller) -> frozenset[str]:
        if caller.id not in self._of_caller:
            trust_domain = self._mesh.trust_domain
            self._of_caller[caller.id] = frozenset(
                name
                for name, spec in self._policies.items()
                if is_from(spec, caller.id, caller.labels, trust_domain)
            )
        return self._of_caller[caller.id]

    @cached_property
    def _external(self) -> frozenset[str]:
        return self._mesh.external

    @cached_property
    def _of_caller(self) -> dict[SpiffeId, frozenset[str]]:
        return {}

    @cached_property
    def _about(self) -> Mapping[AccessTarget, frozenset[str]]:
        return {
            target: frozenset(name for name, spec in self._policies.items() if concerns(spec, target))
            for targets in self._targets.values()
            for target in targets
        }

    @cached_property
    def _targets(self) -> Mapping[str, tuple[AccessTarget, ...]]:
        """What each of the callees may mean."""
        types = sorted({*self.callers, *self._external})
        agents = {each: tuple(agents_meant(self._mesh, agent_type=each)) for each in types}
        return agents | {str(each): (each,) for each in sorted(_channels(self._mesh.resources), key=str)}

    @cached_property
    def _classes(self) -> Mapping[str, tuple[_Caller, ...]]:
        """Of each type one of whom nothing is known, and one of each sort that policies could tell apart."""
        mesh = self._mesh
        found: dict[str, dict[tuple[object, ...], _Caller]] = {}
        for each in self.callers:
            unknown = SpiffeId(mesh.trust_domain, f"/{Role.AGENT}/{each}/{ANY_INSTANCE}")
            found[each] = {("", False): _Caller(unknown, {}, revoked=False)}
        named = {who.instance for spec in self._policies.values() for who in spec.callers if who.instance}
        for spiffe_id in sorted(mesh.labels_of):
            who = parse_spiffe_id(spiffe_id)
            match who.segments:
                case (Role.AGENT, agent_type, instance) if agent_type in found:
                    caller = _Caller(who, mesh.labels_of[spiffe_id], mesh.is_revoked(spiffe_id))
                    own = instance if f"{agent_type}/{instance}" in named else ""
                    sort = (*sorted(caller.labels.items()), own, caller.revoked)
                    found[agent_type].setdefault(sort, caller)
        return {each: tuple(sorts.values()) for each, sorts in found.items()}


def _channels(resources: Iterable[AnyResource]) -> Iterator[AccessTarget]:
    for each in resources:
        if each.kind in _CHANNELS:
            yield AccessTarget(_CHANNELS[each.kind], each.metadata.name)


def _outcomes(policies: AccessPolicies, action: Action, target: AccessTarget) -> set[bool]:
    """Whether it is allowed, for any request that could be made; `policies` are all that may have a say."""
    always: set[Effect] = set()
    sometimes: set[Effect] = set()
    enforced = {name: spec for name, spec in policies.items() if spec.mode is Mode.ENFORCE}
    for spec in enforced.values():
        if spec.effect is not None and _matches(spec, action, target, conditions=False):
            always.add(spec.effect)
        elif spec.effect is not None and _matches(spec, action, target, conditions=True):
            sometimes.add(spec.effect)
    if Effect.DENY in always:
        return {False}
    usual = Effect.ALLOW in always or default_of(enforced)[1] is Effect.ALLOW
    return {usual, *(each is Effect.ALLOW for each in sometimes)}


def _matches(spec: AccessPolicySpec, action: Action, target: AccessTarget, *, conditions: bool) -> bool:
    """Whether a policy is about `action`: about every request, or (`conditions`) about some of them."""
    if not spec.rules:
        return not conditions
    return any(_is_about(rule, action, target, conditions=conditions) for rule in spec.rules)


def _is_about(rule: AccessRule, action: Action, target: AccessTarget, *, conditions: bool) -> bool:
    if rule.actions and action not in rule.actions:
        return False
    return rule.is_of_http is conditions and (not conditions or target.kind is TargetKind.AGENT)
