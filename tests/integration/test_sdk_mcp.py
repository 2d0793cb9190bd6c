"""An agent made with the SDK as an MCP server, to the official client of both generations."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import Field

from weft import Agent, AgentError, Mesh, current
from weft.aio.poll import until
from weft.model.node import Address
from weft.model.offer import McpGeneration
from weft.sidecar.mcp_reading import McpReader

LIMIT = 60.0
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])

HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Waiting:
    """What happens to calls of `wait`."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Scene:
    """An agent that is served."""

    agent: Agent
    address: str
    waiting: Waiting
    runs: list[str]

    @asynccontextmanager
    async def client(
        self, mode: Any = "auto", headers: dict[str, str] | None = None
    ) -> AsyncIterator[Client]:
        async with httpx2.AsyncClient(headers=headers or {}, trust_env=False) as http:
            transport = streamable_http_client(f"{self.address}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client

    async def post(
        self, tool: str, headers: dict[str, str] | None = None, **arguments: Any
    ) -> httpx.Response:
        params = {"name": tool, "arguments": arguments, "_meta": META}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with httpx.AsyncClient(trust_env=False) as http:
            fields = {**HEADERS, "mcp-name": tool, **(headers or {})}
            return await http.post(f"{self.address}/mcp", json=call, headers=fields)


def make_agent(waiting: Waiting, runs: list[str]) -> Agent:
    agent = Agent("worker", version="3", concurrency=2, max_body_bytes=100_000)

    @agent.handles("shift")
    async def shift(point: Point, by: Annotated[int, Field(gt=0)] = 1) -> Point:
        """Move a point.

        To the right.
        """
        return Point(point.x + by, point.y)

    @agent.handles("greet")
    def greet(name: str, mesh: Mesh) -> str:
        runs.append(name)
        return f"hello {name}"

    @agent.handles("context")
    async def context() -> dict[str, Any]:
        here = current()
        return {"trace": here.traceparent, "caller": here.caller, "until": here.deadline, "kind": here.kind}

    add_failing(agent, waiting)
    add_streaming(agent)
    return agent


def add_failing(agent: Agent, waiting: Waiting) -> None:
    @agent.handles("refuse")
    async def refuse() -> None:
        raise AgentError("not today", status=409, code="closed")

    @agent.handles("break")
    async def broken() -> None:
        raise ValueError("its inside")

    @agent.handles("wait")
    async def wait() -> str:
        waiting.begun.set()
        try:
            await waiting.over.wait()
        except asyncio.CancelledError:
            waiting.cancelled.set()
            raise
        return "done"


def add_streaming(agent: Agent) -> None:
    @agent.streams("count")
    async def count(to: int) -> AsyncGenerator[dict[str, int], None]:
        for number in range(to):
            yield {"number": number}

    @agent.streams("write")
    async def write(words: list[str]) -> AsyncGenerator[str, None]:
        for each in words:
            yield each


@asynccontextmanager
async def serving(**changes: Any) -> AsyncIterator[Scene]:
    waiting, runs = Waiting(), list[str]()
    agent = make_agent(waiting, runs)
    async with agent.serving() as address, asyncio.timeout(LIMIT):
        yield Scene(agent, address, waiting, runs)
        waiting.over.set()


def text_of(result: Any) -> str:
    return "".join(each.text for each in result.content)


@BOTH
async def test_each_handler_is_a_tool(mode: Any) -> None:
    async with serving() as at, at.client(mode) as client:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("worker", "3")
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert list(tools) == ["shift", "greet", "context", "refuse", "break", "wait", "count", "write"]
        assert tools["shift"].description == "Move a point.\n\nTo the right."
        schema = tools["shift"].input_schema
        assert (schema["type"], schema["required"], schema["additionalProperties"]) == (
            "object",
            ["point"],
            False,
        )
        assert schema["properties"]["by"] == {
            "default": 1,
            "exclusiveMinimum": 0,
            "title": "By",
            "type": "integer",
        }
        assert list(tools["greet"].input_schema["properties"]) == ["name"]


@BOTH
async def test_a_handlers_result_is_structured_and_a_text(mode: Any) -> None:
    async with serving() as at, at.client(mode) as client:
        moved = await client.call_tool("shift", {"point": {"x": 1}, "by": 2})
        assert (moved.structured_content, text_of(moved)) == ({"x": 3, "y": 0}, '{"x":3,"y":0}')
        greeted = await client.call_tool("greet", {"name": "ünï"})
        assert (greeted.structured_content, text_of(greeted)) == ({"result": "hello ünï"}, "hello ünï")


@BOTH
async def test_a_streams_items_come_together_and_as_progress(mode: Any) -> None:
    heard: list[Any] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    async with serving() as at, at.client(mode) as client:
        counted = await client.call_tool("count", {"to": 2}, progress_callback=hear)
        assert counted.structured_content == {"items": [{"number": 0}, {"number": 1}]}
        assert text_of(counted) == '{"number":0}\n{"number":1}'
        assert heard == [(1, '{"number":0}'), (2, '{"number":1}')]
        assert text_of(await client.call_tool("write", {"words": ["a ", "word"]})) == "a word"


@BOTH
async def test_what_goes_wrong_in_a_handler_is_a_result_that_says_so(mode: Any) -> None:
    async with serving() as at, at.client(mode) as client:
        refused = await client.call_tool("refuse", {})
        assert (refused.is_error, text_of(refused)) == (True, "not today")
        wrong = await client.call_tool("shift", {"point": {"x": "one"}, "q": 1})
        assert wrong.is_error
        assert "point.x" in text_of(wrong)
        broken = await client.call_tool("break", {})
        assert broken.is_error
        assert "its inside" not in text_of(broken)
        with pytest.raises(MCPError, match="Unknown tool: nothing"):
            await client.call_tool("nothing", {})


@BOTH
async def test_a_handler_knows_the_context_of_the_call(mode: Any) -> None:
    caller = "spiffe://weft.local/agent/editor/editor-1"
    headers = {"x-weft-caller": caller, "x-weft-deadline": "4102444800000", "traceparent": TRACE}
    async with serving() as at, at.client(mode, headers) as client:
        context = (await client.call_tool("context", {})).structured_content
        assert context == {"trace": TRACE, "caller": caller, "until": 4102444800.0, "kind": "context"}


async def test_a_trace_may_come_in_the_message_itself() -> None:
    async with serving() as at, at.client() as client:
        context = (
            await client.call_tool("context", {}, meta=cast("Any", {"traceparent": TRACE}))
        ).structured_content
        assert context is not None
        assert context["trace"] == TRACE


async def test_headers_that_make_no_sense_are_the_callers_fault() -> None:
    async with serving() as at:
        answer = await at.post("context", {"x-weft-deadline": "soon"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)


async def test_a_client_that_goes_away_cancels_its_call() -> None:
    async with serving() as at, at.client() as client:
        call = asyncio.create_task(client.call_tool("wait", {}))
        await at.waiting.begun.wait()
        call.cancel()
        await at.waiting.cancelled.wait()


async def test_calls_count_towards_the_agents_concurrency() -> None:
    async with serving() as at:
        calls = [asyncio.create_task(at.post("wait")) for _ in range(2)]

        async def busy() -> bool:
            return at.agent.asgi.admission.in_flight == 2

        await until(busy)
        refused = await at.post("greet", name="x")
        assert (refused.status_code, refused.headers["x-weft-refused"]) == (429, "busy")
        async with at.client("legacy") as client:
            with pytest.raises(MCPError, match="busy"):
                await client.call_tool("greet", {"name": "x"})
            assert (await client.list_tools()).tools
        at.waiting.over.set()
        assert [each.status_code for each in await asyncio.gather(*calls)] == [200, 200]
        assert at.runs == []


async def test_an_agent_that_drains_takes_no_calls() -> None:
    async with serving() as at:
        at.agent.drain()
        refused = await at.post("greet", name="x")
        assert (refused.status_code, refused.headers["x-weft-refused"]) == (503, "draining")


async def test_a_call_that_is_broken_off_is_told_of() -> None:
    async with serving() as at:
        call = asyncio.create_task(at.post("wait"))
        await at.waiting.begun.wait()
        at.agent.asgi.break_off()
        error = (await call).json()["error"]
        assert error["code"] == -32603
        assert "may or may not have been processed" in error["message"]


async def test_the_same_idempotency_key_means_the_same_call() -> None:
    async with serving() as at:
        key = {"idempotency-key": "k1"}
        answers = [(await at.post("greet", key, name="x")).json() for _ in range(2)]
        assert at.runs == ["x"]
        assert answers[0]["result"]["structuredContent"] == answers[1]["result"]["structuredContent"]
        other = (await at.post("greet", key, name="y")).json()["result"]
        assert other["isError"]


async def test_bad_requests_are_answered_as_the_protocol_says() -> None:
    async with serving() as at, httpx.AsyncClient(trust_env=False, base_url=at.address) as http:
        json = {**HEADERS, "mcp-name": "greet", "content-type": "application/json"}
        assert (await http.post("/mcp", content=b"{", headers=json)).json()["error"]["code"] == -32700
        assert (await at.post("greet", {"mcp-name": "shift"}, name="x")).json()["error"]["code"] == -32020
        assert (await at.post("greet", {"mcp-protocol-version": "2027-01-01"})).json()["error"]["code"] in {
            -32020,
            -32022,
        }
        large = await http.post("/mcp", content=b" " * 100_001, headers=json)
        assert large.status_code == 413
        assert (await http.get("/mcp", headers=HEADERS)).status_code == 405
        foreign = await at.post("greet", {"origin": "https://evil.example"}, name="x")
        assert (foreign.status_code, foreign.headers["x-weft-error"]) == (403, "denied")
        half = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"greet","arguments":'
        half += b'{"name":"\\ud800"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
        half += b'"io.modelcontextprotocol/clientCapabilities":{}}}}'
        refused = await http.post("/mcp", content=half, headers=json)
        assert refused.json()["error"]["code"] == -32602
        assert at.runs == []


async def test_a_list_is_the_same_however_it_is_asked_for() -> None:
    async with serving() as at, at.client() as modern, at.client("legacy") as legacy:
        assert (await modern.list_tools()).tools == (await legacy.list_tools()).tools


@pytest.mark.parametrize(
    ("method", "params", "status", "code"),
    [
        ("tools/list", {"_meta": META, "cursor": "x"}, 200, None),
        ("tools/list", {"_meta": {}}, 400, -32602),
        ("tools/list", {}, 400, -32602),
        ("tools/call", {"_meta": META}, 400, -32020),
        ("subscriptions/listen", {"_meta": META, "notifications": {}}, 400, -32020),
    ],
)
async def test_what_is_not_in_order_about_a_list_is_looked_at_closely(
    method: str, params: Any, status: int, code: int | None
) -> None:
    async with serving() as at, httpx.AsyncClient(trust_env=False) as http:
        message = {"jsonrpc": "2.0", "id": "a", "method": method, "params": params}
        headers = {**HEADERS, "mcp-method": "tools/list"}
        answer = await http.post(f"{at.address}/mcp", json=message, headers=headers)
        assert (answer.status_code, answer.json().get("error", {}).get("code")) == (status, code)


async def test_a_sidecar_reads_its_tools() -> None:
    async with serving() as at:
        port = int(at.address.rpartition(":")[2])
        read = await McpReader(Address("127.0.0.1", port), "/mcp").read()
    assert (read.notes, read.failed) == ((), False)
    assert read.offer is not None
    assert read.offer.generation is McpGeneration.STATELESS
    assert [each["name"] for each in read.offer.tools][:2] == ["shift", "greet"]


def test_an_agent_whose_tools_nobody_calls_does_without_the_library_of_mcp() -> None:
    script = """
import asyncio, sys, httpx
from weft import Agent
from weft.model.node import Address
from weft.sidecar.mcp_client import McpClient, McpError
from weft.sidecar.mcp_reading import McpReader
agent = Agent("worker")
@agent.handles("greet")
async def greet(name: str) -> str:
    return name
def loaded():
    return sorted({each.partition(".")[0] for each in sys.modules} & {"mcp", "mcp_types"})
async def main():
    async with agent.serving() as address, httpx.AsyncClient(trust_env=False) as http:
        await http.post(f"{address}/rpc", json={"kind": "greet", "payload": {"name": "x"}})
        sidecar = Address("127.0.0.1", int(address.rpartition(":")[2]))
        reading = await McpReader(sidecar, "/mcp").read()
        print([each["name"] for each in reading.offer.tools])
        client = McpClient(sidecar, "/mcp")
        peer = await client.meet()
        try:
            async for _ in client.messages(peer):
                pass
        except McpError as error:
            print(error.error_code)
        print(loaded())
        await http.post(f"{address}/mcp", json={})
        print(loaded())
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == [
        "['greet']",
        "-32601",
        "[]",
        "['mcp', 'mcp_types']",
        "",
    ], done.stderr
