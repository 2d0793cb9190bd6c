"""Traffic over HTTP: who calls whom, how often, how well and how fast, as sidecars told this replica.

Rates are of a *window*, the last seconds up to now. Sidecars tell every 2 s, so the last ones are incomplete.
Percentiles come from the buckets of `weft.model.traffic_report`, evenly within each: the true value is in the
same bucket.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentTelemetry
from weft.controlplane.telemetry.percentiles import percentile
from weft.controlplane.telemetry.rings import Window
from weft.controlplane.telemetry.traffic import EdgeTraffic, TrafficEdge
from weft.model.operator import Scope
from weft.model.traffic_report import MAX_NAME, TrafficKind

router = APIRouter(prefix="/v1/traffic", tags=["traffic"], dependencies=[Depends(requires(Scope.VIEWER))])

MAX_SERIES: Final = 200
"""Of one answer; those with most calls."""
LONGEST_WINDOW: Final = 3600
LONGEST_SERIES: Final = 86_400

Name = Annotated[str | None, Query(max_length=MAX_NAME)]


class EdgeOut(Body):
    """What one type of callers called, by version and route. Percentiles are seconds, null without calls."""

    caller: str
    """The agents' type, or `operator/<name>` for programs that only call."""
    destination: str
    """An agent's type, a capability, a pool of models, a server of tools; empty: there was none."""
    kind: TrafficKind
    version: str
    """Of the instance that answered; empty if none did."""
    route: str
    """The name of the Route's rule."""
    calls_per_second: float
    errors_per_second: float
    """5xx, no answer, or one that broke off."""
    refused_per_second: float
    """403 and 429."""
    p50: float | None
    p90: float | None
    p99: float | None
    calls: int
    """Within the window, as all that does not begin with `total`."""
    errors: int
    refused: int
    abandoned: int
    """The caller hung up before there was an answer. These are no errors."""
    total: int
    """Since this replica began."""
    total_errors: int


class Traffic(Body):
    """Who called whom of late."""

    at: float
    """Seconds since 1970."""
    window: float
    """Seconds that the figures are about: those asked for, up to whole steps, or since this replica began."""
    edges: list[EdgeOut]
    """Those with most calls first; those that carried nothing of late, but once did, are among them."""
    callers: int
    """Sidecars that told something within the window."""


class Series(Body):
    """The calls of one destination over time."""

    destination: str
    kind: TrafficKind
    version: str
    """Empty where versions are added up."""
    points: list[tuple[float, int, int, float | None, float | None]]
    """`[at, calls, errors, p50, p99]`: `at` is the beginning of a step. Steps without calls are left out."""


class SeriesList(Body):
    """Calls over time, by destination."""

    step: float
    """Seconds between points; the last one is under way."""
    from_: Annotated[float, Field(alias="from")]
    """Seconds since 1970."""
    until: float
    series: list[Series]
    """By destination and version."""


class ToolOut(Body):
    """Calls of one tool by way of `tools.mesh`."""

    tool: str
    server: str
    """The type of the server's agents."""
    calls_per_second: float
    errors_per_second: float
    p50: float | None
    p99: float | None
    calls: int
    errors: int
    callers: list[str]


class ToolList(Body):
    """Tools that were called of late, those with most calls first."""

    at: float
    window: float
    tools: list[ToolOut]


@router.get("")
async def traffic(
    telemetry: CurrentTelemetry, window: Annotated[int, Query(ge=5, le=LONGEST_WINDOW)] = 30
) -> Traffic:
    """Who called whom within the last `window` seconds."""
    view = telemetry.traffic
    seconds = view.covered(window)
    edges = [_edge(each, seconds) for each in _without_tools(view.edges(window))]
    edges.sort(key=lambda each: (-each.calls, -each.total, each.caller, each.destination, each.version))
    return Traffic(at=view.now(), window=seconds, edges=edges, callers=view.callers(window))


