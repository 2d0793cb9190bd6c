"""What is sent on to a collector, and where to: metrics as OTLP has them, endpoints, headers."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from weft.controlplane.telemetry.metrics_push import traffic_metrics, translated
from weft.controlplane.telemetry.otlp_sender import (
    MAX_HEADERS,
    open_sender,
    parse_endpoint,
    read_headers,
)
from weft.controlplane.telemetry.rings import Window
from weft.controlplane.telemetry.traffic import EdgeTraffic, Total, TrafficEdge
from weft.errors import InvalidRequest
from weft.model.traffic_report import Edge, TrafficKind


def by_name(registry: CollectorRegistry) -> dict[str, Metric]:
    return {each.name: each for each in translated(registry.collect(), 5, 7)}


def labels(point: object) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}  # type: ignore[attr-defined]


def test_metrics_keep_their_names_and_values() -> None:
    registry = CollectorRegistry()
    calls = Counter("weft_x_calls_total", "Calls.", ["pool"], registry=registry)
    calls.labels("a").inc(3)
    calls.labels("b").inc(4)
    Gauge("weft_x_waiting", "Waiting.", registry=registry).set(2)
    Info("weft_x_build", "Build.", registry=registry).info({"version": "1"})
    found = by_name(registry)
    points = found["weft_x_calls_total"].sum.data_points
    assert {labels(each)["pool"]: each.as_double for each in points} == {"a": 3, "b": 4}
    assert found["weft_x_calls_total"].sum.is_monotonic
    assert (points[0].start_time_unix_nano, points[0].time_unix_nano) == (5, 7)
    assert found["weft_x_waiting"].gauge.data_points[0].as_double == 2
    assert labels(found["weft_x_build_info"].gauge.data_points[0]) == {"version": "1"}


def test_buckets_hold_what_is_in_them_alone() -> None:
    registry = CollectorRegistry()
    times = Histogram("weft_x_seconds", "Times.", ["pool"], buckets=(1, 2, 5), registry=registry)
    for seconds in (0.5, 1.5, 1.6, 100):
        times.labels("a").observe(seconds)
    times.labels("b").observe(4)
    points = {
        labels(each)["pool"]: each for each in by_name(registry)["weft_x_seconds"].histogram.data_points
    }
    assert list(points["a"].explicit_bounds) == [1, 2, 5]
    assert list(points["a"].bucket_counts) == [1, 2, 0, 1]
    assert points["a"].count == 4
    assert points["a"].sum == pytest.approx(103.6)
    assert list(points["b"].bucket_counts) == [0, 0, 1, 0]


def test_traffic_is_told_by_edge() -> None:
    edge = Edge("summarizer", TrafficKind.TOOL, "2", "default", "read")
    told = EdgeTraffic(TrafficEdge("planner", edge), Window(), Total(calls=10, errors=1))
    calls, errors = traffic_metrics([told], 5, 7)
    assert (calls.name, calls.sum.data_points[0].as_double) == ("weft_requests_total", 10)
    assert errors.sum.data_points[0].as_double == 1
    assert labels(calls.sum.data_points[0]) == {
        "caller": "planner",
        "destination": "summarizer",
        "kind": "tool",
        "version": "2",
        "route": "default",
        "tool": "read",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://c:4318", "http://c:4318"),
        ("https://c.example/otlp/", "https://c.example/otlp"),
        ("grpc://c", "grpc://c:4317"),
        ("grpcs://[::1]:99", "grpcs://[::1]:99"),
    ],
)
def test_endpoints_are_understood(text: str, shown: str) -> None:
    assert parse_endpoint(text).text == shown


@pytest.mark.parametrize(
    "text",
    [
        "c:4317",
        "ftp://c",
        "http://",
        "http://u:hunter22@c",
        "http://c?k=hunter22",
        "grpc://c/x",
        "http://c:x",
    ],
)
def test_what_is_no_endpoint_is_refused_without_showing_credentials(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_endpoint(text)
    assert "u:hunter22" not in refused.value.detail


def test_headers_are_lines_of_names_and_values(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("# ours\n\nAuthorization: Basic abc==\nx-scope: a b\n")
    assert read_headers(file) == [("authorization", "Basic abc=="), ("x-scope", "a b")]
    assert read_headers(None) == []


@pytest.mark.parametrize(
    "text", ["s3cret", "a b: s3cret", "a: s3\x01cret", "x: y\n" * (MAX_HEADERS + 1), "é: x"]
)
def test_what_are_no_headers_is_refused_without_showing_them(tmp_path: Path, text: str) -> None:
    file = tmp_path / "headers"
    file.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        read_headers(file)
    assert "cret" not in refused.value.detail
    assert str(file) in refused.value.detail


def test_files_that_are_not_there_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        read_headers(tmp_path / "none")
    with pytest.raises(InvalidRequest):
        open_sender(parse_endpoint("https://c"), list, tmp_path / "none")
