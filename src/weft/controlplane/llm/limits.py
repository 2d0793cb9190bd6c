"""What was sent to a provider in the last sixty seconds: counted exactly, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

WINDOW: Final = 60.0
"""Seconds to which limits per minute apply, whenever they begin."""

MARGIN: Final = 1.0
"""Seconds that a call may take from its admission to the provider, for limits to hold there."""

BUCKET: Final = 0.25
"""Seconds that are counted together. All of them leave the window when the last of them does."""

_ROUNDING: Final = 1e-6
"""Seconds by which floating point may be wrong at times since 1970; on the safe side."""


class Window:
    """Requests and tokens of the last minute, in buckets of time."""

    __slots__ = ("_buckets", "_first", "_leaves", "requests", "tokens")

    def __init__(self, buckets: Iterable[tuple[int, int, int]] = ()) -> None:
        """Go on from what `buckets` returned."""
        self._buckets = {number: [requests, tokens] for number, requests, tokens in buckets}
        self.requests = sum(each[0] for each in self._buckets.values())
        """In the window, as of the last `advance`."""
        self.tokens = sum(each[1] for each in self._buckets.values())
        self._find_first()

    def _find_first(self) -> None:
        self._first = min(self._buckets, default=None)
        self._leaves = math.inf if self._first is None else leaves(self._first)

    def advance(self, now: float) -> None:
        """Forget what is no longer in the window."""
        if now < self._leaves:
            return
        for number in [each for each in self._buckets if now >= leaves(each)]:
            requests, tokens = self._buckets.pop(number)
            self.requests -= requests
            self.tokens -= tokens
        self._find_first()

    def charge(self, now: float, requests: int, tokens: int) -> None:
        """Count what is sent at `now`, which may be a little in the future."""
        number = bucket_of(now)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [requests, tokens]
            if self._first is None or number < self._first:
                self._find_first()
        else:
            bucket[0] += requests
            bucket[1] += tokens
        self.requests += requests
        self.tokens += tokens

    def correct(self, charged: float, tokens: int) -> None:
        """Count `tokens` more, or less, of what was charged at that time; nothing if that has left."""
        bucket = self._buckets.get(bucket_of(charged))
        if bucket is not None:
            # Of a bucket that a predecessor began, less may be known than was in it.
            change = max(tokens, -bucket[1])
            bucket[1] += change
            self.tokens += change

    def not_beyond(self, now: float) -> None:
        """Count as of `now` what is counted as of later: whoever counted it had another clock."""
        latest = bucket_of(now)
        for number in [each for each in self._buckets if each > latest]:
            requests, tokens = self._buckets.pop(number)
            counts = self._buckets.setdefault(latest, [0, 0])
            counts[0] += requests
            counts[1] += tokens
        self._find_first()

    def next_leaves(self) -> float | None:
        """When something leaves the window next."""
        return None if self._first is None else self._leaves

    def buckets(self) -> tuple[tuple[int, int, int], ...]:
        """Numbers of buckets, with requests and tokens."""
        return tuple((number, counts[0], counts[1]) for number, counts in self._buckets.items())


def bucket_of(moment: float) -> int:
    """The number of the bucket that counts what happens at that time."""
    return int(moment / BUCKET)


def leaves(number: int) -> float:
    """When the bucket of that number is surely in no provider's window any more."""
    return (number + 1) * BUCKET + WINDOW + MARGIN + _ROUNDING
