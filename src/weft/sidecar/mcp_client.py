"""MCP as the sidecar needs it of its own agent: both generations, over streamable HTTP.

What the `mcp` package would do takes longer to load, and more memory, than the rest of the sidecar. What a
server says is read strictly, and within limits of size and time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from weft.errors import AgentFailed, Interrupted, TimedOut
from weft.model.foreign_json import foreign_object
from weft.model.mcp_wire import META_PREFIX, METHOD_HEADER, SESSION_HEADER, VERSION_HEADER
from weft.model.node import Address
from weft.model.offer import JsonObject, McpGeneration
from weft.sdk.sse import EventDecoder
from weft.sdk.wire import EVENT_STREAM, JSON
from weft.sidecar.agent_stream import StreamedAnswer, agent_stream

REQUEST_TIMEOUT = 10.0
"""Seconds that a server has for one answer."""

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of one answer; a longer one is not read."""

KNOWN_SESSION_VERSIONS = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
"""Versions of the protocol in which `initialize` begins a session."""

METHOD_NOT_FOUND = -32601


_MAX_SESSION_ID = 1024
_MAX_TEXT = 300
_CLIENT = {"name": "weft-sidecar", "version": "1"}


class McpError(AgentFailed):
    """The server answered with an error of JSON-RPC."""

    def __init__(self, detail: str, *, code: int, agent_status: int) -> None:
        super().__init__(detail, agent_status=agent_status)
        self.error_code = code


@dataclass(frozen=True, slots=True)
class McpPeer:
    """A server with which it is settled how to speak."""

    generation: McpGeneration
    version: str
    """Of the protocol."""
    capabilities: JsonObject = field(default_factory=dict)
    server: JsonObject = field(default_factory=dict)
    """`name`, `version`, `title`, `instructions`, as far as it says them."""
    session: str = ""
    """The id of the session, in the generation that has them, and if the server keeps one."""


