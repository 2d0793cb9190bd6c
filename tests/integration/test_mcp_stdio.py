"""Programs that speak MCP on their standard streams, served by HTTP to the official client."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from tests import mcp_servers

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.model.node import Address
from weft.model.offer import McpGeneration
from weft.sidecar.mcp_reading import McpReader

HOST = "127.0.0.1"
LIMIT = 60.0
PLAIN = (sys.executable, str(Path(__file__).with_name("mcp_stdio_server.py")))
OFFICIAL = (sys.executable, mcp_servers.__file__, "--stdio")
WRAPPER = (sys.executable, "-P", "-m", "weft.mcp_stdio", "--")

pytestmark = pytest.mark.timeout(180)


class Wrapped:
    """The wrapper's process."""

    def __init__(self, process: Child, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/mcp"

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def logs(self, text: str) -> None:
        """Wait until it has said that."""

        async def said() -> bool:
            return text in self.log

        async with asyncio.timeout(LIMIT):
            await until(said)

    async def ready(self) -> None:
        """Wait until it serves."""

        async def serves() -> bool:
            assert self.process.running, self.log
            try:
                _, writer = await asyncio.open_connection(HOST, self.port)
            except OSError:
                return False
            writer.close()
            return True

        async with asyncio.timeout(LIMIT):
            await until(serves)


@asynccontextmanager
async def wrapped(directory: Path, *command: str, ready: bool = True) -> AsyncIterator[Wrapped]:
    with reserve_port(HOST) as reserved:
        port = reserved.port
    log = directory / "wrapper.log"
    async with Guard(grace=0.1) as guard:
        with log.open("wb") as errors:
            environ = {**os.environ, "PORT": str(port)}
            process = await spawn((*WRAPPER, *command), guard=guard, environ=environ, stderr=errors.fileno())
        running = Wrapped(process, port, log)
        try:
            if ready:
                await running.ready()
            yield running
        finally:
            await process.stop(10)


def text_of(result: Any) -> str:
    return str(result.content[0].text)


async def has_ended(pid: int) -> None:
    async def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    async with asyncio.timeout(LIMIT):
        await until(gone)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_of_both_generations_call_the_official_servers_tools(tmp_path: Path, mode: Any) -> None:
    async with wrapped(tmp_path, *OFFICIAL) as server, Client(server.url, mode=mode) as client:
        assert (client.server_info.name, client.instructions) == ("toolbox", "Use it well.")  # type: ignore[union-attr]
        assert (await client.list_tools()).tools[0].name == "echo"
        assert text_of(await client.call_tool("echo", {"text": "hi"})) == "hi"
        assert (await client.call_tool("failing", {})).is_error
        assert (await client.list_resources()).resources[0].uri == "mem://é"
        assert (await client.list_resource_templates()).resource_templates[0].name == "notes"
        read = await client.read_resource("mem://é")
        assert read.contents[0].text == "content of mem://é"  # type: ignore[union-attr]
        assert (await client.list_prompts()).prompts[0].name == "greet"
        prompt = await client.get_prompt("greet")
        assert prompt.messages[0].content.text == "say greet"  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("nothing", {})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_of_both_generations_call_an_older_servers_tools(tmp_path: Path, mode: Any) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(getattr(message, "method", ""))

    async with (
        wrapped(tmp_path, *PLAIN) as server,
        Client(server.url, mode=mode, message_handler=hear) as client,
    ):
        assert text_of(await client.call_tool("echo", {"text": "grüße"})) == "grüße"
        assert text_of(await client.call_tool("garbage", {"text": "still"})) == "still"
        assert "it begins" in server.log
        assert "what is no message" in server.log
        if mode == "auto":
            async with client.listen(tools_list_changed=True) as changes, asyncio.timeout(LIMIT):
                await client.call_tool("more", {})
                await anext(aiter(changes))
        else:
            async with asyncio.timeout(LIMIT):
                while "notifications/tools/list_changed" not in heard:  # its stream may not be there yet
                    await client.call_tool("more", {})
                    await asyncio.sleep(0.05)
        names = [each.name for each in (await client.list_tools(cache_mode="refresh")).tools]
        assert "another" in names


async def test_a_sidecar_reads_it_as_a_server_without_sessions(tmp_path: Path) -> None:
    async with wrapped(tmp_path, *PLAIN) as server:
        read = await McpReader(Address(HOST, server.port), "/mcp").read()
    assert (read.notes, read.failed) == ((), False)
    assert read.offer is not None
    assert read.offer.generation is McpGeneration.STATELESS
    assert [each["name"] for each in read.offer.tools][:2] == ["echo", "pid"]


async def test_calls_run_side_by_side(tmp_path: Path) -> None:
    async with (
        wrapped(tmp_path, *PLAIN) as server,
        Client(server.url) as one,
        Client(server.url) as other,
    ):
        waiting = asyncio.create_task(one.call_tool("wait", {"text": "long"}))
        await server.logs("it waits")
        answers = await asyncio.gather(*(other.call_tool("echo", {"text": str(n)}) for n in range(50)))
        assert [text_of(each) for each in answers] == [str(n) for n in range(50)]
        assert not waiting.done()
        waiting.cancel()
        await server.logs("cancelled: long")


async def test_a_client_that_breaks_off_cancels_what_the_server_does(tmp_path: Path) -> None:
    told = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        assert (progress, total, message) == (1, 2, "half way")
        told.set()

    async with wrapped(tmp_path, *OFFICIAL) as server, Client(server.url) as client:
        call = asyncio.create_task(client.call_tool("slow", {}, progress_callback=hear))
        async with asyncio.timeout(LIMIT):
            await told.wait()
        call.cancel()
        await asyncio.wait([call])

        async def cancelled() -> bool:
            return text_of(await client.call_tool("cancelled", {})) == "1"

        async with asyncio.timeout(LIMIT):
            await until(cancelled)


async def test_a_server_that_ends_at_once_is_told_of_by_its_exit_code(tmp_path: Path) -> None:
    script = "import sys; print('no, sorry'); sys.exit(3)"
    async with wrapped(tmp_path, sys.executable, "-c", script, ready=False) as server:
        async with asyncio.timeout(LIMIT):
            assert await server.process.wait() == 3
        assert "what is no message: b'no, sorry'" in server.log


async def test_it_ends_with_the_server_and_with_its_exit_code(tmp_path: Path) -> None:
    async with wrapped(tmp_path, *PLAIN) as server:
        async with Client(server.url) as client:
            with pytest.raises(Exception):  # noqa: B017, PT011 -- whichever way the connection breaks
                await client.call_tool("exit", {"text": "7"})
        async with asyncio.timeout(LIMIT):
            assert await server.process.wait() == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_the_server_ends_with_it_however_that_ends(tmp_path: Path, number: int) -> None:
    async with wrapped(tmp_path, *PLAIN) as server:
        async with Client(server.url) as client:
            pid = int(text_of(await client.call_tool("pid", {})))
        server.process.send(number)
        async with asyncio.timeout(LIMIT):
            code = await server.process.wait()
        assert code == (137 if number == signal.SIGKILL else 0)
        await has_ended(pid)


async def test_a_server_that_ignores_the_end_of_its_input_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
        "time.sleep(600)"
    )
    async with wrapped(tmp_path, sys.executable, "-c", script, ready=False) as server:
        await server.logs("what is no message: b'up'")
        server.process.send(signal.SIGTERM)
        async with asyncio.timeout(LIMIT):
            assert await server.process.wait() == 0


