from __future__ import annotations

import itertools
from typing import Any

from weft.dashboard.pages.topology import (
    HEIGHT,
    MAX_NODES,
    WIDTH,
    Topology,
    TopologyEdge,
    TopologyNode,
    grouped,
    layout,
    topology,
)


def instance(type_: str, number: int, status: str = "healthy") -> dict[str, Any]:
    return {"type": type_, "id": f"{type_}-{number}", "status": status}


def edge(caller: str, destination: str, kind: str = "agent", **more: Any) -> dict[str, Any]:
    return {
        "caller": caller,
        "destination": destination,
        "kind": kind,
        "callsPerSecond": 1.0,
        "errorsPerSecond": 0.0,
        "refusedPerSecond": 0.0,
        "p50": 0.01,
        "p99": 0.1,
        "calls": 30,
        **more,
    }


def seen(instances: list[dict[str, Any]], *edges: dict[str, Any], left: Any = (), **more: Any) -> Topology:
    return topology(
        {"items": instances, "left": list(left)}, {"edges": edges}, more.pop("resources", ()), **more
    )


def tone(shown: Topology, key: str) -> str:
    return next(each.tone for each in shown.nodes if each.key == key)


def test_a_thousand_instances_are_one_node_a_type() -> None:
    shown = seen([instance(f"type-{number % 20}", number) for number in range(1000)])
    assert len(shown.nodes) == 20
    assert shown.nodes[0].detail == "50 of 50 healthy"


def test_versions_and_routes_are_added_up() -> None:
    shown = seen(
        [instance("a", 1), instance("b", 1)],
        edge("a", "b", version="1", callsPerSecond=3.0, errorsPerSecond=0.3, calls=90, p50=0.2, p99=0.3),
        edge("a", "b", version="2", callsPerSecond=1.0, refusedPerSecond=0.1, calls=30, p50=0.1, p99=0.9),
    )
    [drawn] = shown.edges
    assert (drawn.rate, drawn.calls, drawn.p50, drawn.p99) == (4.0, 120, 0.2, 0.9)
    assert drawn.success == 0.9
    assert drawn.tone == "warn"


def test_how_a_type_stands_is_how_its_instances_do() -> None:
    shown = seen(
        [
            instance("fine", 1),
            instance("half", 1),
            instance("half", 2, "unhealthy"),
            instance("down", 1, "unhealthy"),
        ],
        left=[instance("gone", 1), instance("left", 1, "draining"), instance("fine", 9, "draining")],
    )
    assert {each.name: each.tone for each in shown.nodes} == {
        "fine": "ok",
        "half": "warn",
        "down": "bad",
        "gone": "bad",
    }


def test_everything_that_calls_or_is_called_is_there() -> None:
    shown = seen(
        [instance("planner", 1)],
        edge("operator/local", "planner"),
        edge("planner", "gpt", "model"),
        edge("planner", "summarize", "capability"),
        edge("planner", "api.example.com", "outside"),
        edge("planner", "clock", "tool"),
        edge("planner", "control", "control"),
        edge("planner", "", ""),
        resources=[{"kind": "Agent", "metadata": {"name": "idle"}, "spec": {"run": {"command": ["x"]}}}],
    )
    assert [each.key for each in shown.nodes] == [
        "agent/clock",
        "agent/idle",
        "agent/planner",
        "caller/operator/local",
        "capability/summarize",
        "model/gpt",
        "outside/api.example.com",
    ]
    assert tone(shown, "agent/idle") == "bad"


def test_queues_are_there_if_declared_or_not_empty_and_subscriptions_are_drawn() -> None:
    queue = {"ready": 0, "dead": 0, "inFlight": 0}
    shown = seen(
        [instance("clerk", 1)],
        resources=[
            {"kind": kind, "metadata": {"name": name}}
            for kind, name in (("Queue", "orders"), ("Topic", "news"))
        ],
        queues=[
            {"name": "orders", **queue},
            {"name": "a2a-x", **queue},
            {"name": "a2a-y", **queue, "ready": 2},
        ],
        topics=[
            {"name": "news", "messages": 0, "groups": [{"name": "clerk", "pending": 0}]},
            {"name": "dead-letters", "messages": 0, "groups": []},
        ],
    )
    assert [each.key for each in shown.nodes] == ["agent/clerk", "queue/a2a-y", "queue/orders", "topic/news"]
    assert [(each.source, each.target, each.events) for each in shown.edges] == [
        ("topic/news", "agent/clerk", True)
    ]


def test_of_very_many_the_least_busy_are_one_and_the_unhealthy_stay() -> None:
    nodes = tuple(
        TopologyNode(f"agent/{n:03}", "agent", f"{n:03}", "bad" if n == 0 else "ok", calls=float(n))
        for n in range(200)
    )
    edges = tuple(TopologyEdge(a.key, b.key, 1.0, calls=30) for a, b in itertools.pairwise(nodes))
    few = grouped(Topology(nodes, edges))
    keys = {each.key for each in few.nodes}
    assert len(keys) <= MAX_NODES
    assert {"agent/000", "agent/199", "agent/(others)"} <= keys
    assert sum(each.calls for each in few.edges) == sum(each.calls for each in edges)
    assert {end for each in few.edges for end in (each.source, each.target)} <= keys
    assert grouped(few) == few


def test_nothing_lies_over_anything_and_callers_stand_left_of_whom_they_call() -> None:
    names = "abcdefgh"
    nodes = tuple(
        TopologyNode(f"agent/{each}", "agent", each) for each in [*names, *(f"alone{n}" for n in range(9))]
    )
    edges = tuple(
        TopologyEdge(f"agent/{a}", f"agent/{b}") for a, b in ("ab", "ac", "bd", "cd", "de", "ea", "ff", "gh")
    )
    drawn = layout(Topology(nodes, edges))
    assert drawn == layout(Topology(nodes, edges))
    places = drawn.places
    assert set(places) == {each.key for each in nodes}
    for (x1, y1), (x2, y2) in itertools.combinations(places.values(), 2):
        assert abs(x1 - x2) >= WIDTH or abs(y1 - y2) >= HEIGHT
    for source, target in ("ab", "ac", "bd", "cd", "gh"):
        assert places[f"agent/{source}"][0] < places[f"agent/{target}"][0]
    for x, y in places.values():
        assert 0 <= x <= drawn.width - WIDTH
        assert 0 <= y <= drawn.height - HEIGHT


def test_a_tangle_is_laid_out_in_no_time() -> None:
    names = [f"agent/{number}" for number in range(MAX_NODES)]
    nodes = tuple(TopologyNode(each, "agent", each) for each in names)
    edges = tuple(TopologyEdge(a, b) for a, b in itertools.permutations(names[:25], 2))
    assert len(layout(Topology(nodes, edges)).places) == MAX_NODES
