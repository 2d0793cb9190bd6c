"""A collector for tests: takes OTLP by gRPC and by HTTP, and answers as it is told to."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weft.sdk.server import bind, serving_http

LIMIT = 60.0
"""Seconds in which what is waited for comes."""


class OtlpReceiver:
    """What came, and what is to be answered to what comes next."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.metrics: dict[str, Metric] = {}
        """The last of each name."""
        self.headers: list[dict[str, str]] = []
        """Of each request."""
        self.refusals: list[tuple[int, dict[str, str]]] = []
        """Statuses of HTTP, and headers, for the next requests; then all are taken."""
        self.codes: list[grpc.StatusCode] = []
        """The same for gRPC."""
        self.rejects = 0
        """Spans that it says it left out of each request."""
        self._news = asyncio.Condition()

    async def until(self, count: int) -> None:
        """Wait until so many spans have come."""
        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(lambda: len(self.spans) >= count)

    async def until_metric(self, name: str) -> Metric:
        """Wait for a metric."""
        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(lambda: name in self.metrics)
        return self.metrics[name]

    async def take_spans(self, data: bytes) -> bytes:
        request = ExportTraceServiceRequest.FromString(data)
        for group in request.resource_spans:
            self.services |= {
                each.value.string_value for each in group.resource.attributes if each.key == "service.name"
            }
            for scope in group.scope_spans:
                self.spans += scope.spans
        await self._told()
        answer = ExportTraceServiceResponse()
        if self.rejects:
            answer.partial_success.rejected_spans = self.rejects
        return answer.SerializeToString()

    async def take_metrics(self, data: bytes) -> bytes:
        for group in ExportMetricsServiceRequest.FromString(data).resource_metrics:
            for scope in group.scope_metrics:
                self.metrics |= {each.name: each for each in scope.metrics}
        await self._told()
        return ExportMetricsServiceResponse().SerializeToString()

    async def _told(self) -> None:
        async with self._news:
            self._news.notify_all()

    @asynccontextmanager
    async def http(self) -> AsyncIterator[str]:
        """Serve OTLP/HTTP; gives the endpoint."""
        app = Starlette(
            routes=[
                Route(f"/base/v1/{kind}", self._taking(take), methods=["POST"])
                for kind, take in (("traces", self.take_spans), ("metrics", self.take_metrics))
            ]
        )
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        async with serving_http(app, listener):
            yield f"http://127.0.0.1:{port}/base"

    @asynccontextmanager
    async def grpc(self, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
        """Serve OTLP/gRPC; gives the port."""
        server = aio.server()
        add_TraceServiceServicer_to_server(_Traces(self), server)  # type: ignore[no-untyped-call]
        add_MetricsServiceServicer_to_server(_Metrics(self), server)  # type: ignore[no-untyped-call]
        address = "127.0.0.1:0"
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
        await server.start()
        try:
            yield port
        finally:
            await server.stop(grace=0)

    def _taking(self, take: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            self.headers.append(dict(request.headers))
            body = await request.body()
            if self.refusals:
                status, headers = self.refusals.pop(0)
                return Response(b"", status, headers)
            assert request.headers["content-encoding"] == "gzip"
            return Response(await take(gzip.decompress(body)), media_type="application/x-protobuf")

        return endpoint

    async def check(self, context: Any) -> None:
        """Answer a call by gRPC as it is told to."""
        self.headers.append({each.key: each.value for each in context.invocation_metadata()})
        if self.codes:
            await context.abort(self.codes.pop(0), "not now")


class _Traces(TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802
        self, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        await self._receiver.check(context)
        answer = await self._receiver.take_spans(request.SerializeToString())
        return ExportTraceServiceResponse.FromString(answer)


class _Metrics(MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802
        self, request: ExportMetricsServiceRequest, context: Any
    ) -> ExportMetricsServiceResponse:
        await self._receiver.check(context)
        answer = await self._receiver.take_metrics(request.SerializeToString())
        return ExportMetricsServiceResponse.FromString(answer)
