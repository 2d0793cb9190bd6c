"""What a replica makes of sidecars' reports: windows, percentiles, and what it does not believe."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from weft.controlplane.telemetry import traffic as module
from weft.controlplane.telemetry.percentiles import percentile
from weft.controlplane.telemetry.traffic import TrafficView
from weft.errors import InvalidRequest
from weft.model.traffic_report import (
    BOUNDS_MS,
    BUCKETS,
    MAX_ENTRIES,
    MAX_REPORT_BYTES,
    OTHER,
    Calls,
    Edge,
    Outcome,
    TrafficKind,
    TrafficReport,
    outcome_of,
    parse_report,
)
from weft.store.memory import MemoryStore

START = 1_790_000_000.0
PLANNER = "agent.planner.planner-1"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Scene:
    """A view, a clock to be moved, and sidecars that report."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = CollectorRegistry()
        self.view = TrafficView(MemoryStore(), self.metrics, clock=self.clock)
        self.number = 0

    def reports(self, *entries: tuple[Edge, Calls], sender: str = PLANNER) -> None:
        self.number += 1
        report = TrafficReport(f"r-{self.number}", self.clock.now, 2.0, 0, dict(entries))
        self.view.take(sender, report.encode())

    def counted(self, outcome: str) -> float | None:
        return self.metrics.get_sample_value("weft_traffic_reports_total", {"outcome": outcome})


@pytest.fixture
def scene() -> Scene:
    return Scene()


def calls(ok: int, *, failed: int = 0, bucket: int = 3) -> Calls:
    made = Calls()
    made.count(200, "-", ok)
    if failed:
        made.count(503, "UF", failed)
    made.buckets[bucket] = ok + failed
    return made


def edge(destination: str = "summarizer", **more: Any) -> Edge:
    return Edge(destination, TrafficKind.AGENT, **more)


def test_calls_of_all_of_a_types_instances_are_added_up(scene: Scene) -> None:
    scene.reports((edge(), calls(3)), sender="agent.planner.planner-1")
    scene.reports((edge(), calls(4, failed=2)), sender="agent.planner.planner-2")
    scene.reports((edge(), calls(5)), sender="operator.admin.door")
    found = {each.of.caller: each for each in scene.view.edges(30)}
    assert found["planner"].window.calls == 9
    assert found["planner"].window.errors == 2
    assert found["operator/admin"].window.calls == 5
    assert scene.view.callers(30) == 3


def test_a_window_forgets_and_totals_do_not(scene: Scene) -> None:
    scene.reports((edge(), calls(3, failed=1)))
    scene.clock.now += 36
    [found] = scene.view.edges(30)
    assert (found.window.calls, found.total.calls, found.total.errors) == (0, 4, 1)
    assert scene.view.edges(60)[0].window.calls == 4
    assert scene.view.callers(30) == 0


@pytest.mark.parametrize("window", [30, 900, 3600, 86_400])
def test_a_window_has_exactly_what_was_told_within_it(scene: Scene, window: int) -> None:
    told: list[tuple[float, int]] = []
    draw = random.Random(7)
    end = START + 1.5 * window
    while scene.clock.now < end:
        count = draw.randrange(1, 50)
        told.append((scene.clock.now, count))
        scene.reports((edge(), calls(count)))
        scene.clock.now += max(window / 97, 1.1)
    covered = scene.view.covered(window)
    since = scene.clock.now - covered
    assert window <= covered <= window + 600
    [found] = scene.view.edges(window)
    assert found.window.calls == sum(count for at, count in told if at >= since)
    assert found.total.calls == sum(count for _, count in told)