@router.get("/series")
async def series(
    telemetry: CurrentTelemetry,
    destination: Name = None,
    caller: Name = None,
    seconds: Annotated[int, Query(ge=5, le=LONGEST_SERIES)] = 900,
) -> SeriesList:
    """Calls over time: of one destination by version, or of all, versions added up."""
    view = telemetry.traffic
    resolution, found = view.series(seconds, caller=caller, destination=destination)
    lines: defaultdict[tuple[str, TrafficKind, str], dict[int, Window]] = defaultdict(dict)
    for of, steps in found:
        version = of.edge.version if destination is not None else ""
        line = lines[of.edge.destination, of.edge.kind, version]
        for at, counts in steps:
            if at in line:
                line[at].add(counts)
            else:
                line[at] = counts
    busiest = sorted(lines, key=lambda each: -sum(counts.calls for counts in lines[each].values()))
    return SeriesList(
        step=resolution.step,
        from_=(view.now() - seconds) // resolution.step * resolution.step,
        until=view.now(),
        series=[_series(each, lines[each]) for each in sorted(busiest[:MAX_SERIES])],
    )


@router.get("/tools")
async def tools(
    telemetry: CurrentTelemetry, window: Annotated[int, Query(ge=5, le=LONGEST_WINDOW)] = 300
) -> ToolList:
    """Which tools were called within the last `window` seconds."""
    view = telemetry.traffic
    seconds = view.covered(window)
    by_tool: defaultdict[tuple[str, str], list[EdgeTraffic]] = defaultdict(list)
    for each in view.edges(window):
        if each.of.edge.tool and each.window.calls:
            by_tool[each.of.edge.tool, each.of.edge.destination].append(each)
    found = [_tool(tool, server, edges, seconds) for (tool, server), edges in by_tool.items()]
    found.sort(key=lambda each: (-each.calls, each.tool, each.server))
    return ToolList(at=view.now(), window=seconds, tools=found)


def figures(window: Window, seconds: float) -> dict[str, Any]:
    """What every answer says of the calls of a window that is so long: the fields of these names."""
    return {
        "calls_per_second": window.calls / seconds,
        "errors_per_second": window.errors / seconds,
        "p50": percentile(window.buckets, 0.5),
        "p99": percentile(window.buckets, 0.99),
        "calls": window.calls,
        "errors": window.errors,
    }


def _without_tools(edges: Iterable[EdgeTraffic]) -> Iterable[EdgeTraffic]:
    """`edges` with those added up that differ in nothing but the tool."""
    found: dict[tuple[str, str, TrafficKind, str, str], EdgeTraffic] = {}
    for each in edges:
        edge = each.of.edge
        key = (each.of.caller, edge.destination, edge.kind, edge.version, edge.route)
        known = found.get(key)
        if known is None:
            found[key] = each if not edge.tool else _copy(each)
        else:
            found[key] = known = _copy(known)
            known.window.add(each.window)
            known.total.calls += each.total.calls
            known.total.errors += each.total.errors
    return found.values()


def _copy(each: EdgeTraffic) -> EdgeTraffic:
    """`each` with a total of its own, which may be added to."""
    total = type(each.total)(each.total.calls, each.total.errors)
    return EdgeTraffic(TrafficEdge(each.of.caller, each.of.edge), each.window, total)


def _edge(each: EdgeTraffic, seconds: float) -> EdgeOut:
    window, edge = each.window, each.of.edge
    return EdgeOut(
        caller=each.of.caller,
        destination=edge.destination,
        kind=edge.kind,
        version=edge.version,
        route=edge.route,
        **figures(window, seconds),
        refused_per_second=window.refused / seconds,
        p90=percentile(window.buckets, 0.9),
        refused=window.refused,
        abandoned=window.abandoned,
        total=each.total.calls,
        total_errors=each.total.errors,
    )


def _series(of: tuple[str, TrafficKind, str], line: dict[int, Window]) -> Series:
    destination, kind, version = of
    points = [
        (
            float(at),
            line[at].calls,
            line[at].errors,
            percentile(line[at].buckets, 0.5),
            percentile(line[at].buckets, 0.99),
        )
        for at in sorted(line)
    ]
    return Series(destination=destination, kind=kind, version=version, points=points)


def _tool(tool: str, server: str, edges: list[EdgeTraffic], seconds: float) -> ToolOut:
    window = Window()
    for each in edges:
        window.add(each.window)
    return ToolOut(
        tool=tool,
        server=server,
        **figures(window, seconds),
        callers=sorted({each.of.caller for each in edges}),
    )
