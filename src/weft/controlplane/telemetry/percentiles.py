"""How long calls took, from how many were counted in each bucket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.model.traffic_report import BOUNDS_MS, BUCKETS

_BOUNDS: Final = tuple(each / 1000 for each in BOUNDS_MS)


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The seconds within which `share` (0 to 1) of the counted calls ended; None if none was counted.

    Calls are taken to be spread evenly within their bucket, as Prometheus does: so the true value is in the
    same bucket, and the error at most its width. Of what took longer than the last bound only that is known:
    then it is that bound.
    """
    total = sum(buckets)
    if not total:
        return None
    rank, below = share * total, 0
    for bucket, calls in enumerate(buckets):
        if calls and below + calls >= rank:
            return _within(bucket, max(0.0, rank - below) / calls)
        below += calls
    return _BOUNDS[-1]


def _within(bucket: int, part: float) -> float:
    if bucket == BUCKETS - 1:
        return _BOUNDS[-1]
    low = _BOUNDS[bucket - 1] if bucket else 0.0
    return low + (_BOUNDS[bucket] - low) * part
