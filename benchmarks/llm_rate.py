"""Calls to models while nobody has to wait: the mesh's leases beside a bare Envoy and other proxies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from benchmarks.load import closed_loop_generator
from benchmarks.models.calls import EVENTS, STREAMED, WHOLE, request
from benchmarks.models.doors import (
    Door,
    Provider,
    bare_hop,
    direct,
    has_peers,
    litellm,
    provider,
    sglang_router,
    vllm_router,
    weft,
)
from benchmarks.models.pools import AMPLE, declare, pool
from benchmarks.models.samples import CONNECTIONS, DIRECT, Rounds, rounds_of
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import Rig, rig

MESH, BARE, LITELLM, VLLM, SGLANG = "mesh", "bare Envoy hop", "LiteLLM", "vllm-router", "sglang-router"

RATE_BUDGETS: Mapping[str, float | None] = {LITELLM: 100.0, VLLM: 1.0, SGLANG: None, BARE: 0.8}
"""The multiple of each one's calls a second that the mesh is to carry."""

P50_BUDGET = 0.5
"""Milliseconds that the mesh may add."""

_OURS: Mapping[str, Callable[[Rig, Provider], Awaitable[Door]]] = {
    DIRECT: direct,
    BARE: bare_hop,
    MESH: weft,
}
_PEERS: Mapping[str, Callable[[Rig, Provider], Awaitable[Door]]] = {
    VLLM: vllm_router,
    SGLANG: sglang_router,
    LITELLM: litellm,
}


async def measure(*, quick: bool = False) -> Result:
    """Interleaved rounds through every way; medians."""
    rounds, seconds = (1, 2) if quick else (5, 4)
    async with rig() as mesh:
        to = await provider(mesh)
        await declare(mesh, (pool(WHOLE, to.whole, AMPLE), pool(STREAMED, to.streamed, AMPLE)))
        doors: dict[str, Door] = {}
        for name, enter in {**_OURS, **(_PEERS if has_peers() else {})}.items():
            step(f"llm: starting, {name}")
            doors[name] = await enter(mesh, to)
        taken = await rounds_of(mesh.guard, doors, rounds, seconds, "llm")
    return _result(taken, seconds)


def _result(taken: Rounds, seconds: int) -> Result:
    return Result(
        "Calls to models while nobody waits",
        (
            *_beside(taken, "calls by leases", "calls/s", "rate", RATE_BUDGETS),
            *_beside(
                taken, f"streams of {EVENTS} events", "streams/s", "streams", dict.fromkeys(RATE_BUDGETS)
            ),
            *_added(taken),
            Figure(
                "CPU of the sidecar's Envoy",
                taken.median(MESH, "cpu"),
                "µs/call",
                taken.median(BARE, "cpu"),
                BARE,
            ),
        ),
        notes(taken, seconds),
    )


def _beside(
    taken: Rounds, name: str, unit: str, what: str, budgets: Mapping[str, float | None]
) -> list[Figure]:
    ours = partial(Figure, name, taken.median(MESH, what), unit)
    return [
        ours(
            taken.median(peer, what),
            peer,
            None if least is None else Budget(least, at_most=False, of_ratio=True),
        )
        for peer, least in budgets.items()
        if peer in taken
    ]


def _added(taken: Rounds) -> list[Figure]:
    peers = [each for each in (VLLM, LITELLM, BARE) if each in taken]
    return [
        Figure(
            f"added, {what}",
            taken.added(MESH, what),
            "ms",
            taken.added(peer, what),
            peer,
            Budget(P50_BUDGET) if what == "p50" else None,
        )
        for what in ("p50", "p99")
        for peer in peers
    ]


def notes(taken: Rounds, seconds: int) -> tuple[str, ...]:
    """What a reader must know to judge the figures."""
    told = [
        f"closed loops by {closed_loop_generator()}: {CONNECTIONS} connections for calls and streams, one "
        "for what is added (through the way, minus the provider alone, in the same round); medians of "
        f"{len(taken)} interleaved rounds of {seconds} s",
        f"chat completions of {len(request(WHOLE))} bytes; the provider is an Envoy with a fixed answer, "
        f"which alone answers {taken.median(DIRECT, 'rate'):,.0f} calls/s; it sends all {EVENTS} events of "
        "a stream at once",
        f"calls/s in the rounds: mesh {taken.told(MESH, 'rate')}; bare {taken.told(BARE, 'rate')}",
        "µs of CPU for each call, which other work on the machine touches less: "
        + ", ".join(
            f"{name} {taken.median(name, 'cpu'):,.0f}"
            for name in (MESH, BARE, VLLM, SGLANG, LITELLM)
            if name in taken
        ),
    ]
    if LITELLM not in taken:
        told.append("peers were not measured: `make peers` gets them")
    return tuple(told)
