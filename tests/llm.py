"""What stands around the Envoy of an agent that calls models: providers, and an obedient scheduler."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsResponse
from envoy.service.accesslog.v3.als_pb2_grpc import (
    AccessLogServiceServicer,
    add_AccessLogServiceServicer_to_server,
)
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import (
    ExternalProcessorServicer,
    add_ExternalProcessorServicer_to_server,
)
from grpc import aio

from tests.outside import HOST, LIMIT, Caller, caller
from tests.pki import Pki
from tests.xds import server_identity
from weft.aio.poll import until
from weft.controlplane.secrets import Secrets
from weft.controlplane.xds.credentials import server_credentials
from weft.model.llm_lease import Grant, Lease
from weft.model.llm_wire import CALL_HEADER, CLUSTER_HEADER, METADATA, POOL_HEADER, order_cluster
from weft.model.node import Address
from weft.model.yaml_tree import dump

USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
PLENTY = 1_000_000


def completion(**more: Any) -> bytes:
    """An answer that is not streamed, as it goes over the wire."""
    return answer(json.dumps({"choices": [{"message": {"content": "hi"}}], "usage": USAGE, **more}).encode())


def answer(body: bytes, *, status: int = 200, kind: str = "application/json", headers: str = "") -> bytes:
    """Any answer, as it goes over the wire; `headers` are whole lines."""
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@dataclass(frozen=True, slots=True)
class Received:
    """A request as a provider got it."""

    line: str
    headers: dict[str, str]
    body: bytes


class FakeProvider:
    """A server that gives one answer after the other, the last of them for ever, and keeps what it was asked.

    An answer that ends in the midst of what its head promises is left so: the connection stays open.
    """

    def __init__(self, *answers: bytes, piece: int | None = None) -> None:
        """`piece`: how many bytes of an answer go out at once, behind its head."""
        self.answers = list(answers or [completion()])
        self.requests: list[Received] = []
        self.port = 0
        self._piece = piece

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeProvider]:
        """Within the context it serves, at `port`."""
        server = await asyncio.start_server(self._serve, HOST, 0, limit=1024 * 1024)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *rest = head.strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append(Received(line, headers, body))
                data = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await self._send(data, writer)
                if b"connection: close" in data:
                    break
        writer.close()

    async def _send(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        head, gap, body = data.partition(b"\r\n\r\n")
        writer.write(head + gap)
        for start in range(0, len(body), self._piece or len(body) or 1):
            writer.write(body[start : start + (self._piece or len(body))])
            await writer.drain()
            if self._piece:
                await asyncio.sleep(0)


def streamed(*events: str) -> bytes:
    """A stream of events, as it goes over the wire; it ends with its connection."""
    body = "".join(f"data: {each}\n\n" for each in events)
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}".encode()


@dataclass(frozen=True, slots=True)
class Asked:
    """What Envoy asked about a call."""

    headers: dict[str, str]
    metadata: dict[str, Any]
    cluster: str


@dataclass
class Scheduler(ExternalProcessorServicer, AccessLogServiceServicer):  # type: ignore[misc]
    """Answers what it is asked by `decide`, and keeps all that it hears."""

    decide: Callable[[Asked], ProcessingResponse] = lambda _: go_on()
    asked: list[Asked] = field(default_factory=list)
    ended: list[Any] = field(default_factory=list)
    """Entries of the log of calls."""
    attempts: list[Any] = field(default_factory=list)
    """Entries of the log of attempts that failed."""

    async def Process(self, requests: AsyncIterator[ProcessingRequest], _: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for each in requests:
            asked = _asked(each)
            self.asked.append(asked)
            yield self.decide(asked)

    async def StreamAccessLogs(self, messages: AsyncIterator[Any], _: Any) -> Any:  # noqa: N802
        kept = None
        async for each in messages:
            if each.HasField("identifier"):
                kept = self.ended if each.identifier.log_name == "llm" else self.attempts
            assert kept is not None
            kept.extend(each.http_logs.log_entry)
        return StreamAccessLogsResponse()

    async def heard_of(self, calls: int, *, attempts: int = 0) -> None:
        """Wait until so many calls have been told of as over, and so many attempts as failed."""

        async def enough() -> bool:
            return len(self.ended) >= calls and len(self.attempts) >= attempts

        async with asyncio.timeout(LIMIT):
            await until(enough)


def _asked(request: ProcessingRequest) -> Asked:
    headers = {each.key: each.raw_value.decode() for each in request.request_headers.headers.headers}
    told = request.metadata_context.filter_metadata
    metadata = dict(told[METADATA].items()) if METADATA in told else {}
    clusters = [
        each.fields["xds.cluster_name"].string_value
        for each in request.attributes.values()
        if "xds.cluster_name" in each.fields
    ]
    return Asked(headers, metadata, "".join(clusters))


class Models:
    """An agent's Envoy, and who decides about its calls."""

    def __init__(self, agent: Caller, scheduler: Scheduler) -> None:
        self.agent = agent
        self.scheduler = scheduler
        self._leases = 0

    async def lease(self, *pools: str, requests: int = PLENTY, tokens: int = PLENTY) -> None:
        """Grant so much of each pool, and wait until Envoy has it."""
        self._leases += 1
        grants = tuple(Grant(each, requests, tokens) for each in pools)
        key = self.agent.node.key
        self.agent.snapshots.update_leases({key: Lease(key, self._leases, time.time(), grants)})
        await self.agent.synced()

    async def call(self, model: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """POST a chat completion."""
        whole = {"model": model, "messages": [{"role": "user", "content": "hello"}], **body}
        return await self.post(json.dumps(whole).encode(), headers=headers)

    async def post(
        self, body: bytes, *, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """POST whatever it is."""
        own = {"content-type": "application/json", "authorization": "Bearer agents-own", **(headers or {})}
        return await self.agent.http.post(f"http://llm.mesh{path}", content=body, headers=own)


@asynccontextmanager
async def models(
    secrets: Secrets, *, agent_type: str = "worker", guarded: bool = False, telemetry: int | None = None
) -> AsyncIterator[Models]:
    """The Envoy of an agent of this type, with a scheduler; all gone when the context is left.

    `guarded`: it has the stream guard. `telemetry`: the port at which its spans are taken.
    """
    pki = Pki()
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(
            caller(agent_type, secrets, pki, guarded=guarded, telemetry=telemetry)
        )
        scheduler = Scheduler()
        server = aio.server()
        add_ExternalProcessorServicer_to_server(scheduler, server)
        add_AccessLogServiceServicer_to_server(scheduler, server)
        port = server.add_secure_port(f"{HOST}:0", server_credentials(lambda: server_identity(pki)))
        await server.start()
        stack.push_async_callback(server.stop, None)
        agent.snapshots.update_scheduler(Address(HOST, port))
        yield Models(agent, scheduler)


def pool(name: str, *providers: dict[str, Any], **spec: Any) -> str:
    """The manifest of a ModelPool."""
    return _manifest("ModelPool", name, {"providers": list(providers), **spec})


def secret(**data: str) -> str:
    """The manifest of the Secret `keys`."""
    return _manifest("Secret", "keys", {"data": data})


def key(name: str) -> dict[str, str]:
    """A reference to one of its values."""
    return {"secret": "keys", "key": name}


def _manifest(kind: str, name: str, spec: dict[str, Any]) -> str:
    return dump([{"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}])


def go_on() -> ProcessingResponse:
    """The call goes on as it is."""
    response = ProcessingResponse()
    response.request_headers.SetInParent()
    return response


def refusal(status: int, code: str) -> ProcessingResponse:
    """The call does not start."""
    response = ProcessingResponse()
    response.immediate_response.status.code = status
    kind = response.immediate_response.headers.set_headers.add().header
    kind.key, kind.raw_value = "content-type", b"application/json"
    response.immediate_response.body = json.dumps({"error": {"code": code}}).encode()
    return response


def to(pool_name: str, provider: str) -> Callable[[Asked], ProcessingResponse]:
    """Admit each call, to begin with that provider; and each further attempt."""

    def decide(asked: Asked) -> ProcessingResponse:
        response = go_on()
        if POOL_HEADER in asked.headers:
            common = response.request_headers.response
            common.clear_route_cache = True
            changes = {CALL_HEADER: "call-1", CLUSTER_HEADER: order_cluster(pool_name, provider)}
            for name, value in changes.items():
                header = HeaderValue(key=name, raw_value=value.encode())
                common.header_mutation.set_headers.add(header=header)
            response.dynamic_metadata.update({METADATA: {"call": "call-1"}})
        return response

    return decide
