"""Calls and the list of tools: the MCP SDK's client through the mesh, directly, and by FastMCP's proxy."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
from benchmarks.closed_loop import Request, compare
from benchmarks.processes import module_command
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import HOST, START_TIMEOUT, free_port, rig
from benchmarks.tool_server import TOOLS
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from weft.aio.poll import until

CONCURRENCY = (1, 16)
"""Calls in flight."""

PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"
MODE = "2026-07-28"

_TYPE = "bench-tools"
_TEXT = "Weft is an agent mesh. " * 8


async def measure(*, quick: bool = False) -> Result:
    """Call, and list, in interleaved rounds by each way; tell medians."""
    rounds, seconds = (2, 1.0) if quick else (5, 2.0)
    async with rig() as place, AsyncExitStack() as stack:
        step("tools: starting a mesh, an MCP server, a proxy")
        port, proxy = free_port(), free_port()
        program = module_command("benchmarks.tool_server")
        protocol = ("--protocol", "mcp", "--port", str(port))
        await place.sidecar(f"{_TYPE}-1", *protocol, agent_type=_TYPE, program=program)
        direct = f"http://{HOST}:{port}/mcp"
        script = str(Path(__file__).with_name("tool_proxy.py"))
        await place.start([str(PEERS), script, str(proxy), direct])
        clients = {
            "mesh": await _client(stack, "http://tools.mesh/mcp", place.mesh.proxy_url),
            "direct": await _client(stack, direct, None),
            "FastMCP": await _client(stack, f"http://{HOST}:{proxy}/mcp", None),
        }
        figures = await _measured(clients, rounds, seconds)
    notes = (
        f"medians of {rounds} interleaved rounds of {seconds:g} s; the client is the MCP SDK's ({MODE}), "
        "one process for all ways; the server has an Envoy beside it, and so has the client's side",
        f"FastMCP's proxy lists its server's tools, {TOOLS:,} here, before each call",
    )
    return Result("Calls of tools (MCP)", tuple(figures), notes)


async def _measured(clients: dict[str, Client], rounds: int, seconds: float) -> list[Figure]:
    figures: list[Figure] = []
    calls = {name: _calling(client) for name, client in clients.items()}
    for concurrency in CONCURRENCY:
        step(f"tools: {concurrency} calls in flight")
        found = await compare(calls, concurrency, rounds, seconds)
        load, mesh = f"{concurrency} in flight", found["mesh"]
        for other in ("direct", "FastMCP"):
            figures += [
                Figure(f"rate, {load}", mesh.rate, "calls/s", found[other].rate, other),
                Figure(f"p50, {load}", mesh.p50, "ms", found[other].p50, other),
            ]
    step(f"tools: a list of {TOOLS}")
    lists = {name: _listing(client) for name, client in clients.items()}
    found = await compare(lists, 1, rounds, seconds)
    for other in ("direct", "FastMCP"):
        figures.append(Figure(f"list of {TOOLS:,}, p50", found["mesh"].p50, "ms", found[other].p50, other))
    return figures


async def _client(stack: AsyncExitStack, url: str, proxy: str | None) -> Client:
    """A client of what serves there, once that lists all tools."""
    http = await stack.enter_async_context(httpx2.AsyncClient(proxy=proxy, trust_env=False))

    async def lists_all() -> bool:
        try:
            async with Client(streamable_http_client(url, http_client=http), mode=MODE, cache=None) as client:
                return len((await client.list_tools()).tools) == TOOLS
        except (httpx2.HTTPError, ExceptionGroup):
            return False

    async with asyncio.timeout(START_TIMEOUT):
        await until(lists_all)
    return await stack.enter_async_context(
        Client(streamable_http_client(url, http_client=http), mode=MODE, cache=None)
    )


def _calling(client: Client) -> Request:
    async def request() -> None:
        answer = await client.call_tool("echo_7", {"text": _TEXT})
        if answer.is_error:
            raise RuntimeError(f"the tool failed: {answer.content}")

    return request


def _listing(client: Client) -> Request:
    async def request() -> None:
        listed = len((await client.list_tools()).tools)
        if listed != TOOLS:
            raise RuntimeError(f"{listed} tools are listed, not {TOOLS}")

    return request
