"""One rule of an HTTPRoute in the terms of a mesh: which calls it is for, and what happens to them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from weft.errors import InvalidRequest
from weft.kubernetes.agent_service import AgentService
from weft.kubernetes.http_route import (
    BackendReference,
    Filter,
    HeaderModifier,
    HttpRouteRule,
    RequestMirror,
    RouteMatch,
)
from weft.kubernetes.problem import Problem, Refusal
from weft.model.contradictions import contradictions
from weft.model.names import check_name
from weft.model.resource import Metadata, Resource
from weft.model.route import (
    MAX_WEIGHT,
    AbortFault,
    Fault,
    HeaderChanges,
    HeaderMatch,
    Mirror,
    PathMatch,
    RequestMatch,
    RouteRule,
    RouteSpec,
    SplitTarget,
)
from weft.model.target import Target
from weft.model.traffic import Retries
from weft.model.validation import explain

UNSUPPORTED: Final = "UnsupportedValue"

NO_BACKEND_STATUS: Final = 500
"""What calls are answered with that a rule leads nowhere: the Gateway API says so."""

_LONGEST: Final = 86_400.0
"""Seconds: what stands for no time limit at all, since a call always has one."""

_REPEATED_CODES: Final = frozenset({502, 503, 504})
"""Answers after which calls are tried again where that is safe."""

ModelT = TypeVar("ModelT", bound=BaseModel)

Resolve = Callable[[BackendReference], AgentService]
"""The Service that is meant. Raises Refusal."""

Rank = tuple[int, int, int, int]
"""Sorts what is more specific first."""


@dataclass(frozen=True, slots=True)
class RankedMatch:
    """One of the ways in which calls match a rule."""

    rank: Rank
    requests: tuple[RequestMatch, ...]
    """Any of these."""


@dataclass(frozen=True, slots=True)
class TranslatedRule:
    """A rule in the terms of a mesh."""

    rule: RouteRule
    """What is done, but not to which calls."""
    matches: tuple[RankedMatch, ...]
    unresolved: tuple[Problem, ...] = field(default=())
    """What is named but not there; calls that would go there are answered with 500."""


def translated_rule(rule: HttpRouteRule, name: str, destination: str, resolve: Resolve) -> TranslatedRule:
    """What `rule`, called `name`, means for calls to the type `destination`.

    Raises Refusal if there is something in it that a mesh cannot do.
    """
    unresolved: list[Problem] = []
    fields = {
        "name": _name(rule.name) or _name(name),
        **_backends(rule.backend_refs, destination, resolve, unresolved),
        **_limits(rule),
        **_filters(rule.filters, destination, resolve, unresolved),
    }
    made = _checked(destination, **fields)
    matches = tuple(_match(each) for each in rule.matches or (RouteMatch(),))
    return TranslatedRule(made, matches, tuple(unresolved))


def _name(text: str | None) -> str | None:
    """The Gateway API takes names with dots, and longer ones."""
    try:
        return check_name(text) if text else None
    except InvalidRequest:
        return None


def _match(match: RouteMatch) -> RankedMatch:
    if match.query_params:
        raise Refusal(UNSUPPORTED, "queryParams: calls of a mesh are not told apart by their query")
    headers = [
        {"name": each.name, "exact" if each.type == "Exact" else "regex": each.value}
        for each in match.distinct_headers
    ]
    requests = tuple(
        _made(
            RequestMatch,
            path=path,
            method=match.method,
            headers=tuple(_made(HeaderMatch, **each) for each in headers),
        )
        for path in _paths(match)
    )
    order = ("Exact", "RegularExpression", "PathPrefix")
    rank = (order.index(match.path.type), -len(match.path.value), 0 if match.method else 1, -len(headers))
    return RankedMatch(rank, requests)


def _paths(match: RouteMatch) -> Iterator[PathMatch | None]:
    path = match.path
    match path.type:
        case "Exact":
            yield _made(PathMatch, exact=path.value)
        case "RegularExpression":
            yield _made(PathMatch, regex=path.value)
        case _:
            # Whole elements of a path: what begins with /ab does not begin with /a.
            whole = path.value.rstrip("/")
            if not whole:
                yield None
                return
            yield _made(PathMatch, exact=whole)
            yield _made(PathMatch, prefix=f"{whole}/")


def _backends(
    backends: Iterable[BackendReference], destination: str, resolve: Resolve, unresolved: list[Problem]
) -> dict[str, Any]:
    """`split` and `fault` of a rule: the share of what is not there is answered with an error."""
    weights: dict[tuple[str, str | None], int] = {}
    lost = 0
    for each in backends:
        if each.filters:
            raise Refusal(UNSUPPORTED, "backendRefs[].filters: a mesh does the same to all calls of a rule")
        try:
            service = resolve(each)
        except Refusal as refusal:
            unresolved.append(refusal.problem)
            lost += each.weight
            continue
        place = service.type, service.version
        weights[place] = weights.get(place, 0) + each.weight
    wanted = {place: weight for place, weight in weights.items() if weight}
    total = sum(wanted.values()) + lost
    fields: dict[str, Any] = {}
    if not wanted or lost:
        fields["fault"] = _failing(100 * lost / total if wanted else 100.0)
    if wanted and wanted.keys() != {(destination, None)}:
        fields["split"] = tuple(_split(wanted, destination))
    return fields


def _failing(percent: float) -> Fault:
    return Fault(abort=AbortFault(status=NO_BACKEND_STATUS, percent=percent))


def _split(weights: Mapping[tuple[str, str | None], int], destination: str) -> Iterator[SplitTarget]:
    most = max(weights.values())
    for (agent_type, version), weight in weights.items():
        scaled = weight if most <= MAX_WEIGHT else max(1, round(weight * MAX_WEIGHT / most))
        yield _made(
            SplitTarget,
            type=None if agent_type == destination else agent_type,
            version=version,
            weight=scaled,
        )


def _limits(rule: HttpRouteRule) -> dict[str, Any]:
    """`timeout` and `retries`."""
    if rule.session_persistence is not None:
        message = "sessionPersistence: use loadBalancing.contextAffinity of a TrafficPolicy"
        raise Refusal(UNSUPPORTED, message)
    if rule.retry.backoff is not None:
        raise Refusal(UNSUPPORTED, "retry.backoff: how long a mesh waits between tries is fixed")
    codes = sorted({*rule.retry.codes} - _REPEATED_CODES)
    if codes:
        message = f"retry.codes: calls are tried again after 502, 503 and 504, not after {codes[0]}"
        raise Refusal(UNSUPPORTED, message)
    fields: dict[str, Any] = {}
    if rule.timeouts.request is not None:
        fields["timeout"] = rule.timeouts.request or _LONGEST
    retries: dict[str, Any] = {}
    if rule.retry.attempts is not None:
        retries["attempts"] = rule.retry.attempts
    if rule.timeouts.backend_request:
        retries["per_try_timeout"] = rule.timeouts.backend_request
    if retries:
        fields["retries"] = _made(Retries, **retries)
    return fields


def _filters(
    filters: Iterable[Filter], destination: str, resolve: Resolve, unresolved: list[Problem]
) -> dict[str, Any]:
    """`requestHeaders`, `responseHeaders` and `mirror`, and `fault` where there is a filter of others."""
    fields: dict[str, Any] = {}
    for each in filters:
        name, value = _filter(each, destination, resolve, unresolved)
        if name in fields:
            raise Refusal(UNSUPPORTED, f"filters: {each.type} is there twice")
        fields[name] = value
    return fields


def _filter(
    each: Filter, destination: str, resolve: Resolve, unresolved: list[Problem]
) -> tuple[str, HeaderChanges | Mirror | Fault | None]:
    match each.type:
        case "ExtensionRef":
            # It must not be passed over, says the Gateway API.
            unresolved.append(Problem("InvalidKind", "filters: a mesh knows none that an ExtensionRef names"))
            return "fault", _failing(100.0)
        case "RequestHeaderModifier":
            return "request_headers", _header_changes(each.request_header_modifier)
        case "ResponseHeaderModifier":
            return "response_headers", _header_changes(each.response_header_modifier)
        case "RequestMirror" if each.request_mirror is not None:
            return "mirror", _mirror(each.request_mirror, destination, resolve, unresolved)
    raise Refusal(UNSUPPORTED, f"filters: a mesh has no {each.type}")


def _header_changes(modifier: HeaderModifier) -> HeaderChanges:
    return _made(
        HeaderChanges,
        set=_first((each.name, each.value) for each in modifier.set),
        add=_first((each.name, each.value) for each in modifier.add),
        remove=tuple(_first((each, each) for each in modifier.remove)),
    )


def _first(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of entries for the same header the first alone counts, whatever its case."""
    seen: dict[str, tuple[str, str]] = {}
    for name, value in entries:
        seen.setdefault(name.lower(), (name, value))
    return dict(seen.values())


def _mirror(
    mirror: RequestMirror, destination: str, resolve: Resolve, unresolved: list[Problem]
) -> Mirror | None:
    try:
        service = resolve(mirror.backend_ref)
    except Refusal as refusal:
        # Only copies are lost.
        unresolved.append(refusal.problem)
        return None
    other = None if service.type == destination and service.version is not None else service.type
    return _made(Mirror, type=other, version=service.version, percent=mirror.share)


def _checked(destination: str, **fields: Any) -> RouteRule:
    rule = _made(RouteRule, **{name: value for name, value in fields.items() if value is not None})
    spec = RouteSpec(destination=Target(type=destination), rules=(rule,))
    resource = Resource[RouteSpec](
        api_version="weft.dev/v1alpha1", kind="Route", metadata=Metadata(name="httproute"), spec=spec
    )
    for path, message in contradictions(resource):
        raise Refusal(UNSUPPORTED, f"{'.'.join(str(each) for each in path[3:])}: {message}")
    return rule


def _made(model: type[ModelT], **fields: Any) -> ModelT:
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(each) for each in first["loc"])
        text = explain(first, model)
        raise Refusal(UNSUPPORTED, f"{where}: {text}" if where else text) from error
