"""Calls to models that all ask the scheduler, as they must while anybody waits; beside LiteLLM's proxy."""

from __future__ import annotations

from benchmarks.load import closed_loop_generator
from benchmarks.models.doors import Door, direct, has_peers, litellm, provider, weft_asked
from benchmarks.models.pools import AMPLE, declare, pool
from benchmarks.models.samples import CONNECTIONS, DIRECT, Rounds, rounds_of
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import rig

from weft.controlplane.translate.llm_logs import FLUSH_INTERVAL

ASKED, QUEUED, LITELLM = "asked", "queued", "LiteLLM"

ROOM = 8
"""Calls under way at once that the provider of the pool with a queue allows; all other connections' wait."""

RATE_BUDGET = 20.0
"""The multiple of LiteLLM's calls a second that the mesh is to carry."""

P50_BUDGET = 2.0
"""Milliseconds that asking may add, the wait for one's turn not counted."""


async def measure(*, quick: bool = False) -> Result:
    """Interleaved rounds through a pool without leases, one with a queue, and LiteLLM; medians."""
    rounds, seconds = (1, 2) if quick else (5, 4)
    async with rig() as mesh:
        to = await provider(mesh)
        asked = pool(ASKED, to.whole, AMPLE, fastPath=False)
        queued = pool(QUEUED, to.whole, {"concurrency": ROOM})
        await declare(mesh, (asked, queued))
        step("llm-contended: starting")
        doors: dict[str, Door] = {DIRECT: await direct(mesh, to)}
        for name in (ASKED, QUEUED):
            doors[name] = await weft_asked(mesh, name)
        if has_peers():
            doors[LITELLM] = await litellm(mesh, to)
        taken = await rounds_of(mesh.guard, doors, rounds, seconds, "llm-contended")
    return _result(taken, seconds)


def _result(taken: Rounds, seconds: int) -> Result:
    peer = LITELLM if LITELLM in taken else None
    rate = Budget(RATE_BUDGET, at_most=False, of_ratio=True)

    def beside(name: str, value: float, unit: str, baseline: float | None, budget: Budget | None) -> Figure:
        return Figure(name, value, unit, baseline, peer or "", budget)

    def theirs(what: str) -> float | None:
        return taken.median(peer, what) if peer else None

    def added(what: str) -> float | None:
        return taken.added(peer, what) if peer else None

    return Result(
        "Calls to models that all ask",
        (
            beside("every call asks", taken.median(ASKED, "rate"), "calls/s", theirs("rate"), rate),
            beside("most of them wait", taken.median(QUEUED, "rate"), "calls/s", theirs("rate"), None),
            beside("added, p50", taken.added(ASKED, "p50"), "ms", added("p50"), Budget(P50_BUDGET)),
            beside("added, p99", taken.added(ASKED, "p99"), "ms", added("p99"), None),
            beside("CPU of Envoy and scheduler", taken.median(ASKED, "cpu"), "µs/call", theirs("cpu"), None),
        ),
        (
            f"closed loops by {closed_loop_generator()}: {CONNECTIONS} connections for calls, one for what "
            "is added (minus the provider alone, in the same round), where nobody has to wait for a turn; "
            f"medians of {len(taken)} interleaved rounds of {seconds} s",
            "every admission is written to NATS before the call starts",
            f"most wait: the provider allows {ROOM} calls at once; that one is over the scheduler hears by "
            f"Envoy's log, up to {FLUSH_INTERVAL * 1000:g} ms later, which is long beside calls this short",
            f"calls/s in the rounds: every call asks {taken.told(ASKED, 'rate')}; most wait "
            f"{taken.told(QUEUED, 'rate')}" + (f"; LiteLLM {taken.told(LITELLM, 'rate')}" if peer else ""),
            f"the provider alone answers {taken.median(DIRECT, 'rate'):,.0f} calls/s",
        ),
    )
