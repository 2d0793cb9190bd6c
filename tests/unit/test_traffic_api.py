"""What the API makes of the traffic that a replica has heard of."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from weft.controlplane.api import traffic as api
from weft.controlplane.telemetry.opening import Telemetry
from weft.controlplane.telemetry.traffic import TrafficView
from weft.model.traffic_report import Calls, Edge, TrafficKind, TrafficReport
from weft.store.memory import MemoryStore

START = 1_790_000_000.0


class Stage:
    """A view with a clock, and the API over it."""

    def __init__(self) -> None:
        self.now = START
        self.view = TrafficView(MemoryStore(), CollectorRegistry(), clock=lambda: self.now)
        self.telemetry = Telemetry(spans=cast(Any, None), traffic=self.view)
        self.number = 0

    def called(self, caller: str, edge: Edge, *, ok: int, failed: int = 0, bucket: int = 2) -> None:
        self.number += 1
        calls = Calls()
        calls.count(200, "-", ok)
        calls.count(503, "UF", failed)
        calls.buckets[bucket] = ok + failed
        report = TrafficReport(f"r-{self.number}", self.now, 2.0, 0, {edge: calls})
        self.view.take(f"agent.{caller}.{caller}-{self.number}", report.encode())


def shown(answer: Any) -> Any:
    """As it goes out."""
    return json.loads(answer.model_dump_json(by_alias=True))


def tool(name: str, server: str = "files", version: str = "1") -> Edge:
    return Edge(server, TrafficKind.TOOL, version, "tools", name)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_an_edge_has_the_calls_of_all_tools_and_the_figures_of_the_window(stage: Stage) -> None:
    stage.now += 60
    stage.called("planner", tool("read"), ok=30, failed=2)
    stage.called("planner", tool("write"), ok=8)
    stage.called("planner", Edge("worker", TrafficKind.AGENT, "1", "default"), ok=100)
    answer = shown(await api.traffic(stage.telemetry, window=30))
    assert [each["destination"] for each in answer["edges"]] == ["worker", "files"]
    files = answer["edges"][1]
    assert (files["calls"], files["errors"], files["total"], files["totalErrors"]) == (40, 2, 40, 2)
    assert files["callsPerSecond"] == pytest.approx(40 / answer["window"])
    assert files["kind"] == "tool"
    assert 0.002 <= files["p50"] <= files["p99"] <= 0.005
    assert (answer["callers"], answer["at"]) == (3, stage.now)
    again = shown(await api.traffic(stage.telemetry, window=30))
    assert again == answer


async def test_tools_are_told_apart_by_server_and_their_callers_added_up(stage: Stage) -> None:
    stage.called("planner", tool("read"), ok=3)
    stage.called("writer", tool("read", version="2"), ok=4, failed=1, bucket=5)
    stage.called("writer", tool("read", server="archive"), ok=1)
    stage.called("writer", Edge("worker", TrafficKind.AGENT), ok=100)
    answer = shown(await api.tools(stage.telemetry, window=300))
    assert [(each["tool"], each["server"], each["calls"]) for each in answer["tools"]] == [
        ("read", "files", 8),
        ("read", "archive", 1),
    ]
    first = answer["tools"][0]
    assert (first["errors"], first["callers"]) == (1, ["planner", "writer"])
    assert 0.025 < first["p99"] <= 0.05


async def test_a_series_is_by_version_for_one_destination_and_added_up_for_all(stage: Stage) -> None:
    for version in ("1", "2"):
        stage.called("planner", Edge("worker", TrafficKind.AGENT, version), ok=3, failed=1)
    stage.now += 10
    stage.called("writer", Edge("worker", TrafficKind.AGENT, "2"), ok=5)
    stage.called("writer", Edge("other", TrafficKind.AGENT, "2"), ok=5)
    one = shown(await api.series(stage.telemetry, destination="worker"))
    assert (one["step"], one["until"]) == (5, stage.now)
    assert one["from"] == (stage.now - 900) // 5 * 5
    points = {each["version"]: [point[:3] for point in each["points"]] for each in one["series"]}
    assert points == {"1": [[START, 4, 1]], "2": [[START, 4, 1], [START + 10, 5, 0]]}
    all_of_them = shown(await api.series(stage.telemetry))
    assert [(each["destination"], each["version"]) for each in all_of_them["series"]] == [
        ("other", ""),
        ("worker", ""),
    ]
    assert [point[1] for point in all_of_them["series"][1]["points"]] == [8, 5]
    of_one = shown(await api.series(stage.telemetry, caller="writer", seconds=7200))
    assert of_one["step"] == 60
    assert [each["points"][0][1] for each in of_one["series"]] == [5, 5]


async def test_of_too_many_destinations_the_busiest_have_a_series(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_SERIES", 2)
    for number in range(5):
        stage.called("planner", Edge(f"d-{number}", TrafficKind.AGENT), ok=number + 1)
    answer = shown(await api.series(stage.telemetry))
    assert [each["destination"] for each in answer["series"]] == ["d-3", "d-4"]
