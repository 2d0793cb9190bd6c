"""What Envoy tells of calls, with the real Envoy: which have spans, what of failures, what is counted."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio
from tests.envoys import EchoAgent
from tests.outside import LIMIT, Caller, caller
from tests.span_receiver import Span, SpanReceiver

from weft.aio.poll import until
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.model.agent import Instance, Status
from weft.model.telemetry_wire import ATTEMPT_LOG, ERROR_LOG

pytestmark = pytest.mark.asyncio(loop_scope="module")

DECLARED = """
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: default}
spec: {tracing: {samplingPercent: 0}}
---
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: always}
spec: {target: {type: always}, tracing: {samplingPercent: 100}, recording: {messages: true}}
---
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: half}
spec: {target: {capability: half}, tracing: {samplingPercent: 50}, accessLog: errors}
---
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: told}
spec: {target: {capability: told}, accessLog: all}
---
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: dead}
spec: {target: {type: dead}, accessLog: errors}
---
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: always}
spec:
  destination: {type: always}
  rules:
  - name: never
    match: [{path: {prefix: /never}}]
    tracing: {samplingPercent: 0}
  - name: slow
    match: [{path: {prefix: /slow}}]
    fault: {delay: {duration: 6s}}
  - name: broken
    match: [{path: {prefix: /broken}}]
    fault: {abort: {status: 500}}
"""

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def traceparent(flag: str, trace: str = TRACE) -> str:
    return f"00-{trace}-{PARENT}-{flag}"


class Stage:
    """A sidecar whose agent calls itself, and the receiver of what it tells."""

    def __init__(self, sidecar: Caller, told: SpanReceiver) -> None:
        self.sidecar = sidecar
        self.told = told
        self._traces = 0

    def trace(self) -> str:
        """The id of a trace that no other call has."""
        self._traces += 1
        return f"{self._traces:032x}"

    async def call(self, host: str, path: str = "/", **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.sidecar.http.get(f"http://{host}.mesh{path}", headers=names)

    async def forwarded(self, host: str, path: str = "/", **headers: str) -> dict[str, str]:
        """The headers that the agent gets."""
        response = await self.call(host, path, **headers)
        assert response.status_code == httpx.codes.OK, response.text
        found: dict[str, str] = response.json()
        return found

    async def spans(self, trace: str, number: int = 1) -> list[Span]:
        return await self.told.spans_where(lambda each: each.trace == trace, number)

    async def entry(self, log: str, path: str) -> Mapping[str, str]:
        [entry] = await self.told.entries_where(
            lambda each: each.log == log and each.tags.get("http.url") == path
        )
        return entry.tags

    async def nothing_else(self) -> None:
        """Wait until whatever was told of the calls so far has come: what is told later comes later."""
        last = self.trace()
        await self.forwarded("always", traceparent=traceparent("01", last))
        await self.spans(last, 2)

    async def stats(self) -> dict[str, str]:
        answer = await self.sidecar.admin.get(
            "http://envoy/stats", params={"filter": "^weft", "histogram_buckets": "cumulative"}
        )
        pairs = (line.rpartition(": ") for line in answer.text.splitlines())
        return {name: value for name, _, value in pairs if not value.startswith("B")}

    async def counted(self, **tags: str) -> int:
        """How many calls were counted under these tags."""
        found = 0
        for name, value in (await self.stats()).items():
            if name.startswith("weft.calls.") and all(
                re.search(rf"\.@{tag}\.{re.escape(wanted)}(\.@|$)", name) for tag, wanted in tags.items()
            ):
                found += int(value)
        return found

    async def counts_one_more(self, before: int, **tags: str) -> None:
        """Wait until one more call than that was counted under these tags."""

        async def so() -> bool:
            return await self.counted(**tags) > before

        async with asyncio.timeout(LIMIT):
            await until(so)
        assert await self.counted(**tags) == before + 1

    async def lines(self, path: str) -> list[dict[str, object]]:
        """The access log's lines of calls of that path, once there are some."""
        found: list[dict[str, object]] = []

        async def some() -> bool:
            lines = map(json.loads, self.sidecar.output.read_text().splitlines())
            found[:] = [each for each in lines if each.get("path") == path]
            return bool(found)

        async with asyncio.timeout(LIMIT):
            await until(some)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        told = await stack.enter_async_context(SpanReceiver())
        agent = await stack.enter_async_context(EchoAgent())
        secrets = Secrets(Sealer([os.urandom(32)]))
        sidecar = await stack.enter_async_context(
            caller("always", secrets, agent=agent.port, telemetry=told.port)
        )
        assert sidecar.node.inbound is not None
        here = str(sidecar.node.inbound.listen)
        offered = frozenset({"half", "told", "plain"})
        sidecar.instances = [
            Instance("a-1", "always", here, Status.HEALTHY, offered, "7"),
            Instance("d-1", "dead", "127.0.0.1:9", Status.HEALTHY, frozenset({"gone"}), "1"),
        ]
        await sidecar.declare(DECLARED)
        yield Stage(sidecar, told)


