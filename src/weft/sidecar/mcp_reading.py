"""What the MCP server beside this sidecar lists: read whole, within limits, and again when it says so."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from weft.aio.backoff import backoff
from weft.errors import AgentFailed, MeshError, TimedOut
from weft.model.node import Address
from weft.model.offer import JsonObject, McpGeneration, McpOffer
from weft.sidecar.mcp_client import METHOD_NOT_FOUND, REQUEST_TIMEOUT, McpClient, McpError, McpPeer

logger = logging.getLogger(__name__)

MAX_ENTRIES = 5000
"""Of one list; what comes after is left out, with a note."""

MAX_ENTRY_BYTES = 256 * 1024
"""A tool, resource or prompt whose description is larger is left out, with a note."""

READING_TIMEOUT = 60.0
"""Seconds for all lists together."""

_MAX_NOTES = 5
_MAX_NAME = 60
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_UNSUPPORTED_PAUSE = 300.0
"""Seconds after which a server that told nothing of changes is asked for them again."""

_CHANGES = frozenset(f"notifications/{name}/list_changed" for name in ("tools", "resources", "prompts"))


@dataclass(frozen=True, slots=True)
class McpReading:
    """What came of reading a server's lists."""

    offer: McpOffer | None
    """None if the server could not be spoken to. Lists that could not be read are empty."""
    notes: tuple[str, ...] = ()
    """What could not be read or was left out, and why; for people."""
    failed: bool = False
    """Whether something could not be read that was asked for."""


@dataclass(frozen=True, slots=True)
class _List:
    """One of a server's lists."""

    name: str
    method: str
    capability: str
    member: str
    """Of the result."""
    key: str
    """What each entry is known by."""


_LISTS = (
    _List("tools", "tools/list", "tools", "tools", "name"),
    _List("resources", "resources/list", "resources", "resources", "uri"),
    _List("templates", "resources/templates/list", "resources", "resourceTemplates", "uriTemplate"),
    _List("prompts", "prompts/list", "prompts", "prompts", "name"),
)


@dataclass(slots=True)
class _Notes:
    """Notes of one list: the first few of a kind, and how many more there are."""

    texts: list[str] = field(default_factory=list)
    left_out: int = 0

    def leave_out(self, what: str) -> None:
        self.left_out += 1
        if self.left_out <= _MAX_NOTES:
            self.texts.append(what)

    def all(self, name: str) -> list[str]:
        more = self.left_out - _MAX_NOTES
        return [*self.texts, f"{name}: {more} more were left out"] if more > 0 else self.texts


