"""What `tools.mesh` answers where a request makes no sense, a server misbehaves, or a policy forbids."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.envoys import LIMIT
from tests.hosting import hosted
from tests.mcp_servers import SESSIONS, STATELESS, McpApp, Toolbox
from tests.tool_mesh import (
    META,
    Handler,
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

from weft.model.manifest import parse_manifest
from weft.model.mcp_catalogue import McpCatalogue, PublishedResource, PublishedTool
from weft.model.node import AgentProtocol

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODERN, FORMER = server("modern"), server("former", old=True)
RAW, OLD_RAW = server("raw"), server("old-raw", old=True)
TWINS, GONE = server("twins"), server("gone")
LONELY, MUTE = server("lonely", old=True), server("mute", old=True)
MB = 1024 * 1024

RESOURCES = """
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: faulty}
spec:
  destination: {type: raw}
  rules:
  - match: [{headers: [{name: x-fault, present: true}]}]
    fault: {abort: {status: 418}}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-secrets}
spec:
  effect: deny
  to: [{type: modern}, {type: former}]
  rules: [{mcp: {tools: [secret]}}]
"""


def everything() -> McpCatalogue:
    """What the servers have, as clients see it."""
    tools: list[PublishedTool] = [
        published(MODERN, "echo", aliases=("modern_echo",)),
        published(MODERN, "large", "echo", max_arguments=8 * MB),
        published(MODERN, "secret"),
        published(FORMER, "former.echo", "echo"),
        published(FORMER, "former.secret", "secret"),
        published(RAW, "raw"),
        published(RAW, "raw.small", max_result=2048),
        published(RAW, "raw.hurried", timeout=0.3),
        published(OLD_RAW, "old-raw"),
        published(OLD_RAW, "old-raw.small", max_result=2048),
        published(TWINS, "once"),
        published(TWINS, "again", idempotent=True, max_arguments=8 * MB),
        published(GONE, "gone"),
        published(LONELY, "lonely"),
        published(MUTE, "mute"),
        *(published(MODERN, f"many-{n}", "echo", aliases=(f"modern_many-{n}",)) for n in range(2000)),
    ]
    return McpCatalogue(
        servers=(MODERN, FORMER, RAW, OLD_RAW, TWINS, GONE, LONELY, MUTE),
        tools=tuple(tools),
        resources=(PublishedResource("mem://x", MODERN, {}),),
    )


class Stage:
    """The mesh of this module, and its servers."""

    def __init__(self) -> None:
        self.modern = Toolbox(name="modern")
        self.modern.tools["secret"] = {"type": "object"}
        self.former = Toolbox(name="former")
        self.former.tools["secret"] = {"type": "object"}
        self.raw = RawServer()
        self.twins = (RawServer(), RawServer())
        self.mesh: ToolMesh

    def servers(self) -> list[ToolServer]:
        """All of them. Two types are one and the same server, taken for different generations."""
        return [
            ToolServer("modern", McpApp(self.modern, only=STATELESS)),
            ToolServer("former", McpApp(self.former, only=SESSIONS)),
            ToolServer("raw", self.raw),
            # Not known for a server of MCP by its sidecar: it gets no sessions.
            ToolServer("old-raw", self.raw, protocol=AgentProtocol.HTTP1),
            ToolServer("lonely", self.raw, sessions=False),
            ToolServer("mute", self.raw),
            *(ToolServer("twins", each, f"twin-{n}") for n, each in enumerate(self.twins)),
        ]

    async def refused(
        self, body: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, int]:
        """Status, id, and code of an error; nothing may have been called."""
        calls = len(self.modern.calls) + len(self.former.calls)
        response = await self.mesh.post(body, headers)
        said = response.json()
        assert said["jsonrpc"] == "2.0"
        assert said["error"]["message"].isprintable()
        assert len(self.modern.calls) + len(self.former.calls) == calls
        return response.status_code, said["id"], said["error"]["code"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    result = Stage()
    resources = parse_manifest(RESOURCES)
    async with hosted(tool_mesh(result.servers(), everything(), resources)) as result.mesh:
        yield result


JSON = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
NEW = headers_2026("echo")
CALL = message("echo", {"text": "x"})
CALL_2026 = message("echo", {"text": "x"}, meta=meta())


def text(changed: str, into: str, of: Mapping[str, Any] = CALL) -> bytes:
    """A message with a piece of its text changed."""
    whole = json.dumps(of)
    assert changed in whole
    return whole.replace(changed, into).encode()


MALFORMED = {
    "nothing": b"",
    "not JSON": b"hello",
    "half": json.dumps(CALL).encode()[:-3],
    "behind its end": json.dumps(CALL).encode() + b"{}",
    "a string": b'"tools/call"',
    "unended": b'{"jsonrpc": "2.0',
    "said twice": text('"id": 7', '"id": 7, "method": "tools/list"'),
    "escaped": text('"method"', '"meth\\u006fd"'),
    "other case": text('"method"', '"Method"'),
    "nested for ever": b'{"params": ' + b"[" * 500_000,
    "a mark before": b"\xef\xbb\xbf" + json.dumps(CALL).encode(),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_message_is_a_parse_error(stage: Stage, body: bytes) -> None:
    assert await stage.refused(body) == (400, None, -32700)
    assert await stage.refused(body, NEW) == (400, None, -32700)


INVALID = {
    "a batch": (json.dumps([CALL]).encode(), None),
    "no version": (text('"jsonrpc": "2.0", ', ""), 7),
    "another version": (text('"2.0"', '"1.0"'), 7),
    "no id": (text('"id": 7, ', ""), None),
    "null id": (text('"id": 7', '"id": null'), None),
    "fraction": (text('"id": 7', '"id": 7.5'), None),
    "an object for an id": (text('"id": 7', '"id": {}'), None),
    "long id": (text('"id": 7', f'"id": "{"x" * 300}"'), None),
    "broken id": (text('"id": 7', '"id": "\\ud800"'), None),
}


@pytest.mark.parametrize(("body", "request_id"), INVALID.values(), ids=INVALID.keys())
async def test_what_is_no_request_is_an_invalid_one(stage: Stage, body: bytes, request_id: Any) -> None:
    old_status = 200 if request_id is not None else 400
    assert await stage.refused(body) == (old_status, request_id, -32600)
    assert await stage.refused(body, NEW) == (400, request_id, -32600)


PARAMETERS = {
    "none": text(', "params": {"name": "echo", "arguments": {"text": "x"}}', ""),
    "a list": text('{"name": "echo", "arguments": {"text": "x"}}', '["echo"]'),
    "no name": text('"name": "echo", ', ""),
    "a number for a name": text('"echo"', "5"),
    "two names": text('"name": "echo"', '"name": "echo", "name": "secret"'),
    "an escaped name's name": text('"name": "echo"', '"name": "echo", "n\\u0061me": "secret"'),
    "a name in another case": text('"name": "echo"', '"name": "echo", "NAME": "secret"'),
    "control characters": text('"echo"', '"ec\nho"'),
    "half a character": text('"echo"', '"echo\\ud83d"'),
    "unknown escape": text('"echo"', '"e\\cho"'),
    "meta twice": text('"name"', '"_meta": {}, "_meta": {}, "name"'),
    "meta no object": text('"name"', '"_meta": 5, "name"'),
    "unknown": text('"echo"', '"nothing"'),
    "another's alias": text('"echo"', '"t:echo"'),
    "a look-alike": text('"echo"', '"\\u0435cho"'),
    "with a space": text('"echo"', '"echo "'),
    "a key of the context": text('"echo"', '"emplates"'),
    "of 10 KB": text('"echo"', json.dumps("echo" * 2500)),
    "of 10 KB, escaped": text('"echo"', '"' + "\\u0065" * 10_000 + '"'),
    "escaped controls": text('"echo"', '"echo\\u0000\\u001b[31m"'),
}


@pytest.mark.parametrize("body", PARAMETERS.values(), ids=PARAMETERS.keys())
async def test_parameters_that_name_nothing_are_invalid(stage: Stage, body: bytes) -> None:
    assert await stage.refused(body) == (200, 7, -32602)
    status, request_id, code = await stage.refused(body, NEW)
    # To a client of 2026 the name in the header is another one, too.
    assert (status, request_id) == (400, 7)
    assert code in {-32602, -32020}


def without(name: str) -> dict[str, str]:
    """The headers but for one."""
    return {key: value for key, value in NEW.items() if key != name}


DISAGREEING: dict[str, tuple[Mapping[str, Any] | bytes, dict[str, str]]] = {
    "other method": (CALL_2026, {**NEW, "mcp-method": "tools/list"}),
    "no method": (CALL_2026, without("mcp-method")),
    "other name": (CALL_2026, {**NEW, "mcp-name": "secret"}),
    "no name": (CALL_2026, without("mcp-name")),
    "wrongly encoded": (CALL_2026, {**NEW, "mcp-name": "=?base64?ZWNobw?="}),
    "another encoded": (CALL_2026, {**NEW, "mcp-name": "=?base64?c2VjcmV0?="}),
    "encoding in capitals": (CALL_2026, {**NEW, "mcp-name": "=?BASE64?ZWNobw==?="}),
    "other version": (text(STATELESS, "2025-11-25", CALL_2026), NEW),
}


@pytest.mark.parametrize(("body", "headers"), DISAGREEING.values(), ids=DISAGREEING.keys())
async def test_headers_must_say_what_the_body_says(
    stage: Stage, body: Mapping[str, Any] | bytes, headers: dict[str, str]
) -> None:
    assert await stage.refused(body, headers) == (400, 7, -32020)


async def test_headers_said_twice_do_not_say_what_the_body_says(stage: Stage) -> None:
    for name in ("mcp-method", "mcp-name"):
        usual = [("accept", "application/json, text/event-stream"), *NEW.items(), (name, NEW[name])]
        response = await stage.mesh.http.post("http://tools.mesh/mcp", json=CALL_2026, headers=usual)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)


async def test_an_encoded_name_says_the_same_as_a_plain_one(stage: Stage) -> None:
    response = await stage.mesh.post(CALL_2026, {**NEW, "mcp-name": "=?base64?ZWNobw==?="})
    assert answered(response)["result"]["structuredContent"] == {"text": "x"}


async def test_a_client_of_2026_must_say_what_it_can(stage: Stage) -> None:
    for missing in ("protocolVersion", "clientCapabilities"):
        body = message("echo", meta={key: each for key, each in meta().items() if key != META + missing})
        assert await stage.refused(body, NEW) == (400, 7, -32602)
    assert await stage.refused(CALL, NEW) == (400, 7, -32602)


async def test_unknown_versions_are_told_which_there_are(stage: Stage) -> None:
    response = await stage.mesh.post(CALL_2026, {**NEW, "mcp-protocol-version": "2027-01-01"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, -32022)
    assert error["data"] == {"supported": [STATELESS, SESSIONS], "requested": "2027-01-01"}


async def test_other_methods_and_paths_are_not_for_the_servers(stage: Stage) -> None:
    told = {"jsonrpc": "2.0", "id": 1, "method": "tools/destroy", "params": {}}
    response = await stage.mesh.post(told, {"mcp-protocol-version": STATELESS, "mcp-method": "tools/destroy"})
    assert response.json()["error"]["code"] in {-32601, -32602}
    other = await stage.mesh.http.post("http://tools.mesh/other", json=CALL)
    assert (other.status_code, other.headers["x-weft-error"]) == (404, "not-found")
    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        page = await stage.mesh.post(CALL, {"origin": origin})
        assert (page.status_code, page.json()["id"]) == (403, None)
    near = await stage.mesh.post(CALL, {"origin": "http://tools.mesh.localhost:1234"})
    assert answered(near)["result"]["structuredContent"] == {"text": "x"}
    squeezed = gzip.compress(json.dumps(CALL).encode())
    assert await stage.refused(squeezed, {"content-encoding": "gzip"}) == (400, None, -32600)


async def test_large_arguments_pass_where_they_may_and_are_refused_with_their_id_where_not(
    stage: Stage,
) -> None:
    long = "x" * (2 * MB)
    said = answered(await stage.mesh.call("large", {"text": long}))
    assert said["result"]["structuredContent"] == {"text": long}
    said = answered(await stage.mesh.call_2026("large", {"text": long}))
    assert said["result"]["structuredContent"] == {"text": long}
    body = message("echo", {"text": long}, meta=meta())
    assert await stage.refused(body) == (200, 7, -32602)
    assert await stage.refused(body, NEW) == (400, 7, -32602)
    huge = json.dumps(message("echo", {"text": "x" * (21 * MB)})).encode()
    head = f"POST /mcp HTTP/1.1\r\nhost: tools.mesh\r\ncontent-length: {len(huge)}\r\n\r\n"
    async with asyncio.timeout(LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.mesh.outbound)
        writer.write(head.encode() + huge)
        answer = (await reader.readuntil(b"}}")).decode()
        writer.transport.abort()
    assert answer.startswith("HTTP/1.1 413 ")
    assert json.loads(answer.rpartition("\r\n\r\n")[2])["error"]["code"] == -32600


async def test_what_a_policy_denies_looks_like_what_is_not_there(stage: Stage) -> None:
    for call in (stage.mesh.call, stage.mesh.call_2026):
        for name in ("former.echo", "echo"):
            assert answered(await call(name, {"text": "y"}))["result"]["structuredContent"] == {"text": "y"}
        denied, unknown = await call("former.secret"), await call("former.Secret")
        assert denied.text.lower() == unknown.text.lower()
        denied, unknown = await call("secret", {"a": 1}), await call("Secret", {"a": 1})
        assert denied.text.lower() == unknown.text.lower()
        assert denied.status_code == unknown.status_code
        assert dict(denied.headers).keys() == dict(unknown.headers).keys()
        assert answered(denied)["error"]["code"] == -32602
    # Nor do calls that are no business of tools.mesh get what is for those only.
    direct = await stage.mesh.http.post("http://former.mesh/mcp", json=message("echo"), headers=JSON)
    assert (direct.status_code, direct.json()["error"]["message"]) == (400, "Bad Request: Missing session ID")
    for box in (stage.modern, stage.former):
        assert not [each for each in box.calls if each[0] == "secret"]
    unknown_resource = {"jsonrpc": "2.0", "id": 7, "method": "resources/read", "params": {"uri": "mem://y"}}
    assert await stage.refused(unknown_resource) == (200, 7, -32002)


async def test_errors_of_the_mesh_are_errors_of_the_protocol(stage: Stage) -> None:
    said = answered(await stage.mesh.call("gone"))
    assert (said["id"], said["error"]["code"], said["error"]["data"]) == (
        7,
        -32603,
        {"code": "no-such-agent"},
    )
    response = await stage.mesh.call_2026("gone", request_id="é")
    assert (response.status_code, response.json()["id"]) == (200, "é")


async def test_of_many_tools_each_is_found(stage: Stage) -> None:
    for name in ("many-0", "many-1999", "modern_many-1000", "modern_echo"):
        for call in (stage.mesh.call, stage.mesh.call_2026):
            assert answered(await call(name, {"text": name}))["result"]["structuredContent"] == {"text": name}
            assert stage.modern.calls[-1] == ("echo", {"text": name})


async def test_routes_are_those_of_any_call_of_the_server(stage: Stage) -> None:
    response = await stage.mesh.post(message("raw"), {"x-fault": "1"})
    assert (response.status_code, answered(response)["error"]["data"]) == (200, {"code": "agent-failed"})


async def test_a_request_that_comes_in_chunks_is_read_whole(stage: Stage) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for each in json.dumps(message("large", {"text": "x"})).encode().split(b" "):
            yield each + b" "

    said = answered(await stage.mesh.http.post("http://tools.mesh/mcp", content=chunks(), headers=JSON))
    assert said["result"]["structuredContent"] == {"text": "x"}


async def test_whatever_is_sent_no_server_is_called_for_what_others_would_read_differently(
    stage: Stage,
) -> None:
    chance = random.Random(7)
    pieces = [
        '"',
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\\u0065",
        '"name":',
        '"secret"',
        '"method":',
        "\n",
        "é",
        "null",
        "1",
    ]
    usual = json.dumps(message("echo", {"text": "x"}, meta=meta()))
    called = 0
    for _ in range(250):
        text = usual
        for _ in range(chance.randint(1, 3)):
            at, to = sorted(chance.randint(0, len(text)) for _ in range(2))
            piece = chance.choice(pieces)
            behind = chance.choice([at, at + len(piece), min(to, at + 5)])
            text = text[:at] + chance.choice([piece, ""]) + text[behind:]
        calls = len(stage.modern.calls)
        response = await stage.mesh.post(text.encode())
        assert response.status_code in {200, 202, 400, 404}, text
        if len(stage.modern.calls) > calls:
            called += 1
            read = json.loads(text, object_pairs_hook=once)
            assert (read["method"], read["params"]["name"]) == ("tools/call", stage.modern.calls[-1][0])
            assert answered(response)["id"] == read["id"]
    assert called > 10


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which nothing that decides is there twice, in any case."""
    names = [name.lower() for name, _ in pairs]
    for each in ("jsonrpc", "id", "method", "params", "name", "_meta"):
        assert names.count(each) < 2
    return dict(pairs)


