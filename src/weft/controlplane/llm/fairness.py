"""Fair shares between tenants: the Virtual Token Counter of arXiv 2401.00588, with weights.

Each tenant has a counter of the service it had; who waits with the least goes first. A tenant that comes
back is lifted to the least counter of those that wait, so that nobody saves up service by not asking for any.
What a call will cost is charged when it is admitted, and corrected when it is over, if others waited.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

INPUT_COST: Final = 1.0
OUTPUT_COST: Final = 2.0
"""Of a token. An output token takes a step of its own, input tokens are read together."""

_MAX_IDLE: Final = 10_000
"""Tenants that do not wait whose counters are kept; who came back would begin like a new one."""


def cost(input_tokens: float, output_tokens: float, weight: float) -> float:
    """What a tenant of that weight is charged for so many tokens."""
    return (INPUT_COST * input_tokens + OUTPUT_COST * output_tokens) / weight


class Counters:
    """The service that each tenant had, in one class."""

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()
        """Who does not wait now; the first was there longest."""
        self._last = 0.0
        """The counter of who was the last to wait."""

    def of(self, tenant: str) -> float:
        """What a tenant had that waits."""
        return self._waiting[tenant]

    def begins(self, tenant: str, least: float | None) -> None:
        """`tenant` begins to wait; `least` is the least counter of those that wait, None: nobody does."""
        floor = self._last if least is None else least
        self._waiting[tenant] = max(self._idle.pop(tenant, floor), floor)

    def leaves(self, tenant: str) -> None:
        """`tenant` waits no more."""
        counter = self._waiting.pop(tenant)
        self._last = counter
        self._idle[tenant] = counter
        if len(self._idle) > _MAX_IDLE:
            self._idle.popitem(last=False)

    def add(self, tenant: str, charge: float) -> None:
        """Charge `tenant`, or give back; who was forgotten stays so."""
        for counters in (self._waiting, self._idle):
            if tenant in counters:
                counters[tenant] += charge
