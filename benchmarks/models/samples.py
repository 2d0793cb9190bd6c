"""What one way to a model does in one round: its rate, its latency alone, its processor time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.load import Load, Target, closed_loop
from benchmarks.models.doors import Door, takes_calls
from benchmarks.processes import cpu_seconds
from benchmarks.progress import step

from weft.aio.guard import Guard

CONNECTIONS = 32

_SHORTEST = 2
"""Seconds of a load at least: the slowest way answers 32 connections about once a second."""

DIRECT = "direct"
"""The name of no way at all."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round; latencies in milliseconds."""

    rate: float
    """Calls a second over CONNECTIONS."""
    cpu: float
    """Microseconds of processor time of the way's own processes for each of these calls."""
    p50: float
    p99: float
    """Of one call after the other over one connection."""
    streams: float
    """Streamed calls a second over CONNECTIONS; 0 where that is not measured."""


async def sample(guard: Guard, door: Door, *, seconds: int) -> Sample:
    """Load one way: `seconds` with whole answers, half as long with one connection and with streams.

    Raises RuntimeError if a load came to no answer at all, of which there would be nothing to tell.
    """
    short = max(_SHORTEST, seconds // 2)
    before = _used(door.pids)
    load = await _loaded(guard, door.whole, CONNECTIONS, max(_SHORTEST, seconds))
    cpu = (_used(door.pids) - before) / load.requests * 1e6
    alone = await _loaded(guard, door.whole, 1, short)
    streams = 0.0
    if door.streamed is not None:
        streams = (await _loaded(guard, door.streamed, CONNECTIONS, short)).rate
    return Sample(load.rate, cpu, alone.p50, alone.p99, streams)


async def _loaded(guard: Guard, target: Target, connections: int, seconds: int) -> Load:
    # What the load before has left unanswered is still worked off by who is slow.
    await takes_calls(target)
    load = await closed_loop(guard, target, connections=connections, seconds=seconds)
    if not load.requests:
        raise RuntimeError(f"no call to {target.url} was answered in {seconds} s")
    return load


def _used(pids: Sequence[int]) -> float:
    return sum(cpu_seconds(each) for each in pids)


class Rounds:
    """What every way did in every round, one right after the other."""

    def __init__(self, taken: Sequence[Mapping[str, Sample]]) -> None:
        self._taken = taken

    def __len__(self) -> int:
        return len(self._taken)

    def __contains__(self, name: object) -> bool:
        return name in self._taken[0]

    def median(self, name: str, what: str) -> float:
        """The median of one of a way's figures."""
        found: float = median(getattr(each[name], what) for each in self._taken)
        return found

    def added(self, name: str, what: str) -> float:
        """The median of what a way adds to a latency: minus the provider alone, in the same round."""
        found: float = median(getattr(each[name], what) - getattr(each[DIRECT], what) for each in self._taken)
        return found

    def told(self, name: str, what: str) -> str:
        """A figure in each of the rounds, for those who wonder how much is noise."""
        return ", ".join(f"{getattr(each[name], what):,.0f}" for each in self._taken)


async def rounds_of(
    guard: Guard, doors: Mapping[str, Door], rounds: int, seconds: int, benchmark: str
) -> Rounds:
    """Interleaved rounds through all `doors`, after a short one that does not count."""
    taken = []
    for number in range(rounds + 1):
        found = {}
        for name, door in doors.items():
            step(f"{benchmark}: {f'round {number} of {rounds}' if number else 'warming up'}, {name}")
            found[name] = await sample(guard, door, seconds=seconds if number else 1)
        taken.append(found)
    return Rounds(taken[1:])
