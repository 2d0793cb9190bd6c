"""The request that is being handled: what its handler may know of it, and what its own calls pass on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from weft.errors import InvalidRequest
from weft.sdk.wire import (
    CALLER_HEADER,
    CONTEXT_HEADER,
    DEADLINE_HEADER,
    FORWARDED_HEADERS,
    IDEMPOTENCY_HEADER,
    MAX_KEY_LENGTH,
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
        """The W3C trace context of the call."""
        return self.headers.get("traceparent")

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
    return Context(kind, headers, _read_deadline(headers.get(DEADLINE_HEADER)))


@contextmanager
def handling(context: Context) -> Iterator[None]:
    """Make `context` the current one for the block and the tasks started in it."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def inherited_headers() -> dict[str, str]:
    """The headers that a call made now has to pass on; none outside a handler."""
    context = _current.get(None)
    if context is None:
        return {}
    return {name: context.headers[name] for name in FORWARDED_HEADERS if name in context.headers}


def inherited_time() -> float | None:
    """Seconds that the request being handled has left; None without a deadline or outside a handler."""
    context = _current.get(None)
    return context.remaining() if context else None


def _read_deadline(text: str | None) -> float | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DEADLINE_DIGITS):
        raise InvalidRequest(f"{DEADLINE_HEADER} must be a whole number of milliseconds since 1970")
    return int(text) / 1000
