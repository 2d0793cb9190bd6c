"""Calls that failed at one provider and wait for room at the next: they go before all others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from weft.controlplane.llm.flights import Flight


@dataclass(frozen=True, slots=True)
class Retrying:
    """A call under way that wants to go on elsewhere."""

    flight: Flight
    provider: str
    since: float

    @property
    def call_id(self) -> str:
        """Of the call."""
        return self.flight.record.call_id


class Retries:
    """Those that wait, by the time since when."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Retrying] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Retrying]:
        return iter(tuple(self._all.values()))

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._all

    def add(self, retrying: Retrying) -> None:
        """It waits from now on; what its call waited for before is forgotten."""
        self._all.pop(retrying.call_id, None)
        self._all[retrying.call_id] = retrying

    def remove(self, call_id: str) -> Retrying | None:
        """It waits no more. None: it did not."""
        return self._all.pop(call_id, None)

    def next_over(self, max_wait: float) -> float | None:
        """When one of them has waited too long, or is past its deadline."""
        times = [each.since + max_wait for each in self._all.values()]
        times += [each.flight.deadline for each in self._all.values() if each.flight.deadline is not None]
        return min(times, default=None)
