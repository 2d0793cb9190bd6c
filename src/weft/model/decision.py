"""Who may do what: the decision that the AccessPolicies come to.

A deny that matches wins over everything, then an allow that matches, then the mesh-wide default. Whatever
enforces policies (Envoy, NATS permissions, the scheduler) must come to the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from weft.model.a2a_methods import A2A_METHODS, A2aMethod
from weft.model.access import (
    TOOLS_CALL,
    A2aMatch,
    AccessDestination,
    AccessPolicySpec,
    AccessRule,
    Action,
    Effect,
    McpMatch,
    Mode,
    Principal,
)
from weft.model.request_path import is_ambiguous
from weft.model.resource import AnyResource
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, Role, SpiffeId

REVOKED = "revoked"
"""Who decided, in place of a policy: the identity was revoked."""

AMBIGUOUS = "ambiguous-path"
"""Who decided, in place of a policy: paths matter at this agent, and this one can be read in two ways."""

RESERVED_POLICY_NAMES = frozenset({REVOKED, AMBIGUOUS, "default", "none"})
"""Names that no AccessPolicy may have: reports give them where no policy decided."""

AccessPolicies = Mapping[str, AccessPolicySpec]
"""The policies by name."""


class TargetKind(StrEnum):
    """What kind of thing is asked for."""

    AGENT = "agent"
    TOPIC = "topic"
    QUEUE = "queue"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class AccessTarget:
    """One thing that is asked for."""

    kind: TargetKind
    name: str
    """An agent's type, or the name of the topic, queue or pool."""
    version: str = ""
    """Of the agent."""
    capabilities: frozenset[str] = frozenset()
    """Of the agent."""

    def __str__(self) -> str:
        return self.name if self.kind is TargetKind.AGENT else f"{self.kind.value}/{self.name}"


@dataclass(frozen=True, slots=True)
class RpcCall:
    """What a body in JSON says, read as a message of JSON-RPC."""

    method: str = ""
    """Empty: it is no request of JSON-RPC."""
    name: str = ""
    """`params.name`: the tool, where one is called."""


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """What somebody wants to do."""

    action: Action
    target: AccessTarget
    method: str = ""
    """Of HTTP."""
    path: str = ""
    """Without the query."""
    body: RpcCall | None = None
    """None: an array, or no JSON at all. Where bodies matter, a POST of that is taken for what is denied."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and by whom."""

    allowed: bool
    policy: str
    """The policy that decided; empty: there is none, and what no policy forbids is allowed."""
    reason: str
    """In words."""
    dry_run: tuple[str, ...] = ()
    """Policies in dry-run mode that would have changed it."""


def access_policies(resources: Iterable[AnyResource]) -> AccessPolicies:
    """The AccessPolicies among `resources`, by name."""
    return {each.metadata.name: each.spec for each in resources if isinstance(each.spec, AccessPolicySpec)}


def decide(
    policies: AccessPolicies,
    principal: SpiffeId,
    request: AccessRequest,
    *,
    trust_domain: str = DEFAULT_TRUST_DOMAIN,
    labels: Mapping[str, str] | None = None,
    revoked: Collection[str] = (),
) -> Decision:
    """Whether `principal`, to whom the authority attested `labels`, may do what it asks.

    `trust_domain` is the mesh's own; `revoked` are the SPIFFE IDs that count no more.
    """
    if str(principal) in revoked:
        return Decision(allowed=False, policy=REVOKED, reason="the caller's identity has been revoked")
    matching = {
        name: spec
        for name, spec in policies.items()
        if spec.default is not None
        or (is_from(spec, principal, labels or {}, trust_domain) and _is_for(spec, request))
    }
    enforced = {name: spec for name, spec in policies.items() if spec.mode is Mode.ENFORCE}
    if reads_paths(enforced, request.target) and is_ambiguous(request.path):
        return Decision(
            allowed=False,
            policy=AMBIGUOUS,
            reason="policies for this agent depend on paths, and this one can be read in two ways",
        )
    actual = _decide({name: spec for name, spec in matching.items() if name in enforced})
    would_be = _decide(matching)
    if would_be.allowed == actual.allowed:
        return actual
    return Decision(actual.allowed, actual.policy, actual.reason, _to_blame(matching, would_be))


def is_from(spec: AccessPolicySpec, caller: SpiffeId, labels: Mapping[str, str], trust_domain: str) -> bool:
    """Whether `caller` is one of those a policy is about."""
    return not spec.callers or any(is_principal(each, caller, labels, trust_domain) for each in spec.callers)


def is_principal(
    principal: Principal, caller: SpiffeId, labels: Mapping[str, str], trust_domain: str
) -> bool:
    """Whether `caller` is who is meant."""
    agent = "/".join(caller.segments[1:]) if caller.role is Role.AGENT else None
    operator = caller.segments[1] if caller.role is Role.OPERATOR else None
    return (
        caller.trust_domain == (principal.trust_domain or trust_domain)
        and (principal.type is None or (agent is not None and agent.split("/")[0] == principal.type))
        and (principal.instance is None or agent == principal.instance)
        and (principal.operator is None or operator == principal.operator)
        and principal.labels.items() <= labels.items()
    )


