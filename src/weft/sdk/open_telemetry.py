"""The call that is handled as OpenTelemetry's current context, where the program uses OpenTelemetry.

Nothing is imported for it: who has not imported `opentelemetry` by the time of a call does without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_API = "opentelemetry.trace"


@contextmanager
def attached(headers: Mapping[str, str]) -> Iterator[None]:
    """Have the trace and the baggage in `headers` be the current ones for the block."""
    if _API not in sys.modules:
        yield
        return
    from opentelemetry import context, propagate  # noqa: PLC0415 - only where it is there already

    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def current_headers() -> dict[str, str]:
    """What the current span has others pass on; nothing without a span."""
    if _API not in sys.modules:
        return {}
    from opentelemetry import propagate, trace  # noqa: PLC0415

    if not trace.get_current_span().get_span_context().is_valid:
        return {}
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
