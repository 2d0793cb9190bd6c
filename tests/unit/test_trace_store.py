"""Which traces are kept, for how long, and how they are found."""

from __future__ import annotations

import asyncio
import os
import time

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client import CollectorRegistry
from tests.clock import Clock
from tests.spans import group, span

from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.search import Query, search
from weft.controlplane.telemetry.trace_store import MAX_ORIGIN_TEXT, MAX_SPANS, TraceStore
from weft.controlplane.telemetry.trace_summary import MAX_MARKS
from weft.controlplane.telemetry.waterfall import waterfall

MEBIBYTE = 1024 * 1024
NOW = time.time()


class Scene:
    """A store."""

    def __init__(self, limit: int = 64 * MEBIBYTE, age: float = 3600.0) -> None:
        self.registry = CollectorRegistry()
        self.clock = Clock()
        self.store = TraceStore(SpanMetrics(self.registry), limit=limit, age=age, clock=self.clock)

    def put(self, *spans: Span, service: str = "planner") -> None:
        self.store.add(group(*spans, service=service))

    async def names(self, **query: object) -> list[str]:
        page = await search(self.store, Query(**query), limit=1000)  # type: ignore[arg-type]
        return [each.name for each in page.traces]

    async def shown(self, trace: bytes) -> list[str]:
        kept = self.store.get(trace)
        assert kept is not None
        return [each["name"] for each in (await waterfall(self.store, kept))["spans"]]


async def test_a_trace_is_called_by_its_root_whenever_that_comes() -> None:
    scene, trace = Scene(), os.urandom(16)
    root = span("root", trace=trace, at=NOW)
    scene.put(span("late", trace=trace, parent=root.span_id, at=NOW + 2))
    scene.put(span("early", trace=trace, parent=root.span_id, at=NOW - 1))
    assert await scene.names() == ["early"]
    scene.put(root)
    scene.put(span("another", trace=trace, parent=root.span_id, at=NOW - 2))
    assert await scene.names() == ["root"]
    assert await scene.shown(trace) == ["another", "early", "root", "late"]


async def test_a_root_with_a_parent_that_was_made_up_is_a_root() -> None:
    scene, trace = Scene(), os.urandom(16)
    scene.put(span("root", trace=trace, parent=trace[8:], at=NOW))
    scene.put(span("child", trace=trace, parent=os.urandom(8), at=NOW - 1))
    assert await scene.names() == ["root"]
    kept = scene.store.get(trace)
    assert kept is not None
    assert [each["parent"] == "" for each in (await waterfall(scene.store, kept))["spans"]] == [False, True]


async def test_a_span_that_comes_twice_is_kept_once() -> None:
    scene, one = Scene(), span("one", failed=True)
    scene.put(one)
    size = scene.store.kept.bytes
    scene.put(one, one)
    assert (scene.store.kept.spans, scene.store.kept.bytes) == (1, size)


async def test_envoys_own_span_takes_the_place_of_one_made_of_a_log_and_not_the_other_way() -> None:
    for first, second in ((0, 1), (1, 0)):
        scene, trace, ident = Scene(), os.urandom(16), os.urandom(8)
        made = span("of the log", trace=trace, failed=True, given={"weft.source": "access-log"})
        real = span("of Envoy", trace=trace, failed=True)
        made.span_id = real.span_id = ident
        pair = (made, real)
        scene.put(pair[first])
        scene.put(pair[second])
        assert await scene.shown(trace) == ["of Envoy"]
        kept = scene.store.get(trace)
        assert kept is not None
        assert kept.errors == 1
        scene.clock.now += 10_000
        scene.store.trim()
        assert scene.store.kept.bytes == 0


async def test_what_does_not_fit_goes_trace_by_trace_the_oldest_first_and_errors_last() -> None:
    scene = Scene(limit=MEBIBYTE)
    scene.put(span("failed", failed=True, at=NOW - 1000))
    for number in range(100):
        scene.put(span(f"{number}", at=NOW + number, given={"text": "x" * 20_000}))
        assert scene.store.kept.bytes <= MEBIBYTE
    names = await scene.names()
    assert names[0] == "99"
    assert names[-1] == "failed"
    assert names[1:-1] == [f"{number}" for number in range(98, 100 - len(names), -1)]


async def test_errors_leave_half_to_others() -> None:
    scene = Scene(limit=MEBIBYTE)
    for number in range(200):
        scene.put(span(f"{number}", failed=True, at=NOW + number, given={"text": "x" * 20_000}))
    assert len(await scene.names(failed=True)) > 40
    for number in range(200):
        scene.put(span(f"good {number}", at=NOW + number, given={"text": "x" * 20_000}))
    failed, good = await scene.names(failed=True), await scene.names(failed=False)
    assert (failed[0], good[0]) == ("199", "good 199")
    assert 20 < len(failed) < 30
    assert 20 < len(good) < 30


