"""How figures, times and states are written."""

from __future__ import annotations

from datetime import UTC, datetime

NOTHING = "–"  # noqa: RUF001 -- as it is written where there is no figure
"""Stands where there is nothing to tell."""


def rate(per_second: float | None) -> str:
    """Something per second: `0`, `0.25`, `12.3`, `1,234`."""
    if per_second is None:
        return NOTHING
    if per_second == 0:
        return "0"
    digits = 0 if per_second >= 100 else 1 if per_second >= 10 else 2
    return f"{per_second:,.{digits}f}"


def milliseconds(seconds: float | None) -> str:
    """A duration of a call: `0.8 ms`, `120 ms`, `2.4 s`."""
    if seconds is None:
        return NOTHING
    if seconds >= 1:
        return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent; a dash where there is nothing. Less than all never reads 100 %."""
    if whole <= 0:
        return NOTHING
    percent = 100 * part / whole
    if percent >= 99.95 and part < whole:
        return "99.9 %"
    return f"{percent:.1f} %" if percent < 99.95 else "100 %"


def count(number: float) -> str:
    """A whole number: `1,234`."""
    return f"{number:,.0f}"


def ago(moment: float, now: float) -> str:
    """A moment (seconds since 1970) as seen from `now`: `just now`, `12 s ago`, `in 3 h`."""
    distance = moment - now
    if abs(distance) < 2:
        return "just now"
    return f"in {span(distance)}" if distance > 0 else f"{span(-distance)} ago"


def span(seconds: float) -> str:
    """A length of time in its largest unit: `12 s`, `5 min`, `3 h`, `9 d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(seconds: float) -> str:
    """A moment (seconds since 1970) as `2026-11-22 00:05:12 UTC`."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "unknown"
