"""A simulated LLM that is slow in bursts, the same ones for everybody. All seconds are simulated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

SEED = 4

SERVED = 5.0
"""Requests a second that one agent serves, in the mean over time."""

CONCURRENCY = 4
"""Calls to the LLM that one agent makes at once."""

_SLOWDOWN = 20.0
"""How many times as long an answer takes during a burst."""
_CALM = 110.0
_BURST = 80.0
"""Seconds that each takes, 30% more or less."""


@dataclass(frozen=True, slots=True)
class Llm:
    """How long its answers take, by time."""

    changes: tuple[float, ...]
    """When it becomes slow, fast again, and so on; at 0 it is fast."""
    calm: float
    """Seconds that an answer takes in the mean, outside of bursts."""

    def duration(self, now: float, number: int) -> float:
        """Seconds that the answer to request `number` takes, asked for at `now`."""
        # The generator is for a game of chance, and the same at each call.
        spread = random.Random(SEED * 1_000_003 + number).uniform(0.7, 1.3)
        return self.calm * spread * (_SLOWDOWN if self.slow(now) else 1.0)

    def slow(self, now: float) -> bool:
        """Whether there is a burst at that time."""
        return sum(each <= now for each in self.changes) % 2 == 1

    def bursts(self, until: float) -> list[tuple[float, float]]:
        """From when to when it is slow."""
        edges = [each for each in self.changes if each < until]
        return list(zip(edges[::2], [*edges[1::2], until], strict=False))


def llm(seconds: float) -> Llm:
    """An LLM by which one agent serves SERVED requests a second, in the mean over so many seconds."""
    # It goes on behind the last request, for those that are answered later.
    changes = tuple(_changes(2 * seconds))
    speed = 0.0
    within = (each for each in changes if each < seconds)
    for number, (start, end) in enumerate(pairwise((0.0, *within, seconds))):
        speed += (end - start) / (_SLOWDOWN if number % 2 else 1.0)
    return Llm(changes, calm=CONCURRENCY * speed / seconds / SERVED)


def arrivals(rate: float, seconds: float) -> list[float]:
    """When requests come: at random, `rate` in a second. The same for every rate, but for their distance."""
    chance = random.Random(SEED)
    found, now = [], 0.0
    while (now := now + chance.expovariate(1.0) / rate) < seconds:
        found.append(now)
    return found


def _changes(seconds: float) -> Iterator[float]:
    chance = random.Random(SEED)
    now, mean, other = 0.0, _CALM, _BURST
    while (now := now + mean * chance.uniform(0.7, 1.3)) < seconds:
        yield now
        mean, other = other, mean
