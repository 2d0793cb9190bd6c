"""The plot of the case of fairness, as SVG written by hand: service of two tenants over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 920, 230
"""Of one panel, with its margins."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 130, 36, 32

_STYLE = """
  text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .note, .tick { fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .line { fill: none; stroke-width: 2 }
  .heavy { stroke: #cf222e }
  .light { stroke: #0969da }
  text.heavy { stroke: none; fill: #cf222e }
  text.light { stroke: none; fill: #0969da }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One way to decide who is served next."""

    title: str
    told: str
    """Beside the title."""
    lines: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]
    """Name, style, and how much was served until when."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where things are in one panel."""

    top: float
    seconds: float
    highest: float

    def x(self, moment: float) -> float:
        return _LEFT + moment / self.seconds * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.top + _TOP + (1 - value / self.highest) * (_HEIGHT - _TOP - _BOTTOM)


def plot(panels: Sequence[Panel], seconds: float, note: str) -> str:
    """The panels below each other, with the same axes."""
    highest = max(value for panel in panels for _, _, line in panel.lines for _, value in line)
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT * len(panels) + 24}">',
        "<title>Service of two tenants over time</title>",
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        lines += _drawn(panel, _Frame(number * _HEIGHT, seconds, highest))
    lines.append(f'<text class="note" x="{_LEFT}" y="{_HEIGHT * len(panels) + 12}">{escape(note)}</text>')
    return "\n".join([*lines, "</svg>\n"])


def _drawn(panel: Panel, frame: _Frame) -> Iterator[str]:
    yield (
        f'<text class="title" x="{_LEFT}" y="{frame.top + 22:.1f}">{escape(panel.title)}'
        f'<tspan class="note" dx="12" font-weight="400">{escape(panel.told)}</tspan></text>'
    )
    for part in (0.0, 0.5, 1.0):
        y = frame.y(frame.highest * part)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text("tick", _LEFT - 6, y + 4, f"{frame.highest * part / 1000:,.0f}k", "end")
    for number in range(6):
        moment = frame.seconds * number / 5
        yield _text("tick", frame.x(moment), frame.y(0) + 18, f"{moment:g} s", "middle")
    for _, style, line in panel.lines:
        points = " ".join(f"{frame.x(moment):.1f},{frame.y(value):.1f}" for moment, value in line)
        yield f'<polyline class="line {style}" points="{points}"/>'
    yield from _names(panel, frame)


def _names(panel: Panel, frame: _Frame) -> Iterator[str]:
    """Beside the ends of the lines, the higher one above."""
    ends = sorted(((frame.y(line[-1][1]), name, style) for name, style, line in panel.lines))
    lowest = frame.top
    for y, name, style in ends:
        lowest = max(y + 4, lowest + 15)
        yield _text(style, _WIDTH - _RIGHT + 8, lowest, name, "start")


def _text(kind: str, x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
