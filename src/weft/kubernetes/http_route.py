"""HTTPRoutes of the Gateway API (gateway.networking.k8s.io/v1), as far as a mesh can do something with them.

https://gateway-api.sigs.k8s.io/reference/spec/#httproute. Each rule is read by itself: what is unknown in one
says nothing about the others. The cluster has checked all of it against its own schema, which may be newer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from weft.errors import FieldProblem, InvalidResource
from weft.model.spec import Spec
from weft.model.validation import explain

GROUP: Final = "gateway.networking.k8s.io"
API_VERSION: Final = f"{GROUP}/v1"
KIND: Final = "HTTPRoute"
SERVICE: Final = "Service"

SpecT = TypeVar("SpecT", bound=Spec)

_PART = re.compile(r"([0-9]{1,5})(h|ms|m|s)")
_SECONDS: Final[Mapping[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_MAX_PARTS: Final = 4


def duration_seconds(text: Any) -> float:
    """The seconds in `1h30m` or `500ms`, as the Gateway API writes them (GEP-2257). Raises ValueError."""
    parts = _PART.findall(text) if isinstance(text, str) else []
    if not 1 <= len(parts) <= _MAX_PARTS or "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise ValueError("is not a duration: use 500ms, 30s, 1h30m")
    return round(sum(int(number) * _SECONDS[unit] for number, unit in parts), 3)


GatewayDuration = Annotated[float, BeforeValidator(duration_seconds)]
"""Seconds."""


class PathMatch(Spec):
    """Which paths match."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class HeaderMatch(Spec):
    """Which values of a header match."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


class RouteMatch(Spec):
    """Which calls match: all that is given must hold."""

    path: PathMatch = PathMatch()
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    query_params: tuple[dict[str, Any], ...] = ()
    method: str | None = None

    @property
    def distinct_headers(self) -> tuple[HeaderMatch, ...]:
        """Of those for the same header the first alone counts, whatever its case."""
        first: dict[str, HeaderMatch] = {}
        for each in self.headers:
            first.setdefault(each.name.lower(), each)
        return tuple(first.values())


class HeaderEntry(Spec):
    """A header and its value."""

    name: str
    value: str


class HeaderModifier(Spec):
    """What is done to headers."""

    set: tuple[HeaderEntry, ...] = ()
    add: tuple[HeaderEntry, ...] = ()
    remove: tuple[str, ...] = ()


class BackendReference(Spec):
    """Where calls go."""

    group: str = ""
    kind: str = SERVICE
    name: str
    namespace: str | None = None
    port: int | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    filters: tuple[dict[str, Any], ...] = ()


class Fraction(Spec):
    """A share."""

    numerator: Annotated[int, Field(ge=0)]
    denominator: Annotated[int, Field(ge=1)] = 100


class RequestMirror(Spec):
    """Where copies of the calls go."""

    backend_ref: BackendReference
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    fraction: Fraction | None = None

    @property
    def share(self) -> float:
        """Of a hundred calls."""
        if self.fraction is not None:
            return min(100.0, 100 * self.fraction.numerator / self.fraction.denominator)
        return 100.0 if self.percent is None else float(self.percent)


class Filter(Spec):
    """What is done to calls on their way. Which of the fields counts, the type says."""

    # There are types that no mesh has heard of yet, with fields of their own.
    model_config = ConfigDict(extra="ignore")

    type: str
    request_header_modifier: HeaderModifier = HeaderModifier()
    response_header_modifier: HeaderModifier = HeaderModifier()
    request_mirror: RequestMirror | None = None

    @model_validator(mode="after")
    def _with_its_field(self) -> Self:
        if self.type == "RequestMirror" and self.request_mirror is None:
            raise ValueError("requestMirror is missing")
        return self


class Timeouts(Spec):
    """How long calls may take."""

    request: GatewayDuration | None = None
    """Seconds in all; 0: as long as possible."""
    backend_request: GatewayDuration | None = None
    """Seconds for one try; 0: as long as possible."""


class Retry(Spec):
    """How often a call is tried again."""

    codes: tuple[int, ...] = ()
    attempts: Annotated[int, Field(ge=0)] | None = None
    backoff: str | None = None


class HttpRouteRule(Spec):
    """What happens to the calls that match any of `matches`."""

    name: str | None = None
    matches: Annotated[tuple[RouteMatch, ...], Field(max_length=64)] = ()
    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()
    backend_refs: Annotated[tuple[BackendReference, ...], Field(max_length=16)] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    session_persistence: dict[str, Any] | None = None


def read_rule(rule: Any) -> HttpRouteRule:
    """A rule of an HTTPRoute. Raises InvalidResource with what is unknown in it or out of range."""
    return _read(HttpRouteRule, rule)


class ParentReference(Spec):
    """What an HTTPRoute is attached to."""

    # Only those of Services are looked at, so others may say what they want.
    model_config = ConfigDict(extra="ignore")

    group: str = GROUP
    kind: str = "Gateway"
    namespace: str | None = None
    name: str
    section_name: str | None = None
    port: int | None = None

    @property
    def is_service(self) -> bool:
        """Whether it is a Service, which makes the HTTPRoute a mesh's."""
        return not self.group and self.kind == SERVICE


def read_parent(parent: Any) -> ParentReference:
    """A parent of an HTTPRoute. Raises InvalidResource."""
    return _read(ParentReference, parent)


def _read(model: type[SpecT], value: Any) -> SpecT:
    try:
        return model.model_validate_json(json.dumps(value), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidResource(
            [
                FieldProblem(explain(each, model), ".".join(map(str, each["loc"])))
                for each in error.errors(include_url=False)
            ]
        ) from error
