"""Waiting until results are recorded."""

from __future__ import annotations

import time

from benchmarks.messages.contestants import Contest

from weft.aio.poll import until

_LOOK = 0.02
"""Seconds between two looks."""


async def reached(contest: Contest, count: int) -> tuple[float, int]:
    """When so many results were recorded, by `time.perf_counter`, and how many it were then."""
    finished = 0

    async def enough() -> bool:
        nonlocal finished
        finished = await contest.finished()
        return finished >= count

    await until(enough, first=_LOOK, longest=_LOOK)
    return time.perf_counter(), finished
