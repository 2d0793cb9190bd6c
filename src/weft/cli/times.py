"""Times on the command line: lengths such as `5m` or `30d`, and moments."""

from __future__ import annotations

import re
import time

from weft.errors import InvalidRequest
from weft.model.cloud_event import parse_time
from weft.model.duration import parse_duration

DAY = 86_400.0
"""Seconds."""

_DAYS = re.compile(r"([0-9]{1,4})d")


def seconds(text: str, option: str) -> float:
    """The seconds in `500ms`, `90s`, `5m`, `2h` or `30d`, the value of `option`. Raises InvalidRequest."""
    days = _DAYS.fullmatch(text)
    try:
        return int(days[1]) * DAY if days else parse_duration(text)
    except ValueError:
        raise InvalidRequest(
            f"{option} {text[:50]!r} is no length of time: use 500ms, 90s, 5m, 2h, 30d"
        ) from None


def moment(text: str, option: str) -> float:
    """When that was, in seconds since 1970: so long ago, or a time in RFC 3339. Raises InvalidRequest."""
    if "-" in text or ":" in text:
        try:
            return parse_time(text).timestamp()
        except InvalidRequest as error:
            raise InvalidRequest(f"{option}: {error.detail}") from error
    return max(0.0, time.time() - seconds(text, option))


def short(length: float | None) -> str:
    """A length of time, in seconds, precisely where it is short: `35ms`, `1.5s`, `12s`, `5m`."""
    if length is None:
        return ""
    if length < 1:
        return f"{length * 1000:.0f}ms"
    if length < 10:
        return f"{length:.1f}s"
    for size, unit in ((DAY, "d"), (3600.0, "h"), (60.0, "m")):
        if length >= size:
            return f"{length / size:.0f}{unit}"
    return f"{length:.0f}s"