# Which calls have spans.


async def test_a_call_and_what_it_leads_to_are_one_trace(stage: Stage) -> None:
    got = await stage.forwarded("always", "/one?key=secret", x_weft_context="c-1")
    _, trace, parent, flag = got["traceparent"].split("-")
    outbound, inbound = sorted(await stage.spans(trace, 2), key=lambda each: each.kind, reverse=True)
    assert (flag, outbound.parent, inbound.parent, inbound.id) == ("01", "", outbound.id, parent)
    tags = outbound.tags
    assert (tags["weft.listener"], tags["weft.destination"], tags["weft.cluster"]) == (
        "outbound",
        "always",
        "type/always",
    )
    assert (tags["weft.version"], tags["weft.instance"], tags["weft.attempts"]) == ("7", "a-1", "1")
    assert (tags["weft.context"], tags["weft.route"], tags["http.url"]) == ("c-1", "default", "/one")
    assert inbound.tags["weft.caller"] == "spiffe://weft.local/agent/always/c-1"
    assert (inbound.tags["http.url"], inbound.tags["weft.listener"]) == ("/one", "inbound")
    assert "secret" not in repr((outbound, inbound))
    about = outbound.resource
    assert (about["service.name"], about["service.instance.id"]) == ("always", "c-1")


async def test_of_calls_that_begin_a_trace_a_share_is_kept_as_is_declared_for_whom_they_are_for(
    stage: Stage,
) -> None:
    async def kept(host: str, path: str = "/", calls: int = 10) -> int:
        flags = [(await stage.forwarded(host, path))["traceparent"][-2:] for _ in range(calls)]
        return flags.count("01")

    assert await kept("always") == 10
    assert await kept("always", "/never") == 0
    # The mesh's default.
    assert await kept("plain.cap") == 0
    # Never all or none of so many.
    assert 0 < await kept("half.cap", calls=60) < 60


@pytest.mark.parametrize("host", ["always", "plain.cap", "half.cap"])
async def test_what_belongs_to_a_trace_is_kept_if_that_is_and_else_is_not(stage: Stage, host: str) -> None:
    kept, left_out = stage.trace(), stage.trace()
    for _ in range(5):
        got = (await stage.forwarded(host, traceparent=traceparent("01", kept)))["traceparent"]
        assert (got.split("-")[1], got.split("-")[3]) == (kept, "01")
        got = (await stage.forwarded(host, traceparent=traceparent("00", left_out)))["traceparent"]
        assert (got.split("-")[1], got.split("-")[3]) == (left_out, "00")
    spans = await stage.spans(kept, 10)
    assert {each.parent for each in spans if each.tags["weft.listener"] == "outbound"} == {PARENT}
    await stage.nothing_else()
    assert not [each for each in stage.told.spans if each.trace == left_out]


async def test_a_single_call_is_traced_where_it_is_wanted(stage: Stage) -> None:
    got = await stage.forwarded("plain.cap", "/wanted", x_weft_trace="always")
    _, trace, _, flag = got["traceparent"].split("-")
    assert (flag, "x-weft-trace" in got, "x-client-trace-id" in got) == ("01", False, False)
    assert len(await stage.spans(trace, 2)) == 2
    # Who has decided already that a trace is not kept, stays by that.
    got = await stage.forwarded("plain.cap", x_weft_trace="always", traceparent=traceparent("00"))
    assert got["traceparent"].endswith("-00")


async def test_no_caller_has_itself_traced_by_envoys_own_headers(stage: Stage) -> None:
    for name in ("x-client-trace-id", "x-envoy-force-trace"):
        got = await stage.forwarded("plain.cap", **{name.replace("-", "_"): "x"})
        assert got["traceparent"].endswith("-00")


async def test_an_inbound_listener_begins_no_trace(stage: Stage) -> None:
    # The caller's Envoy says that it is not kept; the callee's has no say in that, whatever is declared.
    got = await stage.forwarded("always", "/never/mind")
    assert got["traceparent"].endswith("-00")
    await stage.nothing_else()
    assert not [each for each in stage.told.spans if each.tags.get("http.url") == "/never/mind"]


