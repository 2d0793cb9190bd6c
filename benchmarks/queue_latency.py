"""How long from the submission of a task until its handler begins: Weft beside Taskiq."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import quantiles

from benchmarks.messages.completion import reached
from benchmarks.messages.contestants import Contest, Entrance, taskiq, weft_on_nats, weft_on_redis
from benchmarks.messages.servers import place
from benchmarks.progress import step
from benchmarks.report import Figure, Result

_PEERS: dict[str, Entrance] = {"Taskiq, list": taskiq("by_list"), "Taskiq, stream": taskiq("by_stream")}
_OURS: dict[str, Entrance] = {"Weft on NATS": weft_on_nats, "Weft on Redis": weft_on_redis}

_IDLE_PAUSE = 0.01
"""Seconds between the end of one task and the submission of the next, where only one is under way."""
_BURST = 3_000
"""Tasks by which it is found how many a system does in a second."""
_LIMIT = 300.0
"""Seconds that one system may take for all of it."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What one system showed."""

    idle: Delays
    half: Delays
    """At half of its own most."""
    rate: float
    """Tasks a second, then."""


async def measure(*, quick: bool = False) -> Result:
    """One system after the other, with servers and a worker of its own."""
    alone, seconds = (200, 3.0) if quick else (1000, 15.0)
    peers = {name: await _sample(name, enter, alone, seconds) for name, enter in _PEERS.items()}
    best = min(peers, key=lambda name: peers[name].half.p99)
    peer = peers[best]
    figures: list[Figure] = []
    for name, enter in _OURS.items():
        ours = await _sample(name, enter, alone, seconds)
        same = await _at_rate(name, enter, peer.rate, seconds)
        for load, delays, baseline in (
            ("idle", ours.idle, peer.idle),
            (f"at {peer.rate:,.0f}/s, half of Taskiq's most", same, peer.half),
            (f"at {ours.rate:,.0f}/s, half of its most", ours.half, None),
        ):
            for what in ("p50", "p99"):
                theirs = getattr(baseline, what) if baseline else None
                figures.append(Figure(f"{name}, {what}, {load}", getattr(delays, what), "ms", theirs, best))
    notes = (
        f"idle: one task at a time, {alone} of them; load: submitted at even intervals for {seconds:g} s, "
        "whether or not those before have begun; the clock runs from before the submission until the handler "
        "begins",
        "; ".join(
            f"{name}: idle {each.idle.p50:.2f} / {each.idle.p99:.2f} ms, at {each.rate:,.0f}/s "
            f"{each.half.p50:.2f} / {each.half.p99:.2f} ms"
            for name, each in peers.items()
        ),
    )
    return Result("From submission to start", tuple(figures), notes)


async def _sample(name: str, enter: Entrance, alone: int, seconds: float) -> Sample:
    step(f"queue-latency: {name}")
    async with _warm(enter) as contest:
        idle = []
        for _ in range(alone):
            idle.append(await (await contest.send())())
            await asyncio.sleep(_IDLE_PAUSE)
        rate = await _most(contest) / 2
        return Sample(_delays(idle), await _loaded(contest, rate, seconds), rate)


async def _at_rate(name: str, enter: Entrance, rate: float, seconds: float) -> Delays:
    step(f"queue-latency: {name}, at {rate:,.0f}/s")
    async with _warm(enter) as contest:
        await _most(contest)
        return await _loaded(contest, rate, seconds)


@asynccontextmanager
async def _warm(enter: Entrance) -> AsyncIterator[Contest]:
    """A system whose worker is at work."""
    async with place() as here, enter(here) as contest, asyncio.timeout(_LIMIT), contest.worker():
        await (await contest.send())()
        yield contest


async def _most(contest: Contest) -> float:
    """Tasks a second, from the first submission to the last result."""
    before = await contest.finished()
    began = time.perf_counter()
    await contest.submit(_BURST)
    await reached(contest, before + _BURST)
    return _BURST / (time.perf_counter() - began)


async def _loaded(contest: Contest, rate: float, seconds: float) -> Delays:
    """Submit at an even rate, then ask for the results."""
    clock = asyncio.get_running_loop().time
    began = clock()
    sending = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - clock()))
        sending.append(asyncio.create_task(contest.send()))
    return _delays([await (await each)() for each in sending])


def _delays(seconds: list[float]) -> Delays:
    cuts = quantiles(seconds, n=100)
    return Delays(cuts[49] * 1000, cuts[98] * 1000)
