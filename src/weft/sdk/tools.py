"""Tools, as `tools.mesh` has them: requests of MCP 2026-07-28, and what they are answered with.

The library of MCP is not needed for that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from pydantic_core import from_json, to_json

from weft.errors import AgentFailed, InvalidRequest, MeshError, NotFound
from weft.model.mcp_wire import (
    MCP_PATH,
    META_PREFIX,
    METHOD_HEADER,
    NAME_HEADER,
    TOOLS_CALL,
    TOOLS_HOST,
    VERSION_HEADER,
)
from weft.model.names import MESH_DOMAIN
from weft.model.offer import McpGeneration
from weft.sdk.calls import fetch
from weft.sdk.problem import read_error
from weft.sdk.sse import EventDecoder
from weft.sdk.transport import Call, Transport
from weft.sdk.wire import ERROR_HEADER, EVENT_STREAM, JSON, MAX_ANSWER_BYTES

HOST: Final = f"{TOOLS_HOST}.{MESH_DOMAIN}"

MAX_PAGES: Final = 1000
"""Of a list."""

_INVALID_PARAMS = -32602
_UNKNOWN = ("Unknown tool", "Resource not found", "Unknown prompt")
_VERSION = McpGeneration.STATELESS.value
_META = {
    f"{META_PREFIX}protocolVersion": _VERSION,
    f"{META_PREFIX}clientInfo": {"name": "weft", "version": "1"},
    f"{META_PREFIX}clientCapabilities": {},
}
_ids = count(1)


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool that this program may call."""

    name: str
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of its arguments."""
    definition: Mapping[str, Any] = field(default_factory=dict)
    """All that is told of it, as MCP writes it."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool came to."""

    content: tuple[Mapping[str, Any], ...] = ()
    """As MCP writes it: texts, images, resources."""
    structured: Any = None
    """As JSON types, where the tool gives that."""

    @property
    def text(self) -> str:
        """Its texts, one below the other."""
        return _text(self.content)


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One request to `tools.mesh`."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those of MCP; names in lower case."""

    def call(self) -> Call:
        """The request as it is sent. Raises InvalidRequest if JSON cannot say it."""
        params = {**self.params, "_meta": _META}
        message = {"jsonrpc": "2.0", "id": next(_ids), "method": self.method, "params": params}
        try:
            body = to_json(message, by_alias=True)
        except ValueError as error:  # of pydantic_core, too
            raise InvalidRequest(f"the arguments cannot be written as JSON: {error}") from error
        named = {NAME_HEADER: header_value(str(self.params["name"]))} if "name" in self.params else {}
        fixed = {
            "accept": f"{JSON}, {EVENT_STREAM}",
            "content-type": JSON,
            VERSION_HEADER: _VERSION,
            METHOD_HEADER: self.method,
        }
        return Call("POST", HOST, MCP_PATH, {**self.headers, **fixed, **named}, body)


async def ask(
    transport: Transport, request: ToolRequest, timeout: float, *, repeatable: bool = False
) -> Mapping[str, Any]:
    """Return the result of a request.

    Raises NotFound for a tool that is not there, or not for this program; InvalidRequest; what the mesh
    could not do, as `Mesh.request` does; AgentFailed for an error of the tool's server.
    """
    call = request.call()
    try:
        body = await fetch(transport, call, timeout, repeatable=repeatable)
    except AgentFailed as error:
        if isinstance(error.body, dict) and isinstance(error.body.get("error"), dict):
            raise _failure(error.body["error"], error.agent_status) from error
        raise
    message = _message(body)
    if isinstance(message.get("error"), dict):
        raise _failure(message["error"], 200)
    result = message.get("result")
    if not isinstance(result, dict):
        raise _nonsense()
    if result.get("resultType", "complete") != "complete":
        raise AgentFailed("the tool wants input of its caller, which this client does not give", body=result)
    return result


async def list_tools(transport: Transport, headers: Mapping[str, str], timeout: float) -> list[ListedTool]:
    """All tools, page by page; `timeout` is for each. Raises what `ask` raises."""
    found: list[ListedTool] = []
    cursor: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        page = await ask(transport, ToolRequest("tools/list", cursor, headers), timeout, repeatable=True)
        try:
            found += [_listed(each) for each in page["tools"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise _nonsense() from error
        after = page.get("nextCursor")
        if not isinstance(after, str) or not after:
            return found
        cursor = {"cursor": after}
    raise AgentFailed(f"the list of tools has more than {MAX_PAGES} pages")


async def call_tool(
    transport: Transport,
    name: str,
    arguments: Mapping[str, Any],
    headers: Mapping[str, str],
    timeout: float,
    *,
    repeatable: bool,
) -> ToolResult:
    """Call a tool. Raises what `ask` raises, and AgentFailed where the tool says that it failed."""
    request = ToolRequest(TOOLS_CALL, {"name": name, "arguments": arguments}, headers)
    result = await ask(transport, request, timeout, repeatable=repeatable)
    content = result.get("content", [])
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise _nonsense()
    if result.get("isError") is True:
        raise AgentFailed(_text(content) or f"tool {name!r} failed", agent_status=200, body=result)
    return ToolResult(tuple(content), result.get("structuredContent"))


def header_value(text: str) -> str:
    """`text` as MCP writes it into a header: as it is where that can be, else in base64."""
    plain = text.isascii() and text.isprintable() and text == text.strip()
    if plain and not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def _listed(definition: Mapping[str, Any]) -> ListedTool:
    name, schema = definition["name"], definition.get("inputSchema", {})
    if not isinstance(name, str) or not isinstance(schema, dict):
        raise TypeError("a tool has a name and a schema")
    return ListedTool(name, str(definition.get("description") or ""), schema, definition)


def _message(body: bytes) -> Mapping[str, Any]:
    """The answer in a body: JSON, or the last event of a stream."""
    try:
        if not body.lstrip().startswith(b"{"):
            events = EventDecoder(MAX_ANSWER_BYTES).feed(body)
            body = [each for each in events if each.name == "message" and each.data][-1].data.encode()
        message = from_json(body)
    except (ValueError, IndexError) as error:
        raise _nonsense() from error
    if not isinstance(message, dict):
        raise _nonsense()
    return message


def _failure(error: Mapping[str, Any], status: int) -> MeshError:
    """What an error of JSON-RPC stands for."""
    said = str(error.get("message", ""))
    data = error.get("data")
    if isinstance(data, dict) and isinstance(data.get("code"), str):
        # The mesh's own: its code is that of the error in weft.errors.
        return read_error(HOST, status, {ERROR_HEADER: data["code"]}, to_json({"detail": said}))
    if error.get("code") == _INVALID_PARAMS:
        return (NotFound if said.startswith(_UNKNOWN) else InvalidRequest)(said)
    return AgentFailed(said or f"{HOST} answered an error", agent_status=status, body=dict(error))


def _text(content: Any) -> str:
    texts = [each.get("text") for each in content if each.get("type") == "text"]
    return "\n".join(each for each in texts if isinstance(each, str))


def _nonsense() -> AgentFailed:
    return AgentFailed(f"{HOST} answered what is no answer of MCP", agent_status=200)