def concerns(spec: AccessPolicySpec, target: AccessTarget) -> bool:
    """Whether a policy is about `target`, whatever is done to it. A mesh-wide default is about everything."""
    return not spec.destinations or any(_is_destination(each, target) for each in spec.destinations)


def reads_paths(policies: AccessPolicies, target: AccessTarget) -> bool:
    """Whether any of the policies about `target` depends on the paths of requests."""
    return target.kind is TargetKind.AGENT and any(
        rule.reads_paths and Action.CALL in (rule.actions or Action)
        for spec in policies.values()
        if concerns(spec, target)
        for rule in spec.rules
    )


def default_of(policies: AccessPolicies) -> tuple[str, Effect]:
    """The name of the policy that sets the mesh-wide default, and the default; no name: nobody sets it."""
    return next(
        ((name, spec.default) for name, spec in policies.items() if spec.default is not None),
        ("", Effect.ALLOW),
    )


def _decide(matching: AccessPolicies) -> Decision:
    """The decision of policies that all match."""
    for effect in (Effect.DENY, Effect.ALLOW):
        name = min((name for name, spec in matching.items() if spec.effect is effect), default=None)
        if name is not None:
            allowed = effect is Effect.ALLOW
            return Decision(allowed, name, f"policy {name!r} {'allows' if allowed else 'denies'} it")
    name, default = default_of(matching)
    allowed = default is Effect.ALLOW
    if not name:
        return Decision(
            allowed, "", "no policy matches, and without a mesh-wide default everything is allowed"
        )
    reason = f"no policy matches, and the mesh-wide default ({name!r}) is to {default.value}"
    return Decision(allowed, name, reason)


def _to_blame(matching: AccessPolicies, would_be: Decision) -> tuple[str, ...]:
    """The policies in dry-run mode that lead to `would_be`, which is not what was decided."""
    cause = matching[would_be.policy]
    if cause.default is not None:
        return (would_be.policy,)
    return tuple(
        sorted(
            name
            for name, spec in matching.items()
            if spec.mode is Mode.DRY_RUN and spec.effect is cause.effect
        )
    )


def _is_destination(destination: AccessDestination, target: AccessTarget) -> bool:
    match target.kind:
        case TargetKind.TOPIC:
            return destination.topic == target.name
        case TargetKind.QUEUE:
            return destination.queue == target.name
        case TargetKind.POOL:
            return destination.pool == target.name
        case TargetKind.AGENT:
            return (
                (destination.type is not None or destination.capability is not None)
                and destination.type in {None, target.name}
                and destination.version in {None, target.version}
                and (destination.capability is None or destination.capability in target.capabilities)
            )


def _is_for(spec: AccessPolicySpec, request: AccessRequest) -> bool:
    denies = spec.effect is Effect.DENY
    return concerns(spec, request.target) and (
        not spec.rules or any(_matches(rule, request, denies=denies) for rule in spec.rules)
    )


def _matches(rule: AccessRule, request: AccessRequest, *, denies: bool) -> bool:
    if rule.actions and request.action not in rule.actions:
        return False
    if not rule.is_of_http:
        return True
    if request.target.kind is not TargetKind.AGENT:
        return False
    method = request.method.upper() if denies else request.method
    return (
        (not rule.methods or method in rule.methods)
        and (not rule.paths or any(_is_path(each, request.path, denies=denies) for each in rule.paths))
        and (rule.mcp is None or _is_mcp(rule.mcp, request, denies=denies))
        and (rule.a2a is None or _is_a2a(rule.a2a, request, denies=denies))
    )


def _is_path(pattern: str, path: str, *, denies: bool) -> bool:
    if denies:
        pattern, path = pattern.lower(), path.lower()
    if pattern.endswith("*"):
        prefix = pattern[:-1]
        return path.startswith(prefix) or (denies and prefix.endswith("/") and f"{path}/" == prefix)
    return path == pattern or (denies and path.rstrip("/") == pattern.rstrip("/"))


def _is_mcp(match: McpMatch, request: AccessRequest, *, denies: bool) -> bool:
    if not _is_post(request, denies=denies):
        return False
    body = request.body
    if body is None:
        return denies
    methods = match.methods or ((TOOLS_CALL,) if match.tools else ())
    if body.method not in methods:
        return False
    return body.method != TOOLS_CALL or not match.tools or body.name in match.tools


def _is_a2a(match: A2aMatch, request: AccessRequest, *, denies: bool) -> bool:
    methods = [A2A_METHODS[each] for each in match.methods]
    if _is_of_http_binding(methods, request, denies=denies):
        return True
    if not _is_post(request, denies=denies):
        return False
    if request.body is None:
        # What is another method's in a binding without JSON-RPC need not be a message of it.
        return denies and not _is_of_http_binding(A2A_METHODS.values(), request, denies=False)
    return any(request.body.method in each.rpc_names for each in methods)


def _is_of_http_binding(methods: Iterable[A2aMethod], request: AccessRequest, *, denies: bool) -> bool:
    return any(
        form.matches(request.method, request.path, ignore_case=denies)
        for each in methods
        for form in each.http
    )


def _is_post(request: AccessRequest, *, denies: bool) -> bool:
    """Whether the body counts."""
    return (request.method.upper() if denies else request.method) == "POST"
