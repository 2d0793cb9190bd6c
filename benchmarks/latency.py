"""Added latency of the sidecar pair at 1,000 requests a second, beside that of a bare pair of Envoys.

Both talk by mutual TLS, and the sidecar pair has policies. A bare pair in plain text is beside them.
"""

from __future__ import annotations

from statistics import median

from benchmarks.load import Load, Target, open_loop
from benchmarks.policies import USUAL, switch_on
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import AGENT, HOST, Rig, rig

RATE = 1000
"""Requests a second, whatever the answers do."""

P50_BUDGET = 0.5
P99_BUDGET = 1.5
"""Milliseconds that the pair may add."""

_MAX_DROPPED = 0.01

Round = dict[str, Load]
"""One load for each variant, taken one right after the other."""


async def measure(*, quick: bool = False) -> Result:
    """Take interleaved rounds of the agent alone, the bare pairs and the mesh; tell medians."""
    rounds, seconds = (2, 2) if quick else (5, 5)
    async with rig() as mesh:
        targets = await _targets(mesh)
        for target in targets.values():
            await open_loop(mesh.guard, target, rate=RATE, seconds=1)
        taken = [await _round(mesh, targets, number, seconds) for number in range(1, rounds + 1)]
    return _result(taken, seconds)


async def _targets(mesh: Rig) -> dict[str, Target]:
    step("latency: starting a mesh and bare pairs")
    backend = await mesh.backend()
    plain, bare = await mesh.bare_pair(backend, mtls=False), await mesh.bare_pair(backend)
    weft = await mesh.mesh_pair(backend)
    await switch_on(mesh, AGENT)
    urls = {
        "direct": f"http://{HOST}:{backend}",
        "plain": plain.url,
        "bare": bare.url,
        "mesh": weft.url,
    }
    return {name: Target(f"{url}/rpc") for name, url in urls.items()}


async def _round(mesh: Rig, targets: dict[str, Target], number: int, seconds: int) -> Round:
    loads: Round = {}
    for name, target in targets.items():
        step(f"latency: round {number}, {name}")
        loads[name] = await open_loop(mesh.guard, target, rate=RATE, seconds=seconds)
    return loads


def _result(rounds: list[Round], seconds: int) -> Result:
    notes = [
        f"k6, open loop of {RATE:,} requests/s; medians of {len(rounds)} interleaved rounds of {seconds} s",
        "added: through the pair, minus client to agent directly, in the same round",
        f"sidecar pair: mTLS, {USUAL} policies that deny others, deny by default; "
        "bare mTLS pair: TLS 1.3 alone",
    ]
    dropped = sum(load.dropped for each in rounds for load in each.values())
    if dropped > _MAX_DROPPED * RATE * seconds * len(rounds):
        notes.append(f"the load generator could not keep up: {dropped:,} requests were never made")
    return Result(
        f"Latency at {RATE:,} requests/s",
        (
            _added(rounds, "p50", P50_BUDGET),
            _added(rounds, "p99", P99_BUDGET),
            _by_tls(rounds, "p50"),
            _by_tls(rounds, "p99"),
            _whole(rounds, "p50"),
            _whole(rounds, "p99"),
        ),
        tuple(notes),
    )


def _added(rounds: list[Round], quantile: str, limit: float) -> Figure:
    name = f"added by the sidecar pair, {quantile}"
    value, baseline = _over_direct(rounds, "mesh", quantile), _over_direct(rounds, "bare", quantile)
    return Figure(name, value, "ms", baseline, "bare mTLS pair", Budget(limit))


def _by_tls(rounds: list[Round], quantile: str) -> Figure:
    name = f"added by the bare mTLS pair, {quantile}"
    value, baseline = _over_direct(rounds, "bare", quantile), _over_direct(rounds, "plain", quantile)
    return Figure(name, value, "ms", baseline, "plain pair")


def _over_direct(rounds: list[Round], name: str, quantile: str) -> float:
    added: float = median(
        getattr(each[name], quantile) - getattr(each["direct"], quantile) for each in rounds
    )
    return added


def _whole(rounds: list[Round], quantile: str) -> Figure:
    whole = {name: median(getattr(each[name], quantile) for each in rounds) for name in ("mesh", "direct")}
    return Figure(f"through the mesh, {quantile}", whole["mesh"], "ms", whole["direct"], "direct")
