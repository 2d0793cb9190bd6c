"""One task in 100 branches by `coordinate`, beside `asyncio.gather` on bare httpx, without a mesh."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median, quantiles

import aiohttp
import httpx
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import AGENT, HOST, Rig, answers, rig

from weft import Mesh
from weft.orchestration import coordinate

BRANCHES = 100

AGENTS = 25
"""Each with a sidecar of its own, and four branches. More would not do on many machines: an Envoy takes three
of the 128 inotify instances that Linux gives a user by default."""

AT_ONCE = 4
"""Sidecars that are started side by side."""

_TASK = "Weft is an agent mesh. " * 8

FanOut = Callable[[], Awaitable[object]]


async def measure(*, quick: bool = False) -> Result:
    """Fan out in interleaved rounds, each way; tell medians and 90th percentiles of the whole fan-out."""
    agents, rounds = (5, 10) if quick else (AGENTS, 40)
    async with rig() as place:
        backend = await place.backend()
        names = [f"{AGENT}-{number}" for number in range(1, agents + 1)]
        await _start(place, names, backend)
        names = [names[number % agents] for number in range(BRANCHES)]
        proxy = place.mesh.proxy_url
        limits = httpx.Limits(max_connections=BRANCHES, max_keepalive_connections=BRANCHES)
        async with (
            Mesh(proxy=proxy) as mesh,
            aiohttp.ClientSession(trust_env=False) as session,
            httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client,
        ):
            ways: dict[str, FanOut] = {
                "coordinate": _by_coordinate(mesh, names),
                "httpx": _by_httpx(client, f"http://{HOST}:{backend}", names),
                "aiohttp": _by_aiohttp(session, f"http://{HOST}:{backend}", names),
                "in mesh": _by_httpx(client, proxy, names),
            }
            step(f"orchestration: fan-outs in {BRANCHES} branches")
            times = await _times(ways, rounds)
    return _result(times, agents, rounds)


async def _start(place: Rig, names: Sequence[str], backend: int) -> None:
    """Start a sidecar for every agent, and wait until they can be called."""
    for first in range(0, len(names), AT_ONCE):
        step(f"orchestration: {first} of {len(names)} sidecars")
        some = names[first : first + AT_ONCE]
        for name in some:
            await place.sidecar(name, "--port", str(backend), agent_type=AGENT)
        for name in some:
            await answers(place.mesh.proxy_url, f"{name}.{AGENT}.mesh")


def _by_coordinate(mesh: Mesh, names: Sequence[str]) -> FanOut:
    agents = [f"{name}.{AGENT}" for name in names]

    async def fan_out() -> None:
        outcome = await coordinate(_TASK, agents, mesh=mesh)
        assert len(outcome.answers) == len(names), outcome.failures[0].error

    return fan_out


def _by_httpx(client: httpx.AsyncClient, address: str, names: Sequence[str]) -> FanOut:
    body = {"kind": "task", "payload": {"task": _TASK}}

    async def ask(name: str) -> object:
        answer = await client.post(f"{address}/rpc", json=body, headers={"x-weft-to": f"{name}.{AGENT}.mesh"})
        return answer.raise_for_status().json()["result"]

    async def fan_out() -> None:
        await asyncio.gather(*(ask(name) for name in names))

    return fan_out


def _by_aiohttp(session: aiohttp.ClientSession, address: str, names: Sequence[str]) -> FanOut:
    body = {"kind": "task", "payload": {"task": _TASK}}

    async def ask() -> object:
        async with session.post(f"{address}/rpc", json=body) as answer:
            answer.raise_for_status()
            return json.loads(await answer.read())["result"]

    async def fan_out() -> None:
        await asyncio.gather(*(ask() for _ in names))

    return fan_out


async def _times(ways: dict[str, FanOut], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each fan-out, by way; the first round, which connects, is left out."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, fan_out in ways.items():
            began = time.perf_counter()
            await fan_out()
            if number:
                times[name].append((time.perf_counter() - began) * 1000)
    return times


def _result(times: dict[str, list[float]], agents: int, rounds: int) -> Result:
    middle = {name: median(taken) for name, taken in times.items()}
    slow = {name: quantiles(taken, n=10)[-1] for name, taken in times.items()}
    what = f"{BRANCHES} branches"
    figures = (
        Figure(f"fan-out, {what}, p50", middle["coordinate"], "ms", middle["httpx"], "bare httpx"),
        Figure(f"fan-out, {what}, p90", slow["coordinate"], "ms", slow["httpx"], "bare httpx"),
        Figure(
            "the same through the same Envoys, p50", middle["coordinate"], "ms", middle["in mesh"], "httpx"
        ),
        Figure("the same without httpx, p50", middle["coordinate"], "ms", middle["aiohttp"], "bare aiohttp"),
    )
    notes = (
        f"of {rounds} interleaved fan-outs each, to {agents} agents that answer at once",
        "bare: asyncio.gather on one client, to agents without Envoys; httpx looks through its whole pool at "
        "every request, aiohttp, which the SDK uses, does not",
    )
    return Result("Fan-out by an orchestration", figures, notes)