class McpClient:
    """Asks one server. Holds no connection."""

    def __init__(self, agent: Address, path: str, *, timeout: float = REQUEST_TIMEOUT) -> None:
        """`path` is where the server at `agent` takes requests; `timeout` is for each, in seconds."""
        self._agent = agent
        self._path = path
        self._timeout = timeout
        self._ids = count(1)

    async def meet(self) -> McpPeer:
        """Settle how to speak: without sessions if the server can, else with a new one.

        Raises what `ask` raises.
        """
        try:
            return await self._discover()
        except (AgentFailed, Interrupted):
            # Whatever else it says to that: it may still be a server of the older kind.
            return await self.initialize()

    async def initialize(self) -> McpPeer:
        """Begin a session. Raises what `ask` raises."""
        params = {"protocolVersion": McpGeneration.SESSIONS.value, "capabilities": {}, "clientInfo": _CLIENT}
        async with self._in_time("initialize"):
            answer, result = await self._exchange("initialize", params, {})
        version = result.get("protocolVersion")
        if version not in KNOWN_SESSION_VERSIONS:
            raise AgentFailed(f"initialize: the server speaks version {_shown(version)}, which is not known")
        session = answer.headers.get(SESSION_HEADER, "")
        if len(session) > _MAX_SESSION_ID or not (session.isascii() and session.isprintable()):
            raise AgentFailed("initialize: the server's session id is too long, or no ASCII")
        described = _described(result.get("serverInfo"), result)
        capabilities = _object(result.get("capabilities"))
        peer = McpPeer(McpGeneration.SESSIONS, str(version), capabilities, described, session)
        await self.notify(peer, "notifications/initialized")
        return peer

    async def ask(self, peer: McpPeer, method: str, params: Mapping[str, Any] | None = None) -> JsonObject:
        """Return the result of a request.

        Raises TimedOut, McpError for an error of the server's, AgentFailed for what is no answer of MCP,
        Refused and Interrupted where there is no connection.
        """
        async with self._in_time(method):
            _, result = await self._exchange(method, _params(peer, params), _headers(peer, method))
            return result

    async def notify(self, peer: McpPeer, method: str) -> None:
        """Send a notification. Raises what `ask` raises."""
        await self._send(peer, {"jsonrpc": "2.0", "method": method}, method)

    async def answer(self, peer: McpPeer, request: JsonObject) -> None:
        """Answer what the server asks: a ping, or what this client cannot do. Raises what `ask` raises."""
        known = request.get("method") == "ping"
        error = {"code": METHOD_NOT_FOUND, "message": "a sidecar does not do that"}
        outcome = {"result": {}} if known else {"error": error}
        await self._send(peer, {"jsonrpc": "2.0", "id": request.get("id"), **outcome}, "an answer")

    async def knows(self, peer: McpPeer) -> bool:
        """Whether the server still knows the session. Raises what `ask` raises but for AgentFailed."""
        try:
            await self.ask(peer, "ping")
        except McpError as error:
            # Some cannot do that, but would say so in the session only.
            return error.agent_status not in {400, 404}
        except AgentFailed:
            return False
        return True

    async def leave(self, peer: McpPeer) -> None:
        """End the session, if there is one. Raises what `ask` raises."""
        if not peer.session:
            return
        headers = _headers(peer, "")
        async with (
            self._in_time("DELETE"),
            agent_stream(self._agent, "DELETE", self._path, headers) as answer,
        ):
            await answer.body(MAX_ANSWER_BYTES)

    async def messages(self, peer: McpPeer) -> AsyncGenerator[JsonObject, None]:
        """What the server says of its own accord, until it ends that.

        Raises McpError with the code METHOD_NOT_FOUND where it says nothing, and what `ask` raises but for
        TimedOut: it may be silent for ever.
        """
        stream = (
            self._session_stream(peer)
            if peer.generation is McpGeneration.SESSIONS
            else self._subscription(peer)
        )
        async with aclosing(stream) as messages:
            async for message in messages:
                yield message

    async def _discover(self) -> McpPeer:
        version = McpGeneration.STATELESS.value
        peer = McpPeer(McpGeneration.STATELESS, version)
        result = await self.ask(peer, "server/discover")
        versions = result.get("supportedVersions")
        if not isinstance(versions, list) or version not in versions:
            raise AgentFailed(f"server/discover: the server does not speak {version}")
        info = _object(result.get("_meta")).get(f"{META_PREFIX}serverInfo")
        return McpPeer(
            peer.generation, version, _object(result.get("capabilities")), _described(info, result)
        )

    async def _exchange(
        self, method: str, params: JsonObject, headers: Mapping[str, str]
    ) -> tuple[StreamedAnswer, JsonObject]:
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        async with agent_stream(self._agent, "POST", self._path, *_packed(message, headers)) as answer:
            if answer.status < 400 and answer.media_type == EVENT_STREAM:
                return answer, _result(method, answer.status, await _streamed(method, answer, number))
            document = await answer.body(MAX_ANSWER_BYTES)
            return answer, _result(method, answer.status, _document(method, answer, document, number))

    async def _send(self, peer: McpPeer, message: JsonObject, what: str) -> None:
        packed = _packed(message, _headers(peer, str(message.get("method", ""))))
        async with (
            self._in_time(what),
            agent_stream(self._agent, "POST", self._path, *packed) as answer,
        ):
            if answer.status >= 400:
                raise AgentFailed(f"{what}: answered {answer.status}", agent_status=answer.status)

    async def _session_stream(self, peer: McpPeer) -> AsyncGenerator[JsonObject, None]:
        headers = {"Accept": f"{EVENT_STREAM}, {JSON}", **_headers(peer, "")}
        async with agent_stream(self._agent, "GET", self._path, headers) as answer:
            _check_stream("GET", answer)
            async with aclosing(_events(answer, "GET")) as messages:
                async for message in messages:
                    yield message

    async def _subscription(self, peer: McpPeer) -> AsyncGenerator[JsonObject, None]:
        method = "subscriptions/listen"
        lists = ("tools", "prompts", "resources")
        wanted = {f"{name}ListChanged": True for name in lists if name in peer.capabilities}
        message = {
            "jsonrpc": "2.0",
            "id": f"sidecar-{next(self._ids)}",
            "method": method,
            "params": _params(peer, {"notifications": wanted}),
        }
        packed = _packed(message, _headers(peer, method))
        async with agent_stream(self._agent, "POST", self._path, *packed) as answer:
            if answer.status >= 400 and answer.media_type == JSON:
                _result(method, answer.status, _parsed(method, await answer.body(MAX_ANSWER_BYTES)))
            _check_stream(method, answer)
            async with aclosing(_events(answer, method)) as messages:
                async for each in messages:
                    yield each

    @asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError:
            raise TimedOut(f"{what}: the server did not answer within {self._timeout:g} s") from None


