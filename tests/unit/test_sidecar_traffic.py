"""What a sidecar makes of its Envoy's counts: whatever Envoy says, dies, or forgets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from weft.aio.ports import reserve_port
from weft.model import telemetry_wire
from weft.model.node import Address, AgentProtocol
from weft.model.traffic_report import BOUNDS_MS, BUCKETS, MAX_CODES, MAX_NAME, OTHER, Edge, TrafficKind
from weft.sidecar import envoy_stats, traffic
from weft.sidecar.envoy_stats import EnvoyStats, kind_of
from weft.sidecar.http import exchange
from weft.sidecar.local_server import LocalAnswer, LocalRequest, LocalServer
from weft.sidecar.metrics import SidecarMetrics, Vitals
from weft.sidecar.metrics_server import AgentMetrics, MetricsServer
from weft.sidecar.traffic import Traffic

HOST = "127.0.0.1"
WORKER = Edge("worker", TrafficKind.AGENT, "1.5", "default", "")
WHOM = "@d.worker.@k.type/worker.@v.1.5.@r.default.@t."


def counts(whom: str = WHOM, *, ms: int = 0, buckets: dict[int, int] | None = None, **ended: int) -> str:
    """Envoy's text; `ended` as in `c200=3` or `c503_UF=1`."""
    lines = []
    for how, number in ended.items():
        code, _, flags = how.removeprefix("c").partition("_")
        lines.append(f"weft.calls.{whom}.@c.{code}.@f.{flags or '-'}: {number}")
    if ms:
        lines.append(f"weft.time_ms.{whom}: {ms}")
    if buckets is not None:
        total, shown = 0, []
        for number, bound in enumerate(telemetry_wire.BUCKETS):
            total += buckets.get(number, 0)
            shown.append(f"B{bound if bound < 1e9 else '1e+09'}(0,{total})")
        lines.append(f"weft.call_ms.{whom}: {' '.join(shown)}")
    return "\n".join(lines)


class Scene:
    def __init__(self) -> None:
        self.stats = EnvoyStats()
        self.traffic = Traffic()

    def reads(self, *texts: str) -> None:
        self.traffic.take(self.stats.read("\n".join(texts)))

    def calls(self, edge: Edge = WORKER) -> dict[tuple[str, str], int]:
        return self.traffic.totals[edge].endings


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_buckets_are_those_that_envoy_is_told() -> None:
    assert telemetry_wire.BUCKETS[:-1] == BOUNDS_MS


def test_counts_of_a_reading_are_what_was_added_since_the_one_before(scene: Scene) -> None:
    scene.reads(counts(c200=3, c503_UF=1, ms=40, buckets={0: 1, 4: 3}))
    scene.reads(counts(c200=5, c503_UF=1, ms=90, buckets={0: 2, 4: 4}))
    assert scene.calls() == {("200", ""): 5, ("503", "UF"): 1}
    totals = scene.traffic.totals[WORKER]
    assert (totals.milliseconds, totals.buckets[0], totals.buckets[4], sum(totals.buckets)) == (90, 2, 4, 6)


def test_what_envoy_forgot_begins_at_nothing_and_the_totals_go_on(scene: Scene) -> None:
    scene.reads(counts(c200=10, ms=100, buckets={1: 10}))
    scene.reads("")
    scene.reads(counts(c200=2, ms=10, buckets={1: 2}))
    scene.reads(counts(c200=1, ms=5, buckets={1: 1}))
    assert scene.calls() == {("200", ""): 13}
    totals = scene.traffic.totals[WORKER]
    assert (totals.milliseconds, totals.buckets[1]) == (115, 13)


def test_a_new_envoy_that_has_counted_more_than_the_old_one_is_counted_whole(scene: Scene) -> None:
    scene.reads(counts(c200=10, buckets={1: 10}))
    scene.stats.begin_again()
    scene.reads(counts(c200=12, buckets={1: 12}))
    assert scene.calls() == {("200", ""): 22}
    assert scene.traffic.totals[WORKER].buckets[1] == 22


def test_whatever_happens_to_envoy_every_call_that_was_read_is_told_once(scene: Scene) -> None:
    draw = random.Random(11)
    made, there, told = 0, 0, 0
    for _ in range(300):
        match draw.randrange(10):
            case 0:  # it died, and what it had counted was read
                there = 0
                scene.stats.begin_again()
            case 1:  # nobody could read it
                continue
            case _:
                more = draw.randrange(50)
                made, there = made + more, there + more
        scene.reads(counts(c200=there) if there else "")
        if draw.randrange(3) == 0:
            report = scene.traffic.report(time.time(), 0)
            told += sum(each.calls for each in report.calls.values()) if report else 0
    report = scene.traffic.report(time.time(), 0)
    told += sum(each.calls for each in report.calls.values()) if report else 0
    assert told == made == scene.calls()[("200", "")]


