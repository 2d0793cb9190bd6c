"""A call from Python to Python: `Mesh.request` through the mesh, beside aiohttp to the agent directly."""

from __future__ import annotations

import aiohttp
from benchmarks.closed_loop import Request, compare
from benchmarks.processes import module_command
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import HOST, answers, free_port, rig

from weft import Mesh

CONCURRENCY = (1, 32)
"""Calls in flight."""

_TYPE = "echo"
_TEXT = "Weft is an agent mesh. " * 8


async def measure(*, quick: bool = False) -> Result:
    """Call in interleaved rounds through the mesh and directly; tell medians."""
    rounds, seconds = (2, 0.5) if quick else (5, 1.5)
    async with rig() as place:
        step("sdk: starting a mesh and an agent")
        port = free_port()
        program = module_command("benchmarks.echo_agent")
        await place.sidecar(f"{_TYPE}-1", "--port", str(port), agent_type=_TYPE, program=program)
        await answers(place.mesh.proxy_url, _TYPE)
        async with Mesh(proxy=place.mesh.proxy_url) as mesh, aiohttp.ClientSession() as client:
            requests = {
                "mesh": _by_sdk(mesh),
                "aiohttp": _by_aiohttp(client, place.mesh.proxy_url),
                "direct": _by_aiohttp(client, f"http://{HOST}:{port}"),
            }
            figures: list[Figure] = []
            for concurrency in CONCURRENCY:
                step(f"sdk: {concurrency} calls in flight")
                figures += await _compare(requests, concurrency, rounds, seconds)
    notes = (
        f"medians of {rounds} interleaved rounds of {seconds:g} s; the agent is a weft.Agent in a process of "
        "its own, the client a single one",
        "direct: aiohttp to the same agent without Envoys; aiohttp in mesh: through the same Envoys",
    )
    return Result("Calls by the SDK", tuple(figures), notes)


def _by_sdk(mesh: Mesh) -> Request:
    return lambda: mesh.request(_TYPE, "echo", text=_TEXT, result_type=str)


def _by_aiohttp(client: aiohttp.ClientSession, address: str) -> Request:
    body = {"kind": "echo", "payload": {"text": _TEXT}}

    async def request() -> object:
        async with client.post(f"{address}/rpc", json=body, headers={"x-weft-to": _TYPE}) as response:
            response.raise_for_status()
            return await response.json()

    return request


async def _compare(
    requests: dict[str, Request], concurrency: int, rounds: int, seconds: float
) -> list[Figure]:
    found = await compare(requests, concurrency, rounds, seconds)
    load = f"{concurrency} in flight"
    mesh, direct = found["mesh"], found["direct"]
    return [
        Figure(f"rate, {load}", mesh.rate, "calls/s", direct.rate, "direct"),
        Figure(f"p50, {load}", mesh.p50, "ms", direct.p50, "direct"),
        Figure(f"p50, {load}, SDK alone", mesh.p50, "ms", found["aiohttp"].p50, "aiohttp in mesh"),
    ]
