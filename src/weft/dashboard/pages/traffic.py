"""Traffic: calls over time by destination and version, and the resources that direct them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard.chart import Chart
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.route_edit import policy_row, route_row
from weft.dashboard.pages.traffic_series import (
    MAX_LINES,
    Measure,
    Traffic,
    drawn,
    label,
    placed,
    read_traffic,
    rows,
)
from weft.dashboard.parts import heading, link
from weft.dashboard.table import Column, Table
from weft.dashboard.theme import SERIES

_SPANS = {"5 min": 300, "15 min": 900, "1 h": 3600}
"""Seconds that are shown."""

_USUAL = "15 min"

_EVERY = 5.0
"""Seconds between looks: a step of the API's."""

_CHARTS = {
    Measure.CALLS: "Calls per second",
    Measure.ERRORS: "Errors, percent of calls",
    Measure.P50: "Time of the median call (p50), ms",
    Measure.P99: "Time of the slowest percent (p99), ms",
}

GRID = "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:12px;width:100%"
"""Two panels beside each other where there is room."""

_NEARLY_ALL = 70
"""Percent of errors from which on the chart goes up to all calls."""

_FIGURES = (
    Column("calls", "Calls", format="count", least=80),
    Column("rate", "Calls/s", format="rate", least=80),
    Column("errorShare", "Errors", format="percent", least=80),
    Column("p50", "p50", format="ms", least=80, wide=True),
    Column("p99", "Worst p99", format="ms", least=95),
)


@page("/traffic", title="Traffic", icon="swap_horiz", menu=30)
def traffic(view: Page) -> None:
    """All destinations; with `destination` in the query the versions of that one."""
    destination = view.query.get("destination", "")
    if destination:
        view.title(f"Traffic to {destination}")
        with ui.row().classes("items-center"):
            link("All destinations", link_to("traffic"))
            link("Traces", link_to("traces", destination=destination))
    _Lines(view, destination)
    if destination:
        _callers(view, destination)
    _routing(view, destination)


class _Lines:
    """The charts, and the table of the same."""

    def __init__(self, view: Page, destination: str) -> None:
        self._view = view
        self._by_version = bool(destination)
        self._asked = f"&destination={quote(destination, safe='')}" if destination else ""
        self._places: tuple[str, ...] = ()
        self._stop: Callable[[], None] = lambda: None
        self._named: tuple[str, ...] = ()
        with ui.row().classes("items-center w-full"):
            ui.toggle([*_SPANS], value=_USUAL, on_change=lambda change: self._watch(str(change.value))).props(
                'no-caps dense aria-label="Time shown"'
            )
            self._note = ui.label().classes("weft-muted")
        self._names = ui.row().classes("items-center w-full").style("gap:4px 14px")
        with ui.element("div").style(GRID):
            self._charts = {measure: _chart(view, measure, text) for measure, text in _CHARTS.items()}
        self._table = Table(
            view,
            [_name_column(by_version=self._by_version), *_FIGURES],
            key="id",
            label="Calls in the time shown",
            empty="No calls in this time.",
        )
        self._watch(_USUAL)

    def _watch(self, span: str) -> None:
        self._stop()
        path = f"/v1/traffic/series?seconds={_SPANS[span]}{self._asked}"
        self._stop = self._view.watch(path, self._show, every=_EVERY, shape=read_traffic)

    def _show(self, found: Traffic) -> None:
        self._places = placed(found, self._places)
        for measure, chart in self._charts.items():
            series = drawn(found, self._places, measure, by_version=self._by_version)
            axes = {"xAxis": _time_axis(found.begin, found.until), "yAxis": _value_axis(measure, series)}
            chart.show({"series": series, **axes})
        self._name(found)
        self._table.show([_linked(each) for each in rows(found, by_version=self._by_version)])
        hidden = len(found.lines) - MAX_LINES
        self._note.set_text(f"{hidden} more are in the table only" if hidden > 0 else "")

    def _name(self, found: Traffic) -> None:
        """What the colours mean."""
        known = {each.id: label(each, by_version=self._by_version) for each in found.lines}
        named = tuple(known.get(each, "") for each in self._places)
        if named == self._named:
            return
        self._named = named
        self._names.clear()
        with self._names:
            for place, each in enumerate(named):
                if each:
                    _swatch(place, each)


def _chart(view: Page, measure: Measure, text: str) -> Chart:
    option: dict[str, Any] = {
        "title": {"text": text, "left": 0, "top": 0, "textStyle": {"fontSize": 13, "fontWeight": 600}},
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "xAxis": _time_axis(0, 1),
        "yAxis": _value_axis(measure, []),
        "series": [],
    }
    with ui.element("div").classes("weft-panel"):
        return Chart(
            view, option, label=f"{text}, over time; the table below has the figures", height="190px"
        )


