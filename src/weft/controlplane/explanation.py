"""`weft can`: what the AccessPolicies say to a question that a person asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from weft.errors import InvalidRequest
from weft.model.access import TOOLS_CALL, AccessPolicySpec, Action
from weft.model.agent import Instance
from weft.model.agent_spec import AgentSpec
from weft.model.decision import (
    AccessRequest,
    AccessTarget,
    Decision,
    RpcCall,
    TargetKind,
    access_policies,
    concerns,
    decide,
)
from weft.model.external_agent import ExternalAgentSpec
from weft.model.names import check_name, check_type
from weft.model.resource import AnyResource
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SCHEME, Role, SpiffeId, parse_spiffe_id

DEFAULT_METHOD = "POST"
DEFAULT_PATH = "/rpc"
"""Of a call about which no more is said: what Weft's own agents are called with."""

MCP_PATH = "/mcp"
"""Of a call of a tool about which no more is said."""

MAX_CASES = 100
"""How many callers and agents that a question may mean are looked at."""

ANY_INSTANCE = "_"
"""No instance has this id: it stands for one of which nothing is known."""

ACTIONS = {
    TargetKind.AGENT: frozenset({Action.CALL}),
    TargetKind.POOL: frozenset({Action.CALL}),
    TargetKind.TOPIC: frozenset({Action.PUBLISH, Action.SUBSCRIBE}),
    TargetKind.QUEUE: frozenset({Action.SUBMIT, Action.CONSUME}),
}


@dataclass(frozen=True, slots=True)
class Question:
    """May `caller` do `action` to `target`?"""

    caller: str
    """`<type>`, `<type>/<id>`, `operator/<name>`, or a SPIFFE ID."""
    action: Action
    target: str
    """`<type>`, `capability/<name>`, `topic/<name>`, `queue/<name>` or `pool/<name>`."""
    method: str = ""
    """Of HTTP, for calls of agents."""
    path: str = ""
    """Likewise."""
    rpc: str = ""
    """The method of MCP or A2A, likewise."""
    tool: str = ""
    """Of MCP, likewise."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What the answer depends on."""

    resources: Collection[AnyResource]
    instances: Collection[Instance]
    labels_of: Mapping[str, Mapping[str, str]]
    """The labels that the authority attested, by SPIFFE ID."""
    is_revoked: Callable[[str], bool] = lambda _spiffe_id: False
    trust_domain: str = DEFAULT_TRUST_DOMAIN

    @property
    def external(self) -> frozenset[str]:
        """The types of agents that have no sidecar."""
        declared = {each.metadata.name for each in self.resources if isinstance(each.spec, ExternalAgentSpec)}
        return frozenset(declared - {each.type for each in self.instances})


