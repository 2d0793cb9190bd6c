"""The calls of one agent, as its Envoy counts them: totals for Prometheus, and what was added for reports.

The totals are the sidecar's own: they go on where an Envoy was started anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from weft.model.traffic_report import BUCKETS, MAX_CODES, OTHER, Calls, Edge, TrafficKind, TrafficReport
from weft.sidecar.envoy_stats import Added, Ended, Everything, Spread, Took, Tunnelled

MAX_EDGES: Final = 1000
"""Destinations by version, route and tool that are told apart; the rest is one of its own."""

_REST: Final = Edge(OTHER, TrafficKind.UNKNOWN)


@dataclass(slots=True)
class EdgeTotals:
    """What was counted of one edge since the sidecar began."""

    endings: dict[tuple[str, str], int] = field(default_factory=dict)
    """Calls by status and response flags."""
    milliseconds: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    """Each call in one."""

    def end(self, code: str, flags: str, calls: int) -> None:
        """Add calls that ended so."""
        ending = (code, flags)
        if ending not in self.endings and len(self.endings) >= MAX_CODES:
            ending = (OTHER, "")
        self.endings[ending] = self.endings.get(ending, 0) + calls


class Traffic:
    """The agent's calls."""

    def __init__(self) -> None:
        self.totals: dict[Edge, EdgeTotals] = {}
        self._all = 0
        self._all_before = 0
        self._told = 0
        self._untold = 0
        self._boot = secrets.token_hex(8)
        self._reports = 0
        self._unreported: dict[Edge, Calls] = {}
        self._reported_at: float | None = None

    @property
    def untold(self) -> int:
        """Calls that ended, of which nothing else is known: there were too many destinations for Envoy."""
        return self._untold

    def take(self, reading: Iterable[Added]) -> None:
        """Count what was added."""
        self._all_before = self._all
        for each in reading:
            match each:
                case Ended(edge, code, flags, calls):
                    self._told += calls
                    edge = self._known(edge)
                    self.totals[edge].end(code, flags, calls)
                    self._pending(edge).count(int(code), flags, calls)
                case Took(edge, milliseconds):
                    edge = self._known(edge)
                    self.totals[edge].milliseconds += milliseconds
                    self._pending(edge).sum_ms += milliseconds
                case Spread(edge, buckets):
                    edge = self._known(edge)
                    for counts in (self.totals[edge].buckets, self._pending(edge).buckets):
                        counts[:] = [mine + more for mine, more in zip(counts, buckets, strict=True)]
                case Everything(calls):
                    self._all += calls
                case Tunnelled(tunnels):
                    self._told += tunnels
        # A call is counted in several places, one after the other: what was there at the last reading is told
        # by now, if it ever is.
        self._untold = max(self._untold, self._all_before - self._told)

    def report(self, now: float, in_flight: int) -> TrafficReport | None:
        """What was added since the last report; None if there was nothing. `now`: seconds since 1970."""
        before, self._reported_at = self._reported_at, now
        if not self._unreported:
            return None
        calls, self._unreported = self._unreported, {}
        self._reports += 1
        seconds = max(0.0, now - before) if before is not None else 0.0
        return TrafficReport(f"{self._boot}-{self._reports}", now, seconds, in_flight, calls)

    def _known(self, edge: Edge) -> Edge:
        if edge not in self.totals:
            if len(self.totals) >= MAX_EDGES:
                edge = _REST
            self.totals.setdefault(edge, EdgeTotals())
        return edge

    def _pending(self, edge: Edge) -> Calls:
        pending = self._unreported.get(edge)
        if pending is None:
            pending = self._unreported[edge] = Calls()
        return pending
