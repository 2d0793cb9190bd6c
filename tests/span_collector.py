"""A collector of others: takes spans as OTLP over HTTP, and has them looked at."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.integration.sidecar_process import LIMIT


@dataclass(frozen=True)
class Received:
    """One span, as it came."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    failed: bool
    message: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str
    seconds: float


@dataclass
class SpanCollector:
    """What has come so far."""

    port: int = 0
    spans: list[Received] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    answer: int = 200
    """The status of its answers."""
    hold: asyncio.Event | None = None
    """Answers nothing until this is set."""
    asked: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it takes spans."""
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def named(self, name: str) -> list[Received]:
        """The spans of a name."""
        return [each for each in self.spans if each.name == name]

    async def has(self, condition: Callable[[SpanCollector], Any]) -> None:
        """Wait until what has come fulfils `condition`."""
        async with asyncio.timeout(LIMIT):
            while not condition(self):
                self.came.clear()
                await self.came.wait()

    async def one(self, name: str) -> Received:
        """The one span of a name, once it is there."""
        await self.has(lambda here: here.named(name))
        [found] = self.named(name)
        return found

    async def take(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self.asked += 1
        self.came.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.answer != 200:
            return web.Response(status=self.answer)
        body = await request.read()
        self.headers.append(dict(request.headers))
        if request.headers.get("content-encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.spans += received_in(body)
        self.came.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def received_in(body: bytes) -> list[Received]:
    """The spans of an OTLP request."""
    found = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _values(group.resource.attributes)
        for scoped in group.scope_spans:
            found += [_received(each, resource, scoped.scope.name) for each in scoped.spans]
    return found


def tree(spans: list[Received], parent: str) -> list[Any]:
    """Names below `parent`, in the order of their names, with what is below them."""
    found = sorted([each.name, *tree(spans, each.id)] for each in spans if each.parent == parent)
    return list(found)


@asynccontextmanager
async def span_collector() -> AsyncIterator[SpanCollector]:
    """One that listens on loopback, for a block."""
    receiver = SpanCollector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        await runner.cleanup()


def _received(span: Span, resource: Mapping[str, Any], scope: str) -> Received:
    return Received(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
        attributes=_values(span.attributes),
        resource=resource,
        scope=scope,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}