async def test_a_line_without_end_is_not_kept(tmp_path: Path) -> None:
    async with wrapped(tmp_path, *PLAIN) as server:
        async with Client(server.url) as client:
            with pytest.raises(MCPError, match="closed"):
                await client.call_tool("endless", {})
        await server.logs("a line of more than")
        async with asyncio.timeout(LIMIT):
            assert await server.process.wait() != 0


async def test_a_command_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    async with wrapped(tmp_path, "no-such-server", ready=False) as server:
        async with asyncio.timeout(LIMIT):
            assert await server.process.wait() == 126
        assert "'no-such-server' cannot be started: No such file" in server.log


async def test_bad_requests_do_no_harm(tmp_path: Path) -> None:
    async with wrapped(tmp_path, *PLAIN) as server, httpx.AsyncClient(trust_env=False) as http:
        json = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        modern = {
            **json,
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "echo",
        }
        meta = (
            '{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
            '"io.modelcontextprotocol/clientCapabilities":{}}'
        )
        half = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            f'{{"name":"echo","arguments":{{"text":"\\ud800"}},"_meta":{meta}}}}}'
        )
        answer = await http.post(server.url, content=half, headers=modern)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
        assert (await http.post(server.url, content="{", headers=modern)).json()["error"]["code"] == -32700
        foreign = {**modern, "origin": "https://evil.example"}
        assert (await http.post(server.url, content="{}", headers=foreign)).status_code == 403
        large = b" " * (17 * 1024 * 1024)
        assert (await http.post(server.url, content=large, headers=modern)).status_code == 413
        assert (await http.get(f"http://{HOST}:{server.port}/health")).status_code == 200
        async with Client(server.url) as client:
            assert text_of(await client.call_tool("echo", {"text": "well"})) == "well"
