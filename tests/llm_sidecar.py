"""A sidecar's Envoy, as far as the scheduler of calls to models hears of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from grpc import aio

from tests.pki import Pki
from weft.controlplane import access_logs
from weft.controlplane.llm import asking
from weft.model.llm_wire import (
    ACCESS_LOG,
    ATTEMPT_LOG,
    CALL_HEADER,
    CLUSTER_HEADER,
    METADATA,
    MODEL_HEADER,
    OUTPUT_HEADER,
    POOL_HEADER,
    PROMPT_HEADER,
    PROVIDER_HEADER,
    STREAM_HEADER,
    parse_order_cluster,
    provider_cluster,
)

LIMIT = 60.0
"""Seconds for anything that is waited for."""


@dataclass(frozen=True)
class Answer:
    """What Envoy is told to do."""

    response: ProcessingResponse

    @property
    def call(self) -> str:
        """The call's id, if it was admitted."""
        return self._set().get(CALL_HEADER, "")

    @property
    def provider(self) -> str:
        """Where it goes."""
        order = parse_order_cluster(self._set()[CLUSTER_HEADER])
        assert order is not None
        return order[1]

    @property
    def admitted(self) -> bool:
        """Whether the call may start."""
        return bool(self.response.WhichOneof("response") == "request_headers")

    @property
    def status(self) -> int:
        """Of the answer to the agent, if it was refused."""
        return int(self.response.immediate_response.status.code)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's, if it was refused."""
        error: dict[str, Any] = json.loads(self.response.immediate_response.body)["error"]
        return error

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer to the agent."""
        added = self.response.immediate_response.headers.set_headers
        return {each.header.key: each.header.raw_value.decode() for each in added}

    def _set(self) -> dict[str, str]:
        added = self.response.request_headers.response.header_mutation.set_headers
        return {each.header.key: each.header.raw_value.decode() for each in added}


class Asked:
    """A question that waits for its answer."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def answer(self) -> Answer:
        """What is decided. Raises grpc.aio.AioRpcError where there is no decision."""
        async with asyncio.timeout(LIMIT):
            data = await self._call.read()
        if not isinstance(data, bytes):
            code, details = await self._call.code(), await self._call.details()
            raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details, "")
        return Answer(ProcessingResponse.FromString(data))

    async def leave(self) -> None:
        """The client left: Envoy ends its half of the stream."""
        await self._call.done_writing()

    def reset(self) -> None:
        """The client left: Envoy resets the stream."""
        self._call.cancel()


class LlmSidecar:
    """One that asks and tells at one replica."""

    def __init__(self, channel: aio.Channel, holder: str) -> None:
        self.holder = holder
        self._channel: Any = channel
        self._logs: dict[str, Any] = {}
        self._writing = asyncio.Lock()

    async def ask(self, pool: str, **headers: str) -> Asked:
        """Ask whether a call may start; underscores in names of `headers` stand for hyphens."""
        given = {
            POOL_HEADER: pool,
            MODEL_HEADER: pool,
            PROMPT_HEADER: "400",
            OUTPUT_HEADER: "100",
            STREAM_HEADER: "0",
        }
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = ProcessingRequest()
        request.request_headers.SetInParent()
        for name, value in given.items():
            request.request_headers.headers.headers.add(key=name, raw_value=value.encode())
        return await self._asked(request, ())

    async def ask_again(self, pool: str, call: str, provider: str) -> Asked:
        """Ask whether a call that failed may go to the next provider."""
        request = ProcessingRequest()
        request.request_headers.headers.headers.add(key="traceparent", raw_value=b"none")
        request.metadata_context.filter_metadata[METADATA].update({"call": call, "pool": pool, "model": pool})
        return await self._asked(request, ((POOL_HEADER, pool), (PROVIDER_HEADER, provider)))

    async def tell(
        self, call: str, pool: str, provider: str, *, status: int = 200, seconds: float = 0.1, **fields: Any
    ) -> None:
        """Tell that a call ended; `headers` of the answer, `flags`, and dynamic metadata."""
        await self._log(ACCESS_LOG, self._entry(call, pool, provider, status, seconds, fields))

    async def tell_failed(self, call: str, pool: str, provider: str, status: int, **fields: Any) -> None:
        """Tell that an attempt failed."""
        await self._log(ATTEMPT_LOG, self._entry(call, pool, provider, status, 0.1, fields))

    async def log_ended(self) -> grpc.StatusCode:
        """How the stream of the access log ended, once it did."""
        async with asyncio.timeout(LIMIT):
            code: grpc.StatusCode = await self._logs.pop(ACCESS_LOG).code()
            return code

    async def _asked(self, request: ProcessingRequest, metadata: tuple[tuple[str, str], ...]) -> Asked:
        call = self._channel.stream_stream(f"/{asking.SERVICE}/{asking.METHOD}")(metadata=metadata)
        async with asyncio.timeout(LIMIT):
            await call.write(request.SerializeToString())
        return Asked(call)

    async def _log(self, name: str, message: StreamAccessLogsMessage) -> None:
        if name not in self._logs:
            self._logs[name] = self._channel.stream_unary(f"/{access_logs.SERVICE}/{access_logs.METHOD}")()
            message.identifier.log_name = name
        async with asyncio.timeout(LIMIT), self._writing:
            await self._logs[name].write(message.SerializeToString())

    def _entry(
        self, call: str, pool: str, provider: str, status: int, seconds: float, fields: dict[str, Any]
    ) -> StreamAccessLogsMessage:
        message = StreamAccessLogsMessage()
        entry = message.http_logs.log_entry.add()
        common = entry.common_properties
        known = {"pool": pool, "model": pool, "tokens": 200.0, **({"call": call} if call else {})}
        headers, flags = fields.pop("headers", {}), fields.pop("flags", ())
        common.metadata.filter_metadata[METADATA].update({**known, **fields})
        common.start_time.FromNanoseconds(int((time.time() - seconds) * 1e9))
        common.duration.FromNanoseconds(int(seconds * 1e9))
        if provider:
            common.upstream_cluster = provider_cluster(pool, provider)
            common.time_to_first_upstream_tx_byte.FromNanoseconds(1_000_000)
            common.time_to_first_upstream_rx_byte.FromNanoseconds(int(seconds * 5e8))
        for each in flags:
            setattr(common.response_flags, each, True)
        entry.response.response_code.value = status
        entry.response.response_headers.update(headers)
        return message


@asynccontextmanager
async def llm_sidecar(pki: Pki, port: int, agent: str = "writer/w-1") -> AsyncIterator[LlmSidecar]:
    """The sidecar of `agent` (type and instance), connected to the replica at `port`."""
    chain, key = pki.svid(f"spiffe://{pki.trust_domain}/agent/{agent}")
    credentials = grpc.ssl_channel_credentials(pki.bundle().pem, key, chain)
    # A channel of its own: gRPC shares connections between channels that look alike.
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        yield LlmSidecar(channel, agent.replace("/", "."))
