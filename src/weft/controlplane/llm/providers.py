"""One provider as the scheduler sees it: whether it may be sent a call, by its limits and by how it fares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.controlplane.llm.affinity import is_bearable
from weft.controlplane.llm.call import RateLimitNews
from weft.controlplane.llm.estimates import Pace
from weft.controlplane.llm.figures import Health, ProviderFigures
from weft.controlplane.llm.health import Circuit, Cooling
from weft.controlplane.llm.limits import WINDOW, Window
from weft.controlplane.llm.pool_state import ProviderRecord
from weft.model.model_pool import Provider

_NEARLY: Final = 0.9
"""Part of a limit that must be used for the provider's `remaining: 0` to be no news."""

_NO_RESET: Final = 1.0
"""Seconds to spare a provider that has nothing remaining, and does not say until when."""

_PUSHBACK: Final = frozenset({429, 503, 529})
"""Statuses whose `retry-after` is about how much is asked."""

_FAULTS: Final = frozenset({0, 401, 403, 408})
"""Statuses below 500 that are the provider's fault, or that of how it was declared, and not the call's."""

_GRACE: Final = 30.0
"""Seconds beyond its timeout for which the end of a call may be under way to us."""

_LONGEST_STREAM: Final = 3600.0
"""Seconds after which nobody will hear how a stream ended. Streams have no timeout."""


def is_fault(status: int) -> bool:
    """Whether an answer of that status speaks against the provider."""
    return status >= 500 or status in _FAULTS


class ProviderState:
    """One provider: what counts towards its limits, and how it is."""

    def __init__(self, provider: Provider, record: ProviderRecord | None = None) -> None:
        """Go on from what is kept of it."""
        self.window = Window(record.buckets if record else ())
        self.cooling = Cooling(record)
        self.circuit = Circuit(record)
        self.pace = Pace()
        self.under_way = 0
        self.bit = 0
        """Which of the bits of a lane stands for it; 0: it is no longer declared."""
        self.turn = 0.0
        """For smooth weighted round robin."""
        self._told_requests = record.told_requests if record else None
        self._told_tokens = record.told_tokens if record else None
        self.provider = provider
        self.declare(provider)

    def declare(self, provider: Provider) -> None:
        """It is declared so, from now on. What is another service now is not judged by what it was."""
        if _service(provider) != _service(self.provider):
            self.cooling, self.circuit, self.pace = Cooling(), Circuit(), Pace()
            self._told_requests = self._told_tokens = None
        self.provider = provider
        self.name = provider.name
        self.concurrency = provider.limits.concurrency
        self.context_tokens = provider.limits.context_tokens
        self._set_limits()

    def _set_limits(self) -> None:
        limits = self.provider.limits
        self.requests = _lower(limits.requests_per_minute, self._told_requests)
        self.tokens = _lower(limits.tokens_per_minute, self._told_tokens)

    def has_room(self, tokens: int, now: float) -> bool:
        """Whether a call of so many tokens may be sent."""
        if self.concurrency is not None and self.under_way >= self.concurrency:
            return False
        if now < self.cooling.until or not self.circuit.permits(now):
            return False
        if self.requests is None and self.tokens is None:
            return True
        window = self.window
        window.advance(now)
        if self.requests is not None and window.requests >= self.requests:
            return False
        # What no window holds has one for itself.
        return self.tokens is None or window.tokens + min(tokens, self.tokens) <= self.tokens

    def sent(self, tokens: int, now: float) -> int:
        """A call is sent. Returns the generation of its circuit."""
        self.under_way += 1
        self.window.advance(now)
        self.window.charge(now, 1, tokens)
        return self.circuit.sent()

    def over(self, generation: int) -> None:
        """A call is over, however."""
        self.under_way -= 1
        self.circuit.over(generation)

    def lifetime(self, streaming: bool) -> float:
        """Seconds after which nobody will hear how a call to it ended."""
        timeout = self.provider.timeout
        return (max(timeout, _LONGEST_STREAM) if streaming else timeout) + _GRACE

    def answered(self, started: float, generation: int, calls: int = 1) -> None:
        """Calls, the last of which began at `started`, were answered well."""
        self.circuit.succeeded(generation, calls)
        self.cooling.answered(started)

    def learn(self, news: RateLimitNews | None, status: int, now: float) -> None:
        """An answer of that status says this of its limits."""
        if news is not None:
            if news.limit_requests:
                self._told_requests = news.limit_requests
            if news.limit_tokens:
                self._told_tokens = news.limit_tokens
            self._set_limits()
        waits = [] if news is None else self._waits(news, status)
        if waits:
            self.cooling.spare(now, max(waits))
        elif status == 429:
            self.cooling.back_off(now)

    def _waits(self, news: RateLimitNews, status: int) -> list[float]:
        waits = []
        if status in _PUSHBACK and news.retry_after is not None:
            waits.append(news.retry_after)
        # When all that is declared is used up there is nothing remaining as a matter of course; when it will
        # be more the window knows better than `reset`, which tells when there will be all of it.
        for remaining, reset, used, limit in (
            (news.remaining_requests, news.reset_requests, self.window.requests, self.requests),
            (news.remaining_tokens, news.reset_tokens, self.window.tokens, self.tokens),
        ):
            expected = limit is not None and used >= _NEARLY * limit and status != 429
            if remaining == 0 and not expected and not waits:
                waits.append(_NO_RESET if reset is None else reset)
        return waits

    def available_at(self) -> float:
        """When it may be sent something again, but for its limits; in the past if it may."""
        return max(self.cooling.until, self.circuit.until)

    def next_room(self, now: float) -> float | None:
        """When it may have room that it has not now, though nothing happens."""
        at = self.available_at()
        if now < at:
            return at
        self.window.advance(now)
        limited = self.requests is not None or self.tokens is not None
        return self.window.next_leaves() if limited else None

    def capacity(self) -> float | None:
        """Calls that it can take in a second, by its limits and by experience; None: nobody knows."""
        rates = []
        if self.concurrency is not None and self.pace.duration:
            rates.append(self.concurrency / self.pace.duration)
        if self.requests is not None:
            rates.append(self.requests / WINDOW)
        if self.tokens is not None and self.pace.tokens:
            rates.append(self.tokens / WINDOW / self.pace.tokens)
        return min(rates, default=None)

    def health(self, now: float) -> Health:
        """How it is."""
        if self.circuit.allowed is not None:
            return Health.BROKEN if now < self.circuit.until else Health.RETURNING
        return Health.COOLING if now < self.cooling.until else Health.HEALTHY

    def is_idle(self, now: float) -> bool:
        """Whether nothing of it needs to be remembered."""
        self.window.advance(now)
        return not self.under_way and self.window.next_leaves() is None

    def record(self) -> ProviderRecord:
        """What a successor must know."""
        return ProviderRecord(
            self.name,
            self.window.buckets(),
            self.cooling.until,
            self.cooling.pushbacks,
            self.circuit.until,
            self.circuit.openings,
            self._told_requests,
            self._told_tokens,
        )

    def figures(self, now: float) -> ProviderFigures:
        """What can be seen of it."""
        self.window.advance(now)
        until = self.available_at()
        return ProviderFigures(
            name=self.name,
            health=self.health(now),
            until=until if now < until else None,
            under_way=self.under_way,
            requests_in_window=self.window.requests,
            tokens_in_window=self.window.tokens,
            concurrency=self.concurrency,
            requests_per_minute=self.requests,
            tokens_per_minute=self.tokens,
            first_token_seconds=self.pace.first_token,
            token_seconds=self.pace.per_token,
        )