async def test_the_way_by_which_spans_come_is_never_traced(stage: Stage) -> None:
    trace = stage.trace()
    for headers in ({"traceparent": traceparent("01", trace)}, {"x-weft-trace": "always"}):
        response = await stage.sidecar.http.post("http://control.mesh/v1/traces", headers=headers)
        # Nobody is there in this mesh.
        assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    await stage.nothing_else()
    assert not [each for each in stage.told.spans if each.tags.get("http.url") == "/v1/traces"]
    assert not [each for each in stage.told.entries if each.tags.get("http.url") == "/v1/traces"]


# Failures.


async def test_a_call_that_failed_is_told_of_whether_it_was_sampled_or_not(stage: Stage) -> None:
    trace = stage.trace()
    for number, flag in enumerate(("", "00")):
        headers = {"traceparent": traceparent(flag, trace)} if flag else {}
        assert (await stage.call("dead", f"/lost/{number}?key=secret", **headers)).status_code == 503
    alone = await stage.entry(ERROR_LOG, "/lost/0")
    within = await stage.entry(ERROR_LOG, "/lost/1")
    assert "parent" not in alone
    assert (within["trace_id"], within["parent"]) == (trace, traceparent("00", trace))
    for each in (alone, within):
        assert (each["weft.destination"], each["http.status_code"]) == ("dead", "503")
        assert (each["weft.error"], each["http.method"]) == ("no-healthy-agent", "GET")
        assert len(each["span_id"]) == 16
    assert "secret" not in repr(stage.told.entries)


async def test_what_envoy_itself_answers_is_told_of_as_well(stage: Stage) -> None:
    assert (await stage.call("always", "/broken/1", traceparent=traceparent("00"))).status_code == 500
    assert (await stage.entry(ERROR_LOG, "/broken/1"))["weft.destination"] == "always"


async def test_a_sampled_call_that_failed_has_a_span_and_one_entry_for_each_attempt(stage: Stage) -> None:
    trace = stage.trace()
    assert (await stage.call("dead", "/tried", traceparent=traceparent("01", trace))).status_code == 503
    [span] = await stage.spans(trace)
    assert (span.tags["weft.attempts"], span.tags["weft.error"]) == ("4", "no-healthy-agent")
    entries = await stage.told.entries_where(
        lambda each: each.log == ATTEMPT_LOG and trace in each.tags["traceparent"], 4
    )
    assert {each.tags["traceparent"] for each in entries} == {f"00-{trace}-{span.id}-01"}
    assert sorted(each.tags["weft.attempt"] for each in entries) == ["1", "2", "3", "4"]
    assert {each.tags["weft.instance"] for each in entries} == {"d-1"}
    assert "Connection_refused" in entries[0].tags["weft.failure"]
    await stage.nothing_else()
    assert not [each for each in stage.told.entries if each.tags.get("http.url") == "/tried"]


# Statistics.


COUNTED = {
    "told.cap": {
        "d": "told",
        "k": "capability/told",
        "v": "7",
        "r": "default",
        "c": "200",
        "f": "-",
        "t": "",
    },
    "nobody": {"d": "unknown", "k": "", "v": "", "r": "unknown", "c": "404"},
    "gone.cap": {"d": "gone", "k": "capability/gone", "c": "503", "f": "URX,UF"},
}
"""Hosts, and the tags under which calls to them are counted."""


@pytest.mark.parametrize("host", COUNTED)
async def test_calls_are_counted_by_whom_they_were_for_and_how_they_ended(stage: Stage, host: str) -> None:
    tags = COUNTED[host]
    before = await stage.counted(**tags)
    await stage.call(host)
    await stage.counts_one_more(before, **tags)
    assert any(name.startswith(f"weft.time_ms.@d.{tags['d']}.@k.") for name in await stage.stats())


async def test_a_call_that_takes_long_is_counted_once_and_when_it_has_ended(stage: Stage) -> None:
    tags = {"d": "always", "r": "slow"}
    before = await stage.counted(**tags)
    all_calls = int((await stage.stats())["weftall.calls"])
    # Longer than the pauses between entries that only tell that a call is still under way.
    assert (await stage.call("always", "/slow")).status_code == httpx.codes.OK
    await stage.counts_one_more(before, **tags, c="200")
    assert await stage.counted(**tags) == before + 1
    assert int((await stage.stats())["weftall.calls"]) > all_calls


async def test_names_that_callers_make_up_are_not_counted_by(stage: Stage) -> None:
    for number in range(50):
        await stage.call(f"made-up-{number}", f"/{number}", x_weft_context=str(number))
        await stage.call("plain.cap", "/", x_weft_tool=f"tool-{number}")
    names = " ".join(await stage.stats())
    assert "made-up" not in names
    assert "tool-" not in names


