"""Finding traces by what is known of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from weft.controlplane.telemetry.trace_store import Trace, TraceStore
from weft.controlplane.telemetry.trace_summary import (
    CALLER,
    CONTEXT,
    DESTINATION,
    MAX_MARK,
    SERVICE,
)
from weft.errors import InvalidRequest

FOREVER: Final = 1 << 40  # seconds since 1970

_NS: Final = 1_000_000_000
_CURSOR: Final = re.compile(r"([0-9]{1,20})\.([0-9a-f]{32})")

Matches = Callable[[Trace], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """What traces are sought. What is empty, or None, does not matter."""

    service: str = ""
    destination: str = ""
    caller: str = ""
    context: str = ""
    failed: bool | None = None
    min_duration: float = 0.0
    """Seconds."""
    since: float | None = None
    """Began then or later, in seconds since 1970."""
    until: float | None = None
    """Began before then."""
    text: str = ""
    """In the name of a span, service, destination, error, task, model or tool; or what an id begins with."""


@dataclass(frozen=True, slots=True)
class Page:
    """Traces, the latest first, and what leads to more of them; None: there are none."""

    traces: list[Trace]
    next: str | None


async def search(store: TraceStore, query: Query, *, limit: int, after: str | None = None) -> Page:
    """The first `limit` traces that `query` is about, behind those that led to `after`.

    Raises InvalidRequest if `after` is none that a page gave.
    """
    last = _position(after) if after else None
    matches = _conditions(query)
    until = FOREVER if query.until is None else int(query.until) + 1
    if last is not None:
        until = min(until, last[0] // _NS + 1)
    found: list[Trace] = []
    async for trace in store.newest(int(query.since or 0), until):
        if last is not None and (trace.start, trace.id) >= last:
            continue
        if not all(each(trace) for each in matches):
            continue
        if len(found) == limit:
            return Page(found, f"{found[-1].start}.{found[-1].id.hex()}")
        found.append(trace)
    return Page(found, None)


def _position(cursor: str) -> tuple[int, bytes]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest("`after` must be what the page before gave as `next`")
    return int(match[1]), bytes.fromhex(match[2])


def _conditions(query: Query) -> list[Matches]:
    conditions = [
        _marked(kind + text[:MAX_MARK])
        for kind, text in (
            (SERVICE, query.service),
            (DESTINATION, query.destination),
            (CALLER, query.caller),
            (CONTEXT, query.context),
        )
        if text
    ]
    if query.failed is not None:
        conditions.append(lambda trace: bool(trace.errors) is query.failed)
    if query.min_duration > 0:
        shortest = int(query.min_duration * _NS)
        conditions.append(lambda trace: trace.end - trace.start >= shortest)
    if query.since is not None:
        since = int(query.since * _NS)
        conditions.append(lambda trace: trace.start >= since)
    if query.until is not None:
        until = int(query.until * _NS)
        conditions.append(lambda trace: trace.start < until)
    if query.text:
        conditions.append(_with_text(query.text.casefold()))
    return conditions


def _marked(mark: str) -> Matches:
    return lambda trace: mark in trace.marks


def _with_text(text: str) -> Matches:
    return lambda trace: (
        trace.id.hex().startswith(text) or any(text in mark[1:].casefold() for mark in trace.marks)
    )
