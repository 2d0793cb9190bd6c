"""When budgets begin anew: periods in UTC. Times are seconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from weft.model.budget import Period

_LENGTHS: Final = {Period.MINUTE: 60, Period.HOUR: 3600, Period.DAY: 86_400}


def began(period: Period, now: float) -> int:
    """When the period began that `now` is in; 0 for the one that never ends."""
    if length := _LENGTHS.get(period):
        return int(now // length) * length
    if period is Period.TOTAL:
        return 0
    moment = datetime.fromtimestamp(now, UTC)
    return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp())


def ends(period: Period, start: int) -> int | None:
    """When the period that began at `start` is over; None: never."""
    if length := _LENGTHS.get(period):
        return start + length
    if period is Period.TOTAL:
        return None
    first = datetime.fromtimestamp(start, UTC)
    year, month = divmod(first.year * 12 + first.month, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())
