"""The plot of the seed's case, as SVG written by hand: response times and the number of agents over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.seed.clients import Response

_WIDTH, _HEIGHT = 920, 210
"""Of one panel, with its margins."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 56, 34, 30

_STYLE = """
  text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .note, .tick { fill: #57606a }
  .burst { fill: #ffe3b3; opacity: .55 }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .limit { stroke: #cf222e; stroke-dasharray: 5 4 }
  .dots { stroke-width: 3; stroke-linecap: round }
  .answered { stroke: #0969da; stroke-opacity: .45 }
  .late { stroke: #cf222e; stroke-opacity: .6 }
  .agents { fill: none; stroke: #1a7f37; stroke-width: 2 }
  .green { fill: #1a7f37 }
  .red { fill: #cf222e }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One way to serve the requests."""

    title: str
    responses: Sequence[Response]
    agents: Sequence[tuple[float, int]]
    """How many there were, from which second on."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where things are in one panel."""

    top: float
    seconds: float
    highest: float
    """Seconds of response time."""
    most: int
    """Agents."""

    def x(self, moment: float) -> float:
        inside = min(max(moment / self.seconds, 0.0), 1.0)
        return _LEFT + inside * (_WIDTH - _LEFT - _RIGHT)

    def y(self, part: float) -> float:
        """Of a part of the panel's height."""
        return self.top + _TOP + (1 - min(part, 1.0)) * (_HEIGHT - _TOP - _BOTTOM)


def plot(panels: Sequence[Panel], bursts: Sequence[tuple[float, float]], limit: float) -> str:
    """The panels below each other, with the same axes; `bursts` are shaded, `limit` is drawn as a line."""
    answered = [each.took for panel in panels for each in panel.responses if each.took is not None]
    highest = _round_up(max([limit * 1.2, *answered]))
    seconds = max(each.sent + (each.took or limit) for panel in panels for each in panel.responses)
    most = max(count for panel in panels for _, count in panel.agents)
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT * len(panels) + 24}">',
        "<title>Response times and agents over time</title>",
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        frame = _Frame(number * _HEIGHT, seconds, highest, max(4, _even(most)))
        lines += _drawn(panel, frame, bursts, limit)
    lines.append(
        f'<text class="note" x="{_LEFT}" y="{_HEIGHT * len(panels) + 12}">seconds; shaded: the LLM is slow; '
        f"dots: response times by when the request was sent, red: not answered within {limit:g} s; "
        "green: agents at work</text>"
    )
    return "\n".join([*lines, "</svg>\n"])


def _drawn(panel: Panel, frame: _Frame, bursts: Sequence[tuple[float, float]], limit: float) -> Iterator[str]:
    late = sum(each.took is None for each in panel.responses)
    told = f"{late:,} of {len(panel.responses):,} not answered" if late else "all answered"
    yield (
        f'<text class="title" x="{_LEFT}" y="{frame.top + 22:.1f}">{escape(panel.title)}'
        f'<tspan class="note" dx="12" font-weight="400">{told}</tspan></text>'
    )
    bottom, ceiling = frame.y(0), frame.y(1)
    for start, end in bursts:
        width = frame.x(end) - frame.x(start)
        yield (
            f'<rect class="burst" x="{frame.x(start):.1f}" y="{ceiling:.1f}" width="{width:.1f}" '
            f'height="{bottom - ceiling:.1f}"/>'
        )
    yield from _axes(frame)
    level = frame.y(limit / frame.highest)
    yield f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>'
    for kind, some in (
        ("answered", [(each.sent, each.took) for each in panel.responses if each.took is not None]),
        ("late", [(each.sent, limit) for each in panel.responses if each.took is None]),
    ):
        yield f'<path class="dots {kind}" d="{_dots(some, frame)}"/>'
    yield f'<path class="agents" d="{_steps(panel.agents, frame)}"/>'


def _dots(points: Sequence[tuple[float, float]], frame: _Frame) -> str:
    """A path of lines without length, whose round ends are the dots: a tenth of what circles would take."""
    return "".join(f"M{frame.x(sent):.0f} {frame.y(took / frame.highest):.0f}h0" for sent, took in points)


def _axes(frame: _Frame) -> Iterator[str]:
    for part in (0.0, 0.5, 1.0):
        y = frame.y(part)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text("tick", _LEFT - 6, y + 4, f"{frame.highest * part:g} s", "end")
        yield _text("green", _WIDTH - _RIGHT + 6, y + 4, f"{frame.most * part:g}", "start")
    step = _round_up(frame.seconds / 8)
    for number in range(int(frame.seconds / step) + 1):
        yield _text("tick", frame.x(number * step), frame.y(0) + 16, f"{number * step:g}", "middle")


def _text(kind: str, x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _steps(agents: Sequence[tuple[float, int]], frame: _Frame) -> str:
    """The number of agents as a line that goes up and down in steps."""
    points: list[str] = []
    former = None
    for moment, count in [*agents, (frame.seconds, agents[-1][1])]:
        y = frame.y(count / frame.most)
        if former is None:
            points.append(f"M{frame.x(moment):.1f} {y:.1f}")
        elif count != former or moment == frame.seconds:
            points.append(f"H{frame.x(moment):.1f} V{y:.1f}")
        former = count
    return " ".join(points)


def _round_up(value: float) -> float:
    """To a number that is easily halved."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _even(value: int) -> int:
    return value + value % 2