def test_series_add_up_to_what_was_told_at_the_steps_at_which_it_came(scene: Scene) -> None:
    told: dict[int, int] = {}
    for number in range(100):
        scene.reports((edge(version=str(number % 3)), calls(number + 1)))
        step = int(scene.clock.now // 5 * 5)
        told[step] = told.get(step, 0) + number + 1
        scene.clock.now += 2.1
    resolution, lines = scene.view.series(900, destination="summarizer")
    assert resolution.step == 5
    assert sorted(of.edge.version for of, _ in lines) == ["0", "1", "2"]
    found: dict[int, int] = {}
    for _, steps in lines:
        for at, window in steps:
            found[at] = found.get(at, 0) + window.calls
    assert found == told
    assert scene.view.series(900, destination="another")[1] == []
    assert scene.view.series(900, caller="another")[1] == []


def test_a_ring_that_was_idle_for_longer_than_it_is_shows_nothing_of_before(scene: Scene) -> None:
    scene.reports((edge(), calls(3)))
    scene.clock.now += 90_000
    scene.reports((edge(), calls(5)))
    assert [scene.view.edges(each)[0].window.calls for each in (30, 3600, 86_400)] == [5, 5, 5]


def test_a_clock_that_goes_back_loses_nothing(scene: Scene) -> None:
    scene.reports((edge(), calls(3)))
    scene.clock.now -= 100
    scene.reports((edge(), calls(5)))
    assert scene.view.edges(30)[0].window.calls == 8


def test_the_same_report_twice_counts_once(scene: Scene) -> None:
    report = TrafficReport("same", START, 2.0, 0, {edge(): calls(3)}).encode()
    for _ in range(3):
        scene.view.take(PLANNER, report)
    scene.view.take("agent.planner.planner-2", report)
    assert scene.view.edges(30)[0].window.calls == 6
    assert scene.counted("repeated") == 2


def test_who_tells_too_often_is_not_heard(scene: Scene) -> None:
    for _ in range(50):
        scene.reports((edge(), calls(1)))
    assert scene.view.edges(30)[0].window.calls == 5
    assert scene.counted("refused") == 45
    scene.clock.now += 2
    scene.reports((edge(), calls(1)))
    assert scene.view.edges(30)[0].window.calls == 6


def test_who_has_too_many_destinations_pushes_out_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EDGES_OF_CALLER", 10)
    scene.reports((edge(), calls(1)), sender="agent.honest.honest-1")
    for number in range(30):
        scene.clock.now += 2
        scene.reports((edge(f"d-{number}"), calls(1)))
    found = [(each.of.caller, each.of.edge.destination) for each in scene.view.edges(900)]
    assert found == [("honest", "summarizer"), *(("planner", f"d-{number}") for number in range(20, 30))]


def test_where_all_together_have_too_many_who_has_most_gives_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EDGES", 8)
    scene.reports(*((edge(f"d-{number}"), calls(1)) for number in range(6)))
    for number in range(5):
        scene.reports((edge("only"), calls(1)), sender=f"agent.honest-{number}.one")
    callers = [each.of.caller for each in scene.view.edges(900)]
    assert sorted(callers) == [*(f"honest-{number}" for number in range(5)), "planner", "planner", "planner"]
    assert scene.metrics.get_sample_value("weft_traffic_edges") == 8
    assert scene.metrics.get_sample_value("weft_traffic_edges_forgotten_total") == 3


# What is refused


def document(**changes: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(TrafficReport("r", START, 2.0, 1, {edge(): calls(2)}).encode())
    return {**report, **changes}


def entry(**changes: Any) -> dict[str, Any]:
    return document(calls=[{**document()["calls"][0], **changes}])


HOSTILE = {
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "another version": document(v=2),
    "no calls": document(calls=None),
    "too many": document(calls=[{**document()["calls"][0], "d": f"d{each}"} for each in range(501)]),
    "twice the same": document(calls=document()["calls"] * 2),
    "a long id": document(id="x" * 65),
    "no time": document(at=math.nan),
    "endless": document(seconds=math.inf),
    "before its time": document(seconds=-1),
    "negative in flight": document(inFlight=-1),
    "a negative count": entry(codes={"200": -1}),
    "a huge count": entry(codes={"200": 10**30}),
    "a fraction": entry(codes={"200": 1.5}),
    "a truth": entry(codes={"200": True}),
    "counts that are none": entry(codes=[1]),
    "many codes": entry(codes={str(each): 1 for each in range(65)}),
    "a negative sum": entry(sumMs=-1),
    "too few buckets": entry(buckets=[0] * (BUCKETS - 1)),
    "too many buckets": entry(buckets=[0] * (BUCKETS + 1)),
    "a bucket that is none": entry(buckets=["1"] * BUCKETS),
    "a negative bucket": entry(buckets=[-1] + [0] * (BUCKETS - 1)),
    "an unknown kind": entry(k="planet"),
    "a long name": entry(d="x" * 201),
    "a name in two lines": entry(r="a\nb"),
    "a name that is none": entry(t=7),
    "more errors than calls": entry(errors=3),
    "a field missing": document(calls=[{"d": "x"}]),
    "too long": b" " * (MAX_REPORT_BYTES + 1),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_report_that_is_none_is_refused_whole(what: str, scene: Scene) -> None:
    content = HOSTILE[what]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(InvalidRequest):
        parse_report(data)
    scene.view.take(PLANNER, data)
    assert scene.view.edges(30) == []
    assert scene.counted("refused") == 1


@pytest.mark.parametrize("sender", ["", "agent", "agent.a", "agent.a.b.c", "control.one", "caller.x.y"])
def test_only_agents_and_operators_tell_of_traffic(sender: str, scene: Scene) -> None:
    scene.view.take(sender, json.dumps(document()).encode())
    assert scene.view.edges(30) == []


def test_a_report_says_again_what_it_was_made_of() -> None:
    made = {edge(version="1.2", route="r", tool="t"): calls(7, failed=2), edge("x"): calls(1)}
    report = TrafficReport("id", START, 2.5, 4, made)
    assert parse_report(report.encode()) == report


def test_of_too_many_destinations_the_busiest_are_told_and_the_others_added_up() -> None:
    made = {edge(f"d-{number}"): calls(number + 1) for number in range(2 * MAX_ENTRIES)}
    told = parse_report(TrafficReport("id", START, 2.0, 0, made).encode()).calls
    assert len(told) == MAX_ENTRIES
    assert sum(each.calls for each in told.values()) == sum(each.calls for each in made.values())
    assert edge(f"d-{2 * MAX_ENTRIES - 1}") in told
    assert told[Edge(OTHER, TrafficKind.UNKNOWN)].calls == sum(range(1, MAX_ENTRIES + 2))


def test_a_report_of_long_names_fits_too() -> None:
    made = {edge(f"{number}" + "ä" * 190, route="ö" * 200): calls(1) for number in range(MAX_ENTRIES)}
    told = parse_report(TrafficReport("id", START, 2.0, 0, made).encode()).calls
    assert sum(each.calls for each in told.values()) == MAX_ENTRIES


@pytest.mark.parametrize(
    ("code", "flags", "outcome"),
    [
        (200, "-", Outcome.OK),
        (404, "NR", Outcome.OK),
        (500, "-", Outcome.ERROR),
        (503, "UF,URX", Outcome.ERROR),
        (0, "-", Outcome.ERROR),
        (0, "DC", Outcome.ABANDONED),
        (200, "DC", Outcome.OK),
        (200, "UC", Outcome.ERROR),
        (429, "-", Outcome.REFUSED),
        (403, "UAEX", Outcome.REFUSED),
    ],
)
def test_how_a_call_ended_is_told_from_status_and_flags(code: int, flags: str, outcome: Outcome) -> None:
    assert outcome_of(code, flags) is outcome


# Percentiles


def bucket_of(milliseconds: float) -> int:
    return next((number for number, bound in enumerate(BOUNDS_MS) if milliseconds <= bound), BUCKETS - 1)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [0.5, 20.0, 900.0, 40_000.0])
def test_a_percentile_is_in_the_bucket_of_the_exact_one(share: float, scale: float) -> None:
    draw = random.Random(3)
    times = sorted(min(draw.expovariate(1 / scale), 300_000.0) for _ in range(5000))
    buckets = [0] * BUCKETS
    for each in times:
        buckets[bucket_of(each)] += 1
    exact = times[math.ceil(share * len(times)) - 1]
    found = percentile(buckets, share)
    assert found is not None
    assert bucket_of(found * 1000) == bucket_of(exact)


def test_a_percentile_of_nothing_is_nothing_and_beyond_the_last_bound_it_is_that_bound() -> None:
    assert percentile([0] * BUCKETS, 0.5) is None
    assert percentile([0] * (BUCKETS - 1) + [4], 0.5) == 300.0
    assert percentile([4, *[0] * (BUCKETS - 1)], 0.5) == pytest.approx(0.0005)
    assert percentile([1] * BUCKETS, 0.0) == 0.0
