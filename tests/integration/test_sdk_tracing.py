"""An agent's spans, as a collector gets them: all that was done for a trace in one tree, and no others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.span_collector import SpanCollector, span_collector, tree

import weft
from weft import Agent, AgentError, AgentFailed, Mesh, NoSuchAgent, ReceivedEvent, TaskRun
from weft.orchestration import coordinate
from weft.testing import InMemoryMesh
from weft.tracing import open_telemetry
from weft.tracing.outlet import Outlet

TRACE = "a" * 32
SAMPLED = {"traceparent": f"00-{TRACE}-{'b' * 16}-01"}
UNSAMPLED = {"traceparent": f"00-{'c' * 32}-{'b' * 16}-00"}
RECORDED = {**SAMPLED, "x-weft-record": "messages"}
SECRET = "weft_0123456789abcdef"


RECORDER = "WEFT_TEST_RECORDER"


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have spans be recorded by Weft, or by OpenTelemetry's SDK, as in programs that use that."""
    if os.environ.get(RECORDER) != "sdk":
        monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    else:
        before = Outlet(nowhere, dict)
        before.closed = True
        open_telemetry.Installation(before, {}, 100).install()


async def nowhere(_: bytes) -> None: ...


@pytest.fixture
async def receiver(recorder: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SpanCollector]:
    async with span_collector() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-tenant=one%20two")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=w-1")
        yield receiver


@pytest.fixture
async def mesh(receiver: SpanCollector) -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh() as mesh:
        mesh.add(writer())
        mesh.add(editor())
        mesh.add(witness())
        yield mesh


