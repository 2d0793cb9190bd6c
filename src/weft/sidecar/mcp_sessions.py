"""Sessions with the MCP server beside this sidecar, for calls that come by way of `tools.mesh`.

Servers of 2025-11-25 and before want every request to be of a session, which clients of `tools.mesh` do not
have with them. Envoy asks here about each such call, by headers only (see `weft.model.mcp_wire`), and puts
what is answered into it. One session is for one client: a caller's identity, and the session that this one
has with `tools.mesh`, if it has one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from weft.aio.tasks import TaskOwner
from weft.errors import MeshError, NotFound, TimedOut, Unavailable
from weft.model.mcp_wire import (
    ATTEMPT_HEADER,
    CLIENT_SESSION_HEADER,
    SESSION_HEADER,
    SESSION_LOST,
    SESSIONS_PATH,
    VERSION_HEADER,
)
from weft.model.node import Address
from weft.sdk.wire import CALLER_HEADER, REFUSED_HEADER
from weft.sidecar.http import why
from weft.sidecar.local_server import LocalAnswer, LocalRequest, LocalServer, problem_answer
from weft.sidecar.mcp_client import McpClient, McpPeer

logger = logging.getLogger(__name__)

MAX_SESSIONS: Final = 100
"""With one server at a time; of the caller that has most, the one makes way that was used longest ago."""

IDLE_TIMEOUT: Final = 600.0
"""Seconds after which a session that nobody used is ended."""

KEEP_ALIVE: Final = 3900.0
"""Seconds for which Envoy's connections are kept: longer than the hour after which Envoy closes them."""

_SWEEP_INTERVAL: Final = 30.0

_Client = tuple[str, str]
"""A caller's SPIFFE ID, and its session with `tools.mesh`."""


@dataclass(slots=True)
class _Session:
    """One client's session, which may still be about to begin."""

    beginning: asyncio.Task[McpPeer | MeshError]
    used: float

    @property
    def outcome(self) -> McpPeer | MeshError | None:
        """What came of it; None: not known yet."""
        return self.beginning.result() if self.beginning.done() else None


class McpSessions:
    """Keeps sessions with one server. Use it as an async context manager."""

    def __init__(
        self,
        client: McpClient,
        *,
        max_sessions: int = MAX_SESSIONS,
        idle_timeout: float = IDLE_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`idle_timeout` is in seconds of `clock`."""
        self._client = client
        self._max_sessions = max_sessions
        self._idle_timeout = idle_timeout
        self._clock = clock
        self._sessions: OrderedDict[_Client, _Session] = OrderedDict()
        """Those used longest ago first."""
        self._tasks = TaskOwner("MCP sessions")

    async def session(self, caller: str, client_session: str, *, again: bool) -> McpPeer:
        """The session of a client, begun if there is none yet.

        `again`: a call failed, here or elsewhere, so the server is asked whether it still knows the session.
        Raises Unavailable or TimedOut where there is none to be had.
        """
        session = self._session((caller, client_session), again=again)
        # What begins does so for all who wait for it.
        outcome = await asyncio.shield(session.beginning)
        if isinstance(outcome, McpPeer):
            return outcome
        detail = f"the MCP server begins no session: {outcome.detail}"
        raise TimedOut(detail) if isinstance(outcome, TimedOut) else Unavailable(detail)

    def end_idle(self) -> None:
        """End the sessions that nobody has used for long."""
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if self._clock() - oldest.used < self._idle_timeout:
                return
            self._end_session(next(iter(self._sessions)))

    async def __aenter__(self) -> Self:
        self._tasks.start(self._sweep(), name="end idle ones", endless=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The server, which ends with its sidecar as a rule, is not told.
        await self._tasks.close()

    def _session(self, client: _Client, *, again: bool) -> _Session:
        session = self._sessions.pop(client, None)
        outcome = None if session is None else session.outcome
        if session is None or isinstance(outcome, MeshError) or (again and outcome is not None):
            before = outcome if isinstance(outcome, McpPeer) else None
            beginning = self._tasks.start(self._begin(before), name="begin")
            session = _Session(beginning, self._clock())
        session.used = self._clock()
        self._sessions[client] = session
        if len(self._sessions) > self._max_sessions:
            self._make_room()
        return session

    async def _begin(self, before: McpPeer | None) -> McpPeer | MeshError:
        """The session `before` if the server still knows it, else a new one, or why there is none."""
        try:
            if before is not None and await self._client.knows(before):
                return before
            return await self._client.initialize()
        except MeshError as error:
            return error

    def _make_room(self) -> None:
        # What a session is called its caller says: with many names it is to cost nobody else's.
        (greediest, _), *_ = Counter(caller for caller, _ in self._sessions).most_common(1)
        self._end_session(next(each for each in self._sessions if each[0] == greediest))

    def _end_session(self, client: _Client) -> None:
        self._tasks.start(self._end(self._sessions.pop(client)), name="end")

    async def _end(self, session: _Session) -> None:
        outcome = await session.beginning
        if isinstance(outcome, McpPeer):
            with suppress(MeshError):
                await self._client.leave(outcome)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(_SWEEP_INTERVAL, self._idle_timeout))
            self.end_idle()


@asynccontextmanager
async def sessions_kept(agent: Address, path: str, socket: Path | None) -> AsyncIterator[None]:
    """For the block, keep sessions with the server that takes requests at `path`, and answer at `socket`.

    Without a socket there is none to keep. Raises Unavailable if it cannot be made.
    """
    if socket is None:
        yield
        return
    async with McpSessions(McpClient(agent, path)) as sessions, AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(McpSessionService(sessions, socket))
        except OSError as error:
            raise Unavailable(f"{socket} cannot be listened at: {why(error)}") from error
        yield


class McpSessionService:
    """Answers Envoy at a Unix socket. Use it as an async context manager."""

    def __init__(self, sessions: McpSessions, socket: Path) -> None:
        """`socket` is yet to be made."""
        self._sessions = sessions
        self._socket = socket
        self._server = LocalServer("MCP sessions", self._answer, max_body=0, request_timeout=KEEP_ALIVE)

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError where that is not possible."""
        await self._server.listen_at(self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.aclose()

    async def _answer(self, request: LocalRequest) -> LocalAnswer:
        if not request.path.startswith(SESSIONS_PATH):
            raise NotFound("there is nothing here but sessions")
        asked = request.headers
        try:
            peer = await self._sessions.session(
                asked.get(CALLER_HEADER, ""),
                asked.get(CLIENT_SESSION_HEADER, ""),
                again=asked.get(ATTEMPT_HEADER, "1") != "1",
            )
        except MeshError as error:
            logger.warning("a call of a tool is refused: %s", error.detail)
            # It certainly was not processed: another instance may be tried.
            return problem_answer(error, {REFUSED_HEADER: SESSION_LOST})
        session = {SESSION_HEADER: peer.session} if peer.session else {}
        return LocalAnswer(200, {VERSION_HEADER: peer.version, **session})
