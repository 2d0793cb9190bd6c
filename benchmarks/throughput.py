"""What the sidecar pair carries at most, and what a request costs it, beside a bare pair of Envoys."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.load import Target, closed_loop, closed_loop_generator
from benchmarks.processes import cpu_seconds
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import HOST, Pair, Rig, rig

CONNECTIONS = 32
RATIO_BUDGET = 0.85
"""Share of the bare pair's throughput that the sidecar pair is to reach."""

_BUSY = 0.9
"""Share of a processor from which on an Envoy's single worker is what limits."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round through one pair."""

    rate: float
    """Requests a second."""
    outbound: float
    inbound: float
    """Microseconds of processor time for each request."""
    busiest: float
    """Share of a processor that the busier Envoy used."""


async def measure(*, quick: bool = False) -> Result:
    """Load the agent alone, the bare pair and the mesh in interleaved rounds; tell medians."""
    rounds, seconds = (2, 2) if quick else (5, 4)
    async with rig() as mesh:
        step("throughput: starting a mesh and a bare pair")
        backend = await mesh.backend()
        bare, weft = await mesh.bare_pair(backend), await mesh.mesh_pair(backend)
        direct = Target(f"http://{HOST}:{backend}/rpc")
        await _sample(mesh, bare, 1)
        await _sample(mesh, weft, 1)
        alone, bares, wefts = [], [], []
        for number in range(1, rounds + 1):
            step(f"throughput: round {number} of {rounds}")
            load = await closed_loop(mesh.guard, direct, connections=CONNECTIONS, seconds=seconds)
            alone.append(load.rate)
            bares.append(await _sample(mesh, bare, seconds))
            wefts.append(await _sample(mesh, weft, seconds))
    return _result(alone, bares, wefts)


async def _sample(mesh: Rig, pair: Pair, seconds: int) -> Sample:
    before = [cpu_seconds(pid) for pid in (pair.outbound, pair.inbound)]
    target = Target(f"{pair.url}/rpc")
    load = await closed_loop(mesh.guard, target, connections=CONNECTIONS, seconds=seconds)
    after = [cpu_seconds(pid) for pid in (pair.outbound, pair.inbound)]
    used = [late - early for late, early in zip(after, before, strict=True)]
    outbound, inbound = (each / load.requests * 1e6 for each in used)
    return Sample(load.rate, outbound, inbound, max(used) / load.seconds)


def _result(alone: list[float], bares: list[Sample], wefts: list[Sample]) -> Result:
    return Result(
        f"Throughput, {CONNECTIONS} connections",
        (
            _figure("sidecar pair", "requests/s", bares, wefts, "rate", RATIO_BUDGET),
            _figure("CPU of the caller's Envoy", "µs/request", bares, wefts, "outbound"),
            _figure("CPU of the agent's Envoy", "µs/request", bares, wefts, "inbound"),
        ),
        (
            f"closed loop by {closed_loop_generator()}; medians of {len(wefts)} interleaved rounds; "
            f"one worker thread in each Envoy; directly the agent answers {median(alone):,.0f} requests/s",
            _bottleneck(median(each.busiest for each in wefts)),
        ),
    )


def _figure(
    name: str, unit: str, bares: list[Sample], wefts: list[Sample], what: str, least: float | None = None
) -> Figure:
    value, baseline = (median(getattr(each, what) for each in samples) for samples in (wefts, bares))
    budget = Budget(least, at_most=False, of_ratio=True) if least is not None else None
    return Figure(name, value, unit, baseline, "bare pair", budget)


def _bottleneck(busiest: float) -> str:
    share = f"the sidecar pair's busier Envoy used {busiest:.0%} of a processor"
    if busiest >= _BUSY:
        return f"{share}: it is what limits"
    return f"{share}: the machine and the load generator limit, so look at the processor time, not the rate"
