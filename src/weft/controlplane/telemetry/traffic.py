"""Who calls whom, how often, how well and how fast: what sidecars tell, as this replica heard it.

Every replica hears all sidecars and keeps what they tell in memory; one that starts knows nothing of before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.controlplane.telemetry.rings import Resolution, Ring, Row, Window
from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.model.traffic_report import (
    TRAFFIC_SIGNALS,
    Calls,
    Edge,
    TrafficReport,
    caller_of,
    parse_report,
)
from weft.store.broadcast import Broadcast
from weft.store.bucket import Store

logger = logging.getLogger(__name__)

RESOLUTIONS: Final = (Resolution(5, 181), Resolution(60, 121), Resolution(600, 145))
"""A quarter of an hour, two hours, a day; each with the step that is under way."""

FINEST: Final = RESOLUTIONS[0].step

MAX_EDGES: Final = 2000
"""Callers' destinations by version, route and tool. Each takes 36 kB; the least recently used leave first."""
MAX_EDGES_OF_CALLER: Final = 500
MAX_SENDERS: Final = 20_000

_BURST: Final = 5.0
_RATE: Final = 1.0
"""Reports a sender may make at once, and in a second: twice as many as one does."""
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class TrafficEdge:
    """Calls of all of one type's instances."""

    caller: str
    """The agents' type, or `operator/<name>` for programs that only call."""
    edge: Edge


@dataclass(slots=True)
class Total:
    """Since this replica began, or since the edge was last forgotten."""

    calls: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class EdgeTraffic:
    """What one edge carried of late."""

    of: TrafficEdge
    window: Window
    total: Total


