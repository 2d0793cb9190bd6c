"""AccessPolicy: who may call, publish, subscribe, submit and consume what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from weft.errors import InvalidRequest
from weft.model.a2a_methods import A2A_METHODS
from weft.model.agent_spec import Labels
from weft.model.names import check_name, check_type
from weft.model.request_path import RULE_PATH
from weft.model.spec import MAX_ITEMS, Name, ShortText, Spec, TypeName
from weft.model.spiffe import MAX_TRUST_DOMAIN_BYTES, check_trust_domain

MAX_RULES = 32
"""The most rules one policy may have."""

TOOLS_CALL = "tools/call"
"""MCP's method for calling a tool."""


class Effect(StrEnum):
    """What a policy does with the requests that match it."""

    ALLOW = "allow"
    DENY = "deny"


class Mode(StrEnum):
    """Whether a policy decides, or only tells what it would have decided."""

    ENFORCE = "enforce"
    DRY_RUN = "dryRun"


class Action(StrEnum):
    """What somebody wants to do."""

    CALL = "call"
    """An agent, or a pool of models."""
    PUBLISH = "publish"
    """To a topic."""
    SUBSCRIBE = "subscribe"
    """To a topic."""
    SUBMIT = "submit"
    """To a queue."""
    CONSUME = "consume"
    """From a queue."""


def _instance(value: str) -> str:
    agent_type, slash, instance = value.partition("/")
    if not slash:
        raise ValueError(f"{value!r} names no instance: write <type>/<id>")
    try:
        return f"{check_type(agent_type)}/{check_name(instance, 'instance')}"
    except InvalidRequest as error:
        raise ValueError(error.detail) from error


def _trust_domain(value: str) -> str:
    try:
        return check_trust_domain(value)
    except InvalidRequest as error:
        raise ValueError(error.detail) from error


def _rule_path(value: str) -> str:
    segments = value.removesuffix("*").split("/")
    if "" in segments[1:-1] or {".", ".."} & set(segments):
        raise ValueError(
            f"{value!r} would match nothing: `//`, `.` and `..` are resolved before paths are compared"
        )
    return value


def _a2a_method(value: str) -> str:
    if value not in A2A_METHODS:
        raise ValueError(f"{value!r} is no method of A2A 1.0: there are {', '.join(A2A_METHODS)}")
    return value


InstanceName = Annotated[str, StringConstraints(max_length=128), AfterValidator(_instance)]
"""An instance, as `<type>/<id>`."""

TrustDomain = Annotated[
    str, StringConstraints(max_length=MAX_TRUST_DOMAIN_BYTES), AfterValidator(_trust_domain)
]
"""The name of a SPIFFE trust domain."""

