"""How much each caller may ask for in a time: token buckets, shared out among a gateway's instances.

Headers as in draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy: "default";q=100;w=60` and
`RateLimit: "default";r=42;t=3`.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from weft.model.gateway import Rate

MAX_CALLERS = 20_000
"""Callers that are remembered; of more, those who have not been seen for longest begin anew."""

_ROUNDING = 1e-6  # of a request: time is added up in floating point


@dataclass(frozen=True, slots=True)
class Quota:
    """How a caller stands after it has asked for something."""

    granted: bool
    rate: Rate
    remaining: int
    """Requests that it may make now."""
    wait: float
    """Seconds until it may make one more than that; if none was granted: that one."""

    @property
    def headers(self) -> dict[str, str]:
        """What the caller is told."""
        window = max(1, math.ceil(self.rate.per))
        return {
            "ratelimit-policy": f'"default";q={self.rate.requests};w={window}',
            "ratelimit": f'"default";r={self.remaining};t={math.ceil(self.wait)}',
        }


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimits:
    """Counts what callers ask for."""

    def __init__(self, share: Callable[[], int], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`share` gives how many gateways there are to share the limits; `clock` tells seconds."""
        self._share = share
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str, rate: Rate) -> Quota:
        """Count one request of `caller`, who may make so many."""
        share = max(1, self._share())
        # At least one at a time, or there would be limits under which nothing ever gets through.
        capacity = max(1.0, rate.requests / share)
        speed = rate.requests / rate.per / share
        bucket = self._bucket(caller, capacity, speed)
        granted = bucket.tokens > 1 - _ROUNDING
        if granted:
            bucket.tokens = max(0.0, bucket.tokens - 1)
        missing = math.floor(bucket.tokens) + 1 - bucket.tokens
        return Quota(granted, rate, int(bucket.tokens), missing / speed)

    def _bucket(self, caller: str, capacity: float, speed: float) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(capacity, now)
            if len(self._buckets) > MAX_CALLERS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        bucket.tokens = min(capacity, bucket.tokens + (now - bucket.at) * speed)
        bucket.at = now
        return bucket
