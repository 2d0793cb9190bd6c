"""Mesh: who there is and who calls whom, live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.dashboard.page import Page, page
from weft.dashboard.pages.topology import KINDS, Topology, grouped, topology
from weft.dashboard.pages.topology_drawing import TopologyDrawing
from weft.dashboard.parts import Figures, heading
from weft.dashboard.table import Column, Table
from weft.dashboard.wording import milliseconds, rate, share

WINDOW = 30
"""Seconds that rates are about."""

INSTANCES = "/v1/agents?status=any&watch=true"

_FIGURES = ("Agents", "Instances healthy", "Calls/s", "Success", "Slowest p99")


@page("/", title="Mesh", icon="hub", menu=10)
def mesh(view: Page) -> None:
    """The topology, and a table of its edges."""
    figures = Figures(_FIGURES)
    drawing = TopologyDrawing()
    heading("Who calls whom")
    table = Table(
        view,
        [
            Column("from", "From", grow=2, filter=True),
            Column("to", "To", grow=2, filter=True),
            Column("kind", "Kind", wide=True),
            Column("rate", "Calls/s", "rate"),
            Column("success", "Success", "percent", tone=""),
            Column("p50", "p50", "ms", wide=True),
            Column("p99", "p99", "ms"),
            Column("calls", f"Calls, {WINDOW} s", "count", wide=True),
        ],
        key="key",
        label="Who calls whom",
        empty="Nobody has called anybody of late.",
        sort="rate",
        descending=True,
    )
    told: dict[str, Any] = {"instances": {}, "traffic": {}, "resources": (), "queues": (), "topics": ()}

    def show(source: str, answer: Any) -> None:
        told[source] = answer
        if not told["instances"]:
            return
        whole = topology(
            told["instances"], told["traffic"], told["resources"], told["queues"], told["topics"]
        )
        drawing.show(grouped(whole))
        table.show(_rows(whole))
        values, tones = _figures(told["instances"], whole)
        figures.show(values, tones)

    view.watch(INSTANCES, lambda answer: show("instances", answer), every=0.5)
    view.watch(f"/v1/traffic?window={WINDOW}", lambda answer: show("traffic", answer), every=2.0)
    view.watch("/v1/resources", lambda answer: show("resources", answer["items"]), every=5.0)
    view.watch("/v1/queue-status", lambda answer: show("queues", answer["items"]), every=2.0)
    view.watch("/v1/topic-status", lambda answer: show("topics", answer["items"]), every=5.0)


def _rows(whole: Topology) -> list[dict[str, Any]]:
    return [
        {
            "key": each.key,
            "from": each.source.partition("/")[2],
            "to": each.target.partition("/")[2],
            "kind": KINDS.get(each.target.partition("/")[0], ""),
            "rate": round(each.rate, 3),
            "success": each.success,
            "p50": each.p50,
            "p99": each.p99,
            "calls": each.calls,
        }
        for each in whole.edges
        if not each.events
    ]


def _figures(instances: Mapping[str, Any], whole: Topology) -> tuple[dict[str, str], dict[str, str]]:
    items = instances["items"]
    healthy = sum(each["status"] == "healthy" for each in items)
    calls = sum(each.rate for each in whole.edges)
    bad = sum(each.errors + each.refused for each in whole.edges)
    slowest = max((each.p99 for each in whole.edges if each.p99 is not None), default=None)
    agents = [each for each in whole.nodes if each.kind == "agent"]
    values = {
        "Agents": str(len(agents)),
        "Instances healthy": f"{healthy} of {len(items)}",
        "Calls/s": rate(calls),
        "Success": share(calls - bad, calls),
        "Slowest p99": milliseconds(slowest),
    }
    tones = {
        "Instances healthy": "ok" if healthy == len(items) else "bad",
        "Agents": "bad" if any(each.tone == "bad" for each in agents) else "",
        "Success": ""
        if calls <= 0
        else "ok"
        if bad / calls < 0.01
        else "warn"
        if bad / calls < 0.1
        else "bad",
    }
    return values, tones
