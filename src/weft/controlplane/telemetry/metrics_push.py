"""Metrics, sent on to a collector as OTLP: those of this replica, and the mesh's traffic.

The traffic every replica knows, so only one of them sends it at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
)
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from weft.controlplane.telemetry.envoy_spans import key_value
from weft.controlplane.telemetry.forwarding import Collector
from weft.controlplane.telemetry.otlp_sender import Signal
from weft.controlplane.telemetry.reporter import CONTROL
from weft.controlplane.telemetry.traffic import EdgeTraffic, TrafficView

CALLS: Final = "weft_requests_total"
ERRORS: Final = "weft_request_errors_total"

_SLICE: Final = 500  # edges that are looked at before others get their turn
_BATCH: Final = 5_000  # data points in a request, about
_NS: Final = 1_000_000_000
_NOT_LABELS: Final = frozenset({"le", "quantile"})


class MetricsPush:
    """Sends metrics on, every `interval` seconds."""

    def __init__(
        self,
        collector: Collector,
        registry: CollectorRegistry,
        traffic: TrafficView,
        *,
        replica: str,
        interval: float,
    ) -> None:
        """`registry` and `traffic` are of `replica`."""
        self._collector = collector
        self._registry = registry
        self._traffic = traffic
        self._resource = {"service.name": CONTROL, "service.instance.id": replica}
        self._interval = interval
        self._began = time.time_ns()

    async def run(self, leads: Callable[[], bool]) -> None:
        """Send, for ever; of the traffic while this replica `leads`."""
        while True:
            await asyncio.sleep(self._interval)
            await self._send(translated(self._registry.collect(), self._began, time.time_ns()))
            if leads():
                await self._send_traffic()

    async def _send_traffic(self) -> None:
        edges = self._traffic.edges(0.0)
        for begin in range(0, len(edges), _BATCH // 2):
            points: list[Metric] = []
            for first in range(begin, min(begin + _BATCH // 2, len(edges)), _SLICE):
                last = min(first + _SLICE, begin + _BATCH // 2)
                points += traffic_metrics(edges[first:last], int(self._traffic.began * _NS), time.time_ns())
                await asyncio.sleep(0)
            await self._send(points)

    async def _send(self, metrics: Iterable[Metric]) -> None:
        group = ResourceMetrics()
        group.resource.attributes.extend([key_value(*each) for each in self._resource.items()])
        group.scope_metrics.add(metrics=metrics).scope.name = "weft"
        request = ExportMetricsServiceRequest(resource_metrics=[group])
        # What is not taken in time is told anew by the next one.
        await self._collector.deliver(Signal.METRICS, request.SerializeToString(), give_up=self._interval)


def translated(families: Iterable[Family], began: int, now: int) -> list[Metric]:
    """Prometheus's metrics as OTLP has them; times are nanoseconds since 1970.

    The names stay those of Prometheus, so that queries are the same whichever way metrics came.
    """
    metrics = []
    for family in families:
        metric = _translated(family, began, now)
        if metric is not None:
            metrics.append(metric)
    return metrics


def traffic_metrics(edges: Iterable[EdgeTraffic], began: int, now: int) -> list[Metric]:
    """Calls and errors of `edges`, since `began`."""
    calls, errors = _sum(CALLS, "Calls, by who made them."), _sum(ERRORS, "Calls that failed.")
    for each in edges:
        edge = each.of.edge
        labels = {
            "caller": each.of.caller,
            "destination": edge.destination,
            "kind": edge.kind,
            "version": edge.version,
            "route": edge.route,
            "tool": edge.tool,
        }
        calls.sum.data_points.append(_number(labels, float(each.total.calls), began, now))
        errors.sum.data_points.append(_number(labels, float(each.total.errors), began, now))
    return [calls, errors]


def _translated(family: Family, began: int, now: int) -> Metric | None:
    match family.type:
        case "counter":
            metric = _sum(f"{family.name}_total", family.documentation)
            metric.sum.data_points.extend(
                _number(each.labels, each.value, began, now) for each in _named(family, "_total")
            )
        case "gauge" | "unknown" | "info" | "stateset":
            suffix = "_info" if family.type == "info" else ""
            metric = Metric(name=family.name + suffix, description=family.documentation)
            metric.gauge.data_points.extend(
                _number(each.labels, each.value, 0, now) for each in _named(family, suffix)
            )
        case "histogram":
            metric = Metric(name=family.name, description=family.documentation)
            metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.histogram.data_points.extend(_histograms(family, began, now))
        case _:
            return None
    return metric


def _sum(name: str, description: str) -> Metric:
    metric = Metric(name=name, description=description)
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.is_monotonic = True
    return metric


def _named(family: Family, suffix: str) -> Iterable[Sample]:
    return (each for each in family.samples if each.name == family.name + suffix)


def _number(labels: Mapping[str, str], value: float, began: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=[key_value(*each) for each in labels.items()],
        start_time_unix_nano=began,
        time_unix_nano=now,
        as_double=value,
    )


def _histograms(family: Family, began: int, now: int) -> Iterable[HistogramDataPoint]:
    """One for each set of labels: Prometheus has a sample for each bucket, each with those below it."""
    points: dict[tuple[tuple[str, str], ...], HistogramDataPoint] = {}
    below: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = {key: value for key, value in sample.labels.items() if key not in _NOT_LABELS}
        which = tuple(sorted(labels.items()))
        point = points.get(which)
        if point is None:
            attributes = [key_value(*each) for each in labels.items()]
            point = HistogramDataPoint(attributes=attributes, start_time_unix_nano=began, time_unix_nano=now)
            points[which] = point
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            if not math.isinf(bound):
                point.explicit_bounds.append(bound)
            point.bucket_counts.append(round(sample.value - below.get(which, 0.0)))
            below[which] = sample.value
        elif sample.name.endswith("_sum"):
            point.sum = sample.value
        elif sample.name.endswith("_count"):
            point.count = round(sample.value)
    return points.values()
