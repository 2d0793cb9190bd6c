"""Calls by way of `tools.mesh`, through real Envoys: unmodified clients and servers of both generations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio
from mcp import MCPError
from tests.envoys import LIMIT
from tests.hosting import hosted
from tests.mcp_servers import SESSIONS, STATELESS, McpApp, Toolbox
from tests.tool_mesh import (
    META,
    RawServer,
    ToolMesh,
    ToolServer,
    answered,
    headers_2026,
    message,
    meta,
    published,
    server,
    tool_mesh,
)

from weft.aio.poll import until
from weft.model.mcp_catalogue import McpCatalogue, PublishedPrompt, PublishedResource, PublishedTemplate

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODES = ("legacy", STATELESS)
MODERN, FORMER = server("modern"), server("former", old=True)
JSON, FORMER_JSON = server("json"), server("former-json", old=True)
RAW = server("raw")
SERVERS = (MODERN, FORMER, JSON, FORMER_JSON)
ODD = "ünï "
"""A name that no header can hold."""

_REGION = {"type": "object", "properties": {"text": {"type": "string", "x-mcp-header": "Region"}}}


def everything() -> McpCatalogue:
    """What they have, as clients see it."""
    names = ("echo", "slow", "failing", "ask", "headers")
    tools = [
        published(each, f"{each.type}.{name}", name, aliases=(f"{each.type}_{name}",))
        for each in SERVERS
        for name in names
    ]
    tools += [published(each, f"{each.type}.odd", ODD) for each in SERVERS]
    tools.append(published(RAW, "raw"))
    regional = published(MODERN, "regional")
    tools.append(type(regional)(**{**_fields(regional), "definition": {"inputSchema": _REGION}}))
    return McpCatalogue(
        servers=(*SERVERS, RAW),
        tools=tuple(tools),
        prompts=tuple(PublishedPrompt(f"{each.type}.greet", each, "greet", {}) for each in SERVERS),
        resources=tuple(PublishedResource(f"mem://é/{each.type}", each, {}) for each in SERVERS),
        templates=tuple(
            PublishedTemplate(f"mem://{each.type}/{{id}}", f"mem://{each.type}/", each, {})
            for each in SERVERS
        ),
    )


def _fields(each: Any) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__dataclass_fields__}


class Stage:
    """The mesh of this module, and its servers."""

    def __init__(self) -> None:
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        self.apps: dict[str, McpApp] = {}
        for each in SERVERS:
            box = Toolbox(name=each.type)
            box.tools = {**box.tools, ODD: schema, "regional": _REGION}
            only = SESSIONS if each.type.startswith("former") else STATELESS
            self.apps[each.type] = McpApp(box, only=only, json_response=each.type.endswith("json"))
        self.raw = RawServer()
        self.mesh: ToolMesh

    def servers(self) -> list[ToolServer]:
        """All of them."""
        return [
            *(ToolServer(name, app) for name, app in self.apps.items()),
            ToolServer("raw", self.raw),
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    result = Stage()
    async with hosted(tool_mesh(result.servers(), everything())) as result.mesh:
        yield result


def text_of(result: Any) -> str:
    """What a tool said."""
    [content] = result.content
    assert isinstance(content, types.TextContent)
    return content.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_", [each.type for each in SERVERS])
async def test_clients_of_either_generation_use_servers_of_either(
    stage: Stage, type_: str, mode: str
) -> None:
    async with asyncio.timeout(LIMIT), stage.mesh.client(mode) as client:
        assert f"{type_}.echo" in [each.name for each in (await client.list_tools()).tools]
        result = await client.call_tool(f"{type_}.echo", {"text": 'ü "quoted" \\ \n'})
        assert (text_of(result), result.structured_content) == (
            'ü "quoted" \\ \n',
            {"text": 'ü "quoted" \\ \n'},
        )
        assert text_of(await client.call_tool(f"{type_}_echo", {"text": "alias"})) == "alias"
        assert text_of(await client.call_tool(f"{type_}.odd", {"text": "odd"})) == "odd"
        assert stage.apps[type_].toolbox.calls[-1] == (ODD, {"text": "odd"})
        assert (await client.call_tool(f"{type_}.failing", {})).is_error
        for uri in (f"mem://é/{type_}", f"mem://{type_}/7"):
            [content] = (await client.read_resource(uri)).contents
            assert isinstance(content, types.TextResourceContents)
            assert content.text == f"content of {uri}"
        [said] = (await client.get_prompt(f"{type_}.greet")).messages
        assert isinstance(said.content, types.TextContent)
        assert said.content.text == "say greet"
        prompt = types.PromptReference(type="ref/prompt", name=f"{type_}.greet")
        template = types.ResourceTemplateReference(type="ref/resource", uri=f"mem://{type_}/{{id}}")
        for reference in (prompt, template):
            completed = await client.complete(ref=reference, argument={"name": "a", "value": "v"})
            assert completed.completion.values == ["v!"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_", [MODERN.type, FORMER.type])
async def test_progress_comes_while_the_tool_is_at_work(stage: Stage, type_: str, mode: str) -> None:
    box = stage.apps[type_].toolbox
    box.released.clear()
    told: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        box.released.set()

    async with asyncio.timeout(LIMIT), stage.mesh.client(mode) as client:
        # It is released by the news of its progress alone.
        result = await client.call_tool(f"{type_}.slow", {"text": "done"}, progress_callback=on_progress)
        assert text_of(result) == "done"
    assert told == [(1, 2, "half way")]


@pytest.mark.parametrize("type_", [each.type for each in SERVERS])
async def test_calls_with_the_same_id_get_each_its_own_answer(stage: Stage, type_: str) -> None:
    ids = [1, "1", 1, 'a"b\\', -5, "é"] * 5
    responses = await asyncio.gather(
        *(
            stage.mesh.call(f"{type_}.echo", {"text": str(n)}, request_id=each)
            if n % 2
            else stage.mesh.call_2026(f"{type_}.echo", {"text": str(n)}, request_id=each)
            for n, each in enumerate(ids)
        )
    )
    for n, (each, response) in enumerate(zip(ids, responses, strict=True)):
        said = answered(response)
        assert (said["id"], type(said["id"])) == (each, type(each))
        assert said["result"]["structuredContent"] == {"text": str(n)}


async def test_every_client_has_a_session_of_its_own_with_a_server_that_wants_one(stage: Stage) -> None:
    async def session(**headers: str) -> str:
        response = await stage.mesh.post(message("former.headers"), headers)
        assert "mcp-session-id" not in response.headers
        seen = answered(response)["result"]["structuredContent"]
        assert (seen["mcp-protocol-version"], "x-weft-mcp-session" in seen) == (SESSIONS, False)
        return str(seen["mcp-session-id"])

    first = await session(**{"mcp-session-id": "one"})
    second = await session(**{"mcp-session-id": "two"})
    without = await session()
    assert len({first, second, without}) == 3
    assert await session(**{"mcp-session-id": "one"}) == first
    # What a client says to be the mesh's own makes no difference.
    assert await session(**{"x-weft-mcp-session": "one"}) == without
    stage.apps["former"].forget_sessions()
    assert await session(**{"mcp-session-id": "one"}) not in {first, second, without}


async def test_clients_of_2026_are_asked_for_input_and_others_told_that_it_is_wanted(stage: Stage) -> None:
    async def answer(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "me"})

    async with asyncio.timeout(LIMIT):
        async with stage.mesh.client(STATELESS, elicitation_callback=answer) as client:
            assert not (await client.call_tool("modern.ask", {})).is_error
        for name in ("modern.ask", "json.ask"):
            async with stage.mesh.client("legacy", elicitation_callback=answer) as client:
                with pytest.raises(MCPError, match="wants input"):
                    await client.call_tool(name, {})


async def test_parameters_that_a_server_wants_in_headers_are_there_for_clients_that_do_not_know(
    stage: Stage,
) -> None:
    for text in ("eu", "ü"):
        said = answered(await stage.mesh.call("regional", {"text": text}))
        assert said["result"]["structuredContent"] == {"text": text}


async def test_the_server_is_called_as_any_agent_and_learns_who_calls(stage: Stage) -> None:
    own = {"x-weft-tool": "forged", "x-weft-mcp-whole": "1", "x-weft-context": "c-1"}
    said = answered(await stage.mesh.call_2026("modern.headers", headers=own))
    seen = said["result"]["structuredContent"]
    assert seen["x-weft-tool"] == "modern.headers"
    assert seen["x-weft-caller"] == "spiffe://weft.local/agent/asker/a-1"
    assert (seen["mcp-name"], seen["x-weft-context"], "x-weft-mcp-whole" in seen) == ("headers", "c-1", False)
    assert seen["host"].startswith("127.0.0.1:")


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_the_trace_goes_along_in_headers_and_in_meta_whichever_the_client_says(stage: Stage) -> None:
    said = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"resultType": "complete", "content": []}})

    async def handler(_line: str, _headers: Any, _body: bytes) -> AsyncIterator[bytes]:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
        yield f"{head}{said}".encode()

    stage.raw.handler = handler
    await stage.mesh.post(message("raw"), {"traceparent": TRACE, "baggage": "a=1,b=%22"})
    await stage.mesh.post(message("raw", meta={"traceparent": TRACE}))
    own = message("raw", meta=meta(traceparent=TRACE, progressToken=3))
    await stage.mesh.post(own, headers_2026("raw"))
    own["params"]["_meta"] = {}
    slashes = json.dumps(own).replace('"_meta": {}', '"_meta": {"a\\/b": "c\\\\\\/d"}').encode()
    await stage.mesh.post(slashes)
    first, second, third, fourth = stage.raw.requests
    trace, span = TRACE.split("-")[1:3]
    # The mesh's own span is between the client's and the server's; where only the body tells of a trace, it
    # has begun one of its own by the time it reads that.
    assert first[0]["traceparent"].split("-")[1] == trace
    for headers, body in (first, second, third):
        assert headers["traceparent"].split("-")[2] != span
        assert json.loads(body)["params"]["_meta"]["traceparent"] == TRACE
    assert json.loads(first[1])["params"]["_meta"]["baggage"] == "a=1,b=%22"
    assert json.loads(first[1])["params"]["_meta"][f"{META}protocolVersion"] == STATELESS
    # There was nothing to change in it.
    assert third[1] == json.dumps(message("raw", meta=meta(traceparent=TRACE, progressToken=3))).encode()
    assert json.loads(fourth[1])["params"]["_meta"]["a/b"] == "c\\/d"


async def test_a_server_is_called_directly_too_with_sessions_and_all(stage: Stage) -> None:
    direct = "http://former.mesh/mcp"
    who = {"protocolVersion": SESSIONS, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": who}
    accept = {"accept": "application/json, text/event-stream"}
    begun = await stage.mesh.http.post(direct, json=hello, headers=accept)
    session = {"mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": SESSIONS}
    said = answered(
        await stage.mesh.http.post(direct, json=message("headers"), headers={**accept, **session})
    )
    assert said["result"]["structuredContent"]["mcp-session-id"] == session["mcp-session-id"]
    lost = await stage.mesh.http.post(
        direct, json=message("headers"), headers={**accept, **session, "mcp-session-id": "none"}
    )
    assert (lost.status_code, "x-weft-refused" in lost.headers) == (404, False)


async def test_a_client_that_goes_away_ends_the_work_of_a_server_of_2026(stage: Stage) -> None:
    box = stage.apps["modern"].toolbox
    box.released.clear()
    before = box.cancelled

    async def cancelled() -> bool:
        return box.cancelled == before + 1

    async with asyncio.timeout(LIMIT), stage.mesh.client(STATELESS) as client:
        told = asyncio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.set()

        calling = asyncio.create_task(
            client.call_tool("modern.slow", {"text": "x"}, progress_callback=on_progress)
        )
        await told.wait()
        calling.cancel()
        await until(cancelled)


async def test_calls_are_counted_by_the_names_of_tools_that_there_are_and_by_no_others(stage: Stage) -> None:
    resource = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "resources/read",
        "params": {"uri": "mem://modern/secret"},
    }
    answered(await stage.mesh.call("modern.echo", {"text": "a"}))
    await stage.mesh.call("made-up")
    answered(await stage.mesh.post(resource))

    async def counters() -> list[str]:
        found = await stage.mesh.caller.admin.get("http://envoy/stats", params={"filter": r"^weft\.calls"})
        return found.text.splitlines()

    async def counted() -> bool:
        return any(
            ".@d.modern.@k.type/modern.@v..@r.default.@t.modern.echo." in each for each in await counters()
        )

    async with asyncio.timeout(LIMIT):
        await until(counted)
    names = " ".join(await counters())
    assert "made-up" not in names
    assert "secret" not in names