@dataclass(frozen=True, slots=True)
class Case:
    """One of those that may be meant by the caller, towards one of those that may be meant by the target."""

    caller: str
    """A SPIFFE ID."""
    target: AccessTarget
    decision: Decision


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to a question."""

    request: str
    """What was looked at, for calls of agents: `POST /rpc`."""
    cases: tuple[Case, ...]
    """At least one. Those of equal decisions are left out."""
    open: tuple[str, ...]
    """Policies whose rules depend on more than was asked."""

    @property
    def decision(self) -> Decision:
        """That of the first case that is denied, else of the first."""
        return next((each for each in self.cases if not each.decision.allowed), self.cases[0]).decision


def explain(question: Question, mesh: Mesh) -> Explanation:
    """Answer a question. Raises InvalidRequest if it makes no sense."""
    policies = access_policies(mesh.resources)
    callers = list(_callers(question.caller, mesh))
    targets = list(_targets(question, mesh))
    request = _request(question, targets[0])
    revoked = [str(each) for each in callers if mesh.is_revoked(str(each))]
    external = mesh.external
    found: dict[Decision, Case] = {}
    for caller in callers[:MAX_CASES]:
        for target in targets[:MAX_CASES]:
            decision = decide(
                policies,
                caller,
                towards(target, request, external),
                trust_domain=mesh.trust_domain,
                labels=mesh.labels_of.get(str(caller)),
                revoked=revoked,
            )
            found.setdefault(decision, Case(str(caller), target, decision))
    return Explanation(
        f"{request.method} {request.path}".strip(),
        tuple(found.values()),
        tuple(name for name, spec in sorted(policies.items()) if _depends(spec, question, targets)),
    )


def towards(target: AccessTarget, request: AccessRequest, external: Collection[str]) -> AccessRequest:
    """The same request of `target`. Where agents are `external`, nobody reads bodies."""
    unread = target.kind is TargetKind.AGENT and target.name in external
    return replace(request, target=target, body=None if unread else request.body)


def _callers(text: str, mesh: Mesh) -> Iterator[SpiffeId]:
    """Everybody who may be meant."""
    if text.startswith(SCHEME):
        yield parse_spiffe_id(text)
        return
    path = _caller_path(text)
    if path.count("/") == 3:
        yield SpiffeId(mesh.trust_domain, path)
        return
    # What holds for one of whom nothing is known comes first.
    yield SpiffeId(mesh.trust_domain, f"{path}/{ANY_INSTANCE}")
    beginning = f"{SCHEME}{mesh.trust_domain}{path}/"
    for each in sorted(mesh.labels_of):
        if each.startswith(beginning):
            yield parse_spiffe_id(each)


def _caller_path(text: str) -> str:
    """The path of the SPIFFE ID of whom `text` means, or its beginning."""
    parts = text.split("/")
    if parts[0] == Role.OPERATOR and len(parts) in {2, 3}:
        names = [check_name(parts[1], "operator"), *(check_name(each, "instance") for each in parts[2:])]
        return "/".join(["", Role.OPERATOR, *names])
    if len(parts) in {1, 2}:
        names = [check_type(parts[0]), *(check_name(each, "instance") for each in parts[1:])]
        return "/".join(["", Role.AGENT, *names])
    raise InvalidRequest(
        f"{text[:200]!r} names nobody: write a type, <type>/<instance>, operator/<name>, or a SPIFFE ID"
    )


def _targets(question: Question, mesh: Mesh) -> Iterator[AccessTarget]:
    """Everything that may be meant."""
    kind, slash, name = question.target.rpartition("/")
    if slash and kind in {TargetKind.TOPIC, TargetKind.QUEUE, TargetKind.POOL} and name:
        target = AccessTarget(TargetKind(kind), name)
        _check_action(question, target.kind)
        yield target
        return
    _check_action(question, TargetKind.AGENT)
    if kind == "capability":
        yield from agents_meant(mesh, capability=check_name(name, "capability"))
    elif slash:
        raise InvalidRequest(
            f"{question.target[:200]!r} names nothing: write a type, capability/<name>, topic/<name>, "
            "queue/<name> or pool/<name>"
        )
    else:
        yield from agents_meant(mesh, agent_type=check_type(name))


def _check_action(question: Question, kind: TargetKind) -> None:
    if question.action not in ACTIONS[kind]:
        possible = " or ".join(sorted(ACTIONS[kind]))
        raise InvalidRequest(
            f"nobody can {question.action} {question.target[:200]!r}: all that one does with it is {possible}"
        )


def agents_meant(mesh: Mesh, *, agent_type: str = "", capability: str = "") -> list[AccessTarget]:
    """The different agents that run or are declared; if there are none, one of which no more is known."""
    known = {
        *(AccessTarget(TargetKind.AGENT, it.type, it.version, it.capabilities) for it in mesh.instances),
        *_declared(mesh),
    }
    meant = [
        each for each in known if (capability in each.capabilities if capability else each.name == agent_type)
    ]
    if not meant and capability:
        raise InvalidRequest(f"no agent offers the capability {capability!r}; see 'weft agents'")
    return sorted(meant, key=_by_name) or [AccessTarget(TargetKind.AGENT, agent_type)]


def _declared(mesh: Mesh) -> Iterator[AccessTarget]:
    external = mesh.external
    for each in mesh.resources:
        is_external = isinstance(each.spec, ExternalAgentSpec) and each.metadata.name in external
        if isinstance(each.spec, AgentSpec) or is_external:
            capabilities = frozenset(each.spec.capabilities)
            yield AccessTarget(TargetKind.AGENT, each.metadata.name, each.spec.version, capabilities)


def _by_name(target: AccessTarget) -> tuple[str, str, list[str]]:
    return target.name, target.version, sorted(target.capabilities)


def _request(question: Question, target: AccessTarget) -> AccessRequest:
    """What is asked for, of the first that may be meant."""
    if target.kind is not TargetKind.AGENT:
        if question.method or question.path or question.rpc or question.tool:
            raise InvalidRequest("method, path, rpc and tool are of calls of agents only")
        return AccessRequest(question.action, target)
    path = (question.path or (MCP_PATH if question.tool else DEFAULT_PATH)).partition("?")[0]
    if not path.startswith("/"):
        raise InvalidRequest(f"{path[:200]!r} is no path: it does not begin with a slash")
    rpc = question.rpc or (TOOLS_CALL if question.tool else "")
    return AccessRequest(
        question.action, target, question.method or DEFAULT_METHOD, path, RpcCall(rpc, question.tool)
    )


def _depends(spec: AccessPolicySpec, question: Question, targets: Iterable[AccessTarget]) -> bool:
    """Whether a policy's rules depend on something that the question leaves open."""
    return any(concerns(spec, each) for each in targets) and any(
        (rule.methods and not question.method)
        or (rule.paths and not question.path)
        or (rule.reads_bodies and not (question.rpc or question.tool))
        for rule in spec.rules
    )
