"""OTLP by HTTP: reading requests, in protobuf or JSON, packed or not, and answering in kind.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic_core import from_json

from weft.controlplane.telemetry.intake import Intake, Taken
from weft.controlplane.telemetry.limits import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_GROUPS,
    MAX_REQUEST_BYTES,
    MAX_REQUESTS,
    MAX_REQUESTS_OF_SENDER,
)
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.otlp_grpc import answer
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.telemetry.under_way import UnderWay
from weft.errors import InvalidRequest, TooMany

BODY_TIMEOUT: Final = 15.0
"""Seconds within which a request must have come."""

_MAX_DEPTH: Final = 24
"""Of values within values, in JSON: protobuf's parser stops at a hundred messages, four to a value."""

MAX_JSON_VALUES: Final = 150_000
"""Objects and lists in a request in JSON: reading as many takes about two seconds of half a processor."""

_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNAVAILABLE = 3, 8, 14


class Form(StrEnum):
    """Of a request and its answer: their media type."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


class NotTaken(Exception):
    """A request that is refused as a whole."""

    def __init__(self, status: int, code: int, detail: str, *, retry_after: float | None = None) -> None:
        """`status` is HTTP's, `code` gRPC's, `retry_after` in seconds."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


class Answer(NamedTuple):
    """What a sender is told."""

    status: int
    form: Form
    body: bytes
    headers: dict[str, str]


class OtlpHttp:
    """Takes requests of OTLP/HTTP."""

    def __init__(self, intake: Intake, metrics: SpanMetrics) -> None:
        self._intake = intake
        self._metrics = metrics
        self._requests = UnderWay(
            MAX_REQUESTS, MAX_REQUESTS_OF_SENDER, "too many requests at once: send it again in a few seconds"
        )
        # JSON takes long to read: one at a time, so that the rest of the process has its half.
        self._reading_json = asyncio.Semaphore(1)

    async def take(
        self, headers: Mapping[str, str], chunks: AsyncIterator[bytes], reporter: Reporter
    ) -> Answer:
        """The answer to a request whose body comes in `chunks`; `headers` by their names in lower case."""
        form = Form.PROTOBUF
        try:
            form = form_of(headers.get("content-type", ""))
            taken = await self._take(form, headers.get("content-encoding", ""), chunks, reporter)
        except NotTaken as error:
            self._metrics.refused()
            status = Status(code=error.code, message=error.detail)
            again = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:.0f}"}
            return Answer(error.status, form, _written(status, form), again)
        return Answer(200, form, _written(answer(taken), form), {})

    async def _take(
        self, form: Form, encoding: str, chunks: AsyncIterator[bytes], reporter: Reporter
    ) -> Taken:
        try:
            with self._requests.taking(reporter.who, 1):
                body = unpacked(await body_of(chunks), encoding)
                # Before it is read, which takes longer than anything before.
                with self._intake.admitted(len(body), reporter):
                    request = await self._read(form, body)
                    return await self._intake.take_admitted(request.resource_spans, reporter)
        except InvalidRequest as error:
            raise _invalid(error.detail) from error
        except TooMany as error:
            raise NotTaken(429, _UNAVAILABLE, error.detail, retry_after=error.retry_after) from error

    async def _read(self, form: Form, body: bytes) -> ExportTraceServiceRequest:
        if form is Form.PROTOBUF:
            return _from_protobuf(body)
        async with self._reading_json:
            return await asyncio.to_thread(from_json_text, body)


def form_of(content_type: str) -> Form:
    """The form that a Content-Type names. Raises NotTaken."""
    named = content_type.partition(";")[0].strip().lower()
    try:
        return Form(named)
    except ValueError as error:
        raise _unknown(f"spans come as {Form.PROTOBUF} or {Form.JSON}, not as {named[:80]!r}") from error


async def body_of(chunks: AsyncIterator[bytes]) -> bytes:
    """The body that comes in `chunks`. Raises NotTaken."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_REQUEST_BYTES:
                    raise _too_large()
                parts.append(chunk)
    except TimeoutError as error:
        detail = f"the request did not come within {BODY_TIMEOUT:g} s"
        raise NotTaken(408, _UNAVAILABLE, detail) from error
    return b"".join(parts)


def unpacked(body: bytes, encoding: str) -> bytes:
    """`body`, whose Content-Encoding is `encoding`. Raises NotTaken."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _inflated(body, zlib.MAX_WBITS | 16)
        case "deflate":
            return _inflated(body, zlib.MAX_WBITS)
    raise _unknown(
        f"spans come packed by gzip or deflate, or not at all: {encoding[:40]!r} is not understood"
    )


