"""Sessions with MCP servers of 2025-11-25, kept for calls by way of `tools.mesh`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import h11
import pytest
from tests.clock import Clock
from tests.mcp_servers import SESSIONS, McpApp, Toolbox, serving_mcp

from weft.aio.poll import until
from weft.errors import TimedOut, Unavailable
from weft.model.mcp_wire import SESSIONS_PATH
from weft.model.node import Address
from weft.sidecar.mcp_client import McpClient
from weft.sidecar.mcp_sessions import McpSessions, McpSessionService

HOST = "127.0.0.1"
LIMIT = 30.0
ALICE = "spiffe://weft.local/agent/alice/alice-1"
BOB = "spiffe://weft.local/agent/bob/bob-1"


class Scene:
    """A server and what keeps sessions with it."""

    def __init__(self, app: McpApp, sessions: McpSessions, client: McpClient, clock: Clock) -> None:
        self.app = app
        self.sessions = sessions
        self.client = client
        self.clock = clock

    async def session(self, caller: str = ALICE, client: str = "", *, again: bool = False) -> str:
        """The id of a client's session."""
        return (await self.sessions.session(caller, client, again=again)).session

    @property
    def begun(self) -> int:
        """How many sessions were begun: a client says so once for each."""
        return sum("mcp-protocol-version" not in each for each in self.app.requests)

    @property
    def ended(self) -> list[str]:
        """The sessions that were ended."""
        return [each["mcp-session-id"] for each in self.app.requests if each[":method"] == "DELETE"]


@asynccontextmanager
async def scene(
    *, stateless: bool = False, max_sessions: int = 100, app: McpApp | None = None
) -> AsyncIterator[Scene]:
    app = app or McpApp(Toolbox(), only=SESSIONS, stateless=stateless)
    clock = Clock()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving_mcp(app))
        client = McpClient(Address(HOST, port), "/mcp")
        sessions = McpSessions(client, max_sessions=max_sessions, idle_timeout=600.0, clock=clock)
        await stack.enter_async_context(sessions)
        yield Scene(app, sessions, client, clock)


async def test_a_client_has_one_session_and_others_have_others() -> None:
    async with scene() as at:
        first = await at.session()
        assert first
        assert await at.session() == first
        assert len({first, await at.session(BOB), await at.session(client="s1")}) == 3
        assert at.begun == 3


async def test_calls_that_come_together_share_the_session_that_is_about_to_begin() -> None:
    async with scene() as at:
        found = await asyncio.gather(*(at.session() for _ in range(20)))
        assert len(set(found)) == 1
        assert at.begun == 1


async def test_who_gives_up_waiting_leaves_the_session_to_the_others() -> None:
    async with scene() as at:
        one, other = (asyncio.create_task(at.session()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        assert await other
        assert at.begun == 1


async def test_another_attempt_keeps_a_session_that_the_server_knows() -> None:
    async with scene() as at:
        first = await at.session()
        assert await at.session(again=True) == first
        assert at.begun == 1


async def test_another_attempt_begins_a_new_session_where_the_server_has_forgotten_it() -> None:
    async with scene() as at:
        first = await at.session()
        at.app.forget_sessions()
        assert await at.session() == first
        second = await at.session(again=True)
        assert second != first
        assert await at.session() == second


async def test_a_server_that_keeps_no_sessions_gives_no_id() -> None:
    async with scene(stateless=True) as at:
        peer = await at.sessions.session(ALICE, "", again=False)
        assert (peer.session, peer.version) == ("", SESSIONS)


async def test_of_the_caller_that_has_most_the_session_used_longest_ago_makes_way() -> None:
    async with scene(max_sessions=3) as at, asyncio.timeout(LIMIT):
        bobs, first, second = await at.session(BOB), await at.session(), await at.session(client="a second")
        await at.session()
        await at.session(client="a third")

        async def ended() -> bool:
            return at.ended == [second]

        await until(ended)
        assert [await at.session(BOB), await at.session()] == [bobs, first]


async def test_a_session_that_nobody_uses_is_ended() -> None:
    async with scene() as at, asyncio.timeout(LIMIT):
        alices = await at.session()
        at.clock.now += 300
        bobs = await at.session(BOB)
        at.clock.now += 301
        at.sessions.end_idle()

        async def ended() -> bool:
            return at.ended == [alices]

        await until(ended)
        assert await at.session(BOB) == bobs


async def test_where_no_session_is_to_be_had_the_next_call_tries_again() -> None:
    app = McpApp(Toolbox(), only=SESSIONS)
    async with serving_mcp(app) as port:
        pass
    sessions = McpSessions(McpClient(Address(HOST, port), "/mcp"))
    async with sessions:
        with pytest.raises(Unavailable, match="begins no session"):
            await sessions.session(ALICE, "", again=False)
        async with serving_mcp(McpApp(Toolbox(), only=SESSIONS), port):
            assert (await sessions.session(ALICE, "", again=False)).session


async def test_a_server_that_hangs_is_not_waited_for() -> None:
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        await over.wait()
        outgoing.close()

    server = await asyncio.start_server(hang, HOST, 0)
    agent = Address(HOST, server.sockets[0].getsockname()[1])
    async with McpSessions(McpClient(agent, "/mcp", timeout=0.1)) as sessions:
        with pytest.raises(TimedOut):
            await sessions.session(ALICE, "", again=False)
    over.set()
    server.close()


# As Envoy asks


async def ask(socket: Path, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    reader, writer = await asyncio.open_unix_connection(socket)
    http = h11.Connection(h11.CLIENT)
    fields = [("host", "sidecar"), ("content-length", "0"), *headers.items()]
    writer.write(http.send(h11.Request(method="POST", target=path, headers=fields)) or b"")
    writer.write(http.send(h11.EndOfMessage()) or b"")
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(65536))
    assert isinstance(event, h11.Response)
    writer.close()
    return event.status_code, {name.decode(): value.decode() for name, value in event.headers}


async def test_envoy_is_told_the_session_of_a_call(tmp_path: Path) -> None:
    socket = tmp_path / "mcp.sock"
    async with scene() as at, McpSessionService(at.sessions, socket), asyncio.timeout(LIMIT):
        first = {"x-weft-caller": ALICE, "x-weft-tool": "echo", "x-envoy-attempt-count": "1"}
        status, headers = await ask(socket, SESSIONS_PATH + "/mcp", first)
        assert (status, headers["mcp-protocol-version"]) == (200, SESSIONS)
        assert headers["mcp-session-id"] == await at.session()
        at.app.forget_sessions()
        _, renewed = await ask(socket, SESSIONS_PATH + "/mcp", {**first, "x-envoy-attempt-count": "2"})
        assert renewed["mcp-session-id"] != headers["mcp-session-id"]


async def test_envoy_is_told_to_try_elsewhere_where_there_is_no_session(tmp_path: Path) -> None:
    async with scene() as at:
        client = at.client
    socket = tmp_path / "mcp.sock"
    async with McpSessions(client) as sessions, McpSessionService(sessions, socket), asyncio.timeout(LIMIT):
        status, headers = await ask(socket, SESSIONS_PATH + "/mcp", {"x-weft-caller": ALICE})
        assert (status, headers["x-weft-refused"]) == (503, "session")
        assert headers["content-type"] == "application/problem+json"
        assert (await ask(socket, "/else", {}))[0] == 404
