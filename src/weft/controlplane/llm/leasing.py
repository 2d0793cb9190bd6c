"""How much each sidecar may send without asking: part of the limits, charged to the windows when granted.

Nobody knows what becomes of a grant until long calls have ended, so nothing of it is ever given back: it
leaves the window with its minute. Therefore leases are for pools with room to spare, and for who needs them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.figures import Health, LeaseFigures
from weft.controlplane.llm.limits import WINDOW
from weft.controlplane.llm.providers import ProviderState
from weft.model.llm_lease import Grant

HORIZON: Final = 1.5 * 1.25
"""Seconds of its recent demand that a holder is granted: until the next grant reaches it, and some more."""

SHARE: Final = 0.7
"""Part of a limit that leases and what was sent may use together; the rest is for those that ask."""

USE_LAG: Final = 2.0
"""Seconds after which a grant may still be used: until the next has reached its holder."""

LARGE_REQUESTS: Final = 1_000_000
LARGE_TOKENS: Final = 900_000_000
"""A grant where there is no limit. A call that must ask is larger (`llm_wire.NEVER_LEASED`)."""

_HANDFUL: Final = 4
"""Requests that a grant is for at least."""

_FREE: Final = 0.04
"""Part of a limit that is leased in any case to those who send anything, for what they may want to send next:
who has used up a grant asks, and who asks is slower, so what it would have sent does not show in demand."""

_ASKABLE: Final = 1000.0
"""Calls in a second that the scheduler can surely be asked about. Of more a part goes on leases as long as
nobody waits, though there be no room for all: who had to ask for each would be slower, and seem to need
little."""

_LEAST_RATE: Final = 1.0
"""Calls in a second below which a holder asks, where there are limits: most of a grant would be lost."""

_IDLE: Final = 5.0
"""Seconds without demand after which a holder is granted nothing."""

_MAX_HOLDERS: Final = 10_000

_DECAY: Final = 0.6
"""What remains of a former rate in a second, where there is less demand now; more demand counts at once."""

_DEVIATIONS: Final = 3.0
"""Standard deviations from its mean share of the leased calls for which a provider is charged."""


@dataclass(slots=True)
class _Holder:
    last: float
    """When it last needed something."""
    requests: int = 0
    tokens: int = 0
    """Since the rates were reckoned."""
    request_rate: float = 0.0
    token_rate: float = 0.0
    grant: Grant | None = None


class Leasing:
    """Demand and grants of one pool, by holder."""

    def __init__(self, now: float) -> None:
        """Nobody holds anything."""
        self._holders: OrderedDict[str, _Holder] = OrderedDict()
        self._reckoned = now

    def demand(self, holder: str, requests: int, tokens: int, now: float) -> None:
        """A sidecar sent so much on its lease, or asked for it."""
        known = self._holders.get(holder)
        if known is None:
            known = self._holders[holder] = _Holder(now)
            if len(self._holders) > _MAX_HOLDERS:
                self._holders.popitem(last=False)
        self._holders.move_to_end(holder)
        known.last = now
        known.requests += requests
        known.tokens += tokens

    def void(self) -> dict[str, Grant]:
        """Nobody is granted anything."""
        for each in self._holders.values():
            each.grant = None
        return {}

    def grants(self, pool: str, providers: Sequence[ProviderState], now: float) -> dict[str, Grant]:
        """New grants for calls to `providers`, which are divided among them by weight; they are charged."""
        self._reckon(now)
        limits = _limits_of(providers, now)
        if not limits:
            large = Grant(pool, LARGE_REQUESTS, LARGE_TOKENS)
            return self._granted(dict.fromkeys(self._holders, large))
        if any(self._exceed(each) for each in limits):
            return self.void()
        active = [name for name, each in self._holders.items() if each.request_rate >= _LEAST_RATE]
        free = [each.free(len(active)) for each in limits]
        needs = {name: _need(self._holders[name], free) for name in active}
        scale = _scale(
            limits, sum(each[0] for each in needs.values()), sum(each[1] for each in needs.values())
        )
        bounded = any(each.tokens is not None for each in limits)
        grants = {}
        for name, (requests, tokens) in needs.items():
            number = math.floor(requests * scale)
            if number:
                size = max(1, math.floor(tokens * scale)) if bounded else LARGE_TOKENS
                grants[name] = Grant(pool, number, size)
        for limit in limits:
            limit.charge(
                sum(each.requests for each in grants.values()),
                sum(each.tokens for each in grants.values()) if bounded else 0,
                now + USE_LAG,
            )
        return self._granted(grants)

    def figures(self) -> Mapping[str, LeaseFigures]:
        """What holders need and have."""
        return {
            name: LeaseFigures(
                each.request_rate,
                each.token_rate,
                each.grant.requests if each.grant else 0,
                each.grant.tokens if each.grant else 0,
            )
            for name, each in self._holders.items()
        }

    def _granted(self, grants: dict[str, Grant]) -> dict[str, Grant]:
        for name, each in self._holders.items():
            each.grant = grants.get(name)
        return grants

    def _exceed(self, limit: _Limit) -> bool:
        """Whether demand is such that there will soon be no room to spare, and all can be asked for."""
        rate = sum(each.request_rate for each in self._holders.values())
        if rate > _ASKABLE:
            return False
        requests = rate * limit.part * WINDOW
        tokens = sum(each.token_rate for each in self._holders.values()) * limit.part * WINDOW
        return (limit.requests is not None and requests > SHARE * limit.requests) or (
            limit.tokens is not None and tokens > SHARE * limit.tokens
        )

    def _reckon(self, now: float) -> None:
        """Make rates of what was needed since the last time, and forget who needed nothing for long."""
        for name in [name for name, each in self._holders.items() if now - each.last > _IDLE]:
            del self._holders[name]
        # Reports come in batches: what came in less than half a second says little about a second.
        seconds = max(now - self._reckoned, 0.5)
        self._reckoned = now
        kept = _DECAY**seconds
        for each in self._holders.values():
            each.request_rate = max(each.requests / seconds, each.request_rate * kept)
            each.token_rate = max(each.tokens / seconds, each.token_rate * kept)
            each.requests = each.tokens = 0


class _Limit:
    """What one provider has to spare for leases."""

    def __init__(self, state: ProviderState, part: float) -> None:
        self._window = state.window
        self.requests = state.requests
        self.tokens = state.tokens
        self.part = part
        """Of the leased calls that go there."""

    def most_requests(self) -> float:
        """How many may be leased, so that its part surely fits."""
        if self.requests is None:
            return math.inf
        spare = _at_once(self.requests, self._window.requests)
        if spare <= 0:
            return 0.0
        spread = _DEVIATIONS * math.sqrt(self.part * (1 - self.part))
        # n requests come to n * part + spread * sqrt(n) at most.
        root = (math.sqrt(spread**2 + 4 * self.part * spare) - spread) / (2 * self.part)
        return root**2

    def most_tokens(self, requests: float) -> float:
        """How many tokens may be leased in so many requests."""
        if self.tokens is None:
            return math.inf
        return max(0.0, _at_once(self.tokens, self._window.tokens)) / self._share(requests)

    def free(self, holders: int) -> tuple[float, float]:
        """Requests and tokens for each of so many holders and for a second, whatever they need."""
        share = _FREE / (WINDOW * self.part * max(1, holders))
        return (
            math.inf if self.requests is None else self.requests * share,
            math.inf if self.tokens is None else self.tokens * share,
        )

    def charge(self, requests: int, tokens: int, at: float) -> None:
        """So much is leased, of all providers together."""
        if requests:
            share = self._share(requests)
            self._window.charge(at, math.ceil(requests * share), math.ceil(tokens * share))

    def _share(self, requests: float) -> float:
        spread = _DEVIATIONS * math.sqrt(self.part * (1 - self.part) / max(1.0, requests))
        return min(1.0, self.part + spread)


def _at_once(limit: int, used: int) -> float:
    """How much of a limit may be leased for the next second, where so much is in the window.

    Not more than a second's share: who needs half of a limit would else have all that can be leased in half
    a minute, since some of each grant is lost, and nothing in the next.
    """
    return min(SHARE * limit - used, SHARE * limit / WINDOW)


def may_lease(providers: Sequence[ProviderState], now: float) -> bool:
    """Whether calls may go to these, the pool's first, without being asked for."""
    return all(each.concurrency is None and each.health(now) is Health.HEALTHY for each in providers)


def _limits_of(providers: Sequence[ProviderState], now: float) -> list[_Limit]:
    weights = sum(each.provider.weight for each in providers)
    limits = []
    for each in providers:
        if each.requests is not None or each.tokens is not None:
            each.window.advance(now)
            limits.append(_Limit(each, each.provider.weight / weights))
    return limits


def _need(holder: _Holder, free: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Requests and tokens for one holder: what it sends, or what is `free` for it, if that is more."""
    size = holder.token_rate / holder.request_rate
    spare = min(min(requests, tokens / size if size else math.inf) for requests, tokens in free)
    requests = max(holder.request_rate * HORIZON, _HANDFUL, spare if math.isfinite(spare) else 0.0)
    return requests, requests * size


def _scale(limits: Sequence[_Limit], requests: float, tokens: float) -> float:
    """Which part of the demand may be granted."""
    scale = 1.0
    if requests:
        scale = min(scale, *(each.most_requests() / requests for each in limits))
    if tokens:
        scale = min(scale, *(each.most_tokens(requests * scale) / tokens for each in limits))
    return scale
