"""What is called, over HTTP: traffic by destination, whoever calls."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentTelemetry
from weft.controlplane.api.traffic import LONGEST_WINDOW, figures
from weft.controlplane.telemetry.percentiles import percentile
from weft.controlplane.telemetry.rings import Window
from weft.model.operator import Scope
from weft.model.traffic_report import TrafficKind

router = APIRouter(prefix="/v1/traffic", tags=["traffic"], dependencies=[Depends(requires(Scope.VIEWER))])


class DestinationOut(Body):
    """What was called within the window, versions and routes added up. Fields are as of an edge."""

    destination: str
    kind: TrafficKind
    calls_per_second: float
    errors_per_second: float
    refused_per_second: float
    p50: float | None
    p90: float | None
    p99: float | None
    calls: int
    errors: int
    callers: list[str]
    """Who called it within the window."""


class DestinationList(Body):
    """Whatever was called of late, or ever since this replica began; that with most calls first."""

    at: float
    """Seconds since 1970."""
    window: float
    """Seconds that the figures are about."""
    destinations: list[DestinationOut]


@router.get("/destinations")
async def destinations(
    telemetry: CurrentTelemetry, window: Annotated[int, Query(ge=5, le=LONGEST_WINDOW)] = 30
) -> DestinationList:
    """What was called within the last `window` seconds, whoever called."""
    view = telemetry.traffic
    seconds = view.covered(window)
    sums: defaultdict[tuple[str, TrafficKind], Window] = defaultdict(Window)
    callers: defaultdict[tuple[str, TrafficKind], set[str]] = defaultdict(set)
    for each in view.edges(window):
        key = (each.of.edge.destination, each.of.edge.kind)
        sums[key].add(each.window)
        if each.window.calls:
            callers[key].add(each.of.caller)
    found = [_destination(key, each, sorted(callers[key]), seconds) for key, each in sums.items()]
    found.sort(key=lambda each: (-each.calls, each.destination, each.kind))
    return DestinationList(at=view.now(), window=seconds, destinations=found)


def _destination(
    of: tuple[str, TrafficKind], window: Window, callers: list[str], seconds: float
) -> DestinationOut:
    destination, kind = of
    return DestinationOut(
        destination=destination,
        kind=kind,
        **figures(window, seconds),
        refused_per_second=window.refused / seconds,
        p90=percentile(window.buckets, 0.9),
        callers=callers,
    )
