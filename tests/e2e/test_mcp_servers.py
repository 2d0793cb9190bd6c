"""MCP servers join a mesh: of both generations, on pipes, agents; the official client calls their tools."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests import mcp_servers
from tests.e2e.meshes import RunningMesh, eventually, gone, mesh_client, running_mesh
from tests.e2e.messaging_mesh import agent, document, manifest
from tests.integration import mcp_stdio_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
SERVERS = ("classic", "modern", "plain", "teller")


def server(name: str, protocol: str, *command: str, replicas: int = 1) -> str:
    """An Agent that runs a program which knows nothing of Weft."""
    run = {"command": [sys.executable, *command], "replicas": replicas}
    return document("Agent", name, protocol=protocol, health={"interval": "1s"}, run=run)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[RunningMesh]:
    foreign = str(Path(mcp_servers.__file__))
    resources = manifest(
        server("classic", "mcp", foreign, "--name", "classic", "--only", "2025-11-25", replicas=2),
        server("modern", "mcp", foreign, "--name", "modern", "--only", "2026-07-28"),
        server("plain", "mcp-stdio", str(Path(mcp_stdio_server.__file__))),
        server("stuck", "mcp", str(Path(__file__).with_name("stuck_server.py"))),
        agent("teller", "teller.py"),
    )
    async with running_mesh(resources) as mesh:
        await listed(mesh, {"classic_echo", "modern_echo", "plain_echo", "tell", "pid"})
        yield mesh


async def listed(mesh: RunningMesh, names: set[str]) -> None:
    """Wait until these are tools of the mesh."""
    found: set[str] = set()

    async def there() -> bool:
        async with mesh_client(mesh) as client:
            found.update(each.name for each in await client.tools())
        return names <= found

    logs = "\n".join(mesh.log(f"{each}-1")[-2000:] for each in SERVERS)
    await eventually(there, lambda: f"{names - found} are not there, but {found}\n{logs}")


@asynccontextmanager
async def client(mesh: RunningMesh, mode: Any, url: str = "http://tools.mesh/mcp") -> AsyncIterator[Client]:
    """The official client, as a program beside a sidecar has it."""
    async with (
        httpx2.AsyncClient(proxy=mesh.local.proxy_url, timeout=60.0) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def text_of(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_of_both_generations_call_all_kinds_of_servers(mesh: RunningMesh, mode: Any) -> None:
    async with client(mesh, mode) as tools:
        names = [each.name for each in (await tools.list_tools()).tools]
        assert names[0] == "classic_echo"
        assert "tell" in names
        for name in ("classic_echo", "modern_echo", "plain_echo"):
            for _ in range(3):  # by whichever instance
                assert text_of(await tools.call_tool(name, {"text": "grüße"})) == "grüße"
        told = (await tools.call_tool("tell", {"what": "news"})).structured_content
        assert told is not None
        assert told["told"] == "news"
        assert told["caller"].startswith("spiffe://weft.local/operator/")
        assert (await tools.call_tool("tell", {})).is_error


async def test_a_trace_goes_through_an_agent_that_is_a_tool_to_the_tools_it_calls(mesh: RunningMesh) -> None:
    async with client(mesh, "auto") as tools:
        meta: Any = {"traceparent": TRACE}
        told = (await tools.call_tool("tell", {"what": "news"}, meta=meta)).structured_content
        assert told is not None
        assert told["passed_on"].split("-")[1] == "a" * 32


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("name", ["plain", "teller"])
async def test_each_server_can_be_asked_itself(mesh: RunningMesh, name: str, mode: Any) -> None:
    async with client(mesh, mode, f"http://{name}.mesh/mcp") as one:
        assert (await one.list_tools()).tools[0].name == {"plain": "echo", "teller": "tell"}[name]


async def test_a_program_calls_tools_without_the_library_of_mcp(mesh: RunningMesh) -> None:
    async with mesh_client(mesh) as program:
        assert (await program.call_tool("classic_echo", text="a")).text == "a"
        assert (await program.call_tool("tell", what="b")).structured["told"] == "b"


async def test_a_server_that_hangs_is_told_of_and_costs_the_others_nothing(mesh: RunningMesh) -> None:
    async def noted() -> bool:
        return "did not answer within 10 s" in mesh.log("stuck-1")

    await eventually(noted, lambda: mesh.log("stuck-1"))


async def test_a_server_on_pipes_that_is_killed_leaves_nothing_and_comes_back(mesh: RunningMesh) -> None:
    async with mesh_client(mesh) as program:
        inner = psutil.Process(int((await program.call_tool("pid")).text))
        mesh.program("plain-1").kill()
        await gone(inner)

        async def back() -> bool:
            try:
                return (await program.call_tool("pid")).text != str(inner.pid)
            except Exception:  # noqa: BLE001 -- whatever a call fails with meanwhile
                return False

        await eventually(back, lambda: mesh.log("plain-1"))
