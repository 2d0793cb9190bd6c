"""A call from Python to Python: `Mesh.request` through the mesh, beside aiohttp to the agent directly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

import aiohttp
from benchmarks.processes import module_command
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import HOST, answers, free_port, rig

from weft import Mesh

CONCURRENCY = (1, 32)
"""Calls in flight."""

_TYPE = "echo"
_TEXT = "Weft is an agent mesh. " * 8

Request = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of calls."""

    rate: float
    """Calls a second."""
    p50: float
    """Milliseconds."""


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
    samples: dict[str, list[Sample]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            samples[name].append(await _sample(request, concurrency, seconds))

    rates, delays = (
        {name: median(getattr(each, what) for each in taken) for name, taken in samples.items()}
        for what in ("rate", "p50")
    )
    load = f"{concurrency} in flight"
    return [
        Figure(f"rate, {load}", rates["mesh"], "calls/s", rates["direct"], "direct"),
        Figure(f"p50, {load}", delays["mesh"], "ms", delays["direct"], "direct"),
        Figure(f"p50, {load}, SDK alone", delays["mesh"], "ms", delays["aiohttp"], "aiohttp in mesh"),
    ]


async def _sample(request: Request, concurrency: int, seconds: float) -> Sample:
    taken: list[float] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(_call_until(began + seconds, request, taken))
    return Sample(len(taken) / (time.perf_counter() - began), median(taken) * 1000)


async def _call_until(end: float, request: Request, taken: list[float]) -> None:
    while (began := time.perf_counter()) < end:
        await request()
        taken.append(time.perf_counter() - began)
