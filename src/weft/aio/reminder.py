"""When to say again that something still does not work."""

from __future__ import annotations

_SECOND = 1.0


class Reminder:
    """Due once after `first` seconds, then after twice as long each time, at most `longest` apart.

    With `first` 0 it is due at once, and then after a second. Time is whatever clock the caller passes in, in
    seconds.
    """

    def __init__(self, now: float, *, first: float = 3.0, longest: float = 60.0) -> None:
        self._pause = first
        self._longest = longest
        self._next = now + first

    def due(self, now: float) -> bool:
        """Whether it is time to say it; if so, the next time is set."""
        if now < self._next:
            return False
        self._pause = min(self._pause * 2 or _SECOND, self._longest)
        self._next = now + self._pause
        return True
