"""What the simulated provider allows, and the headers in which it tells so. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from weft.llm_sim.behaviour import Behaviour
from weft.llm_sim.windows import LENGTH_MS, MinuteWindow

Headers = tuple[tuple[str, str], ...]


class Limit(StrEnum):
    """What can be exceeded."""

    CONCURRENCY = "concurrency"
    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A request that is refused."""

    limit: Limit
    allowed: int
    present: int
    asked: int
    retry_after_ms: int


class Limits:
    """Concurrency and sliding windows. `now` is in whole milliseconds, and never goes back."""

    def __init__(self) -> None:
        self.window = MinuteWindow()
        self.in_flight = 0
        self.most_in_flight = 0

    def enter(self, behaviour: Behaviour, tokens: int, now: int) -> Exceeded | None:
        """Let a request in that counts for `tokens`, or say what it exceeds. `leave` when it has ended."""
        window = self.window
        window.move_to(now)
        if exceeded := self._exceeded(behaviour, tokens, now):
            return exceeded
        window.add(now, tokens)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return None

    def leave(self) -> None:
        """A request that was let in has ended."""
        self.in_flight -= 1

    def reset(self) -> None:
        """Forget the last minute and all maxima; what is under way still counts."""
        self.window = MinuteWindow()
        self.most_in_flight = self.in_flight

    def headers(self, behaviour: Behaviour, now: int) -> Headers:
        """`x-ratelimit-…`, for the limits there are."""
        if behaviour.requests_per_minute is None and behaviour.tokens_per_minute is None:
            return ()
        self.window.move_to(now)
        reset = go_duration(self.window.empty_in(now))
        limits = (
            ("requests", behaviour.requests_per_minute, self.window.requests),
            ("tokens", behaviour.tokens_per_minute, self.window.tokens),
        )
        return tuple(
            header
            for unit, allowed, used in limits
            if allowed is not None
            for header in (
                (f"x-ratelimit-limit-{unit}", str(allowed)),
                (f"x-ratelimit-remaining-{unit}", str(max(0, allowed - used))),
                (f"x-ratelimit-reset-{unit}", reset),
            )
        )

    def _exceeded(self, behaviour: Behaviour, tokens: int, now: int) -> Exceeded | None:
        window = self.window
        allowed = behaviour.concurrency
        if allowed is not None and self.in_flight >= allowed:
            return Exceeded(Limit.CONCURRENCY, allowed, self.in_flight, 1, 1000)
        requests, most_tokens = behaviour.requests_per_minute, behaviour.tokens_per_minute
        over = 0 if requests is None else window.requests + 1 - requests
        tokens_over = 0 if most_tokens is None else window.tokens + tokens - most_tokens
        if over <= 0 and tokens_over <= 0:
            return None
        wait = window.room_in(now, requests=over, tokens=tokens_over)
        if requests is not None and over > 0:
            return Exceeded(Limit.REQUESTS, requests, window.requests, 1, wait)
        # What is larger than the limit fits into no minute.
        return Exceeded(Limit.TOKENS, most_tokens or 0, window.tokens, tokens, wait or LENGTH_MS)


def retry_headers(milliseconds: int) -> Headers:
    """When to try again: whole seconds, as HTTP has it, and milliseconds, as OpenAI's clients read them."""
    return (
        ("retry-after", str(max(1, math.ceil(milliseconds / 1000)))),
        ("retry-after-ms", str(milliseconds)),
    )


def go_duration(milliseconds: int) -> str:
    """A duration as OpenAI's headers have it: `1m30s`, `1.5s`, `20ms`."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
