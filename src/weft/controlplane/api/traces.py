"""Traces over HTTP: taken in as OTLP has it, found, and shown one by one."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic_core import to_json

from weft.controlplane.api.access import MEMBERS, requires
from weft.controlplane.api.authentication import CurrentCaller, Operator, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentTelemetry
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.telemetry.search import Query as TraceQuery
from weft.controlplane.telemetry.search import search
from weft.controlplane.telemetry.trace_store import Trace
from weft.controlplane.telemetry.waterfall import waterfall
from weft.errors import InvalidRequest, NotFound
from weft.model.names import MAX_NAME_LENGTH
from weft.model.operator import Scope

TRACES_PATH = "/v1/traces"
"""Where spans are sent, which is the path that OTLP has for it."""

router = APIRouter(tags=["traces"])

_VIEWERS = [Depends(requires(Scope.VIEWER))]
_SENDERS = [Depends(requires(Scope.OPERATOR, peers=MEMBERS))]

_NS = 1e9
_Name = Annotated[str, Query(max_length=MAX_NAME_LENGTH)]
_Text = Annotated[str, Query(max_length=200)]
_Time = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)]


class TraceStatus(StrEnum):
    """How a trace went."""

    OK = "ok"
    ERROR = "error"


class TraceOut(Body):
    """A trace at a glance. Times are seconds since 1970, durations seconds."""

    id: str
    name: str
    """Of its first span."""
    service: str
    """Who began it."""
    start: float
    duration: float
    spans: int
    errors: int
    """Spans that failed."""
    services: list[str]
    context: str
    """The conversation it belongs to; empty: none is known."""


class TraceList(Body):
    """Traces, the latest first."""

    traces: list[TraceOut]
    next: str | None
    """Goes into `after` to get the rest; null where there is none."""


class SpanEventOut(Body):
    """Something that happened during a span."""

    name: str
    at: float
    attributes: dict[str, Any]


class SpanOut(Body):
    """A span."""

    id: str
    parent: str
    """The id of the span that it is part of; empty for the first of a trace."""
    name: str
    kind: str
    """`internal`, `server`, `client`, `producer`, `consumer`."""
    service: str
    instance: str
    version: str
    start: float
    duration: float
    status: str
    """`ok`, `error` or `unset`."""
    message: str
    """Why it failed."""
    attributes: dict[str, Any]
    events: list[SpanEventOut]


class WholeTrace(Body):
    """A trace with its spans, in the order in which they began."""

    id: str
    start: float
    duration: float
    spans: list[SpanOut]
    cut: bool
    """Whether spans were left out: there are too many, or they are too large."""


@router.post(TRACES_PATH, dependencies=_SENDERS)
async def take_traces(request: Request, telemetry: CurrentTelemetry, caller: CurrentCaller) -> Response:
    """Takes spans in: OTLP/HTTP, in protobuf or JSON, gzip or not.

    Of members of the mesh who sends is bound in: their service is what their certificate says.
    """
    answer = await telemetry.spans.http.take(request.headers, request.stream(), _reporter(caller))
    return Response(answer.body, answer.status, answer.headers, answer.form)


@router.get(TRACES_PATH, dependencies=_VIEWERS)
async def list_traces(
    telemetry: CurrentTelemetry,
    *,
    service: _Name = "",
    destination: _Text = "",
    caller: _Text = "",
    context: _Text = "",
    status: TraceStatus | None = None,
    min_duration: Annotated[float, Query(alias="minDuration", ge=0, le=1e9, allow_inf_nan=False)] = 0.0,
    since: _Time = None,
    until: _Time = None,
    q: _Text = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> TraceList:
    """The traces that this control plane keeps and that match, the latest first.

    `service`: one that has a span in them; `destination`: one that was called; `caller`: who called (an agent
    type); `context`: a conversation; `status`: `error`, or `ok` without any; `minDuration` in seconds;
    `since` and `until`: when they began, in seconds since 1970; `q`: a text in the names of spans, services,
    destinations, errors, tasks, models or tools, or what the trace's id begins with.
    """
    query = TraceQuery(
        service=service,
        destination=destination,
        caller=caller,
        context=context,
        failed=None if status is None else status is TraceStatus.ERROR,
        min_duration=min_duration,
        since=since,
        until=until,
        text=q,
    )
    page = await search(telemetry.spans.traces, query, limit=limit, after=after)
    return TraceList(traces=[_summary(each) for each in page.traces], next=page.next)


@router.get(f"{TRACES_PATH}/{{trace_id}}", dependencies=_VIEWERS, response_model=WholeTrace)
async def show_trace(telemetry: CurrentTelemetry, trace_id: Annotated[str, Path(max_length=64)]) -> Response:
    """One trace, by its id in hex."""
    trace = telemetry.spans.traces.get(_trace_id(trace_id))
    if trace is None:
        raise NotFound(
            f"no trace {trace_id!r} is kept: it was not sampled, is too old, or has not been told of yet"
        )
    shown = await waterfall(telemetry.spans.traces, trace)
    # Thousands of spans, made here: to check them by the model would keep all else waiting.
    return Response(await asyncio.to_thread(to_json, shown), media_type="application/json")


def _trace_id(text: str) -> bytes:
    try:
        trace_id = bytes.fromhex(text)
    except ValueError:
        trace_id = b""
    if len(trace_id) != 16:
        raise InvalidRequest(f"{text!r} is no trace id: it has 32 hexadecimal digits")
    return trace_id


def _summary(trace: Trace) -> TraceOut:
    return TraceOut(
        id=trace.id.hex(),
        name=trace.name,
        service=trace.service,
        start=trace.start / _NS,
        duration=(trace.end - trace.start) / _NS,
        spans=len(trace.spans),
        errors=trace.errors,
        services=trace.services,
        context=trace.context,
    )


def _reporter(caller: object) -> Reporter:
    match caller:
        case Operator():
            return Reporter(caller.who)
        case Peer(identity):
            return Reporter.of_process(identity)
    raise TypeError(f"{caller!r} sends spans")
