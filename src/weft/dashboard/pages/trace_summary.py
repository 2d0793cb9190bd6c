"""What is told of a whole trace, beside its spans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from weft.dashboard.pages.spans import Sort, Span, sort_of, spans_of
from weft.dashboard.pages.waterfall import Row, Waterfall, laid_out

CONTEXT = ("weft.context", "gen_ai.conversation.id")
"""Attributes that name the conversation that a span is part of."""

_INPUT, _OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, ready to be drawn."""

    id: str
    waterfall: Waterfall
    services: tuple[str, ...]
    """In the order in which they came into it."""
    contexts: tuple[str, ...]
    """Conversations that it is part of."""
    errors: int
    input_tokens: int
    output_tokens: int
    is_cut: bool
    """There are more spans than are shown."""

    @property
    def name(self) -> str:
        """That of the span with which it begins."""
        rows = self.waterfall.rows
        return (rows[0].span.name or "(no name)") if rows else "No spans"

    @property
    def end(self) -> float:
        """When all was over, in seconds since 1970."""
        return self.waterfall.begin + self.waterfall.length


def trace_of(answer: Any) -> Trace:
    """What `GET /v1/traces/{id}` answers, laid out."""
    spans = spans_of(answer)
    waterfall = laid_out(spans)
    told = answer if isinstance(answer, dict) else {}
    listed = told.get("spans")
    used = [tokens_of(each.span) for each in _outermost_models(waterfall.rows)]
    return Trace(
        id=str(told.get("id") or ""),
        waterfall=waterfall,
        services=tuple(dict.fromkeys(row.span.service for row in waterfall.rows if row.span.service)),
        contexts=tuple(dict.fromkeys(each for each in map(context_of, spans) if each)),
        errors=sum(each.failed for each in spans),
        input_tokens=sum(one for one, _ in used),
        output_tokens=sum(other for _, other in used),
        is_cut=bool(told.get("cut")) or (isinstance(listed, list) and len(listed) > len(spans)),
    )


def context_of(span: Span) -> str:
    """The conversation that a span is part of; empty: it names none."""
    return next((str(span.attributes[name]) for name in CONTEXT if span.attributes.get(name)), "")


def tokens_of(span: Span) -> tuple[int, int]:
    """Tokens of the input and of the output of a call to a model, as far as it tells."""
    return _count(span.attributes.get(_INPUT)), _count(span.attributes.get(_OUTPUT))


def agent_of(span: Span) -> tuple[str, str] | None:
    """Type and id of the agent that a span is of; None: it is of no agent of the mesh."""
    reporter = str(span.attributes.get("weft.reporter") or "")
    parts = reporter.partition("://")[2].split("/")
    match parts:
        case [_, "agent", type_, id_] if type_ and id_:
            return type_, id_
    return None


def _outermost_models(rows: tuple[Row, ...]) -> Iterator[Row]:
    """Calls to models. One of a library's own spans below the sidecar's, or above it, is the same call."""
    until = -1
    for number, row in enumerate(rows):
        if number > until and sort_of(row.span) is Sort.MODEL and any(tokens_of(row.span)):
            until = number + row.below
            yield row


def _count(value: Any) -> int:
    try:
        return max(0, int(value)) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return 0
