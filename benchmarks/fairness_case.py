"""Fair shares of a model: tenants that ask for more than there is, served in fairness or as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import accumulate

from benchmarks.fairness.plot import Panel, plot
from benchmarks.fairness.simulation import (
    ANSWER,
    PROMPT,
    SLOTS,
    FirstCome,
    Policy,
    Served,
    Weft,
    capacity,
    requests,
    serve,
)
from benchmarks.report import Budget, Figure, Result

LIGHT, HEAVY = "light", "heavy"

TIMES = 10
"""How many times the light tenant's load the heavy one sends."""

LOAD = 0.75
"""The light tenant's part of what the provider can serve: more than its half, so that both are backlogged."""

MANY = 20
"""Tenants of the second round, each sending more than its share, the last ten times as much as the first."""

_POINTS = 200
"""Of a line in the plot."""


async def measure(*, quick: bool = False) -> Result:
    """Two tenants and then twenty, in simulated time."""
    return await asyncio.to_thread(_measured, 60.0 if quick else 240.0)


def _measured(seconds: float) -> Result:
    rate = LOAD * capacity()
    two = {LIGHT: rate, HEAVY: TIMES * rate}
    fcfs = _served(FirstCome(), two, seconds)
    fair = _served(Weft(), two, seconds)
    many = {f"t{each}": capacity() / MANY * (1.5 + 13.5 * each / (MANY - 1)) for each in range(MANY)}
    fair_many = _served(Weft(), many, seconds)
    fcfs_many = _served(FirstCome(), many, seconds)
    bound = 2 * 2 * SLOTS * (PROMPT[1] + ANSWER[1])
    fairly = Budget(0.99, at_most=False)
    figures = (
        Figure("two tenants: Jain's index", jain(fair), "", jain(fcfs), "FCFS", fairly),
        Figure("two tenants: the light one's share", _share(fair) * 100, "%", _share(fcfs) * 100, "FCFS"),
        Figure("two tenants: most apart", _apart(fair), "", _apart(fcfs), "FCFS", Budget(bound)),
        Figure(f"{MANY} tenants: Jain's index", jain(fair_many), "", jain(fcfs_many), "FCFS", fairly),
        Figure("service in all", _total(fair), "", _total(fcfs), "FCFS", Budget(0.98, False, of_ratio=True)),
    )
    notes = (
        f"simulated: {SLOTS} calls at once, {capacity():.1f} a second; {seconds:g} s; the light tenant asks "
        f"for {LOAD:.0%} of that, the heavy one for {TIMES} times as much",
        "service: tokens of prompts + 2 x tokens of answers; VTC's bound on the difference is 2 x 2 x the "
        f"tokens under way at most = {bound:,}",
        "the plot is beside the figures: fairness.svg",
    )
    panels = (
        _panel("First come, first served", fcfs, seconds),
        _panel("Weft: Virtual Token Counter", fair, seconds),
    )
    told = (
        "service (tokens of prompts + 2 x tokens of answers) of two tenants that both have calls waiting; "
        f"the heavy one sends {TIMES} times as many"
    )
    return Result("Fairness between tenants", figures, notes, {"fairness.svg": plot(panels, seconds, told)})


def _served(policy: Policy, rates: Mapping[str, float], seconds: float) -> list[Served]:
    return serve(policy, requests(rates, seconds), seconds)


def jain(served: Sequence[Served]) -> float:
    """Jain's index of the tenants' service: 1 if all had the same."""
    shares = list(_service(served).values())
    return sum(shares) ** 2 / (len(shares) * sum(each**2 for each in shares))


def _service(served: Sequence[Served]) -> dict[str, int]:
    service: dict[str, int] = {}
    for each in served:
        service[each.request.tenant] = service.get(each.request.tenant, 0) + each.request.cost
    return service


def _share(served: Sequence[Served]) -> float:
    return _service(served)[LIGHT] / _total(served)


def _total(served: Sequence[Served]) -> int:
    return sum(each.request.cost for each in served)


def _apart(served: Sequence[Served]) -> int:
    """The largest between the service of the two, at any time."""
    signed = (each.request.cost * (1 if each.request.tenant == LIGHT else -1) for each in served)
    return max(abs(each) for each in accumulate(signed))


def _panel(title: str, served: Sequence[Served], seconds: float) -> Panel:
    lines = []
    for tenant in (HEAVY, LIGHT):
        own = [each for each in served if each.request.tenant == tenant]
        sums = list(accumulate(each.request.cost for each in own))
        line = [(0.0, 0.0), *((each.at, float(sum_)) for each, sum_ in zip(own, sums, strict=True))]
        step = max(1, len(line) // _POINTS)
        lines.append((f"{tenant} tenant", tenant, [*line[::step], (seconds, line[-1][1])]))
    return Panel(title, f"Jain's index {jain(served):.3f}", lines)
