"""Traces over HTTP: sent as OTLP, found, shown."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status as RpcStatus  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client import CollectorRegistry
from tests.control_access import MemoryAudit
from tests.observed import Observed, observed
from tests.pki import Pki
from tests.spans import attributes, request, span

from weft.aio.poll import until
from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.telemetry import otlp_http
from weft.controlplane.telemetry.limits import MAX_REQUEST_BYTES, MAX_REQUESTS_OF_SENDER
from weft.controlplane.tokens import Tokens
from weft.store.memory import MemoryStore

PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
async def api() -> AsyncIterator[Observed]:
    async with observed() as running:
        yield running


async def send(api: Observed, *spans: Span, service: str = "planner") -> None:
    body = request(*spans, service=service).SerializeToString()
    answer = await api.http.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()


async def refused(api: Observed) -> bool:
    return bool(api.metrics.get_sample_value("weft_telemetry_requests_refused_total"))


async def found(api: Observed, **query: Any) -> list[str]:
    """The names of the traces that are found."""
    answer = await api.http.get("/v1/traces", params=query)
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["traces"]]


async def test_a_trace_is_told_whole_and_at_a_glance(api: Observed) -> None:
    trace, now = os.urandom(16), time.time()
    root = span("invoke_agent summarizer", trace=trace, at=now, lasts=2.0, given={"weft.context": "c-1"})
    child = span(
        "serve summarizer",
        trace=trace,
        parent=root.span_id,
        at=now + 0.5,
        lasts=1.0,
        failed=True,
        given={"weft.error": "timed-out", "count": 3, "ratio": 0.5, "deep": {"a": [1, "b"]}},
        kind=Span.SPAN_KIND_SERVER,
        events=[Span.Event(name="cut", time_unix_nano=int(now * 1e9), attributes=attributes({"a": "b"}))],
    )
    await send(api, child, service="summarizer")
    await send(api, root)
    (summary,) = (await api.http.get("/v1/traces")).json()["traces"]
    assert summary == {
        "id": trace.hex(),
        "name": "invoke_agent summarizer",
        "service": "planner",
        "start": pytest.approx(now, abs=1e-6),
        "duration": pytest.approx(2.0),
        "spans": 2,
        "errors": 1,
        "services": ["planner", "summarizer"],
        "context": "c-1",
    }
    whole = (await api.http.get(f"/v1/traces/{trace.hex()}")).json()
    assert {key: whole[key] for key in ("id", "cut")} == {"id": trace.hex(), "cut": False}
    assert [each["name"] for each in whole["spans"]] == ["invoke_agent summarizer", "serve summarizer"]
    assert whole["spans"][1] == {
        "id": child.span_id.hex(),
        "parent": root.span_id.hex(),
        "name": "serve summarizer",
        "kind": "server",
        "service": "summarizer",
        "instance": "",
        "version": "",
        "start": pytest.approx(now + 0.5, abs=1e-6),
        "duration": pytest.approx(1.0),
        "status": "error",
        "message": "",
        "attributes": {
            "weft.error": "timed-out",
            "count": 3,
            "ratio": 0.5,
            "deep": {"a": [1, "b"]},
            "weft.reporter": "operator/tests",
        },
        "events": [{"name": "cut", "at": pytest.approx(now, abs=1e-6), "attributes": {"a": "b"}}],
    }


async def test_traces_are_found_by_what_is_known_of_them(api: Observed) -> None:
    now = time.time()
    await send(
        api,
        span("one", at=now - 300, lasts=5.0, given={"weft.destination": "summarizer", "weft.context": "c-1"}),
        span("two", at=now - 200, failed=True, given={"weft.error": "no-healthy-agent", "weft.task": "t-77"}),
        span("three", at=now - 100, given={"weft.caller": "x", "gen_ai.request.model": "Large-1"}),
    )
    await send(api, span("four", at=now), service="writer")
    assert await found(api) == ["four", "three", "two", "one"]
    assert await found(api, service="writer") == ["four"]
    assert await found(api, destination="summarizer") == ["one"]
    assert await found(api, context="c-1") == ["one"]
    assert await found(api, status="error") == ["two"]
    assert await found(api, status="ok") == ["four", "three", "one"]
    assert await found(api, minDuration=1) == ["one"]
    assert await found(api, since=now - 150) == ["four", "three"]
    assert await found(api, until=now - 150) == ["two", "one"]
    assert await found(api, since=now - 250, until=now - 50, status="ok") == ["three"]
    for text, name in (("HEALTHY", "two"), ("t-77", "two"), ("large", "three"), ("writ", "four")):
        assert await found(api, q=text) == [name]
    (only,) = (await api.http.get("/v1/traces", params={"q": "four"})).json()["traces"]
    assert await found(api, q=only["id"][:9]) == ["four"]
    assert await found(api, service="nobody") == []


async def test_whom_an_agent_claims_to_have_been_called_by_is_not_believed(api: Observed) -> None:
    await send(
        api, span("a", given={"weft.caller": "spiffe://weft.local/agent/boss/1", "weft.reporter": "me"})
    )
    assert await found(api, caller="boss") == []
    (summary,) = (await api.http.get("/v1/traces")).json()["traces"]
    whole = (await api.http.get(f"/v1/traces/{summary['id']}")).json()
    assert whole["spans"][0]["attributes"] == {"weft.reporter": "operator/tests"}


async def test_pages_lead_through_all_traces_though_some_began_at_the_same_moment(api: Observed) -> None:
    now = time.time()
    await send(api, *(span(f"{number}", at=now - number // 3) for number in range(10)))
    names, after = [], None
    for _ in range(4):
        query = {"limit": 3} | ({"after": after} if after else {})
        page = (await api.http.get("/v1/traces", params=query)).json()
        names += [each["name"] for each in page["traces"]]
        after = page["next"]
    assert after is None
    assert sorted(names) == sorted(f"{number}" for number in range(10))


async def test_what_is_no_trace_and_what_is_not_kept_is_told_apart(api: Observed) -> None:
    assert (await api.http.get("/v1/traces/xyz")).status_code == 400
    assert (await api.http.get(f"/v1/traces/{'ab' * 16}")).status_code == 404
    assert (await api.http.get("/v1/traces", params={"after": "yesterday"})).status_code == 400
    assert (await api.http.get("/v1/traces", params={"status": "odd"})).status_code in {400, 422}


async def test_json_is_taken_as_otlp_writes_it(api: Observed) -> None:
    body = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "js"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "lib", "version": "1"},
                        "spans": [
                            {
                                "traceId": "5B8EFFF798038103D269B633813FC60C",
                                "spanId": "EEE19B7EC3C1B174",
                                "parentSpanId": "EEE19B7EC3C1B173",
                                "name": "I'm a server span",
                                "startTimeUnixNano": "1544712660000000000",
                                "endTimeUnixNano": "1544712661000000000",
                                "kind": 2,
                                "status": {"code": 2, "message": "no"},
                                "attributes": [
                                    {"key": "my.span.attr", "value": {"stringValue": "some value"}},
                                    {"key": "n", "value": {"intValue": "7"}},
                                ],
                                "events": [{"name": "e", "timeUnixNano": "1544712660500000000"}],
                                "somethingNew": {"a": 1},
                            }
                        ],
                    }
                ],
            }
        ]
    }
    answer = await api.http.post("/v1/traces", json=body)
    assert (answer.status_code, answer.json()) == (200, {})
    whole = (await api.http.get("/v1/traces/5b8efff798038103d269b633813fc60c")).json()
    (told,) = whole["spans"]
    assert (told["name"], told["service"], told["kind"], told["status"]) == (
        "I'm a server span", "js", "server", "error",
    )  # fmt: skip
    assert told["attributes"]["n"] == 7
    assert told["events"] == [{"name": "e", "at": 1544712660.5, "attributes": {}}]


async def test_what_is_left_out_is_told_in_kind(api: Observed) -> None:
    good, short, zero = span("good"), span("short"), span("zero")
    short.trace_id = b"12345"
    zero.span_id = bytes(8)
    body = request(good, short, zero).SerializeToString()
    answer = await api.http.post("/v1/traces", content=body, headers=PROTOBUF)
    told = ExportTraceServiceResponse.FromString(answer.content)
    assert (answer.status_code, told.partial_success.rejected_spans) == (200, 2)
    assert "16 bytes" in told.partial_success.error_message
    assert await found(api) == ["good"]


async def test_gzip_is_unpacked_up_to_a_bound(api: Observed) -> None:
    packed = {**PROTOBUF, "content-encoding": "gzip"}
    good = gzip.compress(request(span("good")).SerializeToString())
    assert (await api.http.post("/v1/traces", content=good, headers=packed)).status_code == 200
    for hostile, status in (
        (gzip.compress(bytes(10 * MAX_REQUEST_BYTES)), 413),
        (gzip.compress(b"")[:-4], 400),
        (b"not gzip at all", 400),
        (good + good, 400),
    ):
        answer = await api.http.post("/v1/traces", content=hostile, headers=packed)
        assert answer.status_code == status, len(hostile)
        assert RpcStatus.FromString(answer.content).message
    assert await found(api) == ["good"]


async def test_what_is_no_request_is_refused_with_a_reason(api: Observed) -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = {"kvlistValue": {"values": [{"key": "k", "value": deep}]}}
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": "k", "value": deep}]}]}]}]}
    for body, form, status in (
        (b"\xff\xff\xff", "application/x-protobuf", 400),
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (json.dumps(spans).encode(), "application/json", 400),
        (b'{"resourceSpans": 3}', "application/json", 400),
        (b"\x0a\x00" * 1001, "application/x-protobuf", 400),
        (b"\x0a\xd2\x0f" + b"\x12\x00" * 1001, "application/x-protobuf", 400),
        (b'{"resourceSpans": [' + b"{}," * 100_000 + b"{}]}", "application/json", 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [' + b"{}," * 150_000, "application/json", 413),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}', "application/json", 400),
        (b"a: b", "application/yaml", 415),
        (bytes(MAX_REQUEST_BYTES + 1), "application/x-protobuf", 413),
    ):
        answer = await api.http.post("/v1/traces", content=body, headers={"content-type": form})
        assert answer.status_code == status, (body[:20], answer.text)
    assert (await api.http.get("/v1/telemetry")).json()["spans"]["received"] == 0


async def test_a_body_in_pieces_is_taken_and_a_slow_one_given_up(
    api: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = request(span("pieces")).SerializeToString()

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 10):
            yield body[begin : begin + 10]

    answer = await api.http.post("/v1/traces", content=pieces(), headers=PROTOBUF)
    assert (answer.status_code, await found(api)) == (200, ["pieces"])

    monkeypatch.setattr(otlp_http, "BODY_TIMEOUT", 0.2)
    answered = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield body[:10]
        await answered.wait()

    sending = asyncio.create_task(api.http.post("/v1/traces", content=slow(), headers=PROTOBUF))
    async with asyncio.timeout(30):
        await until(partial(refused, api))
    answered.set()
    await asyncio.gather(sending, return_exceptions=True)
    assert await found(api) == ["pieces"]


async def test_so_many_requests_of_one_sender_are_worked_on_at_once(api: Observed) -> None:
    finish = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        body = request(span("slow")).SerializeToString()
        yield body[:10]
        await finish.wait()
        yield body[10:]

    sending = [
        asyncio.create_task(api.http.post("/v1/traces", content=slow(), headers=PROTOBUF))
        for _ in range(MAX_REQUESTS_OF_SENDER + 1)
    ]
    async with asyncio.timeout(30):
        await until(partial(refused, api))
    finish.set()
    # A connection that is told no may be closed before all was sent.
    answers = await asyncio.gather(*sending, return_exceptions=True)
    taken = [each for each in answers if isinstance(each, httpx.Response) and each.status_code == 200]
    assert len(taken) == MAX_REQUESTS_OF_SENDER
    await send(api, span("after"))


async def test_a_hundred_thousand_attributes_are_cut_to_what_is_kept(api: Observed) -> None:
    many = span("many", given={f"a{number}": "v" for number in range(100_000)})
    long = span("long", given={"text": "ä" * 100_000, "deep": {"list": ["x" * 50_000]}})
    await send(api, many, long)
    whole = (await api.http.get(f"/v1/traces/{many.trace_id.hex()}")).json()
    assert len(whole["spans"][0]["attributes"]) == 128 + 1
    told = (await api.http.get(f"/v1/traces/{long.trace_id.hex()}")).json()["spans"][0]["attributes"]
    assert len(told["text"].encode()) <= 16 * 1024
    assert told["text"].endswith("ä [cut]")
    assert told["deep"] == "[cut]"


async def test_a_span_that_is_too_large_for_all_that_is_left_out(api: Observed) -> None:
    large = span("large", given={f"a{number}": "v" * 16_000 for number in range(100)})
    body = request(large, span("small")).SerializeToString()
    answer = await api.http.post("/v1/traces", content=body, headers=PROTOBUF)
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1
    assert await found(api) == ["small"]


async def test_a_viewer_reads_and_may_not_send(api: Observed) -> None:
    made = await api.http.post("/v1/tokens", json={"name": "reader", "scope": "viewer"})
    reader = {"authorization": f"Bearer {made.json()['token']}"}
    body = request(span("no")).SerializeToString()
    answer = await api.http.post("/v1/traces", content=body, headers={**PROTOBUF, **reader})
    assert answer.status_code == 403
    assert (await api.http.get("/v1/traces", headers=reader)).json() == {"traces": [], "next": None}
    assert (await api.http.get("/v1/traces", headers={"authorization": "Bearer x"})).status_code == 401


async def test_telemetries_rules_hold_from_when_they_are_declared(api: Observed) -> None:
    await api.declare(
        """
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: default}
spec:
  tracing: {samplingPercent: 12.5}
  recording: {messages: true, redact: ["account [0-9]+"], redactFields: [ssn]}