def _from_protobuf(body: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise _invalid("the body is no ExportTraceServiceRequest") from error


def _written(message: Message, form: Form) -> bytes:
    if form is Form.PROTOBUF:
        return message.SerializeToString()
    return MessageToJson(message, indent=None).encode()


def _too_large() -> NotTaken:
    detail = f"more than {MAX_REQUEST_BYTES} bytes of spans: send fewer at once"
    return NotTaken(413, _RESOURCE_EXHAUSTED, detail)


def _unknown(detail: str) -> NotTaken:
    return NotTaken(415, _INVALID_ARGUMENT, detail)


def _invalid(detail: str) -> NotTaken:
    return NotTaken(400, _INVALID_ARGUMENT, detail)


def _inflated(body: bytes, form: int) -> bytes:
    unpacker = zlib.decompressobj(form)
    try:
        data = unpacker.decompress(body, MAX_REQUEST_BYTES + 1)
    except zlib.error as error:
        raise _invalid("the body is not packed as it says") from error
    if len(data) > MAX_REQUEST_BYTES:
        raise _too_large()
    if not unpacker.eof or unpacker.unused_data:
        raise _invalid("the body is not one whole file that was packed")
    return data


def from_json_text(body: bytes) -> ExportTraceServiceRequest:
    """The request in `body`. Raises NotTaken."""
    if body.count(b"{") + body.count(b"[") > MAX_JSON_VALUES:
        raise _too_large()
    try:
        content = from_json(body)
        return ParseDict(_prepared(content), ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise _invalid("the body is no ExportTraceServiceRequest in JSON") from error


def _prepared(content: Any) -> dict[str, Any]:
    """What is no more than would be kept, with ids as protobuf's JSON has them: OTLP writes them in hex."""
    groups = []
    for group in _dicts(content, "resourceSpans", "resource_spans")[: MAX_GROUPS + 1]:
        resource = group.get("resource") or {}
        scopes = []
        for scope in _dicts(group, "scopeSpans", "scope_spans")[: MAX_GROUPS + 1]:
            spans = [_span(each) for each in _dicts(scope, "spans")]
            scopes.append({"scope": _named(scope.get("scope") or {}), "spans": spans})
        attributes = {"attributes": _attributes(resource)}
        groups.append({"resource": attributes, "scopeSpans": scopes})
    return {"resourceSpans": groups}


def _named(scope: dict[str, Any]) -> dict[str, Any]:
    return {name: scope[name] for name in ("name", "version") if name in scope}


def _span(given: dict[str, Any]) -> dict[str, Any]:
    span = dict(given)
    for names in (("traceId", "trace_id"), ("spanId", "span_id"), ("parentSpanId", "parent_span_id")):
        _id(span, *names)
    span["attributes"] = _attributes(given)
    for part in ("events", "links"):
        span[part] = [{**each, "attributes": _attributes(each)} for each in _dicts(given, part)[:MAX_EVENTS]]
    for link in span["links"]:
        _id(link, "traceId", "trace_id")
        _id(link, "spanId", "span_id")
    return span


def _id(parent: dict[str, Any], *names: str) -> None:
    for name in names:
        if name in parent:
            parent[name] = base64.b64encode(bytes.fromhex(parent[name])).decode()


def _attributes(parent: dict[str, Any]) -> list[dict[str, Any]]:
    attributes = _dicts(parent, "attributes")[:MAX_ATTRIBUTES]
    for each in attributes:
        _check_depth(each, _MAX_DEPTH)
    return attributes


def _check_depth(value: Any, left: int) -> None:
    if not left:
        raise ValueError("too deep")
    if isinstance(value, dict):
        for each in value.values():
            _check_depth(each, left - 1)
    elif isinstance(value, list):
        for each in value:
            _check_depth(each, left - 1)


def _dicts(parent: Any, *names: str) -> list[dict[str, Any]]:
    """The objects in the list of one of `names`. Raises ValueError if anything else is there."""
    found = next((parent[name] for name in names if name in parent), None) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{names[0]} must be a list of objects")
    return found
