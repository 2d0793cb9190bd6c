"""What calls made now pass on of the call that is being handled, and within which limits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from weft.sdk.open_telemetry import attached, current_headers
from weft.sdk.trace import new_traceparent, trace_of
from weft.sdk.wire import BAGGAGE_HEADER, DEADLINE_HEADER, FORWARDED_HEADERS, TRACE_HEADER


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a call has passed on to those that are made for it."""

    headers: Mapping[str, str]
    """Some of FORWARDED_HEADERS, among them the deadline, and always `traceparent`."""
    deadline: float | None = None
    """When the whole tree must be done, in seconds since 1970."""


_inheritance: ContextVar[Inheritance | None] = ContextVar("weft_inheritance", default=None)


def inheritance() -> Inheritance | None:
    """What calls made now inherit; None outside a handler."""
    return _inheritance.get()


@contextmanager
def inheriting(headers: Mapping[str, str], deadline: float | None) -> Iterator[Inheritance]:
    """Have the calls made in the block, and in tasks started in it, pass on what `headers` say.

    Without a `traceparent` in them a call tree begins here.
    """
    kept = {name: headers[name] for name in FORWARDED_HEADERS if name in headers}
    if trace_of(kept.get(TRACE_HEADER)) is None:
        kept[TRACE_HEADER] = new_traceparent()
    kept.pop(DEADLINE_HEADER, None)
    if deadline is not None:
        kept[DEADLINE_HEADER] = str(int(deadline * 1000))
    here = Inheritance(kept, deadline)
    token = _inheritance.set(here)
    try:
        with attached(kept):
            yield here
    finally:
        _inheritance.reset(token)


def inherited_headers() -> dict[str, str]:
    """The headers that a call made now has to pass on; none outside a handler: the sidecar begins a trace."""
    here = _inheritance.get()
    spans = current_headers()
    if here is None:
        return spans
    if not spans:
        return dict(here.headers)
    # A program that has baggage of its own has taken over what came.
    return {name: value for name, value in here.headers.items() if name != BAGGAGE_HEADER} | spans


def inherited_time() -> float | None:
    """Seconds that calls made now have left; None without a deadline or outside a handler."""
    here = _inheritance.get()
    return None if here is None or here.deadline is None else here.deadline - time.time()
