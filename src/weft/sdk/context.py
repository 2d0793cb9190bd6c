"""The request that is being handled: what its handler may know of it, and what its own calls pass on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from weft.errors import InvalidRequest
from weft.model.call_budget import BUDGET_HEADER, parse_budget
from weft.model.hops import HOPS_HEADER, parse_hops
from weft.sdk.baggage import read_baggage
from weft.sdk.inheritance import inheriting
from weft.sdk.trace import new_traceparent, trace_of
from weft.sdk.wire import (
    BAGGAGE_HEADER,
    CALLER_HEADER,
    CONTEXT_HEADER,
    DEADLINE_HEADER,
    IDEMPOTENCY_HEADER,
    MAX_KEY_LENGTH,
    TRACE_HEADER,
)

_MAX_DEADLINE_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Context:
    """What a request brought besides its payload."""

    kind: str
    headers: Mapping[str, str]
    """All headers of the request, names in lower case."""
    deadline: float | None = None
    """When the whole call tree must be done, in seconds since 1970; None where nobody set a limit."""

    @property
    def caller(self) -> str | None:
        """Who calls, as its certificate proves: a SPIFFE ID such as `spiffe://weft.local/agent/editor/editor-1`.

        None for a call that has not come through the mesh.
        """
        return self.headers.get(CALLER_HEADER)

    @property
    def idempotency_key(self) -> str | None:
        """The caller's Idempotency-Key: the same key means the same call."""
        return self.headers.get(IDEMPOTENCY_HEADER)

    @property
    def conversation(self) -> str | None:
        """Which conversation the call belongs to (`x-weft-context`)."""
        return self.headers.get(CONTEXT_HEADER)

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of the call. Where the caller sent none, or nonsense, it was made here."""
        return self.headers.get(TRACE_HEADER)

    @property
    def trace(self) -> str | None:
        """The id of the call tree, the same at every agent that it reaches: 32 hexadecimal digits."""
        return trace_of(self.traceparent)

    @property
    def baggage(self) -> Mapping[str, str]:
        """What its beginner gave the call tree to carry along (W3C baggage), by name."""
        return read_baggage(self.headers.get(BAGGAGE_HEADER, ""))

    @property
    def hops(self) -> tuple[str, ...]:
        """The agent types that the call tree has passed before this agent, oldest first."""
        return parse_hops(self.headers.get(HOPS_HEADER, ""))

    @property
    def budget(self) -> str | None:
        """What the call tree, and the branches of it that the call is in, may spend on models.

        As in `5000 tokens, 1000 tokens;id=b1`. What is left of it `Mesh.budget` tells.
        """
        return self.headers.get(BUDGET_HEADER)

    def remaining(self) -> float | None:
        """Seconds until the deadline, negative once it has passed; None without one."""
        return None if self.deadline is None else self.deadline - time.time()


_current: ContextVar[Context] = ContextVar("weft_context")


def current() -> Context:
    """Return the context of the request being handled. Raises LookupError outside a handler."""
    try:
        return _current.get()
    except LookupError:
        raise LookupError(
            "no request is being handled here: weft.current() works inside a handler only"
        ) from None


def read_context(kind: str, headers: Mapping[str, str]) -> Context:
    """The context that a request's `headers` (names in lower case) describe. Raises InvalidRequest."""
    if len(headers.get(IDEMPOTENCY_HEADER, "")) > MAX_KEY_LENGTH:
        raise InvalidRequest(f"Idempotency-Key is longer than {MAX_KEY_LENGTH} characters")
    if BUDGET_HEADER in headers:
        parse_budget(headers[BUDGET_HEADER])
    deadline = _read_deadline(headers.get(DEADLINE_HEADER))
    if trace_of(headers.get(TRACE_HEADER)) is None:
        headers = {**headers, TRACE_HEADER: new_traceparent()}
    return Context(kind, headers, deadline)


def context_of_message(kind: str, headers: Mapping[str, str], deadline: float | None = None) -> Context:
    """The context of a task or an event, which is no request: its `deadline` is in no header."""
    if trace_of(headers.get(TRACE_HEADER)) is None:
        headers = {**headers, TRACE_HEADER: new_traceparent()}
    return Context(kind, headers, deadline)


@contextmanager
def handling(context: Context) -> Iterator[None]:
    """Make `context` the current one for the block and the tasks started in it."""
    token = _current.set(context)
    try:
        with inheriting(context.headers, context.deadline):
            yield
    finally:
        _current.reset(token)


def _read_deadline(text: str | None) -> float | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DEADLINE_DIGITS):
        raise InvalidRequest(f"{DEADLINE_HEADER} must be a whole number of milliseconds since 1970")
    return int(text) / 1000
