"""Colours, in one place. Text on them has at least the contrast that WCAG 2.2 AA asks for (4.5 to 1)."""

from __future__ import annotations

OK = "#2f9e62"
WARN = "#d18700"
BAD = "#e0483e"
MUTED = "#7d8896"
ACCENT = "#3f7fdb"
"""In charts: legible on light and dark."""

SERIES = (ACCENT, OK, WARN, "#9467d6", "#1fa3a8", "#d1549a", "#8a7a3c", "#6c7ea8")
"""Of a chart's lines, in this order."""

_LIGHT = {
    "fg": "#17212b",
    "muted": "#55616e",
    "line": "#d5dbe1",
    "surface": "#ffffff",
    "page": "#f4f6f8",
    "raised": "#eef2f6",
    "accent": "#1f5fbf",
    "ok": "#1c7a46",
    "warn": "#945800",
    "bad": "#c0271d",
}
_DARK = {
    "fg": "#e4e9ee",
    "muted": "#9ba8b5",
    "line": "#333d48",
    "surface": "#171d24",
    "page": "#0f1419",
    "raised": "#202832",
    "accent": "#79aefc",
    "ok": "#54c98a",
    "warn": "#eeb04c",
    "bad": "#ff7d72",
}


def variables() -> str:
    """The colours as CSS variables, `--weft-<name>`, of both themes."""
    light, dark = (
        "".join(f"--weft-{name}:{value};" for name, value in each.items()) for each in (_LIGHT, _DARK)
    )
    return f"body{{{light}}}body.body--dark{{{dark}}}"
