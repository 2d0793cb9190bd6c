"""Durations: `500ms`, `30s`, `5m`, `1h` in manifests, seconds in Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

_DURATION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?(ms|s|m|h)")
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Milliseconds in a unit, the largest unit first."""

DURATION_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,3})?(s|m|h)|[0-9]{1,9}(\.0{1,3})?ms)$"
"""What a duration looks like, for schemas."""

_HINT = "use a number with a unit: 500ms, 30s, 5m, 1h"


def parse_duration(text: str) -> float:
    """The seconds in a duration such as `500ms`, `1.5s`, `5m` or `1h`.

    Raises ValueError if it is no duration, or is finer than a millisecond.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"is not a duration: {_HINT}")
    whole, fraction, unit = match.groups(default="")
    thousandths = int(whole) * 1000 + int(fraction.ljust(3, "0"))
    milliseconds, finer = divmod(thousandths * _UNITS[unit], 1000)
    if finer:
        raise ValueError("is finer than a millisecond")
    return milliseconds / 1000


def format_duration(seconds: float) -> str:
    """`seconds` as a duration: in the largest unit that divides it, or in milliseconds."""
    milliseconds = round(seconds * 1000)
    if not milliseconds:
        return "0s"
    unit, size = next((unit, size) for unit, size in _UNITS.items() if milliseconds % size == 0)
    return f"{milliseconds // size}{unit}"


def between(low: str, high: str) -> Callable[[float], float]:
    """A validator for durations from `low` to `high`."""
    least, most = parse_duration(low), parse_duration(high)

    def check(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(f"must be between {low} and {high}")
        return seconds

    return check


def _read(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if info.mode == "json":
        raise ValueError(f"is not a duration: {_HINT}")
    return value


Duration = Annotated[
    float,
    BeforeValidator(_read),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}, mode="validation"),
]
"""Seconds; in JSON and YAML a text with a unit."""

Timeout = Annotated[Duration, AfterValidator(between("1ms", "24h"))]
"""A time limit in seconds, a millisecond to a day."""

Grace = Annotated[Duration, AfterValidator(between("0s", "24h"))]
"""Seconds that something is given, none to a day."""

Interval = Annotated[Duration, AfterValidator(between("50ms", "24h"))]
"""Seconds between things that recur, a twentieth to a day."""
