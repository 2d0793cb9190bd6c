"""How fast tenants use tokens: what they used in the last minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.call import Ended, LeasedEnds
from weft.controlplane.llm.usage import charge

WINDOW: Final = 60
"""Seconds that are looked back."""

MAX_TENANTS: Final = 1000
"""Tenants of pools that are told apart in one second, and in all; the rest are OTHERS."""

OTHERS: Final = "(other)"


@dataclass(frozen=True, slots=True)
class TenantRate:
    """What one tenant used of one pool in the last WINDOW. A call counts when it ends."""

    tenant: str
    pool: str
    calls_per_second: float
    tokens_per_second: float


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    tokens: int = 0


_Sums = dict[tuple[str, str], _Sum]


class RecentUsage:
    """Sums of the last sixty seconds. For one thread."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, _Sums]] = deque()

    def add(self, end: Ended, now: float) -> None:
        """Count a call that ended."""
        self._add(end.tenant, end.pool, 1, charge(end).tokens, now)

    def add_all(self, ends: LeasedEnds, now: float) -> None:
        """Count calls that ended."""
        self._add(ends.tenant, ends.pool, ends.calls, ends.tokens, now)

    def _add(self, tenant: str, pool: str, calls: int, tokens: int, now: float) -> None:
        self._forget(now)
        if not self._seconds or self._seconds[-1][0] < int(now):
            self._seconds.append((int(now), {}))
        _add(self._seconds[-1][1], (tenant, pool), calls, tokens)

    def rates(self, now: float) -> list[TenantRate]:
        """Who used how much, those who used most first."""
        self._forget(now)
        sums: _Sums = {}
        for _, second in self._seconds:
            for of, each in second.items():
                _add(sums, of, each.calls, each.tokens)
        rates = [
            TenantRate(tenant, pool, each.calls / WINDOW, each.tokens / WINDOW)
            for (tenant, pool), each in sums.items()
        ]
        return sorted(rates, key=lambda each: (-each.tokens_per_second, each.tenant, each.pool))

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW:
            self._seconds.popleft()


def _add(sums: _Sums, of: tuple[str, str], calls: int, tokens: int) -> None:
    if of not in sums and len(sums) >= MAX_TENANTS:
        of = (OTHERS, OTHERS)
    found = sums.setdefault(of, _Sum())
    found.calls += calls
    found.tokens += tokens
