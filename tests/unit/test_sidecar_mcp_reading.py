"""Reading the lists of MCP servers: those of the official SDK, and some that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.mcp_servers import SESSIONS, STATELESS, McpApp, Toolbox, serving_mcp

from weft.aio.poll import until
from weft.model.node import Address
from weft.model.offer import McpGeneration
from weft.sidecar.mcp_client import MAX_ANSWER_BYTES
from weft.sidecar.mcp_reading import MAX_ENTRIES, McpReader, McpReading

LIMIT = 30.0
HOST = "127.0.0.1"
NAMES = ["echo", "slow", "boom", "failing", "ask", "big", "headers", "cancelled"]

Answer = Callable[[dict[str, Any]], "tuple[int, Mapping[str, str], bytes]"]


@asynccontextmanager
async def reader(app: McpApp) -> AsyncIterator[McpReader]:
    async with serving_mcp(app) as port:
        reading = McpReader(Address(HOST, port), "/mcp")
        try:
            yield reading
        finally:
            await reading.aclose()


@pytest.mark.parametrize(
    ("only", "generation"),
    [
        ("", McpGeneration.STATELESS),
        (STATELESS, McpGeneration.STATELESS),
        (SESSIONS, McpGeneration.SESSIONS),
    ],
)
@pytest.mark.parametrize("json_response", [False, True])
async def test_all_that_a_server_lists_is_read(
    only: str, generation: McpGeneration, json_response: bool
) -> None:
    async with reader(McpApp(Toolbox(page=3), only=only, json_response=json_response)) as reading:
        read = await reading.read()
    assert (read.notes, read.failed) == ((), False)
    offer = read.offer
    assert offer is not None
    assert (offer.generation, offer.path, offer.completions) == (generation, "/mcp", True)
    assert [each["name"] for each in offer.tools] == NAMES
    assert offer.tools[0]["inputSchema"]["type"] == "object"
    assert [each["uri"] for each in offer.resources] == ["mem://é"]
    assert [each["uriTemplate"] for each in offer.templates] == ["mem://notes/{id}"]
    assert [each["name"] for each in offer.prompts] == ["greet"]
    assert (offer.server["name"], offer.server["instructions"]) == ("toolbox", "Use it well.")


async def test_a_server_of_sessions_that_keeps_none_is_read() -> None:
    async with reader(McpApp(Toolbox(), only=SESSIONS, stateless=True)) as reading:
        assert names(await reading.read()) == NAMES


async def test_one_session_serves_all_readings_and_ends_with_the_reader() -> None:
    app = McpApp(Toolbox(), only=SESSIONS)
    async with reader(app) as reading:
        await reading.read()
        await reading.read()
    sessions = {each["mcp-session-id"] for each in app.requests if "mcp-session-id" in each}
    assert len(sessions) == 1
    assert [each[":method"] for each in app.requests][-1] == "DELETE"


async def test_a_server_that_has_forgotten_the_session_is_read_in_another() -> None:
    app = McpApp(Toolbox(), only=SESSIONS)
    async with reader(app) as reading:
        await reading.read()
        app.forget_sessions()
        assert names(await reading.read()) == NAMES


async def test_a_server_that_became_another_generation_is_read_as_that() -> None:
    app = McpApp(Toolbox(), only=SESSIONS)
    async with serving_mcp(app) as port:
        reading = McpReader(Address(HOST, port), "/mcp")
        await reading.read()
    async with serving_mcp(McpApp(Toolbox(), only=STATELESS), port):
        read = await reading.read()
        assert read.offer is not None
        assert read.offer.generation is McpGeneration.STATELESS


@pytest.mark.parametrize("only", [SESSIONS, STATELESS])
async def test_a_change_of_the_lists_is_heard_of(only: str) -> None:
    toolbox = Toolbox()
    changed = asyncio.Event()
    app = McpApp(toolbox, only=only)
    async with reader(app) as reading, asyncio.timeout(LIMIT):
        following = asyncio.create_task(reading.follow(changed.set))
        await reading.read()
        await until(lambda: listening(app))
        while not changed.is_set():  # the subscription may not be there yet
            await toolbox.change("later")
            await asyncio.sleep(0.05)
        assert "later" in names(await reading.read())
        following.cancel()
        await asyncio.wait([following])


async def listening(app: McpApp) -> bool:
    return any(
        each[":method"] == "GET" or each.get("mcp-method") == "subscriptions/listen" for each in app.requests
    )


async def test_a_server_that_is_not_there_becomes_a_note() -> None:
    async with serving_mcp(McpApp(Toolbox())) as port:
        pass
    read = await McpReader(Address(HOST, port), "/mcp").read()
    assert (read.offer, read.failed) == (None, True)
    assert "cannot be reached" in read.notes[0]


# Servers that misbehave


@asynccontextmanager
async def misbehaving(answer: Answer) -> AsyncIterator[McpReader]:
    """A reader of a server that answers each JSON-RPC request as told."""

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        head = (await incoming.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        body = await incoming.readexactly(length)
        status, headers, content = answer(json.loads(body) if body else {})
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        outgoing.write(f"HTTP/1.1 {status} X\r\nConnection: close\r\n{fields}\r\n".encode() + content)
        try:
            await outgoing.drain()
            outgoing.close()
        except ConnectionError:
            pass

    async with serving(serve) as address:
        yield McpReader(address, "/mcp", timeout=1.0)


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Address]:
    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield Address(HOST, server.sockets[0].getsockname()[1])
    finally:
        server.close()


def answering(results: Mapping[str, Any]) -> Answer:
    """A server without sessions whose results, by method, are these; a text is the whole body."""

    def answer(request: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        discovered = {"supportedVersions": [STATELESS], "capabilities": {"tools": {}}}
        result = {"server/discover": discovered, **results}.get(request["method"])
        if isinstance(result, str):
            return 200, {"content-type": "application/json"}, result.encode()
        outcome = {"result": result} if result is not None else {"error": {"code": -32601, "message": "no"}}
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], **outcome})
        return 200, {"content-type": "application/json"}, body.encode()

    return answer


async def test_a_server_that_hangs_becomes_a_note() -> None:
    connections: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        connections.append(outgoing)

    async with serving(hang) as address:
        read = await McpReader(address, "/mcp", timeout=0.2).read()
    assert (read.offer, read.failed) == (None, True)
    assert "did not answer within 0.2 s" in read.notes[0]
    for each in connections:
        each.close()


@pytest.mark.parametrize(
    ("status", "media_type", "content", "note"),
    [
        (200, "text/html", b"<html>", "not with JSON"),
        (200, "application/json", b"{", "is not JSON"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1,"id":2}', "twice"),
        (200, "application/json", b'[{"jsonrpc":"2.0"}]', "not a JSON object"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":99,"result":{}}', "another request"),
        (200, "application/json", b"[" * 100_000, "nests deeper"),
        (200, "application/json", b" " * (MAX_ANSWER_BYTES + 1), "longer than"),
        (200, "text/event-stream", b"data: {}\n\n", "no message of JSON-RPC"),
        (200, "text/event-stream", b": nothing\n\n", "without an answer"),
        (202, "application/json", b"", "not with JSON"),
        (404, "text/plain", b"no", "answered 404"),
        (
            500,
            "application/json",
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"ouch"}}',
            "ouch",
        ),
    ],
)
async def test_what_is_no_answer_of_mcp_becomes_a_note(
    status: int, media_type: str, content: bytes, note: str
) -> None:
    headers = {"content-type": media_type}
    async with misbehaving(lambda _: (status, headers, content)) as reading:
        read = await reading.read()
    assert (read.offer, read.failed) == (None, True)
    assert note in read.notes[0]


async def test_a_stream_that_stays_open_after_its_answer_is_not_waited_for() -> None:
    answer = answering({"tools/list": {"tools": []}})
    over = asyncio.Event()

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        head = (await incoming.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        _, _, body = answer(json.loads(await incoming.readexactly(length)))
        head_of_answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        outgoing.write(head_of_answer + b"event: message\ndata: " + body + b"\n\n")
        await over.wait()
        outgoing.close()

    async with serving(serve) as address, asyncio.timeout(LIMIT):
        read = await McpReader(address, "/mcp").read()
        over.set()
    assert (read.failed, read.notes) == (False, ())


@pytest.mark.parametrize(
    ("result", "note"),
    [
        ({"tools": {}}, "no list 'tools'"),
        ({"tools": [], "nextCursor": 5}, "nextCursor is no text"),
        ({"tools": [], "nextCursor": "again"}, "come to no end"),
        ({"tools": [{"name": "t", "inputSchema": {}}], "nextCursor": "again"}, "come to no end"),
        ({"tools": [], "resultType": "input_required"}, "input_required"),
        ('{"jsonrpc":"2.0","id":2,"result":{"tools":[NaN]}}', "is no number"),
    ],
)
async def test_a_list_that_makes_no_sense_becomes_a_note(result: Any, note: str) -> None:
    async with misbehaving(answering({"tools/list": result})) as reading:
        read = await reading.read()
    assert read.failed
    assert read.offer is not None
    assert note in read.notes[0]


async def test_entries_that_make_no_sense_are_left_out_with_a_note() -> None:
    good = {"name": "good", "inputSchema": {"type": "object"}}
    large = {**good, "name": "large", "description": "x" * 300_000}
    entries = [5, {}, {"name": ""}, {"name": "bad\u202e", "inputSchema": 1}, large, good]
    async with misbehaving(answering({"tools/list": {"tools": entries}})) as reading:
        read = await reading.read()
    assert names(read) == ["good"]
    assert len(read.notes) == 5
    assert not read.failed
    assert r"'bad\u202e'" in read.notes[3]


async def test_there_are_only_so_many_notes_of_a_list() -> None:
    async with misbehaving(answering({"tools/list": {"tools": [5] * 100}})) as reading:
        read = await reading.read()
    assert read.notes[-1] == "tools: 95 more were left out"
    assert len(read.notes) == 6


async def test_of_a_list_without_end_the_first_entries_are_read() -> None:
    page = [{"name": f"t{number}", "inputSchema": {}} for number in range(1000)]
    pages = 0

    def answer(request: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        nonlocal pages
        pages += 1
        return answering({"tools/list": {"tools": page, "nextCursor": str(pages)}})(request)

    async with misbehaving(answer) as reading:
        read = await reading.read()
    assert len(names(read)) == MAX_ENTRIES
    assert read.notes == (f"tools: only the first {MAX_ENTRIES} were read",)


async def test_a_list_that_a_server_does_not_have_after_all_is_empty() -> None:
    discovered = {"supportedVersions": [STATELESS], "capabilities": {"tools": {}, "resources": {}}}
    results = {
        "server/discover": discovered,
        "tools/list": {"tools": []},
        "resources/list": {"resources": []},
    }
    async with misbehaving(answering(results)) as reading:
        read = await reading.read()
    assert (read.notes, read.failed) == ((), False)


async def test_a_server_that_cannot_be_pinged_keeps_its_session() -> None:
    begun: list[str] = []

    def answer(request: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        initialized = {"protocolVersion": SESSIONS, "capabilities": {"tools": {}}}
        results = {"server/discover": {"supportedVersions": []}, "initialize": initialized}
        if "id" not in request:
            return 202, {}, b""
        status, headers, body = answering({**results, "tools/list": {"tools": []}})(request)
        if request["method"] == "initialize":
            begun.append(f"s{len(begun)}")
            headers = {**headers, "mcp-session-id": begun[-1]}
        return status, headers, body

    async with misbehaving(answer) as reading:
        for _ in range(3):
            assert not (await reading.read()).failed
    assert begun == ["s0"]


async def test_a_version_that_nobody_knows_becomes_a_note() -> None:
    initialized = {"protocolVersion": "1999-01-01", "capabilities": {}}
    results = {"server/discover": {"supportedVersions": []}, "initialize": initialized}
    async with misbehaving(answering(results)) as reading:
        read = await reading.read()
    assert "'1999-01-01'" in read.notes[0]


def names(read: McpReading) -> list[str]:
    assert read.offer is not None, read.notes
    return [each["name"] for each in read.offer.tools]
