"""Requests made by coroutines, each of which sends its next one when it has its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median

Request = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of requests, or the medians of several."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""


async def compare(
    requests: Mapping[str, Request], concurrency: int, rounds: int, seconds: float
) -> dict[str, Sample]:
    """What each of `requests` comes to, with so many in flight: medians of interleaved rounds."""
    samples: dict[str, list[Sample]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            samples[name].append(await sample(request, concurrency, seconds))
    return {
        name: Sample(median(each.rate for each in taken), median(each.p50 for each in taken))
        for name, taken in samples.items()
    }


async def sample(request: Request, concurrency: int, seconds: float) -> Sample:
    """One round of so many seconds."""
    taken: list[float] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(_call_until(began + seconds, request, taken))
    return Sample(len(taken) / (time.perf_counter() - began), median(taken) * 1000)


async def _call_until(end: float, request: Request, taken: list[float]) -> None:
    while (began := time.perf_counter()) < end:
        await request()
        taken.append(time.perf_counter() - began)