def test_names_with_dots_and_empty_ones_are_told_apart(scene: Scene) -> None:
    whom = "@d.api.example.com:8080.@k.forward.@v..@r.a.b.@t."
    tool = "@d.files.@k.type/files.@v.2.0.@r.tools.@t.files.read"
    scene.reads(counts(whom, c200=1), counts(tool, c200=2))
    assert scene.calls(Edge("api.example.com:8080", TrafficKind.OUTSIDE, "", "a.b", "")) == {("200", ""): 1}
    assert scene.calls(Edge("files", TrafficKind.TOOL, "2.0", "tools", "files.read")) == {("200", ""): 2}


@pytest.mark.parametrize(
    ("cluster", "kind"),
    [
        ("type/a", "agent"),
        ("type/a/2", "agent"),
        ("context/type/a", "agent"),
        ("capability/a", "capability"),
        ("context/capability/a", "capability"),
        ("llm/pool/first", "model"),
        ("provider/pool/p", "model"),
        ("control", "control"),
        ("forward", "outside"),
        ("none", ""),
        ("", ""),
    ],
)
def test_what_was_called_is_read_from_the_cluster(cluster: str, kind: str) -> None:
    assert kind_of(cluster) == kind


NONSENSE = [
    "",
    "garbage",
    "weft.calls: 3",
    f"weft.calls.{WHOM}.@c.200.@f.-: -3",
    f"weft.calls.{WHOM}.@c.200.@f.-: 3.5",
    f"weft.calls.{WHOM}.@c.200.@f.-: {'9' * 400}",
    f"weft.calls.{WHOM}.@c.200.@f.-: \uff13",
    f"weft.calls.{WHOM}.@c.2000.@f.-: 3",
    f"weft.calls.{WHOM}.@c.abc.@f.-: 3",
    f"weft.call_ms.{WHOM}: B1(0,1) B2(0,2)",
    f"weft.call_ms.{WHOM}: {' '.join(f'B{n}(0,{20 - n})' for n in range(BUCKETS))}",
    f"weft.call_ms.{WHOM}: No recorded values",
    f"weft.call_ms.{WHOM}: " + "B1(0,1) " * 5000,
    "weft.calls.@d.x: B1(0,1)",
    "cluster.agent.upstream_rq_active: many",
    "<html>404</html>",
    "\x00\xff: 1",
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_counts_for_nothing_and_what_is_beside_it_counts(text: str, scene: Scene) -> None:
    scene.reads(text)
    assert scene.traffic.totals == {}
    scene.reads(text, counts(c200=3))
    assert scene.calls() == {("200", ""): 3}


def test_tunnels_are_not_counted_beside_the_calls_that_come_through(scene: Scene) -> None:
    tunnel = "@d.worker.@k.mesh.@v..@r.tunnel.@t."
    scene.reads(counts(tunnel, c200=3, ms=9000, buckets={12: 3}), counts(c200=5), "weftall.calls: 8")
    scene.reads(counts(tunnel, c200=3, ms=9000, buckets={12: 3}), counts(c200=5), "weftall.calls: 8")
    assert [*scene.traffic.totals] == [WORKER]
    assert scene.traffic.untold == 0
    assert scene.stats.strange == 0


def test_what_the_control_plane_answers_for_others_is_its_own(scene: Scene) -> None:
    scene.reads(counts("@d.worker.@k.control.@v..@r.card.@t.", c200=1))
    assert [*scene.traffic.totals] == [Edge("control", TrafficKind.CONTROL, "", "card", "")]


def test_calls_in_flight_are_those_under_way_and_those_that_wait(scene: Scene) -> None:
    scene.reads("cluster.agent.upstream_rq_active: 3\ncluster.agent.upstream_rq_pending_active: 2")
    assert scene.stats.in_flight == 5
    scene.reads("")
    assert scene.stats.in_flight == 0


def test_long_and_unprintable_names_are_cut_to_what_a_report_takes(scene: Scene) -> None:
    scene.reads(counts(f"@d.{'x' * 500}.@k.type/x.@v.a\tb.@r..@t.", c200=1))
    [edge] = scene.traffic.totals
    assert (len(edge.destination), edge.version) == (MAX_NAME, "a?b")


def test_of_too_many_destinations_the_rest_is_told_together(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "MAX_EDGES", 5)
    monkeypatch.setattr(envoy_stats, "_MAX_NAMES", 5)
    for times in (1, 2):
        scene.reads(*(counts(f"@d.d{n}.@k.type/d.@v..@r..@t.", c200=times) for n in range(20)))
    rest = Edge(OTHER, TrafficKind.UNKNOWN)
    assert len(scene.traffic.totals) == 6
    assert scene.calls(rest) == {("200", ""): 30}


def test_of_too_many_codes_the_rest_is_told_together(scene: Scene) -> None:
    scene.reads(*(counts(**{f"c{code}": 1}) for code in range(200, 500)))  # type: ignore[arg-type]
    assert len(scene.calls()) == MAX_CODES + 1
    assert sum(scene.calls().values()) == 300
    report = scene.traffic.report(time.time(), 0)
    assert report is not None
    assert len(report.calls[WORKER].codes) == MAX_CODES
    assert report.calls[WORKER].calls == 300
    shown(scene.traffic)


def test_calls_that_envoy_had_no_room_for_are_known_once_they_do_not_come(scene: Scene) -> None:
    scene.reads(counts(c200=3), "weftall.calls: 10")
    assert scene.traffic.untold == 0  # they might be told next time
    scene.reads(counts(c200=8), "weftall.calls: 10")
    assert scene.traffic.untold == 2
    scene.reads(counts(c200=9), "weftall.calls: 11")
    assert scene.traffic.untold == 2


def test_a_report_has_what_was_added_and_there_is_none_without(scene: Scene) -> None:
    assert scene.traffic.report(100.0, 0) is None
    scene.reads(counts(c200=3, c500=1, c403=2, c0_DC=1, c0_UT=1, ms=7, buckets={2: 3}))
    first = scene.traffic.report(102.5, 4)
    assert first is not None
    calls = first.calls[WORKER]
    assert (first.seconds, first.in_flight, calls.calls) == (2.5, 4, 8)
    assert (calls.errors, calls.refused, calls.abandoned, calls.sum_ms) == (2, 2, 1, 7)
    assert calls.flags == {"DC": 1, "UT": 1}
    assert scene.traffic.report(104.0, 4) is None
    scene.reads(counts(c200=4, c500=1, c403=2, c0_DC=1, c0_UT=1, ms=7, buckets={2: 3}))
    second = scene.traffic.report(106.0, 4)
    assert second is not None
    assert second.id != first.id
    assert (second.calls[WORKER].codes, second.calls[WORKER].sum_ms) == ({"200": 1}, 0)


# What Prometheus reads

VITALS = Vitals(3, True, 1_790_000_000.0, 2, "1.2.3")


def shown(counted: Traffic, vitals: Vitals = VITALS) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples, as a strict parser of OpenMetrics reads them."""
    registry = CollectorRegistry()
    registry.register(SidecarMetrics("planner", counted, vitals))
    text = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def sample(samples: dict[Any, float], name: str, **labels: str) -> float:
    (found,) = (
        value for (known, has), value in samples.items() if known == name and {*labels.items()} <= {*has}
    )
    return found


def test_what_prometheus_reads_are_the_totals(scene: Scene) -> None:
    tool = "@d.files.@k.type/files.@v.1.@r.tools.@t.read"
    other = "@d.files.@k.type/files.@v.1.@r.tools.@t.write"
    scene.reads(
        counts(c200=3, c503_UF=1, ms=1500, buckets={0: 1, 4: 3}),
        counts(tool, c200=5, ms=20, buckets={1: 5}),
        counts(other, c200=2, c500=1, ms=30, buckets={15: 3}),
    )
    samples = shown(scene.traffic)
    assert sample(samples, "weft_requests_total", destination="worker", code="503", flags="UF") == 1
    assert sample(samples, "weft_requests_total", destination="files", code="200", kind="tool") == 7
    assert sample(samples, "weft_request_duration_seconds_sum", destination="worker", version="1.5") == 1.5
    assert sample(samples, "weft_request_duration_seconds_bucket", destination="worker", le="0.001") == 1
    assert sample(samples, "weft_request_duration_seconds_bucket", destination="worker", le="0.025") == 4
    assert sample(samples, "weft_request_duration_seconds_count", destination="files") == 8
    assert sample(samples, "weft_request_duration_seconds_bucket", destination="files", le="300.0") == 5
    assert sample(samples, "weft_tool_calls_total", tool="write", outcome="error", server="files") == 1
    assert sample(samples, "weft_tool_call_duration_seconds_count", tool="read", caller="planner") == 5
    assert sample(samples, "weft_requests_in_flight") == 3
    assert sample(samples, "weft_agent_healthy") == 1
    assert sample(samples, "weft_certificate_expiry_timestamp_seconds") == 1_790_000_000
    assert sample(samples, "weft_envoy_restarts_total") == 2
    assert sample(samples, "weft_build_info", version="1.2.3") == 1


def test_a_sidecar_without_an_agent_says_nothing_of_its_health(scene: Scene) -> None:
    vitals = Vitals(0, None, 1.0, 0, "1")
    assert not any(name == "weft_agent_healthy" for name, _ in shown(scene.traffic, vitals))


Page = Callable[[LocalRequest], LocalAnswer]


class Served:
    """A sidecar's metrics beside an agent that answers what it is told to."""

    def __init__(self) -> None:
        self.answer = LocalAnswer(404)
        self.asked: list[str] = []
        self.healthy = True
        self.more = CollectorRegistry()
        self.port = 0

    async def agent(self, request: LocalRequest) -> LocalAnswer:
        self.asked.append(request.path)
        return self.answer

    async def own(self) -> SidecarMetrics:
        return SidecarMetrics("planner", Traffic(), VITALS)

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        answer = await exchange(reader, writer, path, method=method, max_body=10_000_000)
        return answer.status, answer.body


@asynccontextmanager
async def served(protocol: AgentProtocol = AgentProtocol.HTTP1) -> AsyncIterator[Served]:
    scene = Served()
    agent = LocalServer("agent", scene.agent, max_body=0)
    port = await agent.listen(HOST)
    metrics = AgentMetrics(Address(HOST, port), protocol, lambda: scene.healthy)
    server = MetricsServer(scene.own, metrics, scene.more)
    held = reserve_port(HOST)
    scene.port = held.port
    await server.listen(held.take())
    try:
        yield scene
    finally:
        await server.aclose()
        await agent.aclose()


EXPOSITION = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


async def test_an_agents_metrics_are_passed_on_as_they_are() -> None:
    async with served() as scene:
        scene.answer = LocalAnswer(200, EXPOSITION, b"own_total 3\n")
        assert await scene.get("/agent/metrics") == (200, b"own_total 3\n")
        status, body = await scene.get("/metrics?x=1")
        assert status == 200
        assert b"weft_build_info" in body
        assert scene.asked == ["/metrics"]


async def test_what_else_the_sidecar_counts_is_on_its_own_page() -> None:
    async with served() as scene:
        Gauge("more", "More.", registry=scene.more).set(7)
        assert b"\nmore 7.0\n" in (await scene.get("/metrics"))[1]


@pytest.mark.parametrize(
    "answer",
    [
        LocalAnswer(404),
        LocalAnswer(405),
        LocalAnswer(500, EXPOSITION),
        LocalAnswer(200, {"Content-Type": "text/plain"}, b"hello"),
        LocalAnswer(200, {"Content-Type": "application/json"}, b"{}"),
    ],
    ids=["404", "405", "500", "text", "json"],
)
async def test_an_agent_without_metrics_is_asked_once_and_shows_none(answer: LocalAnswer) -> None:
    async with served() as scene:
        scene.answer = answer
        for _ in range(3):
            assert await scene.get("/agent/metrics") == (200, b"# EOF\n")
        assert scene.asked == ["/metrics"]


async def test_an_agent_is_not_asked_before_it_is_well() -> None:
    async with served() as scene:
        scene.healthy = False
        scene.answer = LocalAnswer(200, EXPOSITION, b"own_total 3\n")
        assert await scene.get("/agent/metrics") == (200, b"# EOF\n")
        assert scene.asked == []
        scene.healthy = True
        assert await scene.get("/agent/metrics") == (200, b"own_total 3\n")


async def test_an_agent_that_speaks_http2_only_is_never_asked() -> None:
    async with served(AgentProtocol.H2C) as scene:
        assert await scene.get("/agent/metrics") == (200, b"# EOF\n")
        assert scene.asked == []


async def test_metrics_that_an_agent_shows_no_more_are_an_error() -> None:
    async with served() as scene:
        scene.answer = LocalAnswer(200, EXPOSITION, b"own_total 3\n")
        await scene.get("/agent/metrics")
        scene.answer = LocalAnswer(404)
        status, body = await scene.get("/agent/metrics")
        assert status == 502, body


async def test_metrics_that_are_too_long_are_an_error() -> None:
    async with served() as scene:
        scene.answer = LocalAnswer(200, EXPOSITION, b"x" * (4 * 1024 * 1024 + 1))
        assert (await scene.get("/agent/metrics"))[0] == 502


async def test_nothing_else_is_to_be_had_there() -> None:
    async with served() as scene:
        asks = [
            partial(scene.get, "/"),
            partial(scene.get, "/metrics/x"),
            partial(scene.get, "/metrics", "POST"),
        ]
        assert [(await each())[0] for each in asks] == [404, 404, 400]
