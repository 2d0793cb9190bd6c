"""The spans of an agent: of what its handlers do, and of what is done below that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import Any, Final

from weft.model.telemetry_wire import RECORD_HEADER, RECORD_MESSAGES
from weft.sdk.context import Context
from weft.sdk.failure import AgentError
from weft.sdk.inheritance import Inheritance, inheritance, inheriting
from weft.sdk.problem import Rejection
from weft.sdk.recording import messages_of
from weft.sdk.wire import TRACE_HEADER
from weft.tracing.span import Kind, Span, Value
from weft.tracing.trace_context import is_sampled
from weft.tracing.tracer import Tracer
from weft.work.spans import STATE_HEADER, conversation_in, told_of

INPUT: Final = "gen_ai.input.messages"
OUTPUT: Final = "gen_ai.output.messages"

MAX_ITEMS: Final = 1000
"""Items of a stream that are recorded, at most."""


def told_of_handlers(error: BaseException) -> tuple[str, str]:
    """What a span may tell of what a handler raised."""
    if isinstance(error, Rejection):
        return error.problem.error.code, ""
    if isinstance(error, AgentError):
        return error.code or type(error).__name__, ""
    return told_of(error)


class Invocation:
    """What comes of a handler's call, for its span; without one, and unless asked to, it records nothing."""

    def __init__(self, span: Span | None = None, *, records: bool = False) -> None:
        self.span = span
        self.records = records and span is not None
        """Whether what is asked and answered is to be kept."""
        self._items: list[Any] = []

    def asked(self, arguments: Any) -> None:
        """What the handler is asked."""
        if self.records and self.span is not None:
            self.span.set(INPUT, messages_of("user", arguments))

    def answered(self, result: Any) -> None:
        """What it answers."""
        if self.records and self.span is not None:
            self.span.set(OUTPUT, messages_of("assistant", result))

    async def watched(self, items: AsyncGenerator[Any, None], tracer: Tracer) -> AsyncGenerator[Any, None]:
        """`items` as they are; their span hears of them, and of their failure."""
        try:
            async with aclosing(items):
                async for item in items:
                    if self.records and len(self._items) < MAX_ITEMS:
                        self._items.append(item)
                    yield item
        except Exception as error:  # whatever the author's code raises; it goes on from here
            if self.span is not None:
                tracer.failed(self.span, error)
            raise
        finally:
            if self._items:
                self.answered(self._items)


_UNSEEN: Final = Invocation()


class HandlerSpans:
    """Begins the spans of an agent's handlers."""

    def __init__(self, tracer: Tracer, agent_type: str) -> None:
        self.tracer = tracer
        self._type = agent_type

    def invoked(self, context: Context, arguments: Any, **more: Value) -> AbstractContextManager[Invocation]:
        """The span of a handler that was called with `context`, which is the current one, for a block."""
        if not is_sampled(context.traceparent):
            return nullcontext(_UNSEEN)
        attributes = {**self._about("invoke_agent", context), **more}
        return self._handled(f"invoke_agent {self._type}", attributes, context, arguments)

    def tool_called(self, context: Context, arguments: Any) -> AbstractContextManager[Invocation]:
        """The same for a handler that was called as a tool, by MCP."""
        if not is_sampled(context.traceparent):
            return nullcontext(_UNSEEN)
        attributes = {
            **self._about("execute_tool", context),
            "gen_ai.tool.name": context.kind,
            "gen_ai.tool.type": "function",
            "mcp.method.name": "tools/call",
        }
        return self._handled(f"execute_tool {context.kind}", attributes, context, arguments)

    @contextmanager
    def processing(self, span: AbstractContextManager[Span | None], kind: str) -> Iterator[None]:
        """Have what a handler of a message does in the block be below the `span` of that."""
        with span as begun:
            here = inheritance()
            if begun is None or here is None:
                yield
                return
            begun.set("weft.kind", kind)
            begun.set("gen_ai.agent.name", self._type)
            with inheriting_span(begun, here):
                yield

    @contextmanager
    def _handled(
        self, name: str, attributes: Mapping[str, Value], context: Context, arguments: Any
    ) -> Iterator[Invocation]:
        with current_span(self.tracer, name, Kind.INTERNAL, attributes) as span:
            records = context.headers.get(RECORD_HEADER) == RECORD_MESSAGES
            invocation = Invocation(span, records=records)
            invocation.asked(arguments)
            yield invocation

    def _about(self, operation: str, context: Context) -> dict[str, Value]:
        return {
            "gen_ai.operation.name": operation,
            "gen_ai.agent.name": self._type,
            "weft.kind": context.kind,
            **conversation_in(context.headers),
        }


@contextmanager
def current_span(
    tracer: Tracer, name: str, kind: Kind, attributes: Mapping[str, Value]
) -> Iterator[Span | None]:
    """A span below what calls made now inherit; those made in the block are below it."""
    here = inheritance()
    if here is None:
        yield None
        return
    parent, state = here.headers.get(TRACE_HEADER), here.headers.get(STATE_HEADER, "")
    with tracer.span(name, kind, parent, attributes, state) as span, inheriting_span(span, here):
        yield span


def inheriting_span(span: Span | None, here: Inheritance) -> AbstractContextManager[object]:
    """Have the calls made in a block inherit `here`, but be below `span`; without one nothing changes."""
    return nullcontext() if span is None else _below(span, here)


@contextmanager
def _below(span: Span, here: Inheritance) -> Iterator[None]:
    with inheriting({**here.headers, TRACE_HEADER: span.traceparent}, here.deadline), span.current():
        yield
