"""What it costs a call through a pair of sidecars that spans, figures and logs are made of it.

Off, a listener that tells nothing, is the baseline; with 1 % and with all of the calls traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.load import Target, closed_loop, open_loop
from benchmarks.processes import cpu_seconds, envoy_of
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import HOST, Rig, answers, free_port, rig

RATE = 500
"""Requests a second at which p50 and p99 are taken."""

CONNECTIONS = 16

OFF, FEW, ALL = "off", "1 %", "100 %"
SAMPLING: Mapping[str, float] = {OFF: 0, FEW: 1, ALL: 100}
"""Percent of the calls that are traced."""

_CONTROL = "benchmarks.untold_control"


@dataclass(frozen=True, slots=True)
class Way:
    """A caller's sidecar and its callee's."""

    target: Target
    envoys: tuple[int, int]
    """Process ids."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of calls one way."""

    rate: float
    """Calls a second over CONNECTIONS."""
    cpu: float
    """Microseconds of both Envoys for each call."""
    p50: float
    """Milliseconds, at RATE."""
    p99: float


async def measure(*, quick: bool = False) -> Result:
    """Call each way in interleaved rounds; tell medians."""
    rounds, seconds = (2, 1) if quick else (7, 4)
    async with rig() as mesh:
        ways = await _ways(mesh)
        for way in ways.values():
            await open_loop(mesh.guard, way.target, rate=RATE, seconds=1)
        taken: dict[str, list[Sample]] = {name: [] for name in ways}
        for number in range(1, rounds + 1):
            for name, way in ways.items():
                step(f"telemetry: round {number}, {name}")
                taken[name].append(await _sample(mesh, way, seconds))
    return _result(taken, seconds)


async def _ways(mesh: Rig) -> dict[str, Way]:
    step("telemetry: starting sidecars, and a control plane that has them tell nothing")
    backend = await mesh.backend()
    untold = await mesh.another_control("untold", module=_CONTROL)
    found = {}
    for number, (name, percent) in enumerate(SAMPLING.items()):
        xds = ("--xds", f"{HOST}:{untold}") if name == OFF else ()
        told = (*xds, "--trace-sampling", f"{percent:g}", "--port", str(backend))
        caller, callee, port = f"from-{number}", f"to-{number}", free_port()
        calling = await mesh.sidecar(f"{caller}-1", *told, "--outbound-port", str(port), agent_type=caller)
        called = await mesh.sidecar(f"{callee}-1", *told, agent_type=callee)
        url = f"http://{HOST}:{port}"
        await answers(url, callee)
        envoys = (envoy_of(calling.pid).pid, envoy_of(called.pid).pid)
        found[name] = Way(Target(f"{url}/rpc", callee), envoys)
    return found


async def _sample(mesh: Rig, way: Way, seconds: int) -> Sample:
    before = sum(map(cpu_seconds, way.envoys))
    load = await closed_loop(mesh.guard, way.target, connections=CONNECTIONS, seconds=seconds)
    used = sum(map(cpu_seconds, way.envoys)) - before
    steady = await open_loop(mesh.guard, way.target, rate=RATE, seconds=seconds)
    return Sample(load.rate, used / load.requests * 1e6, steady.p50, steady.p99)


def _result(taken: Mapping[str, list[Sample]], seconds: int) -> Result:
    figures = [
        Figure(f"{name}, {way} traced", _of(taken[way], what), unit, _of(taken[OFF], what), OFF)
        for name, unit, what in (
            ("CPU of both Envoys", "µs/call", "cpu"),
            ("rate", "calls/s", "rate"),
            ("p50", "ms", "p50"),
            ("p99", "ms", "p99"),
        )
        for way in (FEW, ALL)
    ]
    notes = (
        f"medians of {len(taken[OFF])} interleaved rounds of {seconds} s; CPU and rate with {CONNECTIONS} "
        f"connections, p50 and p99 at {RATE} calls/s",
        "off: a pair of sidecars whose listeners have neither tracer nor statistics; the others have both",
        "the control plane takes the spans in, on the same machine",
    )
    return Result("Cost of telemetry", tuple(figures), notes)


def _of(samples: list[Sample], what: str) -> float:
    return float(median(getattr(each, what) for each in samples))
