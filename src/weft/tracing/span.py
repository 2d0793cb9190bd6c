"""One span: what somebody did for a trace, from when to when, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Final, Protocol

from weft.tracing.redaction import redacted
from weft.tracing.trace_context import TraceContext

Value = str | bool | int | float
"""Of an attribute."""

MAX_VALUE: Final = 16 * 1024 + 256
"""Characters of a text; longer ones are cut."""

MAX_MESSAGE: Final = 1024
"""Characters of what a span says of its failure."""


class Kind(IntEnum):
    """Who a span is of, by OTLP's numbers."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class Span(Protocol):
    """A span under way."""

    @property
    def traceparent(self) -> str:
        """The header for what is done below it."""
        ...

    def set(self, name: str, value: Value) -> None:
        """Give it an attribute."""
        ...

    def fail(self, kind: str, message: str = "") -> None:
        """Say that what it is about failed: `kind` becomes `error.type`, and `message` may be read by all."""
        ...

    def end(self) -> None:
        """It is over, and goes out. A second time this does nothing."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Have OpenTelemetry know it as the current one for a block, where that is in use."""
        ...


class RecordedSpan:
    """A span as Weft records it itself, where the program does not use OpenTelemetry.

    It costs a tenth of one of OpenTelemetry's SDK, and nothing has to be loaded for it.
    """

    __slots__ = (
        *("attributes", "context", "ended_ns", "failed", "kind", "message", "name", "parent"),
        *("_done", "started_ns", "tracestate"),
    )

    def __init__(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext,
        attributes: Mapping[str, Value],
        done: Callable[[RecordedSpan], None],
        tracestate: str = "",
    ) -> None:
        """`done` is told when it has ended."""
        self.name = name
        self.kind = kind
        self.context = parent.child()
        self.parent = "" if parent.is_root else parent.span_id
        self.tracestate = tracestate
        self.attributes: dict[str, Value] = {key: _cut(value) for key, value in attributes.items()}
        self.failed = False
        self.message = ""
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self._done = done

    @property
    def traceparent(self) -> str:
        """The header for what is done below it."""
        return self.context.traceparent

    def set(self, name: str, value: Value) -> None:
        """Give it an attribute."""
        self.attributes[name] = _cut(value)

    def fail(self, kind: str, message: str = "") -> None:
        """Say that what it is about failed."""
        self.failed = True
        self.message = redacted(message[:MAX_MESSAGE])
        self.attributes["error.type"] = kind

    def end(self) -> None:
        """It is over, and goes out."""
        if not self.ended_ns:
            self.ended_ns = time.time_ns()
            self._done(self)

    def current(self) -> AbstractContextManager[object]:
        """Nothing: who passes on its `traceparent` does all there is to do."""
        return nullcontext()


def _cut(value: Value) -> Value:
    return value[:MAX_VALUE] if isinstance(value, str) and len(value) > MAX_VALUE else value
