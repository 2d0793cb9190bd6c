"""The case that asked for queues: an agent whose LLM is slow in bursts, called directly and by a queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from statistics import quantiles

from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import HOST, Rig, free_port, rig
from benchmarks.seed.clients import Clock, Response, called_directly, taken, through_queue
from benchmarks.seed.llm import SERVED, Llm, arrivals, llm
from benchmarks.seed.mesh import DIRECT, FIXED, GATEWAY, GATEWAYS, SCALED, Cast
from benchmarks.seed.plot import Panel, plot
from benchmarks.seed.prediction import load_for
from benchmarks.seed.scaler import FEWEST, MOST, Scaler, at_work, watch_agents

from weft.local.messaging_control import MessagingApi

LIMIT = 30.0
"""Seconds after which a caller hangs up."""

LATE = 1 / 3
"""The part of the direct calls that is to be too late."""

AGENTS = 5

DEADLINE = 600.0
"""Seconds after which a task would have failed."""

SCALE = 5.0
"""How many times as fast as ours the simulated time runs. All figures are in simulated seconds."""

_SETTLING = 1.0
"""Real seconds between the start of the clock's file and its zero."""


async def measure(*, quick: bool = False) -> Result:
    """One agent directly, and beside it five behind a queue; then 3 to 20, by the control plane's figure."""
    seconds = 200.0 if quick else 400.0
    model = llm(seconds)
    rate = load_for(model, LATE, LIMIT, seconds)
    times = arrivals(rate, seconds)
    async with rig() as here:
        step("seed: starting gateways and agents")
        cast = Cast(here.directory / "clock", free_port(), DEADLINE / SCALE)
        first = {DIRECT: 1, FIXED: AGENTS}
        await here.mesh.api.apply(cast.manifest(first), "seed.yaml")
        await at_work(here.mesh, {GATEWAY: GATEWAYS, **first})
        key = (await MessagingApi(here.mesh.api).create_key(GATEWAY, {"name": "bench"}))["key"]
        await taken(f"http://{HOST}:{cast.gateway_port}", key)
        step(f"seed: {len(times):,} requests to one agent, and to {AGENTS} behind a queue")
        clock = _start(cast, seconds)
        direct, queued = await asyncio.gather(
            called_directly(here.mesh.proxy_url, clock, times, LIMIT),
            _queued(here, cast, key, FIXED, clock, times),
        )
        step(f"seed: the same to {FEWEST} to {MOST} agents")
        second = {DIRECT: 0, FIXED: 0, SCALED: FEWEST}
        await here.mesh.api.apply(cast.manifest(second), "seed.yaml")
        await at_work(here.mesh, second)
        clock = _start(cast, seconds)
        agents: list[tuple[float, int]] = []
        async with _scaled(here, cast, clock, agents):
            scaled = await _queued(here, cast, key, SCALED, clock, times)
    return _result(model, seconds, rate, (direct, queued, scaled), agents)


async def _queued(
    here: Rig, cast: Cast, key: str, queue: str, clock: Clock, times: Sequence[float]
) -> list[Response]:
    gateway = f"http://{HOST}:{cast.gateway_port}"
    return await through_queue(gateway, key, MessagingApi(here.mesh.api), queue, clock, times)


def _start(cast: Cast, seconds: float) -> Clock:
    clock = Clock(time.time() + _SETTLING, SCALE)
    cast.clock.write_text(f"{clock.began} {SCALE} {seconds}", encoding="utf-8")
    return clock


@asynccontextmanager
async def _scaled(
    here: Rig, cast: Cast, clock: Clock, agents: list[tuple[float, int]]
) -> AsyncIterator[None]:
    """Within the block the number of agents follows the work; `agents` gets it over time."""
    duties = [
        asyncio.create_task(Scaler(here.mesh, cast).run()),
        asyncio.create_task(watch_agents(here.mesh, clock, lambda now, count: agents.append((now, count)))),
    ]
    try:
        yield
        for each in duties:
            if each.done():
                each.result()
    finally:
        for each in duties:
            each.cancel()
        await asyncio.gather(*duties, return_exceptions=True)


def _result(
    model: Llm,
    seconds: float,
    rate: float,
    ways: tuple[list[Response], list[Response], list[Response]],
    agents: list[tuple[float, int]],
) -> Result:
    direct, queued, scaled = ways
    most = max(count for _, count in agents)
    figures = [
        Figure("one agent directly: too late", _unanswered(direct) * 100 / len(direct), "%"),
        Figure("one agent directly: p50 of the others", _percentile(direct, 50), "s"),
    ]
    for name, responses in (
        (f"queue, {AGENTS} agents", queued),
        (f"queue, {FEWEST} to {MOST} agents", scaled),
    ):
        unanswered = _unanswered(responses)
        figures.append(
            Figure(f"{name}: lost or too late", unanswered, "tasks", _unanswered(direct), "calls", Budget(0))
        )
        figures += [Figure(f"{name}: p{what}", _percentile(responses, what), "s") for what in (50, 95, 99)]
    figures.append(Figure(f"most of {FEWEST} to {MOST} agents at once", most, "agents"))
    notes = (
        f"one agent serves {SERVED:g} requests/s in the mean: {model.calm:.1f} s each, in bursts "
        f"{model.calm * 20:.0f} s; {rate:.1f} requests/s for {seconds:g} s, by which a third is not answered "
        f"within {LIMIT:g} s",
        f"time runs {SCALE:g} times as fast, and all seconds are simulated ones; starting an agent takes as "
        "long as it does, and the control plane looks and reckons in real seconds",
        f"a task would fail {DEADLINE:g} s after its submission; the plot is beside the figures: seed.svg",
    )
    panels = (
        Panel("One agent, called directly", direct, [(0.0, 1), (seconds, 1)]),
        Panel(f"Gateway, queue, {AGENTS} agents", queued, [(0.0, AGENTS), (seconds, AGENTS)]),
        Panel(f"Gateway, queue, {FEWEST} to {MOST} agents", scaled, agents),
    )
    return Result(
        "The seed's case", tuple(figures), notes, {"seed.svg": plot(panels, model.bursts(seconds), LIMIT)}
    )


def _unanswered(responses: Sequence[Response]) -> int:
    return sum(each.took is None for each in responses)


def _percentile(responses: Sequence[Response], percent: int) -> float:
    """Of those that were answered."""
    return quantiles((each.took for each in responses if each.took is not None), n=100)[percent - 1]