def writer() -> Agent:
    agent = Agent("writer", version="3")

    @agent.handles("write")
    async def write(text: str = "", password: str = "") -> dict[str, str]:
        return {"written": text, "token": password}

    @agent.handles("fail")
    async def fail(how: str) -> None:
        if how == "purpose":
            raise AgentError(f"no, {SECRET}", code="too-long")
        if how == "mesh":
            raise NoSuchAgent(f"nobody has {SECRET}")
        raise ValueError(SECRET)

    @agent.streams("count")
    async def count(to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number
        raise AgentError("enough", code="enough")

    return agent


def witness() -> Agent:
    agent = Agent("witness")

    @agent.handles("block")
    def block(mesh: Mesh) -> str:
        return weft.current().traceparent or ""

    @agent.handles("wait")
    async def wait() -> None:
        await asyncio.Event().wait()

    return agent


def editor() -> Agent:
    agent = Agent("editor")

    @agent.handles("edit")
    async def edit(mesh: Mesh, text: str = "") -> Any:
        return await mesh.request("writer", "write", text=text)

    @agent.handles("post")
    async def post(mesh: Mesh) -> None:
        await (await mesh.submit("jobs", n=1)).result(30)
        await mesh.publish("news.today", {"n": 1})

    @agent.handles("ask")
    async def ask(mesh: Mesh) -> None:
        await coordinate({"text": "a"}, ["writer", "nobody"], mesh=mesh, kind="write")

    @agent.task("jobs")
    async def job(run: TaskRun, mesh: Mesh, n: int) -> None:
        await mesh.request("writer", "write")
        if run.attempt == 1:
            raise AgentError("not yet", code="not-yet")

    @agent.on("news.*")
    async def news(event: ReceivedEvent, mesh: Mesh) -> None:
        await mesh.request("writer", "write")

    return agent


async def collect(mesh: InMemoryMesh, items: list[int]) -> None:
    async for item in mesh.client.stream("writer", "count", to=3, headers=RECORDED):
        items.append(item)  # noqa: PERF401 -- what came before it failed counts


async def test_a_sampled_calls_handlers_are_spans_below_each_other(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    headers = {**SAMPLED, "x-weft-context": "chat-1"}
    await mesh.client.request("editor", "edit", text="hello", headers=headers)
    below = await receiver.one("invoke_agent writer")
    above = await receiver.one("invoke_agent editor")
    assert tree(receiver.spans, "b" * 16) == [["invoke_agent editor", ["invoke_agent writer"]]]
    assert {below.trace, above.trace} == {TRACE}
    assert (above.kind, above.failed, above.scope) == ("internal", False, "weft")
    assert above.seconds >= below.seconds > 0
    assert above.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "editor",
        "gen_ai.conversation.id": "chat-1",
        "weft.context": "chat-1",
        "weft.kind": "edit",
    }
    assert above.resource == {"service.name": "editor", "service.instance.id": "w-1"}
    assert below.resource["service.version"] == "3"
    assert receiver.headers[0]["x-tenant"] == "one two"


async def test_what_is_not_sampled_has_no_spans_and_passes_on_what_came(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    assert await mesh.client.request("witness", "block", headers=UNSAMPLED) == UNSAMPLED["traceparent"]
    await mesh.client.request("editor", "edit", headers=UNSAMPLED)
    await mesh.client.request("editor", "edit")
    await mesh.client.request("writer", "write", headers=SAMPLED)
    await receiver.one("invoke_agent writer")
    assert len(receiver.spans) == 1


async def test_a_call_that_is_to_be_traced_is_whatever_its_trace_was_so_far(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    await mesh.client.request("writer", "write", trace=True)
    begun = await receiver.one("invoke_agent writer")
    assert begun.parent == "", "nobody has a span of the call itself"
    with weft.limits(timeout=30):
        await mesh.client.request("editor", "edit", trace=True)
    await receiver.has(lambda here: len(here.spans) == 3)
    assert receiver.spans[-1].trace != begun.trace


async def test_failures_are_told_by_their_kinds_and_texts_of_the_meshs_own_errors_alone(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    for how in ("purpose", "mesh", "bug"):
        with pytest.raises(AgentFailed):
            await mesh.client.request("writer", "fail", how=how, headers=SAMPLED)
    await receiver.has(lambda here: len(here.spans) == 3)
    told = [(each.failed, each.attributes["error.type"], each.message) for each in receiver.spans]
    assert told == [
        (True, "too-long", ""),
        (True, "no-such-agent", "nobody has [redacted]"),
        (True, "ValueError", ""),
    ]


async def test_a_cancelled_call_is_no_failure_and_a_streams_failure_is_one(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    call = asyncio.create_task(mesh.client.request("witness", "wait", headers=SAMPLED))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.2)
    cancelled = await receiver.one("invoke_agent witness")
    assert (cancelled.failed, cancelled.attributes["weft.cancelled"]) == (False, True)
    receiver.spans.clear()
    items: list[int] = []
    with pytest.raises(AgentFailed):
        await collect(mesh, items)
    streamed = await receiver.one("invoke_agent writer")
    assert items == [0, 1, 2]
    assert (streamed.failed, streamed.attributes["error.type"]) == (True, "enough")
    assert json.loads(streamed.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"] == "[0,1,2]"


async def test_messages_are_recorded_where_that_is_asked_for_without_secrets_and_cut(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    text = "ü" * 20_000 + SECRET
    await mesh.client.request("writer", "write", text=f"see {SECRET}", password="hunter2", headers=RECORDED)
    await mesh.client.request("writer", "write", text=text, headers=RECORDED)
    await mesh.client.request("writer", "write", text="unseen", headers=SAMPLED)
    await receiver.has(lambda here: len(here.spans) == 3)
    short, long, none = (each.attributes for each in receiver.spans)
    [asked] = json.loads(short["gen_ai.input.messages"])
    [answered] = json.loads(short["gen_ai.output.messages"])
    assert asked["role"] == "user"
    assert answered["role"] == "assistant"
    assert json.loads(asked["parts"][0]["content"]) == {"text": "see [redacted]", "password": "[redacted]"}
    assert json.loads(answered["parts"][0]["content"]) == {"written": "see [redacted]", "token": "[redacted]"}
    assert len(long["gen_ai.input.messages"]) <= 16 * 1024
    assert json.loads(long["gen_ai.input.messages"])[0]["parts"][0]["content"].endswith(" characters in all]")
    assert "gen_ai.input.messages" not in none


async def test_tasks_and_events_are_one_tree_with_who_sent_them(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    await mesh.client.request("editor", "post", headers=SAMPLED)
    await receiver.has(lambda here: len(here.spans) >= 9)
    attempt = ["process jobs", ["invoke_agent writer"]]
    assert tree(receiver.spans, "b" * 16) == [
        [
            "invoke_agent editor",
            ["publish news.today", ["process news.today", ["invoke_agent writer"]]],
            ["submit jobs", attempt, attempt],
        ]
    ]
    [submitted] = receiver.named("submit jobs")
    first, second = sorted(receiver.named("process jobs"), key=lambda each: each.attributes["weft.attempt"])
    assert (submitted.kind, first.kind) == ("producer", "consumer")
    assert submitted.attributes["weft.task"] == first.attributes["weft.task"]
    assert (first.failed, first.attributes["error.type"], second.failed) == (True, "not-yet", False)
    assert (
        first.attributes.items()
        >= {
            "messaging.system": "weft",
            "messaging.operation.type": "process",
            "messaging.destination.name": "jobs",
            "weft.kind": "jobs",
        }.items()
    )


async def test_what_is_sent_outside_of_handlers_begins_a_trace_as_often_as_the_process_was_told(
    receiver: SpanCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_TRACE_SAMPLING", "100")
    async with InMemoryMesh() as sampling:
        sampling.add(editor())
        sampling.add(writer())
        await sampling.client.publish("news.all", 1)
        published = await receiver.one("publish news.all")
        await receiver.has(lambda here: len(here.spans) == 3)
    assert published.parent == ""
    assert tree(receiver.spans, "") == [
        ["publish news.all", ["process news.all", ["invoke_agent writer"]]],
    ]


async def test_an_orchestration_is_a_span_with_one_for_each_branch(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    await mesh.client.request("editor", "ask", headers=SAMPLED)
    await receiver.has(lambda here: len(here.spans) == 5)
    assert tree(receiver.spans, "b" * 16) == [
        [
            "invoke_agent editor",
            [
                "invoke_workflow coordinate",
                ["branch nobody"],
                ["branch writer", ["invoke_agent writer"]],
            ],
        ]
    ]
    [failed] = receiver.named("branch nobody")
    assert (failed.failed, failed.attributes["error.type"]) == (True, "no-such-agent")
    [workflow] = receiver.named("invoke_workflow coordinate")
    assert workflow.attributes["gen_ai.operation.name"] == "invoke_workflow"


async def test_spans_that_nobody_takes_delay_no_call_and_come_once_somebody_does(
    mesh: InMemoryMesh, receiver: SpanCollector
) -> None:
    receiver.answer = 503
    await mesh.client.request("writer", "write", headers=SAMPLED)
    await receiver.has(lambda here: here.asked)
    receiver.answer = 200
    await mesh.client.request("writer", "write", headers=SAMPLED)
    await receiver.has(lambda here: len(here.spans) == 2)


async def test_what_was_recorded_last_goes_out_before_the_end(
    receiver: SpanCollector, caplog: pytest.LogCaptureFixture
) -> None:
    async with InMemoryMesh() as mesh:
        mesh.add(writer())
        await mesh.client.request("writer", "write", headers=SAMPLED)
    assert len(receiver.spans) == 1
    receiver.hold = asyncio.Event()
    async with InMemoryMesh() as mesh:
        mesh.add(writer())
        await mesh.client.request("writer", "write", headers=SAMPLED)
    assert "1 spans are lost" in caplog.text, "nobody answered, and the end did not wait for ever"


async def test_by_opentelemetrys_sdk_it_is_the_same() -> None:
    """In a process of its own, which has one provider for good."""
    program = (sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", __file__)
    process = await asyncio.create_subprocess_exec(
        *(*program, "-k", "test_tasks_and_events or test_failures_are_told"),
        env={**os.environ, RECORDER: "sdk"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    told, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0, told.decode()
    assert b"2 passed" in told


def run(script: str, **environ: str) -> Any:
    """What a program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PATH": "/usr/bin:/bin", **environ},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


OWN = """
import asyncio, json, sys
from opentelemetry import trace
from weft import Agent
from weft.testing import InMemoryMesh
from weft.tracing.open_telemetry import permit
permit()
{provider}
async def main():
    agent = Agent("editor")
    @agent.handles("edit")
    async def edit() -> str:
        here = trace.get_current_span()
        here.set_attribute("mine", True)
        with trace.get_tracer("mine").start_as_current_span("my own"):
            return type(here).__name__
    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        async def call():
            headers = {{"traceparent": "00-{trace}-{parent}-01"}}
            return await mesh.client.request("editor", "edit", headers=headers)
        kinds = [await call()]
        for _ in range(1000):
            if kinds[-1] != "NonRecordingSpan":
                break
            await asyncio.sleep(0.02)
            kinds.append(await call())
    {at_the_end}
asyncio.run(main())
"""

PROVIDER = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""


async def test_where_the_program_has_a_provider_its_exporter_gets_the_spans_and_weft_sends_none(
    receiver: SpanCollector,
) -> None:
    told = """
    spans = exporter.get_finished_spans()
    print(json.dumps([[each.name, each.parent.span_id, dict(each.attributes)] for each in spans]))
"""
    script = OWN.format(provider=PROVIDER, trace=TRACE, parent="b" * 16, at_the_end=told)
    spans = await asyncio.to_thread(run, script, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url)
    assert [each[0] for each in spans] == ["my own", "invoke_agent editor"]
    assert spans[1][1] == int("b" * 16, 16)
    assert spans[1][2]["mine"] is True
    assert receiver.spans == []


async def test_where_it_has_none_its_own_spans_go_out_with_wefts(receiver: SpanCollector) -> None:
    script = OWN.format(provider="", trace=TRACE, parent="b" * 16, at_the_end="print(json.dumps(kinds))")
    kinds = await asyncio.to_thread(run, script, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url)
    assert kinds[-1] == "_Span"
    # Those that began before the SDK was loaded, in a thread, are Weft's own.
    assert len(receiver.named("invoke_agent editor")) == len(kinds)
    [own] = receiver.named("my own")
    [above] = [each for each in receiver.spans if each.id == own.parent]
    assert (above.name, above.attributes["mine"], above.parent) == ("invoke_agent editor", True, "b" * 16)


IMPORTED = """
import asyncio, json, sys
from weft import Agent
from weft.testing import InMemoryMesh
async def main():
    agent = Agent("editor")
    @agent.handles("edit")
    async def edit() -> None: ...
    def loaded(): return sorted(each for each in sys.modules if each.startswith("opentelemetry."))
    found = []
    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        for flag in ("00", "01"):
            headers = {"traceparent": "00-%s-%s-%s" % ("a" * 32, "b" * 16, flag)}
            await mesh.client.request("editor", "edit", headers=headers)
            found.append(loaded())
    print(json.dumps([*found, [each for each in loaded() if "sdk" in each]]))
asyncio.run(main())
"""


async def test_nothing_of_opentelemetry_is_loaded_until_a_span_goes_out_and_its_sdk_never(
    receiver: SpanCollector,
) -> None:
    found = await asyncio.to_thread(run, IMPORTED, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url)
    assert found == [[], [], []]
    assert [each.name for each in receiver.spans] == ["invoke_agent editor"]
