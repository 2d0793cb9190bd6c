"""Calls under way: where they are, and what is reserved for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from weft.controlplane.llm.pool_state import FlightRecord


@dataclass(slots=True, eq=False)
class Flight:
    """A call under way."""

    record: FlightRecord
    lifetime: float
    """Seconds after which its end will not be heard of any more."""
    generation: int
    """Of its provider's circuit when it was sent."""
    deadline: float | None = None
    held: bool = True
    """Whether it has a place at its provider; not while it waits for one at the next."""
    corrected: bool = True
    """Whether its tenant's counter is put right when it is known what the call used.

    Not that of a call at nobody's expense: who came since began with that counter, whatever was wrong with
    it, and would wait until all that is given back has been used. Nor that of a call which a predecessor
    charged, to a counter that is gone.
    """


class Flights:
    """All calls of a pool that are under way."""

    def __init__(self) -> None:
        self._all: dict[str, Flight] = {}
        self._by_lifetime: dict[float, OrderedDict[str, Flight]] = {}
        """Within each, the first began first."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._all.values())

    def get(self, call_id: str) -> Flight | None:
        """The call of that id, if it is under way."""
        return self._all.get(call_id)

    def add(self, flight: Flight) -> None:
        """A call is under way, from now on."""
        call_id = flight.record.call_id
        self._all[call_id] = flight
        self._by_lifetime.setdefault(flight.lifetime, OrderedDict())[call_id] = flight

    def remove(self, call_id: str) -> Flight | None:
        """A call is over."""
        flight = self._all.pop(call_id, None)
        if flight is not None:
            same = self._by_lifetime[flight.lifetime]
            del same[call_id]
            if not same:
                del self._by_lifetime[flight.lifetime]
        return flight

    def next_expires(self) -> float | None:
        """When the first of them is given up."""
        firsts = (next(iter(each.values())) for each in self._by_lifetime.values())
        return min((each.record.started + each.lifetime for each in firsts), default=None)

    def expired(self, now: float) -> list[Flight]:
        """Those of whose end nobody will hear."""
        gone = []
        for lifetime, same in self._by_lifetime.items():
            for flight in same.values():
                if now < flight.record.started + lifetime:
                    break
                gone.append(flight)
        return gone