def choose(
    providers: Sequence[ProviderState], lane: int, tokens: int, preferred: str | None, now: float
) -> ProviderState | None:
    """Where a call goes that may go to the providers of `lane`, and takes so many tokens. None: nowhere now.

    `providers` are in their order: the first order that has room; within it the preferred one, if it is not
    overloaded, else by weight.
    """
    able: list[ProviderState] = []
    for each in providers:
        if able and each.provider.order != able[0].provider.order:
            break
        if lane & each.bit and each.has_room(tokens, now):
            able.append(each)
    if len(able) <= 1:
        return able[0] if able else None
    return _preferred(able, preferred) or _by_weight(able)


def _preferred(able: Sequence[ProviderState], name: str | None) -> ProviderState | None:
    if name is None:
        return None
    together = sum(each.under_way for each in able)
    weights = sum(each.provider.weight for each in able)
    for each in able:
        if each.name == name and is_bearable(each.under_way, together, each.provider.weight, weights):
            return each
    return None


def _by_weight(able: Sequence[ProviderState]) -> ProviderState:
    """Smooth weighted round robin."""
    for each in able:
        each.turn += each.provider.weight
    chosen = max(able, key=lambda each: each.turn)
    chosen.turn -= sum(each.provider.weight for each in able)
    return chosen


def _service(provider: Provider) -> tuple[object, ...]:
    """What makes it another service if it is changed."""
    return provider.base_url, provider.address, provider.model, provider.key


def _lower(declared: int | None, told: int | None) -> int | None:
    if declared is None or told is None:
        return told if declared is None else declared
    return min(declared, told)
