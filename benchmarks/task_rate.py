"""Tasks per second of one worker process, their results recorded: Weft beside Celery and Taskiq on Redis."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.messages.completion import reached
from benchmarks.messages.contestants import (
    CONCURRENCY,
    Contest,
    Entrance,
    celery,
    taskiq,
    weft_on_nats,
    weft_on_redis,
)
from benchmarks.messages.servers import place
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result

_CONTESTANTS: dict[str, tuple[Entrance, float]] = {
    "Weft on NATS": (weft_on_nats, 1.0),
    "Weft on Redis": (weft_on_redis, 1.0),
    "Celery, solo": (celery("solo"), 0.4),
    "Celery, prefork": (celery("prefork"), 0.4),
    "Taskiq, list": (taskiq("by_list"), 0.5),
    "Taskiq, stream": (taskiq("by_stream"), 0.5),
}
"""Each with the part of the tasks that it gets, so that all take about as long."""

_BUDGETS = {
    "Celery": Budget(3.0, at_most=False, of_ratio=True),
    "Taskiq": Budget(1.5, at_most=False, of_ratio=True),
}

_WARM = 0.05
"""The part of the tasks that is done before the clock starts: it runs when the worker does."""
_LIMIT = 300.0
"""Seconds that one round may take."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one system did in one round; all in tasks a second."""

    submitted: float
    """Put into the queue by one process, while no worker ran."""
    worked: float
    """Taken out, done and their results recorded by one worker process, while nobody submitted."""
    both: float
    """From the first submission to the last result, one process submitting and one working."""


async def measure(*, quick: bool = False) -> Result:
    """Interleaved rounds, each with servers and a worker of its own; medians."""
    rounds, count = (1, 8_000) if quick else (3, 20_000)
    samples: dict[str, list[Sample]] = {name: [] for name in _CONTESTANTS}
    for number in range(rounds):
        for name, (enter, part) in _CONTESTANTS.items():
            step(f"tasks: round {number + 1} of {rounds}, {name}")
            samples[name].append(await _round(enter, int(count * part)))
    rates = {
        name: Sample(
            *(median(getattr(each, what) for each in taken) for what in ("submitted", "worked", "both"))
        )
        for name, taken in samples.items()
    }
    notes = (
        f"medians of {rounds} interleaved rounds of up to {count:,} tasks that only look at the clock; "
        f"up to {CONCURRENCY} at once in one worker process (Celery: one at a time)",
        "Redis synchronises its file every second, NATS its files every two minutes: both keep what they "
        "have confirmed when they are killed, and not when the machine loses its power",
        "peers at their best: " + ", ".join(f"{name} {_told(each)}" for name, each in rates.items()),
        "in brackets: submitted by one process alone, worked on by one alone, both at the same time, tasks/s",
    )
    return Result("Tasks of one worker process", tuple(_figures(rates)), notes)


def _told(sample: Sample) -> str:
    return f"({sample.submitted:,.0f}, {sample.worked:,.0f}, {sample.both:,.0f})"


def _figures(rates: dict[str, Sample]) -> list[Figure]:
    figures = []
    for ours in ("Weft on NATS", "Weft on Redis"):
        for peer, budget in _BUDGETS.items():
            theirs = [each for name, each in rates.items() if name.startswith(peer)]
            best = max(each.worked for each in theirs)
            figures.append(Figure(f"{ours}, worker alone", rates[ours].worked, "tasks/s", best, peer, budget))
            best = max(each.both for each in theirs)
            figures.append(
                Figure(f"{ours}, while submitting", rates[ours].both, "tasks/s", best, peer, budget)
            )
    return figures


async def _round(enter: Entrance, count: int) -> Sample:
    async with place() as here, enter(here) as contest, asyncio.timeout(_LIMIT):
        submitted = await _timed(contest, count)
        async with contest.worker():
            warm = int(count * _WARM)
            began, first = await reached(contest, warm)
            ended, last = await reached(contest, count)
            worked = (last - first) / (ended - began)
            began = time.perf_counter()
            await contest.submit(count)
            ended, _ = await reached(contest, 2 * count)
        await contest.check()
        return Sample(submitted, worked, count / (ended - began))


async def _timed(contest: Contest, count: int) -> float:
    began = time.perf_counter()
    await contest.submit(count)
    return count / (time.perf_counter() - began)
