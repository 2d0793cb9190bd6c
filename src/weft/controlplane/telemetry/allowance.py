"""How much each sender of spans may send: so that one that floods harms itself only."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

RATE: Final = 8 * 1024 * 1024
"""Bytes a second, of one sender; about ten thousand spans."""

BURST: Final = 32 * 1024 * 1024
"""Bytes at once, after a while without any."""

MAX_SENDERS: Final = 20_000
"""That are told apart; beyond them those that were heard of least recently begin anew."""


class Allowances:
    """One for each sender, by who it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Bytes, and when that was so."""

    def take(self, sender: str, size: int) -> float:
        """Have `sender` send `size` bytes; return in how many seconds it may instead, 0 if it may now."""
        now = self._clock()
        left, since = self._left.pop(sender, (BURST, now))
        left = min(BURST, left + (now - since) * RATE)
        wait = 0.0 if size <= left else (size - left) / RATE
        self._left[sender] = (left if wait else left - size, now)
        while len(self._left) > MAX_SENDERS:
            self._left.popitem(last=False)
        return wait
