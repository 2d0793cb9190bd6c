"""Counts of the recent past, by steps of time: the oldest step makes room for the newest."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Final

from weft.model.traffic_report import BUCKETS, Calls

_CALLS, _ERRORS, _REFUSED, _ABANDONED, _FIRST_BUCKET = range(5)
_WIDTH: Final = _FIRST_BUCKET + BUCKETS
_FULL: Final = 2**32 - 1
_NOTHING: Final = array("I", bytes(4 * _WIDTH))
_NO_ROW: Final = (0,) * _WIDTH


@dataclass(frozen=True, slots=True)
class Resolution:
    """How finely, and for how long, counts are kept."""

    step: int
    """Seconds."""
    steps: int

    @property
    def span(self) -> int:
        """Seconds that are looked back at most, the step that is under way included."""
        return self.step * self.steps


@dataclass(slots=True)
class Window:
    """What was counted within some time."""

    calls: int = 0
    errors: int = 0
    refused: int = 0
    abandoned: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, other: Window) -> None:
        """Add what `other` counted."""
        self.calls += other.calls
        self.errors += other.errors
        self.refused += other.refused
        self.abandoned += other.abandoned
        self.buckets = list(map(add, self.buckets, other.buckets))


class Row(list[int]):
    """The counts of one step. False while nothing was counted."""

    def __init__(self) -> None:
        super().__init__(_NO_ROW)
        self._counted = False

    def __bool__(self) -> bool:
        return self._counted

    def add(self, calls: Calls) -> int:
        """Count `calls`; return how many these are."""
        self._counted = True
        total = calls.calls
        self[_CALLS] += total
        self[_ERRORS] += calls.errors
        self[_REFUSED] += calls.refused
        self[_ABANDONED] += calls.abandoned
        for at, number in enumerate(calls.buckets, _FIRST_BUCKET):
            if number:
                self[at] += number
        return total


class Ring:
    """Counts by steps of one resolution. Times are seconds since 1970, or of any clock."""

    __slots__ = ("_counts", "_newest", "_oldest", "_resolution")

    def __init__(self, resolution: Resolution, now: float) -> None:
        self._resolution = resolution
        self._counts = array("I", bytes(4 * _WIDTH * resolution.steps))
        self._newest = self._oldest = int(now // resolution.step)

    def add(self, at: float, row: Row) -> None:
        """Count what came at that time; nothing may have come after it."""
        base = self._advance(at)
        former = self._counts[base : base + _WIDTH]
        self._counts[base : base + _WIDTH] = array("I", [min(each, _FULL) for each in map(add, former, row)])

    def sum(self, since: float) -> Window | None:
        """What was counted in the steps that had not ended by `since`; None if nothing was."""
        total: list[int] | None = None
        for _, row in self._rows(since):
            total = list(row) if total is None else list(map(add, total, row))
        return None if total is None else _window(total)

    def steps(self, since: float) -> Iterator[tuple[int, Window]]:
        """The steps that had not ended by `since` and in which something was counted, with their numbers."""
        return ((step, _window(row)) for step, row in self._rows(since))

    def _rows(self, since: float) -> Iterator[tuple[int, Sequence[int]]]:
        first = max(int(since // self._resolution.step), self._oldest)
        for step in range(first, self._newest + 1):
            base = step % self._resolution.steps * _WIDTH
            row = self._counts[base : base + _WIDTH]
            if row != _NOTHING:
                yield step, row

    def _advance(self, now: float) -> int:
        """Make room up to the present step; return where its counts begin."""
        steps = self._resolution.steps
        # Where the clock went back, it is counted where it was.
        newest = max(self._newest, int(now // self._resolution.step))
        if newest - self._newest >= steps:
            self._counts = array("I", bytes(4 * _WIDTH * steps))
        else:
            for step in range(self._newest + 1, newest + 1):
                base = step % steps * _WIDTH
                self._counts[base : base + _WIDTH] = _NOTHING
        self._newest = newest
        self._oldest = max(self._oldest, newest - steps + 1)
        return newest % steps * _WIDTH


def _window(row: Sequence[int]) -> Window:
    return Window(row[_CALLS], row[_ERRORS], row[_REFUSED], row[_ABANDONED], list(row[_FIRST_BUCKET:]))
