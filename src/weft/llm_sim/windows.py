"""Sixty seconds that slide: how much came in the last minute, and when there is room again. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LENGTH_MS = 60_000


@dataclass(slots=True)
class _Tick:
    """What came within one millisecond."""

    at: int
    requests: int
    tokens: int


class MinuteWindow:
    """Requests and tokens of the last 60 seconds, to the millisecond. Times are whole milliseconds."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.most_requests = 0
        """In any 60 seconds so far."""
        self.most_tokens = 0
        self._ticks: deque[_Tick] = deque()

    def move_to(self, now: int) -> None:
        """Forget what is older than 60 seconds."""
        ticks = self._ticks
        while ticks and ticks[0].at <= now - LENGTH_MS:
            gone = ticks.popleft()
            self.requests -= gone.requests
            self.tokens -= gone.tokens

    def add(self, now: int, tokens: int) -> None:
        """Count a request."""
        last = self._ticks[-1] if self._ticks else None
        if last is not None and last.at >= now:
            last.requests += 1
            last.tokens += tokens
        else:
            self._ticks.append(_Tick(now, 1, tokens))
        self.requests += 1
        self.tokens += tokens
        self.most_requests = max(self.most_requests, self.requests)
        self.most_tokens = max(self.most_tokens, self.tokens)

    def empty_in(self, now: int) -> int:
        """Milliseconds until it is as if nothing had come."""
        return self._ticks[-1].at + LENGTH_MS - now if self._ticks else 0

    def room_in(self, now: int, *, requests: int, tokens: int) -> int:
        """Milliseconds until at least so many requests and tokens have left, or all have."""
        for tick in self._ticks:
            if requests <= 0 and tokens <= 0:
                return 0
            requests -= tick.requests
            tokens -= tick.tokens
            if requests <= 0 and tokens <= 0:
                return tick.at + LENGTH_MS - now
        return self.empty_in(now)