def _headers(peer: McpPeer, method: str) -> dict[str, str]:
    headers = {VERSION_HEADER: peer.version}
    if peer.session:
        headers[SESSION_HEADER] = peer.session
    if method and peer.generation is McpGeneration.STATELESS:
        headers[METHOD_HEADER] = method
    return headers


def _params(peer: McpPeer, params: Mapping[str, Any] | None) -> JsonObject:
    given = dict(params or {})
    if peer.generation is McpGeneration.STATELESS:
        given["_meta"] = {
            f"{META_PREFIX}protocolVersion": peer.version,
            f"{META_PREFIX}clientInfo": _CLIENT,
            f"{META_PREFIX}clientCapabilities": {},
        }
    return given


def _packed(message: JsonObject, headers: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    fixed = {"Accept": f"{JSON}, {EVENT_STREAM}", "Content-Type": JSON}
    return {**fixed, **headers}, json.dumps(message).encode()


async def _streamed(what: str, answer: StreamedAnswer, number: int) -> JsonObject:
    """The answer among the events of a stream. What else there is in it is not for a sidecar."""
    async with aclosing(_events(answer, what)) as events:
        async for each in events:
            if _answers(each, number):
                return each
    raise AgentFailed(f"{what}: the stream ended without an answer")


async def _events(answer: StreamedAnswer, what: str) -> AsyncGenerator[JsonObject, None]:
    decoder = EventDecoder(MAX_ANSWER_BYTES)
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            try:
                events = decoder.feed(chunk)
            except ValueError as error:
                raise AgentFailed(f"{what}: the stream makes no sense: {error}") from error
            for event in events:
                if event.name == "message" and event.data:
                    yield _parsed(what, event.data.encode())


def _check_stream(what: str, answer: StreamedAnswer) -> None:
    if answer.status in {404, 405, 501} and answer.media_type != JSON:
        raise McpError(f"{what}: there is no stream", code=METHOD_NOT_FOUND, agent_status=answer.status)
    if answer.status >= 400 or answer.media_type != EVENT_STREAM:
        raise AgentFailed(f"{what}: answered {answer.status}, no stream", agent_status=answer.status)


def _document(what: str, answer: StreamedAnswer, document: bytes, number: int) -> JsonObject:
    """The answer that a body holds. Raises AgentFailed if it is none."""
    failed = answer.status >= 400
    if answer.media_type != JSON or not document:
        media_type = answer.media_type or "no content type"
        detail = f"{what}: answered {answer.status} with {media_type[:60]!r}, not with JSON"
        raise AgentFailed(detail, agent_status=answer.status)
    message = _parsed(what, document)
    if not failed and not _answers(message, number):
        raise AgentFailed(f"{what}: the answer is to another request (id {_shown(message.get('id'))})")
    return message


def _answers(message: JsonObject, number: int) -> bool:
    same = message.get("id") == number and not isinstance(message.get("id"), bool)
    return same and ("result" in message or "error" in message)


def _parsed(what: str, document: bytes) -> JsonObject:
    try:
        message = foreign_object(document, limit=MAX_ANSWER_BYTES)
    except ValueError as error:
        raise AgentFailed(f"{what}: the answer cannot be read: {error}") from error
    if message.get("jsonrpc") != "2.0":
        raise AgentFailed(f"{what}: the answer is no message of JSON-RPC 2.0")
    return message


def _result(method: str, status: int, message: JsonObject) -> JsonObject:
    """The result in an answer. Raises McpError for an error, AgentFailed for what is neither."""
    error = message.get("error")
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        detail = f"{method}: {error['code']} {_shown(error.get('message', ''))}"
        raise McpError(detail, code=error["code"], agent_status=status)
    result = message.get("result")
    if not isinstance(result, dict) or status >= 400:
        raise AgentFailed(f"{method}: answered {status} without a result", agent_status=status)
    if result.get("resultType", "complete") != "complete":
        raise AgentFailed(f"{method}: the result is {_shown(result['resultType'])}, not complete")
    return result


def _described(info: Any, result: JsonObject) -> JsonObject:
    said = {**_object(info), "instructions": result.get("instructions")}
    names = ("name", "version", "title", "instructions")
    return {name: said[name] for name in names if isinstance(said.get(name), str)}


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    return repr(value)[:_MAX_TEXT]