class _Kept:
    """One edge's counts."""

    __slots__ = ("_present", "_rings", "_step", "total")

    def __init__(self, now: float) -> None:
        self._rings = tuple(Ring(each, now) for each in RESOLUTIONS)
        self._step = int(now // FINEST)
        self._present = Row()
        self.total = Total()

    def add(self, now: float, calls: Calls) -> None:
        step = int(now // FINEST)
        if step > self._step:  # a clock that goes back counts where it was
            self._pour()
            self._step = step
        self.total.calls += self._present.add(calls)
        self.total.errors += calls.errors

    def ring(self, number: int) -> Ring:
        """The counts at one of RESOLUTIONS, up to now."""
        self._pour()
        return self._rings[number]

    def _pour(self) -> None:
        """Put what came in the present step where it belongs: once a step rather than with each report."""
        if self._present:
            for each in self._rings:
                each.add(self._step * FINEST, self._present)
            self._present = Row()


@dataclass(slots=True)
class _Sender:
    """What there is to know of one sidecar."""

    heard_at: float
    last: str = ""
    allowance: float = field(default=_BURST)

    def admit(self, now: float) -> bool:
        """Whether it may make a report now."""
        passed = max(0.0, now - self.heard_at)
        self.allowance = min(_BURST, self.allowance + passed * _RATE)
        self.heard_at = now
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True


class TrafficView:
    """The mesh's traffic. `run` listens."""

    def __init__(
        self, store: Store, metrics: CollectorRegistry, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since 1970. Raises ValueError if `metrics` has another view's."""
        self._store = store
        self._clock = clock
        self.began = clock()
        """When it began to listen, in seconds since 1970."""
        self._callers: dict[str, OrderedDict[Edge, _Kept]] = {}
        self._edges = 0
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self._metrics = _Metrics(metrics)
        self._reminder = Reminder(clock())

    async def run(self) -> None:
        """Hear of sidecars' traffic until cancelled. Raises Denied where the store does not permit that."""
        broadcast = self._store.broadcast(TRAFFIC_SIGNALS, of_members=True)
        for pause in backoff(longest=_LONGEST_PAUSE):
            with suppress(Unavailable):
                await self._hear(broadcast)
            await asyncio.sleep(pause)

    async def _hear(self, broadcast: Broadcast) -> None:
        async with broadcast.listen() as listener:
            while True:
                heard = await listener.next()
                self.take(heard.key, heard.data)
                self._metrics.dropped.set(listener.dropped)

    def take(self, sender: str, data: bytes) -> None:
        """Count what the holder of an identity tells; `sender` is its subject, by which NATS let it speak.

        What is none, or comes too often, is told in the log and by a metric, and counts for nothing.
        """
        now = self._clock()
        try:
            caller = caller_of(sender)
            known = self._sender(sender, now)
            if not known.admit(now):
                raise InvalidRequest("it tells more often than once a second")
            report = parse_report(data)
        except MeshError as error:
            self._metrics.refused.inc()
            if self._reminder.due(now):
                logger.warning("what %.200s tells of its traffic does not count: %s", sender, error.detail)
            return
        if report.id == known.last:
            self._metrics.repeated.inc()
            return
        known.last = report.id
        self._add(caller, report, now)
        self._metrics.taken.inc()

    def callers(self, window: float) -> int:
        """How many sidecars told something within the last `window` seconds."""
        since = self._clock() - window
        found = 0
        for sender in reversed(self._senders.values()):
            if sender.heard_at < since:
                break
            found += 1
        return found

    def edges(self, window: float) -> list[EdgeTraffic]:
        """What each edge carried in the last `window` seconds, and those that carried nothing then.

        `window` is rounded up to the steps that are kept for so long. Edges that carried nothing since they
        were last forgotten are not there.
        """
        number = _resolution(window)
        since = self._clock() - window
        return [
            EdgeTraffic(TrafficEdge(caller, edge), kept.ring(number).sum(since) or Window(), kept.total)
            for caller, edge, kept in self._all()
        ]

    def covered(self, window: float) -> float:
        """How many seconds `edges(window)` is about: steps are whole, and there was a beginning."""
        now = self._clock()
        step = RESOLUTIONS[_resolution(window)].step
        since = max((now - window) // step * step, self.began)
        return max(now - since, 1.0)

    def series(
        self, seconds: float, *, caller: str | None = None, destination: str | None = None
    ) -> tuple[Resolution, list[tuple[TrafficEdge, list[tuple[int, Window]]]]]:
        """The steps of the last `seconds` in which something was counted, by edge, with their beginnings."""
        number = _resolution(seconds)
        step = RESOLUTIONS[number].step
        since = self._clock() - seconds
        found = [
            (
                TrafficEdge(each, edge),
                [(at * step, window) for at, window in kept.ring(number).steps(since)],
            )
            for each, edge, kept in self._all()
            if caller in {None, each} and destination in {None, edge.destination}
        ]
        return RESOLUTIONS[number], [each for each in found if each[1]]

    def now(self) -> float:
        """Seconds since 1970, by the clock that it counts by."""
        return self._clock()

    def _all(self) -> Iterator[tuple[str, Edge, _Kept]]:
        for caller, edges in self._callers.items():
            for edge, kept in edges.items():
                yield caller, edge, kept

    def _sender(self, sender: str, now: float) -> _Sender:
        known = self._senders.get(sender)
        if known is None:
            if len(self._senders) >= MAX_SENDERS:
                self._senders.popitem(last=False)
            known = self._senders[sender] = _Sender(now)
        self._senders.move_to_end(sender)
        return known

    def _add(self, caller: str, report: TrafficReport, now: float) -> None:
        for edge, calls in report.calls.items():
            self._kept(caller, edge, now).add(now, calls)
        self._metrics.edges.set(self._edges)

    def _kept(self, caller: str, edge: Edge, now: float) -> _Kept:
        """The edge's counts, made if there are none; it is the most recently used one now."""
        known = self._callers.get(caller)
        kept = None if known is None else known.get(edge)
        if kept is None:
            self._make_room(caller)
            kept = _Kept(now)
            self._callers.setdefault(caller, OrderedDict())[edge] = kept
            self._edges += 1
        self._callers[caller].move_to_end(edge)
        return kept

    def _make_room(self, caller: str) -> None:
        """For one edge more: of a caller that has too many, or else of the one that has most."""
        if len(self._callers.get(caller, ())) >= MAX_EDGES_OF_CALLER:
            self._forget(caller)
        elif self._edges >= MAX_EDGES:
            self._forget(max(self._callers, key=lambda each: len(self._callers[each])))

    def _forget(self, caller: str) -> None:
        self._callers[caller].popitem(last=False)
        if not self._callers[caller]:
            del self._callers[caller]
        self._edges -= 1
        self._metrics.forgotten.inc()


def _resolution(window: float) -> int:
    """The finest that goes back so far."""
    for number, each in enumerate(RESOLUTIONS):
        if window <= each.span - each.step:
            return number
    return len(RESOLUTIONS) - 1


class _Metrics:
    """Of what was heard.

    | metric | kind | what |
    |---|---|---|
    | `weft_traffic_reports_total{outcome}` | counter | reports of sidecars: `taken`, `refused`, `repeated` |
    | `weft_traffic_reports_dropped` | gauge | reports that came faster than they were read |
    | `weft_traffic_edges` | gauge | callers' destinations that are kept, by version, route and tool |
    | `weft_traffic_edges_forgotten_total` | counter | those that had to make room for others |
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        reports = Counter(
            "weft_traffic_reports_total",
            "Sidecars' reports of their traffic.",
            ["outcome"],
            registry=registry,
        )
        self.taken = reports.labels("taken")
        self.refused = reports.labels("refused")
        self.repeated = reports.labels("repeated")
        self.dropped = Gauge(
            "weft_traffic_reports_dropped",
            "Sidecars' reports that came faster than they were read.",
            registry=registry,
        )
        self.edges = Gauge(
            "weft_traffic_edges",
            "Callers' destinations that are kept, by version, route and tool.",
            registry=registry,
        )
        self.forgotten = Counter(
            "weft_traffic_edges_forgotten_total",
            "Callers' destinations that had to make room for others.",
            registry=registry,
        )
