"""What policies cost a call: agents with none, 1, 100 and 1,000 of them, each with a sidecar of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from benchmarks.load import Target, closed_loop, open_loop
from benchmarks.policies import declare
from benchmarks.processes import cpu_seconds, envoy_of
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import Rig, answers, rig

COUNTS = (0, 1, 100, 1000)
"""Policies about an agent."""

CONNECTIONS = 32
RATE = 500
"""Requests a second at which p50 is taken."""


@dataclass(frozen=True, slots=True)
class Callee:
    """An agent behind a sidecar that enforces policies."""

    target: Target
    envoy: int
    """Process id of its Envoy."""
    declared: float
    """Seconds from declaring the policies until they were enforced."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of calls."""

    rate: float
    """Calls a second over CONNECTIONS."""
    cpu: float
    """Microseconds of the callee's Envoy for each call."""
    p50: float
    """Milliseconds, at RATE."""


async def measure(*, quick: bool = False) -> Result:
    """Call agents with COUNTS policies in interleaved rounds; tell medians."""
    rounds, seconds = (2, 1) if quick else (5, 3)
    async with rig() as mesh:
        backend = await mesh.backend()
        callees = {count: await _callee(mesh, backend, count) for count in COUNTS}
        taken: dict[int, list[Sample]] = {count: [] for count in COUNTS}
        for number in range(1, rounds + 1):
            for count, callee in callees.items():
                step(f"policies: round {number}, {count:,} policies")
                taken[count].append(await _sample(mesh, callee, seconds))
    return _result(taken, callees[COUNTS[-1]].declared)


async def _callee(mesh: Rig, backend: int, count: int) -> Callee:
    step(f"policies: an agent with {count:,} of them")
    agent_type = f"with-{count}"
    sidecar = await mesh.sidecar(f"{agent_type}-1", "--port", str(backend), agent_type=agent_type)
    await answers(mesh.mesh.proxy_url, agent_type)
    began = time.monotonic()
    if count:
        await declare(mesh, agent_type, count)
    declared = time.monotonic() - began
    return Callee(Target(f"{mesh.mesh.proxy_url}/rpc", agent_type), envoy_of(sidecar.pid).pid, declared)


async def _sample(mesh: Rig, callee: Callee, seconds: int) -> Sample:
    before = cpu_seconds(callee.envoy)
    load = await closed_loop(mesh.guard, callee.target, connections=CONNECTIONS, seconds=seconds)
    used = cpu_seconds(callee.envoy) - before
    steady = await open_loop(mesh.guard, callee.target, rate=RATE, seconds=seconds)
    return Sample(load.rate, used / load.requests * 1e6, steady.p50)


def _result(taken: dict[int, list[Sample]], declared: float) -> Result:
    figures = [
        _figure(name, unit, what, taken, count)
        for name, unit, what in (
            ("rate", "calls/s", "rate"),
            ("CPU of the agent's Envoy", "µs/call", "cpu"),
            ("p50", "ms", "p50"),
        )
        for count in COUNTS[1:]
    ]
    notes = (
        f"medians of {len(taken[0])} interleaved rounds; rate and CPU with {CONNECTIONS} connections, "
        f"p50 at {RATE} calls/s; baseline: an agent without policies in the same mesh",
        "all deny, and match the call by its method and path but not by its caller: Envoy looks at every one",
        f"from declaring {COUNTS[-1]:,} policies until the agent's Envoy enforced the last: {declared:.2g} s",
    )
    return Result("Cost of AccessPolicies", tuple(figures), notes)


def _figure(name: str, unit: str, what: str, taken: dict[int, list[Sample]], count: int) -> Figure:
    value, baseline = (median(getattr(each, what) for each in taken[of]) for of in (count, 0))
    policies = f"{count:,} polic{'ies' if count > 1 else 'y'}"
    return Figure(f"{name}, {policies}", value, unit, baseline, "without")
