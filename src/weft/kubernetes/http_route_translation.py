"""HTTPRoutes with a Service for a parent as Routes of a mesh, by the rules of GAMMA. Pure.

https://gateway-api.sigs.k8s.io/geps/gep-1294/. A type of agent is one in the whole mesh, so what is attached
to its Service holds for all callers, in whatever namespace they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from weft.errors import InvalidResource
from weft.kubernetes.agent_service import AgentService, ServiceKey
from weft.kubernetes.http_route import (
    SERVICE,
    BackendReference,
    ParentReference,
    read_parent,
    read_rule,
)
from weft.kubernetes.http_route_order import merged_route
from weft.kubernetes.http_route_rules import UNSUPPORTED, TranslatedRule, translated_rule
from weft.kubernetes.problem import Problem, Refusal
from weft.model.route import RouteSpec

MAX_PARENTS: Final = 32
"""Of one HTTPRoute; its schema allows no more."""

CONFLICTED: Final = "Conflicted"
NO_PARENT: Final = "NoMatchingParent"

Document = Mapping[str, Any]
"""An object of Kubernetes, as JSON types."""

RouteKey = tuple[str, str]
"""Namespace and name of an HTTPRoute."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an HTTPRoute at one of its parents."""

    parent: Document
    """As the HTTPRoute names it."""
    type: str | None = None
    """The type of agent whose Route it became a part of; None: of none."""
    refusal: Problem | None = None
    """Why it did not."""
    unresolved: tuple[Problem, ...] = ()
    """What it names that is not there."""
    dropped: tuple[str, ...] = ()
    """What is wrong with the rules that were left out."""


@dataclass(frozen=True, slots=True)
class TypeRoute:
    """The Route of a type of agent."""

    spec: RouteSpec
    sources: tuple[RouteKey, ...]
    """The HTTPRoutes of which it is made, all of one namespace; the oldest first."""

    @property
    def namespace(self) -> str:
        """Of all of them."""
        return self.sources[0][0]


@dataclass(frozen=True, slots=True)
class HttpRouteTranslation:
    """What a cluster's HTTPRoutes stand for."""

    routes: Mapping[str, TypeRoute]
    """Of each type that has one."""
    verdicts: Mapping[RouteKey, tuple[Verdict, ...]]
    """Of each HTTPRoute, one for each of its parents that the mesh has to do with; there may be none."""


@dataclass(frozen=True, slots=True)
class _Attachment:
    key: RouteKey
    place: int
    """Which of the HTTPRoute's verdicts it is."""
    type: str
    rules: tuple[TranslatedRule, ...]


def translated_routes(
    http_routes: Iterable[Document], services: Iterable[AgentService], meshed: Collection[str] = ()
) -> HttpRouteTranslation:
    """What `http_routes` stand for, where `services` are all there are.

    In the namespaces `meshed` all Services are the mesh's. Of HTTPRoutes that contradict each other the
    oldest counts.
    """
    known = {each.key: each for each in services}
    verdicts: dict[RouteKey, list[Verdict]] = {}
    attachments: list[_Attachment] = []
    for document in sorted(http_routes, key=_age):
        key = _key(document)
        found = verdicts.setdefault(key, [])
        for parent, reference in _parents(document, known, meshed):
            try:
                agent_type = _attached_type(key, reference, known)
                rules, dropped = _rules(document, key, agent_type, known)
            except Refusal as refusal:
                found.append(Verdict(parent, refusal=refusal.problem))
                continue
            attachments.append(_Attachment(key, len(found), agent_type, rules))
            unresolved = tuple(problem for each in rules for problem in each.unresolved)
            found.append(Verdict(parent, agent_type, unresolved=unresolved, dropped=dropped))
    routes: dict[str, TypeRoute] = {}
    for agent_type in sorted({each.type for each in attachments}):
        mine = [each for each in attachments if each.type == agent_type]
        route, refused = _merged(agent_type, mine)
        if route is not None:
            routes[agent_type] = route
        for each, problem in refused:
            place = verdicts[each.key]
            place[each.place] = Verdict(place[each.place].parent, refusal=problem)
    return HttpRouteTranslation(routes, {key: tuple(found) for key, found in verdicts.items()})


def _key(document: Document) -> RouteKey:
    return document["metadata"].get("namespace") or "", document["metadata"]["name"]


def _age(document: Document) -> tuple[str, RouteKey]:
    return document["metadata"].get("creationTimestamp") or "", _key(document)


def _parents(
    document: Document, services: Mapping[ServiceKey, AgentService], meshed: Collection[str]
) -> Iterator[tuple[Document, ParentReference]]:
    """The parents that the mesh has to do with."""
    namespace, _ = _key(document)
    for parent in ((document.get("spec") or {}).get("parentRefs") or ())[:MAX_PARENTS]:
        try:
            reference = read_parent(parent)
        except InvalidResource:
            continue
        place = reference.namespace or namespace
        service = services.get((place, reference.name))
        if reference.is_service and (service.of_mesh if service is not None else place in meshed):
            yield parent, reference


