"""The spans of tasks and events, alike for all who submit, publish and process them.

Names and attributes are those of OpenTelemetry's conventions for messaging, with `weft` as the system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from weft.errors import MeshError
from weft.events.subscriber import ReceivedEvent
from weft.tasks.attempt import TaskRun
from weft.tracing.span import Kind, Span, Value
from weft.tracing.tracer import Tracer

TRACE_HEADER: Final = "traceparent"
STATE_HEADER: Final = "tracestate"
CONTEXT_HEADER: Final = "x-weft-context"


def told_of(error: BaseException) -> tuple[str, str]:
    """What a span may tell of an error: code and text of the mesh's own, of all others the type alone."""
    if isinstance(error, MeshError):
        return error.code, error.detail
    return type(error).__name__, ""


def submitting(
    tracer: Tracer, queue: str, headers: Mapping[str, str]
) -> AbstractContextManager[tuple[Span | None, dict[str, str]]]:
    """The span of a submission, below what `headers` say, and the headers that its task is to carry."""
    return _sending(tracer, "submit", queue, headers)


def publishing(
    tracer: Tracer, topic: str, headers: Mapping[str, str]
) -> AbstractContextManager[tuple[Span | None, dict[str, str]]]:
    """The same for an event."""
    return _sending(tracer, "publish", topic, headers)


def processing_task(tracer: Tracer, run: TaskRun) -> AbstractContextManager[Span | None]:
    """The span of one attempt at a task."""
    queue = run.task.queue
    attributes = {
        **_messaging("process", queue, run.headers),
        "messaging.message.id": run.task.id,
        "weft.task": run.task.id,
        "weft.attempt": run.attempt,
    }
    return _span(tracer, f"process {queue}", Kind.CONSUMER, run.headers, attributes)


def processing_event(tracer: Tracer, received: ReceivedEvent) -> AbstractContextManager[Span | None]:
    """The span of one delivery of an event."""
    attributes = {
        **_messaging("process", received.name, received.headers),
        "messaging.message.id": received.event.id,
        "weft.attempt": received.deliveries,
    }
    return _span(tracer, f"process {received.name}", Kind.CONSUMER, received.headers, attributes)


def below(span: Span | None, headers: Mapping[str, str]) -> Mapping[str, str]:
    """`headers` for what is done below `span`: where there is none, as they are."""
    return headers if span is None else {**headers, TRACE_HEADER: span.traceparent}


@contextmanager
def _sending(
    tracer: Tracer, operation: str, channel: str, headers: Mapping[str, str]
) -> Iterator[tuple[Span | None, dict[str, str]]]:
    attributes = _messaging(operation, channel, headers)
    with _span(tracer, f"{operation} {channel}", Kind.PRODUCER, headers, attributes) as span:
        yield span, dict(below(span, headers))


def _span(
    tracer: Tracer, name: str, kind: Kind, headers: Mapping[str, str], attributes: Mapping[str, Value]
) -> AbstractContextManager[Span | None]:
    return tracer.span(name, kind, headers.get(TRACE_HEADER), attributes, headers.get(STATE_HEADER, ""))


def _messaging(operation: str, channel: str, headers: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = {
        "messaging.system": "weft",
        "messaging.operation.type": "process" if operation == "process" else "send",
        "messaging.operation.name": operation,
        "messaging.destination.name": channel,
    }
    return found | conversation_in(headers)


def conversation_in(headers: Mapping[str, str]) -> dict[str, Value]:
    """The conversation that `headers` name, as attributes."""
    found = headers.get(CONTEXT_HEADER)
    return {"weft.context": found, "gen_ai.conversation.id": found} if found else {}
