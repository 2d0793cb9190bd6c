"""What a sidecar weighs: Envoy and its Python, with one agent and with eight in the mesh."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.load import Target, closed_loop
from benchmarks.processes import envoy_of, pss_megabytes
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import AGENT, Rig, answers, rig

SIDECARS = (1, 8)
"""How many agents have a sidecar; the mesh's door is one more."""

ENVOY_BUDGET = 45.0
PYTHON_BUDGET = 60.0
"""MB (PSS) of one sidecar's processes."""

_IDLE_PYTHON = "import asyncio; asyncio.run(asyncio.Event().wait())"


async def measure(*, quick: bool = False) -> Result:
    """Weigh all sidecars after calls have gone through them; tell the medians."""
    seconds = 1 if quick else 3
    figures: list[Figure] = []
    sidecars: list[int] = []
    async with rig() as mesh:
        backend = await mesh.backend()
        bare = await mesh.bare_pair(backend)
        python = await mesh.start([sys.executable, "-c", _IDLE_PYTHON])
        for count in SIDECARS:
            step(f"memory: {count} of {SIDECARS[-1]} sidecars")
            sidecars += await _more(mesh, backend, len(sidecars), count)
            for url in (bare.url, mesh.mesh.proxy_url):
                await closed_loop(mesh.guard, Target(f"{url}/rpc"), connections=32, seconds=seconds)
            figures += _weigh(count, sidecars, bare.inbound, python.pid)
    notes = (
        "PSS in MB (10⁶ bytes): a page shared by n processes counts 1/n; after a load of 32 connections",
        "more Envoys of the same program on this machine, not only ours, make each one lighter",
        "bare Envoy: the agent's half of the bare pair; bare Python: an interpreter with asyncio",
    )
    return Result("Memory of a sidecar", tuple(figures), notes)


async def _more(mesh: Rig, backend: int, first: int, count: int) -> list[int]:
    """Start sidecars of the agent until there are `count`; return the new ones' process ids."""
    started = []
    for number in range(first + 1, count + 1):
        name = f"{AGENT}-{number}"
        sidecar = await mesh.sidecar(name, "--port", str(backend), agent_type=AGENT)
        started.append((name, sidecar.pid))
    for name, _ in started:
        await answers(mesh.mesh.proxy_url, f"{name}.{AGENT}.mesh")
    return [pid for _, pid in started]


def _weigh(count: int, sidecars: Sequence[int], bare: int, python: int) -> list[Figure]:
    envoy = median(pss_megabytes(envoy_of(pid).pid) for pid in sidecars)
    own = median(pss_megabytes(pid) for pid in sidecars)
    which = f"{count} sidecar{'s' if count > 1 else ''}"
    return [
        Figure(f"Envoy, {which}", envoy, "MB", pss_megabytes(bare), "bare Envoy", Budget(ENVOY_BUDGET)),
        Figure(f"Python, {which}", own, "MB", pss_megabytes(python), "bare Python", Budget(PYTHON_BUDGET)),
    ]
