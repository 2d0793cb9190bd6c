"""Filters of events, in the dialects that every implementation of CloudEvents Subscriptions must have.

As JSON: `{"exact": {"type": "order.created"}}`, `prefix` and `suffix` likewise (all attributes that are named
must match; one that the event does not have does not), `{"all": [...]}`, `{"any": [...]}`, `{"not": {...}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from weft.errors import InvalidRequest
from weft.model.cloud_event import MAX_ATTRIBUTE_LENGTH, MAX_NAME_LENGTH, CloudEvent

MAX_DEPTH = 8
"""How deep filters may be nested."""

MAX_EXPRESSIONS = 128
"""How many expressions a filter may have in all."""

_COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}
_DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not")


class EventFilter(Protocol):
    """Says which events are wanted."""

    def matches(self, event: CloudEvent) -> bool:
        """Whether it wants that event."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """Attributes, all of which must compare so with a text."""

    dialect: str
    """`exact`, `prefix` or `suffix`."""
    attributes: Mapping[str, str]

    def matches(self, event: CloudEvent) -> bool:
        """Whether all attributes match."""
        compare = _COMPARISONS[self.dialect]
        return all(
            (value := event.attribute(name)) is not None and compare(value, wanted)
            for name, wanted in self.attributes.items()
        )


@dataclass(frozen=True, slots=True)
class All:
    """Filters that must all match; with none of them everything does."""

    filters: Sequence[EventFilter]

    def matches(self, event: CloudEvent) -> bool:
        """Whether all match."""
        return all(each.matches(event) for each in self.filters)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Filters one of which must match."""

    filters: Sequence[EventFilter]

    def matches(self, event: CloudEvent) -> bool:
        """Whether one matches."""
        return any(each.matches(event) for each in self.filters)


@dataclass(frozen=True, slots=True)
class Not:
    """A filter that must not match."""

    filter: EventFilter

    def matches(self, event: CloudEvent) -> bool:
        """Whether it does not match."""
        return not self.filter.matches(event)


def parse_filters(document: Any) -> EventFilter:
    """The filter that a JSON array of expressions stands for: all must match. Raises InvalidRequest."""
    if not isinstance(document, list):
        raise InvalidRequest("filters: must be an array of filter expressions")
    budget = _Budget()
    return All(tuple(_parse(each, f"filters[{index}]", 1, budget) for index, each in enumerate(document)))


def parse_filter(document: Any) -> EventFilter:
    """The filter that one expression, in JSON types, stands for. Raises InvalidRequest."""
    return _parse(document, "filter", 1, _Budget())


class _Budget:
    """How many more expressions there may be."""

    def __init__(self) -> None:
        self._left = MAX_EXPRESSIONS

    def spend(self, count: int, place: str) -> None:
        self._left -= count
        if self._left < 0:
            raise InvalidRequest(f"{place}: a filter has at most {MAX_EXPRESSIONS} expressions in all")


def _parse(document: Any, place: str, depth: int, budget: _Budget) -> EventFilter:
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{place}: filters are nested at most {MAX_DEPTH} deep")
    if not isinstance(document, dict) or len(document) != 1:
        raise InvalidRequest(f"{place}: must be an object with one key, the dialect")
    dialect, body = next(iter(document.items()))
    place = f"{place}.{str(dialect)[:32]}"
    budget.spend(1, place)
    if dialect in _COMPARISONS:
        return Comparison(dialect, _attributes(body, place, budget))
    if dialect == "not":
        return Not(_parse(body, place, depth + 1, budget))
    if dialect not in {"all", "any"}:
        raise InvalidRequest(f"{place}: dialects that are understood are {', '.join(_DIALECTS)}")
    if not isinstance(body, list) or not body:
        raise InvalidRequest(f"{place}: must be an array of at least one filter expression")
    nested = tuple(_parse(each, f"{place}[{index}]", depth + 1, budget) for index, each in enumerate(body))
    return All(nested) if dialect == "all" else AnyOf(nested)


def _attributes(body: Any, place: str, budget: _Budget) -> dict[str, str]:
    if not isinstance(body, dict) or not body:
        raise InvalidRequest(f"{place}: must be an object of at least one attribute and its text")
    budget.spend(len(body) - 1, place)
    for name, value in body.items():
        if not isinstance(name, str) or not _is_name(name):
            raise InvalidRequest(f"{place}: {str(name)[:MAX_NAME_LENGTH]!r} is no name of an attribute")
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_ATTRIBUTE_LENGTH:
            raise InvalidRequest(f"{place}.{name}: must be a text of 1 to {MAX_ATTRIBUTE_LENGTH} characters")
    return dict(body)


def _is_name(name: str) -> bool:
    return (
        1 <= len(name) <= MAX_NAME_LENGTH
        and name.isascii()
        and name.isalnum()
        and name == name.lower()
        and name != "data"
    )
