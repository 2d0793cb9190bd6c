"""How many calls time out at one agent that is called directly: a simulation, to choose the load by."""

from __future__ import annotations

import heapq

from benchmarks.seed.llm import CONCURRENCY, Llm, arrivals

_STEPS = 30


def late(llm: Llm, times: list[float], limit: float) -> int:
    """How many of the calls that come at `times` are not answered within `limit` seconds.

    The agent takes them in order. Whoever has waited too long hangs up, and is worked on no longer.
    """
    free = [0.0] * CONCURRENCY
    missed = 0
    for number, came in enumerate(times):
        begins = max(came, free[0])
        ends = begins + llm.duration(begins, number)
        if begins >= came + limit:
            missed += 1
            continue
        missed += ends > came + limit
        heapq.heapreplace(free, min(ends, came + limit))
    return missed


def load_for(llm: Llm, share: float, limit: float, seconds: float) -> float:
    """The requests a second of which that share is answered too late."""
    low, high = 0.1, 50.0
    for _ in range(_STEPS):
        rate = (low + high) / 2
        times = arrivals(rate, seconds)
        if late(llm, times, limit) < share * len(times):
            low = rate
        else:
            high = rate
    return high
