"""What the sidecar pair carries at most, and what a request costs it, beside a bare pair of Envoys.

Both talk by mutual TLS, and the sidecar pair has policies. A bare pair in plain text is beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks.load import Target, closed_loop, closed_loop_generator
from benchmarks.policies import USUAL, switch_on
from benchmarks.processes import cpu_seconds
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import AGENT, HOST, Pair, Rig, rig

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
    """Load the agent alone, the bare pairs and the mesh in interleaved rounds; tell medians."""
    rounds, seconds = (2, 2) if quick else (5, 4)
    async with rig() as mesh:
        backend = await mesh.backend()
        pairs = await _pairs(mesh, backend)
        direct = Target(f"http://{HOST}:{backend}/rpc")
        for pair in pairs.values():
            await _sample(mesh, pair, 1)
        alone: list[float] = []
        taken: dict[str, list[Sample]] = {name: [] for name in pairs}
        for number in range(1, rounds + 1):
            step(f"throughput: round {number} of {rounds}")
            load = await closed_loop(mesh.guard, direct, connections=CONNECTIONS, seconds=seconds)
            alone.append(load.rate)
            for name, pair in pairs.items():
                taken[name].append(await _sample(mesh, pair, seconds))
    return _result(alone, taken["plain"], taken["bare"], taken["mesh"])


async def _pairs(mesh: Rig, backend: int) -> dict[str, Pair]:
    step("throughput: starting a mesh and bare pairs")
    pairs = {
        "plain": await mesh.bare_pair(backend, mtls=False),
        "bare": await mesh.bare_pair(backend),
        "mesh": await mesh.mesh_pair(backend),
    }
    await switch_on(mesh, AGENT)
    return pairs


async def _sample(mesh: Rig, pair: Pair, seconds: int) -> Sample:
    before = [cpu_seconds(pid) for pid in (pair.outbound, pair.inbound)]
    target = Target(f"{pair.url}/rpc")
    load = await closed_loop(mesh.guard, target, connections=CONNECTIONS, seconds=seconds)
    after = [cpu_seconds(pid) for pid in (pair.outbound, pair.inbound)]
    used = [late - early for late, early in zip(after, before, strict=True)]
    outbound, inbound = (each / load.requests * 1e6 for each in used)
    return Sample(load.rate, outbound, inbound, max(used) / load.seconds)


def _result(alone: list[float], plains: list[Sample], bares: list[Sample], wefts: list[Sample]) -> Result:
    mesh = partial(_figure, samples=wefts, against="bare mTLS pair", baselines=bares)
    bare = partial(_figure, samples=bares, against="plain pair", baselines=plains)
    return Result(
        f"Throughput, {CONNECTIONS} connections",
        (
            mesh("sidecar pair", "requests/s", "rate", least=RATIO_BUDGET),
            mesh("CPU of the caller's Envoy", "µs/request", "outbound"),
            mesh("CPU of the agent's Envoy", "µs/request", "inbound"),
            bare("bare mTLS pair", "requests/s", "rate"),
            bare("CPU of its outer Envoy", "µs/request", "outbound"),
            bare("CPU of its inner Envoy", "µs/request", "inbound"),
        ),
        (
            f"closed loop by {closed_loop_generator()}; medians of {len(wefts)} interleaved rounds; "
            f"one worker thread in each Envoy; directly the agent answers {median(alone):,.0f} requests/s",
            f"sidecar pair: mTLS, {USUAL} policies that deny others, deny by default; "
            "bare mTLS pair: TLS 1.3 alone",
            _bottleneck(median(each.busiest for each in wefts)),
        ),
    )


def _figure(
    name: str,
    unit: str,
    what: str,
    *,
    samples: list[Sample],
    against: str,
    baselines: list[Sample],
    least: float | None = None,
) -> Figure:
    value, baseline = (median(getattr(each, what) for each in those) for those in (samples, baselines))
    budget = Budget(least, at_most=False, of_ratio=True) if least is not None else None
    return Figure(name, value, unit, baseline, against, budget)


def _bottleneck(busiest: float) -> str:
    share = f"the sidecar pair's busier Envoy used {busiest:.0%} of a processor"
    if busiest >= _BUSY:
        return f"{share}: it is what limits"
    return f"{share}: the machine and the load generator limit, so look at the processor time, not the rate"
