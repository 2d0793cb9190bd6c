"""A receiver of what Envoy tells of calls: spans by OTLP, access logs by Envoy's own protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from grpc import aio, stream_unary_rpc_method_handler
from grpc import method_handlers_generic_handler as generic_handler
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

HOST = "127.0.0.1"
LIMIT = 60.0
"""Seconds in which what is waited for comes."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span, as it came."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    tags: dict[str, str]
    resource: dict[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of an access log."""

    log: str
    tags: dict[str, str]


class SpanReceiver(TraceServiceServicer):
    """Keeps whatever comes; within its context it serves, at `port`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.entries: list[Entry] = []
        self.port = 0
        self._news = asyncio.Condition()
        self._server = aio.server()

    async def __aenter__(self) -> SpanReceiver:
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        logs = stream_unary_rpc_method_handler(
            self._stream_access_logs,
            request_deserializer=StreamAccessLogsMessage.FromString,
            response_serializer=StreamAccessLogsResponse.SerializeToString,
        )
        service = "envoy.service.accesslog.v3.AccessLogService"
        self._server.add_generic_rpc_handlers([generic_handler(service, {"StreamAccessLogs": logs})])
        self.port = self._server.add_insecure_port(f"{HOST}:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def spans_where(self, wanted: Callable[[Span], bool], number: int = 1) -> list[Span]:
        """The spans of which that is so, once there are so many."""
        await self._until(lambda: sum(map(wanted, self.spans)) >= number)
        return [each for each in self.spans if wanted(each)]

    async def entries_where(self, wanted: Callable[[Entry], bool], number: int = 1) -> list[Entry]:
        """The entries of which that is so, once there are so many."""
        await self._until(lambda: sum(map(wanted, self.entries)) >= number)
        return [each for each in self.entries if wanted(each)]

    async def Export(  # noqa: N802 - the service's
        self, request: ExportTraceServiceRequest, _context: Any
    ) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            about = _texts(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans.extend(_span(each, about) for each in scope.spans)
        await self._tell()
        return ExportTraceServiceResponse()

    async def _stream_access_logs(
        self, messages: AsyncIterator[StreamAccessLogsMessage], _context: Any
    ) -> StreamAccessLogsResponse:
        name = ""
        async for message in messages:
            name = message.identifier.log_name or name
            for each in message.http_logs.log_entry:
                self.entries.append(Entry(name, dict(each.common_properties.custom_tags)))
            await self._tell()
        return StreamAccessLogsResponse()

    async def _until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(so)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


def _span(span: Any, resource: dict[str, str]) -> Span:
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return Span(span.name, *ids, span.kind, _texts(span.attributes), resource)


def _texts(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}
