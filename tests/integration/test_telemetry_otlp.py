"""Spans from foreign clients, to foreign receivers, and among replicas of the control plane."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from grpc import StatusCode, aio
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from tests.observed import Observed, observed
from tests.otlp_receiver import OtlpReceiver
from tests.pki import Pki
from tests.servers import nats_server
from tests.spans import ENVOYS_OUTBOUND, request, span
from tests.xds import server_identity

from weft.aio.poll import until
from weft.controlplane import access_logs
from weft.controlplane.access_logs import AccessLogService
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.telemetry import otlp_grpc
from weft.controlplane.telemetry.opening import Telemetry
from weft.controlplane.xds.credentials import server_credentials
from weft.model.spiffe import agent_id, control_id
from weft.model.telemetry_wire import ATTEMPT_LOG, ERROR_LOG
from weft.store.bucket import Store
from weft.store.nats import NatsStore

LIMIT = 60.0
OURS, THEIRS = Pki(), Pki()
PLANNER = "spiffe://weft.local/agent/planner/p-1"
PROTOBUF = {"content-type": "application/x-protobuf"}
EXPORT = f"/{otlp_grpc.SERVICE}/{otlp_grpc.METHOD}"
LOGS = f"/{access_logs.SERVICE}/{access_logs.METHOD}"


@asynccontextmanager
async def xds_port(telemetry: Telemetry) -> AsyncIterator[str]:
    """The services that sidecars reach at the port of xDS."""
    server = aio.server()
    server.add_generic_rpc_handlers([*telemetry.services, AccessLogService(telemetry.logs).handler()])
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: server_identity(OURS)))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=0)


def shown(chain_and_key: tuple[bytes, bytes]) -> grpc.ChannelCredentials:
    chain, key = chain_and_key
    return grpc.ssl_channel_credentials(OURS.bundle().pem, key, chain)


async def send(api: Observed, *spans: Span) -> None:
    body = request(*spans).SerializeToString()
    answer = await api.http.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 200, answer.text


async def traces(api: Observed, count: int, **query: Any) -> list[dict[str, Any]]:
    """The traces that are found, once there are so many."""
    found: list[dict[str, Any]] = []

    async def enough() -> bool:
        found[:] = (await api.http.get("/v1/traces", params=query)).json()["traces"]
        return len(found) >= count

    async with asyncio.timeout(LIMIT):
        await until(enough)
    return found


async def spans_of(api: Observed, trace: str) -> list[dict[str, Any]]:
    answer = await api.http.get(f"/v1/traces/{trace}")
    shown_spans: list[dict[str, Any]] = answer.json()["spans"]
    return shown_spans


def traced(exporter: SpanExporter) -> None:
    """What a program does that was instrumented by others, and thinks it is called `theirs`."""
    provider = TracerProvider(resource=Resource.create({"service.name": "theirs"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("outer", attributes={"n": 1, "list": ["a", "b"]}) as outer:
        with tracer.start_as_current_span("inner") as inner:
            inner.record_exception(ValueError("password=hunter22"))
        outer.add_event("done", {"ok": True})
    provider.shutdown()


@pytest.mark.parametrize("compression", list(Compression))
async def test_opentelemetrys_own_exporter_sends_by_http(compression: Compression) -> None:
    async with observed() as api:
        exporter = HttpExporter(
            f"{api.url}/v1/traces",
            headers={"authorization": api.http.headers["authorization"]},
            compression=compression,
        )
        await asyncio.to_thread(traced, exporter)
        (summary,) = await traces(api, 1)
        assert (summary["name"], summary["service"], summary["spans"]) == ("outer", "theirs", 2)
        outer, inner = await spans_of(api, summary["id"])
        assert outer["attributes"] == {"n": 1, "list": ["a", "b"], "weft.reporter": "operator/tests"}
        assert inner["parent"] == outer["id"]
        assert "hunter22" not in str(inner)
        assert "[redacted]" in str(inner["events"])


async def test_opentelemetrys_own_exporter_sends_by_grpc_under_the_name_of_its_certificate() -> None:
    async with observed() as api, xds_port(api.telemetry) as address:
        exporter = GrpcExporter(address, credentials=shown(OURS.svid(PLANNER)))
        await asyncio.to_thread(traced, exporter)
        (summary,) = await traces(api, 1)
        assert (summary["name"], summary["service"]) == ("outer", "planner")
        outer, _ = await spans_of(api, summary["id"])
        assert (outer["instance"], outer["attributes"]["weft.reporter"]) == ("p-1", PLANNER)


async def test_only_sidecars_of_this_mesh_send_by_grpc() -> None:
    body = request(span()).SerializeToString()
    control = str(control_id(OURS.trust_domain, "c-1"))
    async with observed() as api, xds_port(api.telemetry) as address:
        for credentials in (shown(OURS.svid(control)), shown(Pki("other.mesh").svid(PLANNER))):
            async with aio.secure_channel(address, credentials) as channel:
                with pytest.raises(aio.AioRpcError) as refused:
                    await channel.unary_unary(EXPORT)(body, timeout=LIMIT)  # type: ignore[call-arg]
                assert refused.value.code() in {StatusCode.PERMISSION_DENIED, StatusCode.UNAVAILABLE}
        async with aio.secure_channel(address, shown(OURS.svid(PLANNER))) as channel:
            export: Any = channel.unary_unary(EXPORT)  # type: ignore[call-arg]
            with pytest.raises(aio.AioRpcError) as refused:
                await export(b"\xff\xff", timeout=LIMIT)
            assert refused.value.code() is StatusCode.INVALID_ARGUMENT
            bad = span()
            bad.trace_id = b"short"
            answer = await export(request(span("good"), bad).SerializeToString(), timeout=LIMIT)
            assert ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans == 1
        assert [each["name"] for each in await traces(api, 1)] == ["good"]


async def test_access_logs_become_spans_each_once() -> None:
    trace = os.urandom(16).hex()
    call = os.urandom(8).hex()
    tags = {
        **ENVOYS_OUTBOUND,
        "http.status_code": "503",
        "weft.error": "no-healthy-agent",
        "weft.attempts": "2",
    }
    failed = message(ERROR_LOG, {**tags, "trace_id": trace, "span_id": call})
    attempts = message(
        ATTEMPT_LOG,
        {"traceparent": f"00-{trace}-{call}-01", "weft.attempt": "1", "weft.cluster": "type/summarizer"},
    )
    async with observed() as api, xds_port(api.telemetry) as address:
        async with aio.secure_channel(address, shown(OURS.svid(PLANNER))) as channel:
            for each in (failed, attempts):
                log: Any = channel.stream_unary(LOGS)()  # type: ignore[call-arg]
                await log.write(each.SerializeToString())
                # The name is said once only.
                each.ClearField("identifier")
                await log.write(each.SerializeToString())
                await log.done_writing()
                await asyncio.wait_for(log, LIMIT)
            unknown: Any = channel.stream_unary(LOGS)()  # type: ignore[call-arg]
            await unknown.write(message("another", {}).SerializeToString())
            with pytest.raises(aio.AioRpcError) as refused:
                await unknown
            assert refused.value.code() is StatusCode.INVALID_ARGUMENT
        (summary,) = await traces(api, 1, status="error")
        assert (summary["id"], summary["service"], summary["errors"]) == (trace, "planner", 1)
        one, two = sorted(await spans_of(api, trace), key=lambda each: str(each["name"]))
        assert (one["name"], one["parent"]) == ("attempt 1 summarizer", call)
        assert (two["name"], two["id"], two["message"]) == (
            "invoke_agent summarizer", call, "no-healthy-agent",
        )  # fmt: skip


def message(log: str, tags: dict[str, str]) -> StreamAccessLogsMessage:
    made = StreamAccessLogsMessage()
    made.identifier.log_name = log
    entry = made.http_logs.log_entry.add()
    entry.common_properties.start_time.FromNanoseconds(time.time_ns())
    entry.common_properties.custom_tags.update(tags)
    return made


async def test_every_replica_shows_what_one_has_taken_in_and_each_forwards_its_own_only(
    tmp_path: Path,
) -> None:
    receiver = OtlpReceiver()
    async with nats_server(tmp_path) as server, receiver.http() as endpoint:
        stores: list[Store] = [await NatsStore.connect([server.url], name=name) for name in ("a", "b")]
        settings = ControlPlaneSettings(otlp_endpoint=endpoint, otlp_metrics_interval=0)
        try:
            async with observed(settings, stores[0]) as one, observed(settings, stores[1]) as two:
                first, second = span("first"), span("second", trace=None)
                second.trace_id = first.trace_id
                second.parent_span_id = first.span_id
                for api, each in ((one, first), (two, second)):
                    await send(api, each)
                for api in (one, two):
                    async with asyncio.timeout(LIMIT):
                        await until(partial(whole, api, first.trace_id.hex(), 2))
                await receiver.until(2)
                assert sorted(each.name for each in receiver.spans) == ["first", "second"]
                # Whoever listens again after an outage hears of what comes then.
                await server.kill()
                await server.start()

                async def again() -> bool:
                    await send(one, span("third"))
                    found = (await two.http.get("/v1/traces", params={"q": "third"})).json()
                    return bool(found["traces"])

                async with asyncio.timeout(LIMIT):
                    await until(again)
        finally:
            for store in stores:
                await store.close()


async def whole(api: Observed, trace: str, count: int) -> bool:
    answer = await api.http.get(f"/v1/traces/{trace}")
    return answer.status_code == 200 and len(answer.json()["spans"]) == count


async def figure(api: Observed, **expected: float) -> None:
    """Wait for figures of forwarding."""

    async def told() -> bool:
        now = (await api.http.get("/v1/telemetry")).json()["forward"]
        return all(now[name] == value for name, value in expected.items())

    async with asyncio.timeout(LIMIT):
        await until(told)


async def test_spans_go_on_to_a_collector_by_http_with_its_credentials_whatever_it_answers_at_first(
    tmp_path: Path,
) -> None:
    headers = tmp_path / "headers"
    headers.write_text("# of the collector\nx-api-key: s3cret value\n")
    receiver = OtlpReceiver()
    receiver.refusals = [
        (503, {}),
        (429, {"retry-after": "0"}),
        (502, {"retry-after": "Fri, 01 Jan 2021 00:00:00 GMT"}),
    ]
    async with receiver.http() as endpoint:
        settings = ControlPlaneSettings(
            otlp_endpoint=endpoint, otlp_headers_file=headers, otlp_metrics_interval=0
        )
        async with observed(settings) as api:
            spans = [span(f"{number}") for number in range(3)]
            await send(api, *spans)
            await receiver.until(3)
            await figure(api, sent=3, failed=0)
            assert receiver.spans == spans
            assert receiver.headers[0]["x-api-key"] == "s3cret value"
            shown_figures = (await api.http.get("/v1/telemetry")).json()["forward"]
            assert shown_figures["endpoint"] == endpoint
            assert api.metrics.get_sample_value("weft_telemetry_forwards_failed_total") == 3
            # What it leaves out is counted, and what it will not have is not sent again.
            receiver.rejects = 1
            await api.http.post(
                "/v1/traces", content=request(span(), span()).SerializeToString(), headers=PROTOBUF
            )
            await figure(api, sent=4, failed=1)
            receiver.refusals = [(400, {})]
            await send(api, span())
            await figure(api, sent=4, failed=2)


async def test_spans_and_metrics_go_on_to_a_collector_by_grpc_over_tls(tmp_path: Path) -> None:
    chain, key = THEIRS.svid(agent_id("weft.local", "collector", "c-1"))
    (tmp_path / "roots.pem").write_bytes(THEIRS.bundle().pem)
    (tmp_path / "headers").write_text("Authorization: Bearer abc\n")
    receiver = OtlpReceiver()
    receiver.codes = [StatusCode.UNAVAILABLE]
    async with receiver.grpc(grpc.ssl_server_credentials([(key, chain)])) as port:
        settings = ControlPlaneSettings(
            otlp_endpoint=f"grpcs://localhost:{port}",
            otlp_headers_file=tmp_path / "headers",
            otlp_roots_file=tmp_path / "roots.pem",
            otlp_metrics_interval=0.2,
            replica="c-9",
        )
        async with observed(settings) as api:
            await api.http.post(
                "/v1/traces", content=request(span("x")).SerializeToString(), headers=PROTOBUF
            )
            await receiver.until(1)
            received = await receiver.until_metric("weft_telemetry_spans_received_total")
            taken = next(
                each for each in received.sum.data_points if each.attributes[0].value.string_value == "taken"
            )
            assert taken.as_double in {0.0, 1.0}
            assert received.sum.is_monotonic
            await receiver.until_metric("weft_telemetry_bytes_kept")
            assert receiver.headers[0]["authorization"] == "Bearer abc"


async def test_a_collector_that_is_away_holds_nobody_up() -> None:
    settings = ControlPlaneSettings(otlp_endpoint="http://127.0.0.1:9", otlp_metrics_interval=0)
    async with observed(settings) as api:
        for _ in range(5):
            await send(api, *(span() for _ in range(200)))
        assert len(await traces(api, 500, limit=500)) == 500

        async def tried() -> bool:
            return bool(api.metrics.get_sample_value("weft_telemetry_forwards_failed_total"))

        async with asyncio.timeout(LIMIT):
            await until(tried)
