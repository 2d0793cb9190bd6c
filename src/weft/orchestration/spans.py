"""The spans of orchestrations: one for the whole, and below it one for each branch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from weft.orchestration.branch import Branch, BranchResult
from weft.sdk.inheritance import Inheritance, inheritance, inherited_headers
from weft.sdk.spans import current_span, inheriting_span, told_of_handlers
from weft.sdk.trace import begun
from weft.sdk.wire import TRACE_HEADER
from weft.tracing.span import Kind
from weft.tracing.tracer import Tracer

T = TypeVar("T")


async def traced(name: str, news: AsyncGenerator[T, None], tracer: Tracer) -> AsyncGenerator[T, None]:
    """`news` of an orchestration as they are; what it does for them is below a span of that name."""
    here = inheritance() or Inheritance(begun(inherited_headers(), tracer, always=False))
    parent = here.headers.get(TRACE_HEADER)
    attributes = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": name}
    with tracer.span(f"invoke_workflow {name}", Kind.INTERNAL, parent, attributes) as span:
        async with aclosing(news):
            while True:
                try:
                    # Around each step, and not around all: between two of them others run in this context.
                    with inheriting_span(span, here):
                        each = await anext(news)
                except StopAsyncIteration:
                    return
                yield each


@contextmanager
def branch_span(tracer: Tracer, branch: Branch) -> Iterator[Callable[[BranchResult], None]]:
    """The span of a branch for a block, which tells it how that ended."""
    with current_span(tracer, f"branch {branch.label}", Kind.INTERNAL, {"weft.branch": branch.label}) as span:

        def ended(result: BranchResult) -> None:
            if span is not None and result.error is not None:
                span.fail(*told_of_handlers(result.error))

        yield ended
