"""Calls over time as the API tells them, made into lines of a chart and rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from weft.dashboard.theme import SERIES

MAX_LINES = len(SERIES)
"""That a chart shows: more cannot be told apart. The table beside has all."""


_MANY = 0.05
"""The share of errors from which on it is bad."""


_OF_LATE = 30.0
"""Seconds of which a row tells the rate, or a step, whichever is longer."""


class Measure(StrEnum):
    """What a chart shows of each step."""

    CALLS = "calls"
    """In a second."""
    ERRORS = "errors"
    """Percent of the calls."""
    P50 = "p50"
    """Milliseconds, as is the next."""
    P99 = "p99"


_CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Point:
    """The calls of one step."""

    at: float
    """When it begins, in seconds since 1970."""
    calls: int
    errors: int
    p50: float | None
    """Seconds, as is `p99`; None: there were no calls."""
    p99: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One destination, or one version of it, over time."""

    destination: str
    kind: str
    version: str
    """Empty where versions are added up."""
    points: tuple[Point, ...]
    """By time. Steps without calls may be left out."""

    @property
    def id(self) -> str:
        """What tells it from the others."""
        return f"{self.kind}/{self.destination}/{self.version}"

    @property
    def calls(self) -> int:
        """In all."""
        return sum(each.calls for each in self.points)

    @property
    def errors(self) -> int:
        """In all."""
        return sum(each.errors for each in self.points)


@dataclass(frozen=True, slots=True)
class Traffic:
    """All lines, those with most calls first; what is asked of the control plane last, since nobody calls it
    for its own sake."""

    step: float
    """Seconds."""
    begin: float
    """Of the first step, in seconds since 1970."""
    until: float
    """When it was told: the last step is under way, unless it ends just then."""
    lines: tuple[Line, ...]

    @property
    def steps(self) -> int:
        """How many are over: only of these it is known how many calls they had."""
        return max(0, int((self.until - self.begin) / self.step + 1e-6))

    @property
    def end(self) -> float:
        """Of the last step that is over."""
        return self.begin + self.steps * self.step


def read_traffic(document: Mapping[str, Any]) -> Traffic:
    """What `GET /v1/traffic/series` answered."""
    lines = (
        Line(each["destination"], each["kind"], each.get("version", ""), _points(each["points"]))
        for each in document["series"]
    )
    return Traffic(
        float(document["step"]),
        float(document["from"]),
        float(document["until"]),
        tuple(sorted(lines, key=lambda each: (each.kind == _CONTROL, -each.calls, each.id))),
    )


def label(line: Line, *, by_version: bool) -> str:
    """What a line is called: its version, or its destination with its kind if that is no agent type."""
    if by_version:
        return f"version {line.version}" if line.version else "no version"
    return line.destination if line.kind == "agent" else f"{line.destination} ({line.kind})"


def placed(traffic: Traffic, before: Sequence[str] = ()) -> tuple[str, ...]:
    """Which line has which place, and so which colour, by id: the busiest; empty where a place is free.

    A line that had a place `before` keeps it while it is among those that are shown.
    """
    shown = [each.id for each in traffic.lines[:MAX_LINES]]
    places = [each if each in shown else "" for each in before] or [""] * MAX_LINES
    for each in shown:
        if each not in places:
            places[places.index("")] = each
    return tuple(places)


def drawn(
    traffic: Traffic, places: Sequence[str], measure: Measure, *, by_version: bool = False
) -> list[dict[str, Any]]:
    """A chart's series, one for each place: pairs of time (milliseconds since 1970) and value."""
    lines = {each.id: each for each in traffic.lines}
    return [
        _series(place, lines.get(each), traffic, measure, by_version=by_version)
        for place, each in enumerate(places)
    ]


def rows(traffic: Traffic, *, by_version: bool) -> list[dict[str, Any]]:
    """A row for each line, over the whole time; `rate` is of the last steps that are over."""
    return [_row(each, traffic, by_version=by_version) for each in traffic.lines]


def _points(points: Iterable[Sequence[Any]]) -> tuple[Point, ...]:
    return tuple(sorted((Point(*each[:5]) for each in points), key=lambda each: each.at))


def _series(
    place: int, line: Line | None, traffic: Traffic, measure: Measure, *, by_version: bool
) -> dict[str, Any]:
    return {
        "id": str(place),
        "type": "line",
        "name": label(line, by_version=by_version) if line is not None else "",
        "data": _drawn(line, traffic, measure) if line is not None else [],
        "color": SERIES[place],
        "symbol": "circle",
        "symbolSize": 3,
        "showSymbol": measure is not Measure.CALLS,
        "lineStyle": {"width": 1.6},
    }


def _drawn(line: Line, traffic: Traffic, measure: Measure) -> list[list[float | None]]:
    known = {_step_of(each.at, traffic): each for each in line.points}
    steps = range(traffic.steps)
    return [
        [(traffic.begin + step * traffic.step) * 1000, _value(known.get(step), traffic.step, measure)]
        for step in steps
    ]


def _step_of(at: float, traffic: Traffic) -> int:
    return round((at - traffic.begin) / traffic.step)


def _value(point: Point | None, step: float, measure: Measure) -> float | None:
    """What is drawn for a step: where there were no calls a gap, but for how many calls there were."""
    calls = point.calls if point is not None else 0
    if measure is Measure.CALLS:
        return round(calls / step, 3)
    if point is None or not calls:
        return None
    if measure is Measure.ERRORS:
        return round(100 * point.errors / calls, 2)
    latency = point.p50 if measure is Measure.P50 else point.p99
    return None if latency is None else round(latency * 1000, 2)


def _row(line: Line, traffic: Traffic, *, by_version: bool) -> dict[str, Any]:
    return {
        "id": line.id,
        "destination": line.destination,
        "name": label(line, by_version=by_version),
        "kind": line.kind,
        "calls": line.calls,
        "rate": _recent(line, traffic),
        "errors": line.errors,
        "tone": _tone(line),
        "errorShare": line.errors / line.calls if line.calls else None,
        "p50": _typical(line),
        "p99": max((it.p99 for it in line.points if it.p99 is not None), default=None),
    }


def _recent(line: Line, traffic: Traffic) -> float:
    """Calls per second of late."""
    length = traffic.step * max(1, int(_OF_LATE / traffic.step))
    calls = sum(it.calls for it in line.points if traffic.end - length <= it.at < traffic.end)
    return calls / length


def _tone(line: Line) -> str:
    """How the calls went."""
    if not line.errors:
        return "ok"
    return "bad" if line.errors >= _MANY * line.calls else "warn"


def _typical(line: Line) -> float | None:
    """The p50 of the step in which the middle one of all calls was."""
    steps = sorted((each.p50, each.calls) for each in line.points if each.p50 is not None)
    before, middle = 0, sum(calls for _, calls in steps) / 2
    for p50, calls in steps:
        before += calls
        if before >= middle:
            return p50
    return None