# Servers that misbehave

RESULT = b'"result": {"resultType": "complete", "content": []}'
FINE = b'{"jsonrpc": "2.0", "id": 7, %b}' % RESULT


def reply(body: bytes, *, kind: str = "application/json", status: int = 200, **headers: str) -> Handler:
    """Always the same, with its length."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"

    async def handler(_line: str, _headers: Any, _body: bytes) -> AsyncIterator[bytes]:
        yield head.encode() + body

    return handler


def pieces(*parts: bytes, kind: str) -> Handler:
    """Always the same, in chunks."""

    async def handler(_line: str, _headers: Any, _body: bytes) -> AsyncIterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        for each in parts:
            yield b"%x\r\n%b\r\n" % (len(each), each)
        yield b"0\r\n\r\n"

    return handler


async def both(stage: Stage, name: str) -> list[dict[str, Any]]:
    """What clients of both generations are told, who are answered in any case."""
    responses: list[httpx.Response] = [await stage.mesh.call(name), await stage.mesh.call_2026(name)]
    assert responses[0].status_code == 200
    messages = [answered(each) for each in responses]
    assert [each["id"] for each in messages] == [7, 7]
    return messages


NONSENSE = {
    "HTML": reply(b"<h1>Oops</h1>", kind="text/html", status=500),
    "nothing": reply(b"", status=202),
    "not JSON": reply(b"oops"),
    "half": reply(b'{"jsonrpc": "2.0", "id": 7, "result": {'),
    "neither": reply(b'{"jsonrpc": "2.0", "id": 7}'),
    "no object": reply(b'{"jsonrpc": "2.0", "id": 7, "result": [1]}'),
    "compressed": reply(gzip.compress(b"{}"), content_encoding="gzip"),
}


@pytest.mark.parametrize("handler", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_of_a_server_is_an_error_with_the_requests_id(stage: Stage, handler: Handler) -> None:
    stage.raw.handler = handler
    told = await both(stage, "old-raw")
    assert [each["error"]["code"] for each in told] == [-32603, -32603]
    said = answered(await stage.mesh.call("raw"))
    assert (said["id"], said["error"]["code"]) == (7, -32603)


async def test_errors_of_a_server_get_the_requests_id_and_end_nobodys_session(stage: Stage) -> None:
    error = b'{"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "no"}}'
    for status in (400, 404, 503):
        stage.raw.handler = reply(error, status=status)
        for each in await both(stage, "old-raw"):
            assert each["error"] == {"code": -32600, "message": "no"}
    stage.raw.handler = reply(error.replace(b'"id": "server-error", ', b""))
    assert [each["error"]["code"] for each in await both(stage, "old-raw")] == [-32600, -32600]


async def test_where_no_session_can_be_had_the_server_is_not_asked(stage: Stage) -> None:
    stage.raw.handler = reply(b"", status=500)
    stage.raw.requests.clear()
    for said in await both(stage, "lonely"):
        assert said["error"]["data"] == {"code": "unavailable"}
        assert "no session" in said["error"]["message"]
    assert not stage.raw.requests
    for said in await both(stage, "mute"):
        assert said["error"]["data"] == {"code": "unavailable"}
        assert "no session" in said["error"]["message"]
    assert stage.raw.requests
    assert not [each for each, body in stage.raw.requests if b"tools/call" in body]


@pytest.mark.parametrize("name", ["raw", "old-raw"])
async def test_answers_of_50_megabytes_are_an_error_and_nothing_else_suffers(stage: Stage, name: str) -> None:
    head, tail = b'{"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "', b'"}]}}'
    filling = [b"x" * MB] * 50
    body = head + b"".join(filling) + tail
    ways = {
        "whole": reply(body),
        "chunked": pieces(head, *filling, tail, kind="application/json"),
        "events": pieces(b"data: " + head, *filling, tail + b"\n\n", kind="text/event-stream"),
    }
    for each in ways.values():
        stage.raw.handler = each
        for said in await both(stage, name):
            assert said["error"]["code"] == -32603
            assert "larger" in said["error"]["message"] or "more than" in said["error"]["message"]
    stage.raw.handler = reply(FINE)
    for said in await both(stage, name):
        assert said["result"]["content"] == []


@pytest.mark.parametrize("name", ["raw.small", "old-raw.small"])
async def test_a_tools_own_limit_holds_for_its_answers(stage: Stage, name: str) -> None:
    body = b'{"jsonrpc": "2.0", "id": 7, %b, "x": "%b"}' % (RESULT, b"y" * 3000)
    for handler in (
        reply(body),
        pieces(body, kind="application/json"),
        pieces(b"data: " + body + b"\n\n", kind="text/event-stream"),
    ):
        stage.raw.handler = handler
        for said in await both(stage, name):
            assert "more than 2048 bytes" in said["error"]["message"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("piece", [1, 3, 1000])
async def test_streams_pass_however_they_are_cut(stage: Stage, piece: int, end: str) -> None:
    async def handler(_line: str, headers: dict[str, str], body: bytes) -> AsyncIterator[bytes]:
        asked = json.loads(body)["id"]
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 7}}
        said = {"jsonrpc": "2.0", "id": asked, "result": {"content": []}}
        first, second = json.dumps(said).split(" ", 1)
        lines = [": ping", "", f"data: {json.dumps(progress)}", "", "event: message", "id: 5"]
        lines += [f"data: {first}", f"data: {second}", "", ""]
        stream = end.join(lines).encode()
        parts = [stream[start : start + piece] for start in range(0, len(stream), piece)]
        async for each in pieces(*parts, kind="text/event-stream")("", headers, body):
            yield each

    stage.raw.handler = handler
    for call in (stage.mesh.call, stage.mesh.call_2026):
        response = await call("old-raw")
        events = [each for each in response.text.replace("\r", "").split("\n\n") if each.strip()]
        assert events[0] == ": ping"
        assert json.loads(events[1].removeprefix("data: "))["params"] == {"progressToken": 7}
        assert events[2].startswith("event: message\nid: 5\n")
        said = answered(response)
        assert said["id"] == 7
        added = {"resultType": "complete"} if call == stage.mesh.call_2026 else {}
        assert said["result"] == {"content": [], **added}


async def test_a_tool_that_hangs_times_out_and_others_of_its_server_do_not(stage: Stage) -> None:
    over = asyncio.Event()

    async def handler(_line: str, headers: dict[str, str], _body: bytes) -> AsyncIterator[bytes]:
        if headers["mcp-name"] == "raw.hurried":
            await over.wait()
        async for each in reply(FINE)("", headers, b""):
            yield each

    stage.raw.handler = handler
    waiting = asyncio.create_task(both(stage, "raw.hurried"))
    for said in await both(stage, "raw"):
        assert said["result"]["content"] == []
    for said in await waiting:
        assert (said["error"]["code"], said["error"]["data"]) == (-32603, {"code": "timed-out"})
    over.set()


async def test_calls_of_tools_keep_to_the_limits_of_their_call_tree(stage: Stage) -> None:
    over = asyncio.Event()

    async def hangs(_line: str, _headers: Any, _body: bytes) -> AsyncIterator[bytes]:
        await over.wait()
        yield b""

    def deadline(seconds: float) -> dict[str, str]:
        return {"x-weft-deadline": str(round((time.time() + seconds) * 1000))}

    async def told(name: str, headers: Mapping[str, str]) -> Any:
        response = await stage.mesh.post(message(name, {"text": "x"}), headers)
        assert response.status_code == 200
        said = answered(response)
        return said["error"]["data"]["code"] if "error" in said else said["result"]["structuredContent"]

    stage.raw.handler = hangs
    assert await told("raw", deadline(0.3)) == "timed-out"
    over.set()
    for name in ("echo", "former.echo"):
        assert await told(name, deadline(-1)) == "timed-out"
        assert await told(name, {"x-weft-hops": ", ".join(["one", "other"] * 20)}) == "loop-detected"
        assert await told(name, deadline(LIMIT)) == {"text": "x"}
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta()}}
    asking = {"mcp-protocol-version": STATELESS, "mcp-method": "tools/list"}
    assert "tools" in answered(await stage.mesh.post(listing, {**asking, **deadline(LIMIT)}))["result"]
    late = answered(await stage.mesh.post(listing, {**asking, **deadline(-1)}))
    assert (late["id"], late["error"]["data"]) == (1, {"code": "timed-out"})


# Servers that die


async def dies(_line: str, _headers: Any, _body: bytes) -> AsyncIterator[bytes]:
    """Takes the request, and is gone."""
    return
    yield b""


async def dies_midway(_line: str, _headers: Any, _body: bytes) -> AsyncIterator[bytes]:
    """Begins an answer, and is gone."""
    yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    yield b"8\r\n: ping\n\n\r\n"
    await asyncio.sleep(0.05)
    raise ConnectionAbortedError


@pytest.mark.parametrize("death", [dies, dies_midway])
async def test_a_call_that_may_be_repeated_goes_to_the_next_server_when_one_dies_of_it(
    stage: Stage, death: Handler
) -> None:
    first, second = stage.twins
    for large in (False, True):
        for call in (stage.mesh.call, stage.mesh.call_2026):
            for each, other in ((first, second), (second, first)):
                each.handler, other.handler = (
                    death,
                    reply(b'{"jsonrpc": "2.0", "id": 7, %b}' % RESULT),
                )
                each.requests.clear()
                other.requests.clear()
                text = "x" * (5 * MB if large else 1)
                while not each.requests:
                    said = answered(await call("again", {"text": text}))
                    assert said["result"]["content"] == []
                [(headers, body)] = each.requests
                again, same = other.requests[-1]
                assert (same, again["idempotency-key"]) == (body, headers["idempotency-key"])
                assert again["x-envoy-attempt-count"] == "2"


@pytest.mark.parametrize("death", [dies, dies_midway])
async def test_a_call_that_may_not_be_repeated_is_made_once(stage: Stage, death: Handler) -> None:
    for each in stage.twins:
        each.handler = death
        each.requests.clear()
    async with asyncio.timeout(LIMIT):
        if death is dies:
            for said in await both(stage, "once"):
                assert (said["error"]["code"], said["error"]["data"]) == (-32603, {"code": "interrupted"})
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await stage.mesh.call("once")
            with pytest.raises(httpx.RemoteProtocolError):
                await stage.mesh.call_2026("once")
    requests = [*stage.twins[0].requests, *stage.twins[1].requests]
    assert len(requests) == 2
    assert not [headers for headers, _ in requests if "idempotency-key" in headers]
