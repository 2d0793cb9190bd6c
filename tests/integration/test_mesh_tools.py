"""Programs that use the SDK call the tools of their mesh, through real Envoys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from tests.hosting import hosted
from tests.mcp_servers import SESSIONS, STATELESS, McpApp, Toolbox
from tests.tool_mesh import RawServer, ToolMesh, ToolServer, published, server, tool_mesh

from weft import Agent, AgentFailed, InvalidRequest, Mesh, NoSuchAgent, NotFound, TimedOut, Unavailable
from weft.model.mcp_catalogue import McpCatalogue
from weft.sdk.tools import header_value
from weft.testing import InMemoryMesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODERN, FORMER, RAW, GONE = server("modern"), server("former", old=True), server("raw"), server("gone")
ODD = "ünï "


class Stage:
    """The mesh of this module."""

    def __init__(self) -> None:
        self.raw = RawServer()
        self.modern, self.former = Toolbox(name="modern"), Toolbox(name="former")
        self.modern.tools[ODD] = {"type": "object"}
        self.tools: ToolMesh
        self.mesh: Mesh

    def servers(self) -> list[ToolServer]:
        return [
            ToolServer("modern", McpApp(self.modern, only=STATELESS)),
            ToolServer("former", McpApp(self.former, only=SESSIONS)),
            ToolServer("raw", self.raw),
        ]


def everything() -> McpCatalogue:
    names = ("echo", "failing", "slow", "ask", "headers", "boom")
    return McpCatalogue(
        servers=(MODERN, FORMER, RAW, GONE),
        tools=(
            *(published(MODERN, name) for name in names),
            published(MODERN, ODD),
            *(published(FORMER, f"former.{name}", name) for name in names),
            published(RAW, "raw"),
            published(GONE, "gone"),
        ),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    result = Stage()
    async with AsyncExitStack() as stack:
        servers = hosted(tool_mesh(result.servers(), everything()))
        result.tools = await stack.enter_async_context(servers)
        result.mesh = Mesh(proxy=f"http://127.0.0.1:{result.tools.outbound}")
        await stack.enter_async_context(result.mesh)
        yield result


async def test_the_tools_of_the_mesh_are_listed_over_all_pages(stage: Stage) -> None:
    stage.tools.control.page = 4
    listed = await stage.mesh.tools()
    assert [each.name for each in listed] == [each.name for each in everything().tools]
    assert listed[0].description == "It is echo."
    assert listed[0].input_schema == {"type": "object"}
    assert listed[0].definition["name"] == "echo"


@pytest.mark.parametrize("name", ["echo", ODD, "former.echo"])
async def test_a_tool_is_called_and_its_result_is_text_and_structured(stage: Stage, name: str) -> None:
    result = await stage.mesh.call_tool(name, text="grüße")
    assert (result.text, result.structured) == ("grüße", {"text": "grüße"})
    assert result.content[0]["type"] == "text"
    assert (await stage.mesh.call_tool(name, {"text": "a"})).text == "a"


@pytest.mark.parametrize("name", ["failing", "former.failing"])
async def test_a_tool_that_says_that_it_failed_raises_its_words(stage: Stage, name: str) -> None:
    with pytest.raises(AgentFailed, match="it did not work"):
        await stage.mesh.call_tool(name)


async def test_errors_are_those_of_the_mesh(stage: Stage) -> None:
    with pytest.raises(NotFound, match="Unknown tool: nothing"):
        await stage.mesh.call_tool("nothing")
    with pytest.raises(NoSuchAgent):
        await stage.mesh.call_tool("gone")
    with pytest.raises(AgentFailed, match="Internal server error"):
        await stage.mesh.call_tool("boom")
    with pytest.raises(AgentFailed, match="wants input"):
        await stage.mesh.call_tool("ask")
    with pytest.raises(TimedOut):
        await stage.mesh.call_tool("slow", timeout=0.2)
    with pytest.raises(InvalidRequest, match="JSON"):
        await stage.mesh.call_tool("echo", text=object())
    with pytest.raises(InvalidRequest, match="JSON"):
        await stage.mesh.call_tool("echo", text="\ud800")


async def test_what_a_handlers_call_inherits_goes_along(stage: Stage) -> None:
    agent = Agent("asker")

    @agent.handles("ask")
    async def ask() -> Any:
        return (await stage.mesh.call_tool("headers", idempotency_key="k1")).structured

    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        asked = await mesh.client.request(
            "asker", "ask", headers={"traceparent": trace, "x-weft-context": "c1"}
        )
    assert asked["traceparent"].split("-")[1] == "a" * 32
    assert (asked["x-weft-context"], asked["idempotency-key"]) == ("c1", "k1")


@pytest.mark.parametrize(
    "result",
    [{}, {"content": 5}, {"content": [5]}, {"content": [{"type": "text", "text": 7}], "isError": True}],
)
async def test_results_that_make_no_sense_do_no_harm(stage: Stage, result: Any) -> None:
    async def answer(_line: str, _headers: Any, body: bytes) -> AsyncIterator[bytes]:
        message = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": result}
        said = json.dumps(message).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
        yield head.encode() + said

    stage.raw.handler = answer
    if result:
        with pytest.raises(AgentFailed):
            await stage.mesh.call_tool("raw")
    else:
        assert (await stage.mesh.call_tool("raw")).content == ()


async def test_without_a_sidecar_there_are_no_tools() -> None:
    async with Mesh(proxy="http://127.0.0.1:1") as mesh:
        with pytest.raises(Unavailable):
            await mesh.call_tool("echo", timeout=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add", "add"),
        ("ünï ", "=?base64?w7xuw68g?="),
        ("mem://é", "=?base64?bWVtOi8vw6k=?="),
        ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
        ("a\nb", "=?base64?YQpi?="),
        ("", ""),
    ],
)
async def test_names_that_no_header_can_hold_are_written_in_base64(name: str, value: str) -> None:
    assert header_value(name) == value