def _time_axis(begin: float, end: float) -> dict[str, Any]:
    return {
        "type": "time",
        "min": begin * 1000,
        "max": end * 1000,
        "splitLine": {"show": False},
        "axisLabel": {"hideOverlap": True},
    }


def _value_axis(measure: Measure, series: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """From nothing up; errors to no more than all calls, and not so near that few look like many."""
    axis: dict[str, Any] = {"type": "value", "min": 0, "splitNumber": 3}
    if measure is not Measure.ERRORS:
        return axis
    most = max((value or 0 for each in series for _, value in each["data"]), default=0)
    return {**axis, "minInterval": 1, "max": 100 if most > _NEARLY_ALL else None}


def _swatch(place: int, text: str) -> None:
    with ui.row().classes("items-center no-wrap").style("gap:6px"):
        mark = ui.element("span").props("aria-hidden=true")
        mark.style(f"width:14px;height:4px;border-radius:2px;flex:none;background:{SERIES[place]}")
        ui.label(text).style("overflow-wrap:anywhere")


def _name_column(*, by_version: bool) -> Column:
    if by_version:
        return Column("name", "Version", least=110, tone="tone")
    return Column("name", "Destination", grow=2, least=120, link="to", filter=True)


def _linked(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "to": link_to("traffic", destination=row["destination"])}


def _callers(view: Page, destination: str) -> None:
    heading("Who calls it, in the last 30 seconds")
    table = Table(
        view,
        [
            Column("caller", "From", least=110, link="to"),
            Column("version", "Version", least=80, wide=True),
            Column("route", "Route rule", least=90, wide=True),
            Column("callsPerSecond", "Calls/s", format="rate", least=80),
            Column("errorsPerSecond", "Errors/s", format="rate", least=80),
            Column("refusedPerSecond", "Refused/s", format="rate", least=90, wide=True),
            Column("p50", "p50", format="ms", least=75, wide=True),
            Column("p99", "p99", format="ms", least=75),
        ],
        key="id",
        label="Callers",
        empty="Nobody called it in this time.",
    )

    def show(answer: dict[str, Any]) -> None:
        edges = (each for each in answer["edges"] if each["destination"] == destination and each["calls"])
        table.show([_edge_row(each) for each in edges])

    view.watch("/v1/traffic?window=30", show, every=_EVERY)


def _edge_row(edge: dict[str, Any]) -> dict[str, Any]:
    names = ("caller", "kind", "version", "route")
    return {
        **{name: edge[name] for name in (*names, "callsPerSecond", "errorsPerSecond", "refusedPerSecond")},
        "p50": edge["p50"],
        "p99": edge["p99"],
        "id": "/".join(str(edge[name]) for name in names),
        "to": link_to("traffic", destination=edge["caller"]),
    }


def _routing(view: Page, destination: str) -> None:
    """The Routes and TrafficPolicies, of one destination or all."""
    declared = "declared for it" if destination else "declared"
    heading("Routes")
    routes = Table(
        view,
        [
            Column("name", "Route", least=110, link="to"),
            Column("target", "Destination", least=110),
            Column("split", "Split", grow=3, least=150),
            Column("rules", "Rules", format="count", least=70, wide=True),
        ],
        key="id",
        label="Routes",
        empty=f"No Route is {declared}: each call goes to any healthy instance of its destination.",
    )
    heading("Traffic policies")
    policies = Table(
        view,
        [
            Column("name", "Policy", least=110, link="to"),
            Column("target", "Destination", least=110),
            Column("settings", "Says", grow=3, least=150),
        ],
        key="id",
        label="Traffic policies",
        empty=f"No TrafficPolicy is {declared}: the defaults hold.",
    )

    def show(table: Table, row: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], None]:
        return lambda answer: table.show(_declared(answer["items"], row, destination))

    view.watch("/v1/resources/route", show(routes, route_row), every=_EVERY)
    view.watch("/v1/resources/trafficpolicy", show(policies, policy_row), every=_EVERY)


def _declared(
    items: Sequence[dict[str, Any]], row: Callable[[dict[str, Any]], dict[str, Any]], destination: str
) -> list[dict[str, Any]]:
    found = map(row, items)
    wanted = {destination, f"capability {destination}", "every destination"}
    return [
        {**each, "to": link_to("routing", each["kind"], each["name"])}
        for each in found
        if not destination or each["target"] in wanted
    ]