async def test_traces_go_when_they_are_too_old() -> None:
    scene = Scene(age=60)
    scene.put(span("old", failed=True), span("old too"))
    scene.clock.now += 50
    scene.put(span("young"))
    scene.clock.now += 11
    scene.store.trim()
    assert await scene.names() == ["young"]
    scene.clock.now += 60
    scene.store.trim()
    kept = scene.store.kept
    assert (kept.spans, kept.traces, kept.bytes, kept.oldest) == (0, 0, 0, None)
    assert scene.registry.get_sample_value("weft_telemetry_spans_kept") == 0


async def test_a_trace_that_is_too_long_is_cut_and_says_so() -> None:
    scene, trace = Scene(), os.urandom(16)
    scene.put(*(span(f"{number}", trace=trace) for number in range(MAX_SPANS + 7)))
    kept = scene.store.get(trace)
    assert kept is not None
    shown = await waterfall(scene.store, kept)
    assert (len(shown["spans"]), shown["cut"]) == (MAX_SPANS, True)
    lost = scene.registry.get_sample_value("weft_telemetry_spans_dropped_total", {"reason": "trace-too-long"})
    assert lost == 7


async def test_of_a_trace_with_very_many_names_some_are_not_noted() -> None:
    scene, trace = Scene(), os.urandom(16)
    scene.put(*(span(f"name {number}", trace=trace) for number in range(500)))
    kept = scene.store.get(trace)
    assert kept is not None
    assert len(kept.marks) == MAX_MARKS
    assert len(await scene.names(text="name 7")) == 1


async def test_callers_are_found_by_their_type() -> None:
    scene = Scene()
    scene.put(span("x", given={"weft.caller": "spiffe://weft.local/agent/boss/b-1"}))
    scene.put(span("y", given={"weft.caller": "spiffe://weft.local/operator/boss/b-1"}))
    assert await scene.names(caller="boss") == ["x"]
    assert await scene.names(caller="spiffe://weft.local/operator/boss/b-1") == ["y"]


async def test_whose_spans_are_is_told_apart() -> None:
    scene, trace = Scene(), os.urandom(16)
    scene.store.add(group(span("a", trace=trace, at=NOW), service_instance_id="p-1", service_version="2"))
    scene.store.add(group(span("b", trace=trace, at=NOW + 1), service="writer", weft_reporter="me"))
    kept = scene.store.get(trace)
    assert kept is not None
    one, two = (await waterfall(scene.store, kept))["spans"]
    assert (one["service"], one["instance"], one["version"]) == ("planner", "p-1", "2")
    assert (two["service"], two["attributes"]["weft.reporter"]) == ("writer", "me")
    assert kept.services == ["planner", "writer"]


async def test_an_attempt_that_was_the_only_one_says_nothing_that_its_call_does_not() -> None:
    for first, second in ((0, 1), (1, 0)):
        for attempts, shown in ((1, ["call"]), (2, ["attempt", "call"])):
            scene, trace = Scene(), os.urandom(16)
            call = span("call", trace=trace, at=NOW + 1, given={"weft.attempts": attempts})
            given = {"weft.source": "access-log", "weft.attempt": 1}
            attempt = span("attempt", trace=trace, at=NOW, parent=call.span_id, failed=True, given=given)
            pair = (call, attempt)
            scene.put(pair[first])
            scene.put(pair[second])
            assert await scene.shown(trace) == shown
            assert await scene.names(failed=True) == []
            scene.clock.now += 10_000
            scene.store.trim()
            assert (scene.store.kept.spans, scene.store.kept.bytes) == (0, 0)


async def test_resources_take_up_memory_only_while_there_are_spans_of_them() -> None:
    scene = Scene(limit=MEBIBYTE)
    for number in range(3000):
        scene.store.add(group(span("a", at=NOW), service_version=f"{number}-" + "x" * 4000))
    kept = scene.store.kept
    assert 0 < kept.origins == kept.spans < 1500
    found = await search(scene.store, Query(), limit=1000)
    versions = [(await waterfall(scene.store, each))["spans"][0]["version"] for each in found.traces]
    assert ("2999-" + "x" * 4000)[:MAX_ORIGIN_TEXT] in versions
    for _ in range(2):
        scene.store.add(group(span("a", trace=b"t" * 16), span("b", trace=b"t" * 16), service="writer"))
    scene.clock.now += 10_000
    scene.store.trim()
    assert (scene.store.kept.origins, scene.store.kept.spans) == (0, 0)
    scene.store.add(group())
    assert scene.store.kept.origins == 0


async def test_a_trace_that_goes_while_it_is_shown_is_shown_whole() -> None:
    scene, trace = Scene(), os.urandom(16)
    scene.put(*(span(f"s{number}", trace=trace) for number in range(4000)))
    kept = scene.store.get(trace)
    assert kept is not None
    showing = asyncio.create_task(waterfall(scene.store, kept))
    await asyncio.sleep(0)
    scene.clock.now += 10_000
    scene.store.trim()
    assert not showing.done()
    assert {each["service"] for each in (await showing)["spans"]} == {"planner"}