# Recording and access logs.


async def test_an_agent_is_told_to_record_by_its_own_envoy_only(stage: Stage) -> None:
    for value in ({}, {"x_weft_record": "forged"}):
        assert (await stage.forwarded("always", **value))["x-weft-record"] == "messages"


async def test_nobody_is_told_to_record_where_nothing_says_so() -> None:
    async with (
        EchoAgent() as agent,
        caller("quiet", Secrets(Sealer([os.urandom(32)])), agent=agent.port) as sidecar,
    ):
        assert sidecar.node.inbound is not None
        here = str(sidecar.node.inbound.listen)
        sidecar.instances = [Instance("q-1", "quiet", here, Status.HEALTHY)]
        await sidecar.declare("")
        answer = await sidecar.http.get("http://quiet.mesh/", headers={"x-weft-record": "messages"})
        assert "x-weft-record" not in answer.json()


async def test_lines_are_written_of_the_calls_that_a_telemetry_names(stage: Stage) -> None:
    await stage.call("half.cap", "/fine")
    await stage.call("dead", "/failed?key=secret", x_weft_context="c-2")
    await stage.call("told.cap", '/named"log":"x"?key=secret', traceparent=traceparent("00"))
    [failed] = await stage.lines("/failed")
    assert (failed["log"], failed["status"], failed["error"]) == ("access", 503, "no-healthy-agent")
    assert (failed["destination"], failed["context"], failed["attempts"]) == ("dead", "c-2", 4)
    [named] = await stage.lines("/named%22log%22:%22x%22")
    assert (named["destination"], named["instance"], named["trace"]) == ("told", "a-1", TRACE)
    written = stage.sidecar.output.read_text()
    assert "/fine" not in written
    assert "secret" not in written


# Callers from outside the mesh.

GATEWAY = """
apiVersion: weft.dev/v1alpha1
kind: Gateway
metadata: {name: front}
spec: {port: 8080}
---
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: front}
spec: {target: {type: front}, tracing: {samplingPercent: PERCENT}}
"""


async def test_a_gateway_decides_which_calls_from_outside_are_traced_whatever_those_say() -> None:
    async with (
        SpanReceiver() as told,
        EchoAgent() as agent,
        caller(
            "front", Secrets(Sealer([os.urandom(32)])), agent=agent.port, telemetry=told.port, gateway=True
        ) as sidecar,
    ):
        assert sidecar.node.inbound is not None
        here = str(sidecar.node.inbound.listen)
        sidecar.instances = [Instance("f-1", "front", here, Status.HEALTHY)]
        async with httpx.AsyncClient(base_url=f"http://{sidecar.node.outside}", timeout=LIMIT) as outside:

            async def flag(**headers: str) -> str:
                path = "/v1/agents/front?key=secret"
                names = {name.replace("_", "-"): value for name, value in headers.items()}
                answer = await outside.post(path, headers=names)
                assert answer.status_code == httpx.codes.OK, answer.text
                found: str = answer.json()["traceparent"]
                return found

            await sidecar.declare(GATEWAY.replace("PERCENT", "100"))
            await _listens(outside)
            first = await flag(x_weft_submitter="forged")
            assert first.endswith("-01")
            trace = first.split("-")[1]
            spans = await told.spans_where(lambda each: each.trace == trace, 4)
            by_listener = {each.tags.get("weft.listener", "asks"): each for each in spans}
            root, way = by_listener["outside"], by_listener["outbound"]
            assert (root.parent, way.parent) == ("", root.id)
            assert by_listener["inbound"].parent == way.id
            # Whether it lets the caller in, Envoy asks the gateway's process.
            assert by_listener["asks"].parent == root.id
            assert (root.tags["weft.gateway"], root.tags["weft.authority"]) == ("front", "front.mesh")
            assert "weft.submitter" not in root.tags
            assert "secret" not in repr(spans)

            await sidecar.declare(GATEWAY.replace("PERCENT", "0"))

            async def taken_over() -> bool:
                return (await flag()).endswith("-00")

            async with asyncio.timeout(LIMIT):
                await until(taken_over)
            for headers in (
                {"traceparent": traceparent("01")},
                {"x_weft_trace": "always"},
                {"x_client_trace_id": "x"},
            ):
                assert (await flag(**headers)).endswith("-00")


async def _listens(client: httpx.AsyncClient) -> None:
    async def so() -> bool:
        try:
            return (await client.get("/health")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async with asyncio.timeout(LIMIT):
        await until(so)
