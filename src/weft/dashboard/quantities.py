"""Quantities beside those of `wording`: tokens, money, bytes, long and short times. Unknown is a dash."""

from __future__ import annotations

from datetime import UTC, datetime

from weft.dashboard import wording

UNKNOWN = wording.rate(None)

_LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def compact(value: float | None) -> str:
    """A number that may be large: `7`, `1,250`, `48.2k`, `3.1M`."""
    if value is None:
        return UNKNOWN
    if abs(value) < 9_999.5:
        return f"{value:,.0f}"
    size, unit = next((size, unit) for size, unit in _LARGE if abs(value) >= 0.99995 * size)
    return f"{value / size:,.1f}{unit}"


def lasting(seconds: float | None) -> str:
    """How long, from parts of a millisecond to days: `0.4 ms`, `2.4 s`, `5 min`, `9 d`."""
    if seconds is None:
        return UNKNOWN
    return wording.milliseconds(seconds) if seconds < 60 else wording.span(seconds)


def usd(value: float | None) -> str:
    """Money: `$0.00`, `$0.0042`, `$12.50`, `$1,250.00`."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.0001:
        return "<$0.0001"
    return f"${value:.4f}" if 0 < value < 0.99995 else f"${value:,.2f}"


def size(value: float | None) -> str:
    """Bytes: `512 B`, `64 KiB`, `1.5 MiB`."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return _bytes(value, unit)
        value /= 1024
    return _bytes(value, "GiB")


def percent(share: float | None) -> str:
    """A share, 0 to 1, in percent; it may be more than the whole."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def clock(at: float | None) -> str:
    """The time of day, in UTC, of a moment in seconds since 1970: `12:04:09`."""
    try:
        return UNKNOWN if at is None else datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def date_and_clock(at: float | None) -> str:
    """Likewise with the day: `2026-11-22 12:04:09`. It sorts by time."""
    try:
        return UNKNOWN if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def parsed(text: str | None) -> float | None:
    """The seconds since 1970 of a time as RFC 3339; None for none, and for what is no time."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError, OSError):
        return None


def _bytes(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
