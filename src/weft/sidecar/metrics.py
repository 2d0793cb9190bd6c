"""What a sidecar shows Prometheus: the golden signals of its agent's calls, and how the sidecar itself is.

| metric | kind | what |
|---|---|---|
| `weft_requests_total{caller,destination,kind,version,route,code,flags}` | counter | calls that ended |
| `weft_request_duration_seconds{caller,destination,kind,version,route}` | histogram | how long they took |
| `weft_tool_calls_total{caller,tool,server,outcome}` | counter | calls of tools, by way of `tools.mesh` |
| `weft_tool_call_duration_seconds{caller,tool,server}` | histogram | how long they took |
| `weft_requests_in_flight` | gauge | calls that the agent has at hand |
| `weft_requests_untold_total` | counter | calls not counted elsewhere: Envoy had too many destinations |
| `weft_agent_healthy` | gauge | 1 while the agent passes its health checks |
| `weft_certificate_expiry_timestamp_seconds` | gauge | when the sidecar's certificate ends |
| `weft_envoy_restarts_total` | counter | times that Envoy ended and was started again |
| `weft_build_info{version}` | gauge | 1; the label is the version of Weft |

`caller` is the agent's type, or `operator/<name>` where there is no agent. Destinations, routes and versions
are those that are declared or run, at most MAX_EDGES together; `code` is the status (`0`: no answer), `flags`
what Envoy says of it besides. `outcome` is `ok`, `error`, `refused` or `abandoned`, as
`weft.model.traffic_report` has it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from weft.model.traffic_report import BOUNDS_MS, BUCKETS, OTHER, Edge, outcome_of
from weft.sidecar.traffic import EdgeTotals, Traffic

_LE: Final = (*(str(each / 1000) for each in BOUNDS_MS), "+Inf")
_WHOM: Final = ("caller", "destination", "kind", "version", "route")


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a sidecar is, now."""

    in_flight: int
    healthy: bool | None
    """Whether its agent is; None: it has none."""
    certificate_expires_at: float
    """Seconds since 1970."""
    envoy_restarts: int
    version: str
    """Of Weft."""


@dataclass(slots=True)
class _Times:
    """How long calls took that are told together."""

    milliseconds: int = 0
    buckets: tuple[int, ...] = (0,) * BUCKETS

    def add(self, totals: EdgeTotals) -> None:
        self.milliseconds += totals.milliseconds
        self.buckets = tuple(map(int.__add__, self.buckets, totals.buckets))


class SidecarMetrics:
    """A collector for a registry, of what there is at that moment."""

    def __init__(self, caller: str, traffic: Traffic, vitals: Vitals) -> None:
        self._caller = caller
        self._traffic = traffic
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from self._requests(self._traffic.totals)
        yield from self._tools({edge: each for edge, each in self._traffic.totals.items() if edge.tool})
        yield from self._own()

    def _requests(self, totals: Mapping[Edge, EdgeTotals]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "weft_requests", "Calls of the agent that ended.", labels=(*_WHOM, "code", "flags")
        )
        seconds = HistogramMetricFamily(
            "weft_request_duration_seconds", "How long the agent's calls took.", labels=_WHOM
        )
        endings: Counter[tuple[str, ...]] = Counter()
        times: defaultdict[tuple[str, ...], _Times] = defaultdict(_Times)
        for edge, each in totals.items():
            whom = (self._caller, edge.destination, edge.kind.value, edge.version, edge.route)
            for ending, calls in each.endings.items():
                endings[*whom, *ending] += calls
            times[whom].add(each)
        for labels, calls in endings.items():
            requests.add_metric(labels, calls)
        _add_times(seconds, times.items())
        yield requests
        yield seconds

    def _tools(self, totals: Mapping[Edge, EdgeTotals]) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "weft_tool_calls",
            "Calls of tools by way of tools.mesh that ended.",
            labels=("caller", "tool", "server", "outcome"),
        )
        seconds = HistogramMetricFamily(
            "weft_tool_call_duration_seconds",
            "How long calls of tools took.",
            labels=("caller", "tool", "server"),
        )
        outcomes: Counter[tuple[str, ...]] = Counter()
        times: defaultdict[tuple[str, ...], _Times] = defaultdict(_Times)
        for edge, each in totals.items():
            which = (self._caller, edge.tool, edge.destination)
            for (code, flags), number in each.endings.items():
                outcomes[*which, OTHER if code == OTHER else outcome_of(int(code), flags).value] += number
            times[which].add(each)
        for labels, number in outcomes.items():
            calls.add_metric(labels, number)
        _add_times(seconds, times.items())
        yield calls
        yield seconds

    def _own(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield GaugeMetricFamily(
            "weft_requests_in_flight", "Calls that the agent has at hand.", value=vitals.in_flight
        )
        yield CounterMetricFamily(
            "weft_requests_untold",
            "Calls of the agent that are counted nowhere else: there were too many destinations for Envoy.",
            value=self._traffic.untold,
        )
        if vitals.healthy is not None:
            yield GaugeMetricFamily(
                "weft_agent_healthy",
                "1 while the agent passes its health checks.",
                value=float(vitals.healthy),
            )
        yield GaugeMetricFamily(
            "weft_certificate_expiry_timestamp_seconds",
            "When the sidecar's certificate ends.",
            value=vitals.certificate_expires_at,
        )
        yield CounterMetricFamily(
            "weft_envoy_restarts",
            "Times that Envoy ended and was started again.",
            value=vitals.envoy_restarts,
        )
        build = GaugeMetricFamily("weft_build_info", "1; the version of Weft.", labels=("version",))
        build.add_metric((vitals.version,), 1)
        yield build


def _add_times(family: HistogramMetricFamily, times: Iterable[tuple[tuple[str, ...], _Times]]) -> None:
    for labels, each in times:
        sums = accumulate(each.buckets)
        family.add_metric(labels, list(zip(_LE, sums, strict=True)), each.milliseconds / 1000)
