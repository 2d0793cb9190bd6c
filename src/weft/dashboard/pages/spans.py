"""Spans as the API tells them, read with care: what was recorded is what programs of all kinds said."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MAX_SPANS = 5000
"""Spans of one trace that are shown."""

MAX_SAID = 200
"""Messages of one call that are shown."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened in a span."""

    name: str
    at: float
    """Seconds since 1970."""
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work. Times are in seconds since 1970, durations in seconds, never below 0."""

    id: str
    parent: str = ""
    """The id of the span that it is part of; empty at the beginning of a trace."""
    name: str = ""
    kind: str = ""
    """As OpenTelemetry has it: client, server, internal, producer, consumer."""
    service: str = ""
    instance: str = ""
    version: str = ""
    start: float = 0.0
    duration: float = 0.0
    status: str = "unset"
    message: str = ""
    """Of an error."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.duration

    @property
    def failed(self) -> bool:
        """Whether it says so."""
        return self.status == "error"


class Sort(Enum):
    """What kind of work a span is; each with a word and the name of a sign, so that colour is never all."""

    CALL = ("call", "call_made")
    ATTEMPT = ("attempt", "replay")
    SERVE = ("serve", "call_received")
    HANDLER = ("handler", "code")
    TOOL = ("tool", "build")
    MODEL = ("model", "auto_awesome")
    TASK = ("task", "assignment")
    EVENT = ("event", "campaign")
    GATEWAY = ("gateway", "meeting_room")
    WORKFLOW = ("workflow", "account_tree")
    OTHER = ("other", "more_horiz")

    def __init__(self, word: str, sign: str) -> None:
        self.word = word
        self.sign = sign


_BY_NAME = {
    "attempt": Sort.ATTEMPT,
    "serve": Sort.SERVE,
    "execute_tool": Sort.TOOL,
    "chat": Sort.MODEL,
    "embeddings": Sort.MODEL,
    "text_completion": Sort.MODEL,
    "generate_content": Sort.MODEL,
    "submit": Sort.TASK,
    "gateway": Sort.GATEWAY,
    "invoke_workflow": Sort.WORKFLOW,
}

_BY_OPERATION = {
    "chat": Sort.MODEL,
    "embeddings": Sort.MODEL,
    "text_completion": Sort.MODEL,
    "generate_content": Sort.MODEL,
    "execute_tool": Sort.TOOL,
    "invoke_workflow": Sort.WORKFLOW,
}


def sort_of(span: Span) -> Sort:
    """What kind of work a span is, by its name and what it says of itself."""
    word = span.name.partition(" ")[0]
    if word in _BY_NAME:
        return _BY_NAME[word]
    if word in {"process", "publish"}:
        return Sort.TASK if "weft.task" in span.attributes else Sort.EVENT
    operation = span.attributes.get("gen_ai.operation.name")
    if isinstance(operation, str) and operation in _BY_OPERATION:
        return _BY_OPERATION[operation]
    if word == "invoke_agent":
        return Sort.CALL if span.kind == "client" else Sort.HANDLER
    if span.attributes.get("weft.destination") and span.kind == "client":
        return Sort.CALL
    return Sort.OTHER


def spans_of(document: Any) -> tuple[Span, ...]:
    """The spans in what `GET /v1/traces/{id}` answers, at most MAX_SPANS; what is no span is left out."""
    found = document.get("spans") if isinstance(document, dict) else None
    items = found if isinstance(found, list) else []
    return tuple(_span(each) for each in items[:MAX_SPANS] if isinstance(each, dict) and each.get("id"))


def _span(item: dict[str, Any]) -> Span:
    return Span(
        id=_text(item.get("id")),
        parent=_text(item.get("parent")),
        name=_text(item.get("name")),
        kind=_text(item.get("kind")),
        service=_text(item.get("service")),
        instance=_text(item.get("instance")),
        version=_text(item.get("version")),
        start=_number(item.get("start")),
        duration=max(0.0, _number(item.get("duration"))),
        status=_text(item.get("status")) or "unset",
        message=_text(item.get("message")),
        attributes=_attributes(item.get("attributes")),
        events=tuple(_events(item.get("events"))),
    )


def _events(items: Any) -> Iterator[SpanEvent]:
    for each in items if isinstance(items, list) else []:
        if isinstance(each, dict):
            name, attributes = _text(each.get("name")), _attributes(each.get("attributes"))
            yield SpanEvent(name, _number(each.get("at")), attributes)


def _attributes(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    # Further than any clock: what is there cannot be laid out beside the rest.
    return max(-1e12, min(1e12, float(value)))


@dataclass(frozen=True, slots=True)
class Said:
    """One message that an agent, a tool or a model was given, or gave."""

    role: str
    text: str


def messages_of(span: Span, attribute: str) -> tuple[Said, ...]:
    """What was recorded under `gen_ai.input.messages` or `gen_ai.output.messages`; nothing where nothing was.

    What is not of the form of the semantic conventions (a cut text, for one) is shown as it is.
    """
    value = span.attributes.get(attribute)
    if value in (None, ""):
        return ()
    document = value
    if isinstance(value, str):
        try:
            document = json.loads(value)
        except (ValueError, RecursionError):
            return (Said("", value),)
    items = document if isinstance(document, list) else [document]
    return tuple(_said(each) for each in items[:MAX_SAID])


def _said(item: Any) -> Said:
    if not isinstance(item, dict):
        return Said("", plain(item))
    role = _text(item.get("role"))
    parts = item.get("parts")
    if isinstance(parts, list):
        return Said(role, "\n".join(_part(each) for each in parts))
    if "content" in item:
        return Said(role, plain(item["content"]))
    return Said(role, plain(item))


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("content"), str):
        return str(part["content"])
    return plain(part)


def plain(value: Any) -> str:
    """A value as text: a text as it is, all else as indented JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)
