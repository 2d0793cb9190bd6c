"""When the keys that a watch knows run out of time.

The server could tell, by a marker in their place, but only in streams that also take the header
`Nats-Rollup`, with which whoever may write one key can remove all others. So each watch counts the time
itself, and asks the server whether a key that is due is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

_LATE = 0.05
"""Seconds that the server has for forgetting a key before it is asked."""


class Expiries:
    """The keys that a watch knows, at which revision they stand, and when they are due."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._revisions: dict[str, int] = {}
        self._due: list[tuple[float, str, int]] = []

    def __contains__(self, key: str) -> bool:
        """Whether the watch knows `key`."""
        return key in self._revisions

    def know(self, key: str, revision: int, time_left: float | None) -> None:
        """`key` stands at `revision`, for `time_left` seconds; for ever if that is None."""
        self._revisions[key] = revision
        if time_left is not None:
            self.look_again(key, revision, time_left + _LATE)

    def look_again(self, key: str, revision: int, pause: float) -> None:
        """Have `key` be due in `pause` seconds if it still stands at `revision` then."""
        heappush(self._due, (self._clock() + pause, key, revision))

    def forget(self, key: str) -> None:
        """`key` is gone."""
        self._revisions.pop(key, None)

    @property
    def next(self) -> float | None:
        """When the next key is due, by the clock; None if none ever is."""
        while self._due:
            due, key, revision = self._due[0]
            if self._revisions.get(key) == revision:
                return due
            heappop(self._due)
        return None

    def take_due(self) -> tuple[str, int] | None:
        """A key that is due, and its revision; None if none is, yet."""
        due = self.next
        if due is None or due > self._clock():
            return None
        _, key, revision = heappop(self._due)
        return key, revision