"""
    )
    said = json.dumps([{"content": "account 12345 is mine", "ssn": 123, "password": "hunter2"}])
    secret = span("account 1", given={"gen_ai.input.messages": said, "http.url": "http://x/y?key=1#f"})
    await send(api, secret)
    (told,) = (await api.http.get(f"/v1/traces/{secret.trace_id.hex()}")).json()["spans"]
    assert told["name"] == "[redacted]"
    assert told["attributes"]["http.url"] == "http://x/y"
    assert json.loads(told["attributes"]["gen_ai.input.messages"]) == [
        {"content": "[redacted] is mine", "ssn": "[redacted]", "password": "[redacted]"}
    ]
    figures = (await api.http.get("/v1/telemetry")).json()
    assert figures["sampling"] == [{"telemetry": "default", "destination": "", "percent": 12.5}]
    assert figures["forward"] == {"endpoint": "", "sent": 0, "failed": 0}
    assert {key: figures["spans"][key] for key in ("received", "kept", "traces", "dropped")} == {
        "received": 1, "kept": 1, "traces": 1, "dropped": 0,
    }  # fmt: skip


@asynccontextmanager
async def member(api: Observed, pki: Pki, identity: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same API that has shown the certificate of `identity`."""
    chain, _ = pki.svid(identity)
    async with Tokens.follow(MemoryStore()) as tokens:
        access = control_access(tokens, MemoryAudit(), bundles=pki.bundles, observer="c-1")
        app = create_api(replace(api.context, access=access), CollectorRegistry())

        async def shown(scope: Any, receive: Any, send: Any) -> None:
            tls = {"tls": {"client_cert_chain": [chain.decode()]}}
            await app({**scope, "extensions": tls}, receive, send)

        transport = httpx.ASGITransport(shown)
        async with httpx.AsyncClient(transport=transport, base_url="https://control") as http:
            yield http


@pytest.mark.parametrize("through_sidecar", [True, False])
async def test_a_member_sends_under_the_name_of_its_certificate_whatever_it_says(
    api: Observed, through_sidecar: bool
) -> None:
    who = "spiffe://weft.local/agent/writer/w-1"
    headers = PROTOBUF | ({"x-weft-destination": "control"} if through_sidecar else {})
    spoofed = span("mine", given={"weft.caller": "spiffe://weft.local/agent/boss/b-1"})
    body = request(spoofed, service="boss").SerializeToString()
    async with member(api, Pki(), who) as http:
        answer = await http.post("/v1/traces", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        # To read them is for operators.
        assert (await http.get("/v1/traces")).status_code == 403
    (summary,) = (await api.http.get("/v1/traces")).json()["traces"]
    assert (summary["service"], summary["services"]) == ("writer", ["writer"])
    whole = (await api.http.get(f"/v1/traces/{summary['id']}")).json()
    (told,) = whole["spans"]
    assert (told["instance"], told["attributes"]) == ("w-1", {"weft.reporter": who})