class McpReader:
    """Reads the lists of one server. Keeps a session with it, if it is of the generation that has them."""

    def __init__(self, agent: Address, path: str, *, timeout: float = REQUEST_TIMEOUT) -> None:
        """`path` is where the server at `agent` takes requests; `timeout` is for each, in seconds."""
        self._path = path
        self._client = McpClient(agent, path, timeout=timeout)
        self._session: McpPeer | None = None
        self._peer: McpPeer | None = None
        self._met = asyncio.Event()

    async def read(self) -> McpReading:
        """Read all lists. What goes wrong is told in the notes of what it returns."""
        try:
            async with asyncio.timeout(READING_TIMEOUT):
                return await self._read()
        except TimeoutError:
            return McpReading(None, (f"MCP: the lists were not read within {READING_TIMEOUT:g} s",), True)
        except MeshError as error:
            return McpReading(None, (f"MCP at {self._path}: {error.detail}",), True)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when the server says that its lists are others now. Goes on until cancelled.

        It is called once a second at most. Begins with the first reading that finds a server.
        """
        pauses = backoff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        while True:
            await self._met.wait()
            try:
                async for _ in self._changes():
                    changed()
                    pauses = backoff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
                    await asyncio.sleep(1.0)
            except McpError as error:
                logger.debug("no news of the MCP server's lists: %s", error.detail)
                if error.error_code == METHOD_NOT_FOUND:
                    await asyncio.sleep(_UNSUPPORTED_PAUSE)
            except MeshError as error:
                logger.debug("no news of the MCP server's lists: %s", error.detail)
            await asyncio.sleep(_FIRST_PAUSE / 2 + next(pauses))

    async def aclose(self) -> None:
        """End the session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(MeshError):
                await self._client.leave(session)

    async def _read(self) -> McpReading:
        peer = await self._current_peer()
        lists: dict[str, tuple[JsonObject, ...]] = {}
        notes: list[str] = []
        failed = False
        for each in _LISTS:
            if each.capability not in peer.capabilities:
                continue
            found = _Notes()
            entries: list[JsonObject] = []
            try:
                async for entry in self._entries(peer, each, found):
                    entries.append(entry)  # noqa: PERF401 -- what came before a failure is kept
            except TimedOut as error:
                # It hangs: the next list would, too.
                notes.append(error.detail)
                failed = True
                break
            except MeshError as error:
                failed |= not _not_there(error)
                notes += [] if _not_there(error) else [error.detail]
                self._forget(error)
            lists[each.name] = tuple(entries)
            notes += found.all(each.name)
        offer = McpOffer(
            generation=peer.generation,
            path=self._path,
            server=peer.server,
            completions="completions" in peer.capabilities,
            **lists,
        )
        return McpReading(offer, tuple(notes), failed)

    async def _current_peer(self) -> McpPeer:
        """The server as it is now: it may have been replaced by another at the same address."""
        session = self._session
        if session is not None and await self._client.knows(session):
            return session
        peer = await self._client.meet()
        self._session = peer if peer.generation is McpGeneration.SESSIONS else None
        self._peer = peer
        self._met.set()
        return peer

    def _forget(self, error: MeshError) -> None:
        if isinstance(error, AgentFailed) and error.agent_status in {400, 404}:
            self._session = None

    async def _entries(self, peer: McpPeer, wanted: _List, notes: _Notes) -> AsyncIterator[JsonObject]:
        """The entries of one list, page by page. Raises MeshError."""
        cursor: str | None = None
        seen: set[str] = set()
        read = 0
        while True:
            result = await self._client.ask(peer, wanted.method, {"cursor": cursor} if cursor else None)
            page = result.get(wanted.member)
            if not isinstance(page, list):
                raise AgentFailed(f"{wanted.method}: the result has no list {wanted.member!r}")
            for number, raw in enumerate(page):
                if read + number >= MAX_ENTRIES:
                    notes.texts.append(f"{wanted.name}: only the first {MAX_ENTRIES} were read")
                    return
                if (entry := _checked(wanted, raw, read + number, notes)) is not None:
                    yield entry
            read += len(page)
            cursor = _next_cursor(wanted, result)
            if cursor is None:
                return
            if cursor in seen or not page:
                raise AgentFailed(f"{wanted.method}: the pages come to no end")
            seen.add(cursor)

    async def _changes(self) -> AsyncIterator[None]:
        peer = self._peer
        if peer is None or (peer.generation is McpGeneration.SESSIONS and not peer.session):
            raise McpError("the server keeps no sessions", code=METHOD_NOT_FOUND, agent_status=405)
        async with aclosing(self._client.messages(peer)) as messages:
            async for message in messages:
                if message.get("method") in _CHANGES:
                    yield
                elif "method" in message and "id" in message and peer.session:
                    await self._client.answer(peer, message)


def _not_there(error: MeshError) -> bool:
    """Whether a server says that it has no such list, though it says that it has the like."""
    return isinstance(error, McpError) and error.error_code == METHOD_NOT_FOUND


def _next_cursor(wanted: _List, result: JsonObject) -> str | None:
    cursor = result.get("nextCursor")
    if cursor is not None and not isinstance(cursor, str):
        raise AgentFailed(f"{wanted.method}: nextCursor is no text")
    return cursor or None


def _checked(wanted: _List, raw: object, number: int, notes: _Notes) -> JsonObject | None:
    """One entry, or None and a note if it is none."""
    if not isinstance(raw, dict) or not isinstance(raw.get(wanted.key), str) or not raw[wanted.key]:
        notes.leave_out(f"{wanted.name}: entry {number + 1} was left out: it has no {wanted.key}")
        return None
    name = repr(raw[wanted.key][:_MAX_NAME])
    if wanted.name == "tools" and not isinstance(raw.get("inputSchema"), dict):
        notes.leave_out(f"tools: {name} was left out: its inputSchema is no object")
        return None
    if len(json.dumps(raw)) > MAX_ENTRY_BYTES:
        notes.leave_out(f"{wanted.name}: {name} was left out: it is larger than {MAX_ENTRY_BYTES} bytes")
        return None
    return raw