ChannelName = Annotated[
    str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
"""The name of a topic or a queue."""

HttpMethod = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")]
"""A method of HTTP, in capitals."""

RulePath = Annotated[str, StringConstraints(max_length=1024, pattern=RULE_PATH), AfterValidator(_rule_path)]
"""A path, or with `*` at its end all that begin so; nothing in it escaped."""

RpcName = Annotated[str, StringConstraints(max_length=128, pattern=r"^[\x21-\x7e]+$")]
"""The name of a method or a tool."""

A2aMethodName = Annotated[str, StringConstraints(max_length=64), AfterValidator(_a2a_method)]
"""A method by its name in A2A 1.0; calls by its former name and in other bindings are meant too."""


class Principal(Spec):
    """Who asks: all fields given must hold. Without `trustDomain`, somebody of the mesh's own."""

    type: TypeName | None = None
    """Any agent of this type."""
    instance: InstanceName | None = None
    """One agent, as `<type>/<id>`."""
    operator: Name | None = None
    """Whoever runs without an agent in this operator's name: `weft run` without a type, say."""
    labels: Labels = {}
    """Labels that the authority attested when the agent enrolled, not what it says of itself."""
    trust_domain: TrustDomain | None = None
    """Another trust domain, imported by its bundle; alone: anyone of it."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.model_fields_set or (self.model_fields_set == {"labels"} and not self.labels):
            raise ValueError(
                "give type, instance, operator, labels or trustDomain; leave `from` out for anyone"
            )
        if self.operator is not None and (self.type is not None or self.instance is not None):
            raise ValueError("give operator, or type or instance: nobody is both")
        if self.type is not None and self.instance is not None and self.instance.split("/")[0] != self.type:
            raise ValueError(f"instance {self.instance!r} is not of type {self.type!r}")
        return self


class AccessDestination(Spec):
    """What is asked for: agents (by type, version and capability; all given must hold), or another thing."""

    type: TypeName | None = None
    version: Annotated[ShortText, Field(min_length=1)] | None = None
    capability: Name | None = None
    topic: ChannelName | None = None
    queue: ChannelName | None = None
    pool: Name | None = None
    """A ModelPool."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        agents = self.type is not None or self.capability is not None or self.version is not None
        others = sum(each is not None for each in (self.topic, self.queue, self.pool))
        if agents + others != 1:
            raise ValueError("give type, capability or version, or else one of topic, queue and pool")
        if self.version is not None and self.type is None and self.capability is None:
            raise ValueError("a version goes with a type or a capability")
        return self

    @property
    def actions(self) -> frozenset[Action]:
        """What can be done to it."""
        if self.topic is not None:
            return frozenset({Action.PUBLISH, Action.SUBSCRIBE})
        if self.queue is not None:
            return frozenset({Action.SUBMIT, Action.CONSUME})
        return frozenset({Action.CALL})


class McpMatch(Spec):
    """Which requests of MCP match, by what their bodies say.

    A POST of an array, of what is no JSON at all, or with a key that decides twice or in another case, is
    taken for what is denied: give `paths` too where an agent takes such things elsewhere.
    """

    methods: Annotated[tuple[RpcName, ...], Field(max_length=MAX_ITEMS)] = ()
    """As in `tools/list`; any if omitted, but only `tools/call` if tools are given."""
    tools: Annotated[tuple[RpcName, ...], Field(max_length=MAX_ITEMS)] = ()
    """Of the calls of tools, only those of these."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.methods and not self.tools:
            raise ValueError("give methods, tools, or both")
        if self.tools and self.methods and TOOLS_CALL not in self.methods:
            raise ValueError(f"tools are called with {TOOLS_CALL}: add it to methods, or leave out tools")
        return self


class A2aMatch(Spec):
    """Which requests of A2A match, in any of its bindings. Bodies are read as for MCP."""

    methods: Annotated[tuple[A2aMethodName, ...], Field(min_length=1, max_length=len(A2A_METHODS))]


class AccessRule(Spec):
    """Which requests match: all that is given must hold."""

    methods: Annotated[tuple[HttpMethod, ...], Field(max_length=16)] = ()
    paths: Annotated[tuple[RulePath, ...], Field(max_length=MAX_ITEMS)] = ()
    """Allowing is exact. Denying ignores case and a slash at the end, since there are agents that do."""
    mcp: McpMatch | None = None
    a2a: Annotated[A2aMatch | None, Field(alias="a2a")] = None
    actions: Annotated[tuple[Action, ...], Field(max_length=len(Action))] = ()

    @property
    def is_of_http(self) -> bool:
        """Whether it says anything that only HTTP requests have."""
        return bool(self.methods or self.paths or self.mcp or self.a2a)

    @property
    def reads_paths(self) -> bool:
        """Whether it depends on the request's path."""
        return bool(self.paths or self.a2a)

    @property
    def reads_bodies(self) -> bool:
        """Whether it depends on the request's body."""
        return bool(self.mcp or self.a2a)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.is_of_http and not self.actions:
            raise ValueError("says nothing: leave out `rules` where everything is meant")
        if self.mcp is not None and self.a2a is not None:
            raise ValueError("no request is both of MCP and of A2A: make two rules")
        return self


class AccessPolicySpec(Spec):
    """Who may do what; or, with `default` alone, what holds where no policy matches."""

    effect: Effect | None = None
    mode: Mode = Mode.ENFORCE
    """With dryRun, requests are not affected, but what the policy would have changed is reported."""
    callers: Annotated[tuple[Principal, ...], Field(alias="from", max_length=MAX_ITEMS)] = ()
    """Any of these; anyone if omitted."""
    destinations: Annotated[tuple[AccessDestination, ...], Field(alias="to", max_length=MAX_ITEMS)] = ()
    """Any of these; everything if omitted."""
    rules: Annotated[tuple[AccessRule, ...], Field(max_length=MAX_RULES)] = ()
    """Any of these; everything if omitted."""
    default: Effect | None = None
    """The mesh-wide default. It stands alone, and in one policy at most; allow where there is none."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.effect is None) == (self.default is None):
            raise ValueError("give effect, or (for the mesh-wide default) default")
        if self.default is not None and (self.callers or self.destinations or self.rules):
            raise ValueError("default stands without from, to and rules: it holds where no policy matches")
        return self
