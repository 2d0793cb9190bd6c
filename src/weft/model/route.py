"""Route: which calls to a destination go where, and what is done to them on the way."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from weft.model.duration import Timeout
from weft.model.header import ChangeableHeader, HeaderName, HeaderValue
from weft.model.regex import check_regex
from weft.model.spec import MAX_ITEMS, Name, Percent, ShortText, Spec, TypeName
from weft.model.target import Target
from weft.model.telemetry import Tracing
from weft.model.traffic import Retries

MAX_WEIGHT = 1000

Regex = Annotated[str, StringConstraints(min_length=1), AfterValidator(check_regex)]
"""A regular expression in RE2's syntax; it must match the whole value."""

Path = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^/[^\s?#]*$")]


class PathMatch(Spec):
    """Which paths match: one of the three."""

    prefix: Path | None = None
    exact: Path | None = None
    regex: Regex | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.prefix, self.exact, self.regex)) != 1:
            raise ValueError("give one of prefix, exact and regex")
        return self


class HeaderMatch(Spec):
    """Which values of a header match: one of the four."""

    name: HeaderName
    exact: HeaderValue | None = None
    prefix: HeaderValue | None = None
    regex: Regex | None = None
    present: bool | None = None
    """Whether the header must be there, or must not."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.exact, self.prefix, self.regex, self.present)) != 1:
            raise ValueError("give one of exact, prefix, regex and present")
        return self


class RequestMatch(Spec):
    """Which requests match: all that is given must hold."""

    path: PathMatch | None = None
    method: Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")] | None = None
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()


class SplitTarget(Spec):
    """One part of a split: a version of the destination, or another type."""

    version: Annotated[ShortText, Field(min_length=1)] | None = None
    type: TypeName | None = None
    """Another type; by default the Route's own destination."""
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)]


class Mirror(Spec):
    """Where copies of the calls go; their answers are thrown away."""

    version: Annotated[ShortText, Field(min_length=1)] | None = None
    type: TypeName | None = None
    percent: Percent = 100.0

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.version is None and self.type is None:
            raise ValueError("give a version, a type, or both")
        return self


class HeaderChanges(Spec):
    """What is done to headers."""

    set: Annotated[dict[ChangeableHeader, HeaderValue], Field(max_length=MAX_ITEMS)] = {}
    """Replace the header, or make it."""
    add: Annotated[dict[ChangeableHeader, HeaderValue], Field(max_length=MAX_ITEMS)] = {}
    """Add one more value."""
    remove: Annotated[tuple[ChangeableHeader, ...], Field(max_length=MAX_ITEMS)] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: set[str] = set()
        for name in (*self.set, *self.add, *self.remove):
            if name.lower() in seen:
                raise ValueError(f"header {name!r} is changed twice")
            seen.add(name.lower())
        return self


class DelayFault(Spec):
    """Make calls wait."""

    duration: Timeout
    percent: Percent = 100.0


class AbortFault(Spec):
    """Answer calls with an error in the agent's place."""

    status: Annotated[int, Field(ge=400, le=599)]
    percent: Percent = 100.0


class Fault(Spec):
    """What goes wrong on purpose."""

    delay: DelayFault | None = None
    abort: AbortFault | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("give delay, abort, or both")
        return self


class RouteRule(Spec):
    """What happens to the calls that match. The first rule of a Route that matches counts."""

    name: Name | None = None
    match: Annotated[tuple[RequestMatch, ...], Field(max_length=32)] = ()
    """Any of these must match; all calls match if there are none."""
    split: Annotated[tuple[SplitTarget, ...], Field(min_length=1, max_length=32)] | None = None
    """Shares of the calls; all go to the destination itself if omitted."""
    mirror: Mirror | None = None
    timeout: Timeout | None = None
    """As in TrafficPolicy, whose value counts if omitted."""
    idle_timeout: Timeout | None = None
    """As in TrafficPolicy, whose value counts if omitted."""
    retries: Retries | None = None
    """As in TrafficPolicy, whose value counts if omitted."""
    request_headers: HeaderChanges | None = None
    response_headers: HeaderChanges | None = None
    fault: Fault | None = None
    tracing: Tracing | None = None
    """As in Telemetry, whose value counts if omitted."""


class RouteSpec(Spec):
    """Which calls to a destination go where, and what is done to them on the way."""

    destination: Target
    """The address this Route is for; one Route at most for each."""
    rules: Annotated[tuple[RouteRule, ...], Field(min_length=1, max_length=64)]