def _attached_type(
    key: RouteKey, parent: ParentReference, services: Mapping[ServiceKey, AgentService]
) -> str:
    """The type of agents that `parent` stands for. Raises Refusal if nothing can be attached there."""
    place = parent.namespace or key[0]
    service = services.get((place, parent.name))
    if service is None:
        raise Refusal(NO_PARENT, f"there is no Service {parent.name!r} in namespace {place!r}")
    called = f"Service {parent.name!r}"
    if place != key[0]:
        message = (
            f"{called} is in namespace {place!r}: what holds for the calls of one namespace only, a mesh "
            f"cannot do; declare it in {place!r}, for all callers"
        )
        raise Refusal(UNSUPPORTED, message)
    if service.headless or service.external:
        kind = "headless" if service.headless else "an ExternalName"
        raise Refusal(UNSUPPORTED, f"{called} is {kind}: nothing can be attached to it")
    if service.type_problem is not None:
        raise Refusal(UNSUPPORTED, f"{called}: {service.type_problem}")
    if service.version is not None:
        message = (
            f"{called} stands for version {service.version!r} alone, but callers name a type: attach this to "
            f"a Service of all versions"
        )
        raise Refusal(UNSUPPORTED, message)
    _check_port(parent, service)
    return service.type


def _check_port(parent: ParentReference, service: AgentService) -> None:
    wanted = [
        (name, number)
        for name, number in service.ports
        if parent.port in {None, number} and parent.section_name in {None, name}
    ]
    if parent.port is None and parent.section_name is None:
        return
    if not wanted:
        which = " ".join(str(each) for each in (parent.section_name, parent.port) if each is not None)
        raise Refusal(NO_PARENT, f"Service {service.name!r} has no port {which}")
    if len(service.ports) > 1:
        message = (
            f"Service {service.name!r} has several ports, by which calls of a mesh are not told apart: leave "
            f"out port and sectionName"
        )
        raise Refusal(UNSUPPORTED, message)


def _rules(
    document: Document, key: RouteKey, agent_type: str, services: Mapping[ServiceKey, AgentService]
) -> tuple[tuple[TranslatedRule, ...], tuple[str, ...]]:
    """The rules, and what is wrong with those that are none. Raises Refusal if none is left."""

    def resolve(reference: BackendReference) -> AgentService:
        return _backend(reference, key[0], services)

    rules: list[TranslatedRule] = []
    dropped: list[str] = []
    for number, rule in enumerate((document.get("spec") or {}).get("rules") or [{}], start=1):
        try:
            rules.append(translated_rule(read_rule(rule), f"{key[1]}-{number}", agent_type, resolve))
        except InvalidResource as error:
            dropped.append(f"rule {number}: {'; '.join(str(each) for each in error.problems)}")
        except Refusal as refusal:
            dropped.append(f"rule {number}: {refusal.problem.message}")
    if not rules:
        raise Refusal(UNSUPPORTED, "; ".join(dropped))
    return tuple(rules), tuple(dropped)


def _backend(
    reference: BackendReference, namespace: str, services: Mapping[ServiceKey, AgentService]
) -> AgentService:
    """The Service that `reference` means. Raises Refusal."""
    if reference.group or reference.kind != SERVICE:
        called = f"{reference.kind}.{reference.group}" if reference.group else reference.kind
        raise Refusal("InvalidKind", f"{called} {reference.name!r}: calls of a mesh go to Services only")
    place = reference.namespace or namespace
    called = f"Service {reference.name!r} of namespace {place!r}"
    service = services.get((place, reference.name))
    if service is None:
        raise Refusal("BackendNotFound", f"{called} is not there")
    if service.external or service.type_problem is not None or not service.of_mesh:
        message = (
            f"{called} stands for no agents of the mesh: label its namespace weft.dev/injection=enabled, the "
            f"Service weft.dev/discover=true, or name the agents' type in its annotation weft.dev/type"
        )
        raise Refusal("BackendNotFound", message)
    if reference.port is not None and reference.port not in {number for _, number in service.ports}:
        raise Refusal("BackendNotFound", f"{called} has no port {reference.port}")
    return service


def _merged(
    agent_type: str, attachments: Sequence[_Attachment]
) -> tuple[TypeRoute | None, list[tuple[_Attachment, Problem]]]:
    """The Route of a type, and which attachments found no place in it. The oldest come first."""
    first = attachments[0].key
    spec: RouteSpec | None = None
    rules: dict[RouteKey, tuple[TranslatedRule, ...]] = {}
    refused: list[tuple[_Attachment, Problem]] = []
    for each in attachments:
        if each.key[0] != first[0]:
            refused.append((each, _second_namespace(agent_type, first)))
            continue
        # Two parents of the same type are one place.
        more = {**rules, each.key: each.rules}
        try:
            spec = merged_route(agent_type, more.values())
        except ValidationError:
            message = f"with this, the rules for type {agent_type!r} would be more than one Route can have"
            refused.append((each, Problem(UNSUPPORTED, message)))
        else:
            rules = more
    return (TypeRoute(spec, tuple(rules)) if spec is not None else None), refused


def _second_namespace(agent_type: str, first: RouteKey) -> Problem:
    message = (
        f"HTTPRoute {first[1]!r} of namespace {first[0]!r} is for type {agent_type!r} already, which is one "
        f"type in all namespaces: declare both there, or have the Services stand for different types"
    )
    return Problem(CONFLICTED, message)
