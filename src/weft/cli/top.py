"""`weft top`: what goes on in the mesh, now."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import console, print_found, print_json
from weft.cli.times import seconds
from weft.cli.top_table import Order, rows, top_table
from weft.errors import InvalidRequest, Unavailable
from weft.local.control import ControlApi
from weft.local.telemetry_control import LONGEST_WINDOW, SHORTEST_WINDOW, TelemetryApi

REFRESH = 2.0
"""Seconds between two looks: sidecars tell as often."""

_LINES_AROUND = 4  # what stands above and below the rows
_HERE = ControlPlane()


async def top(
    *,
    sort: Annotated[Order, Parameter(help="What comes first.")] = Order.CALLS,
    window: Annotated[str, Parameter(help="The time that rates are about: 5s to 1h.")] = "30s",
    once: Annotated[bool, Parameter(help="Show it once, and end.", negative="", show_default=False)] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show what is called, how often and how well, and who answers.

    In a terminal it is shown anew every two seconds, until Ctrl-C. ERRORS are the share of calls that ended
    with 5xx or without an answer, REFUSED those with 403 and 429. IN FLIGHT and INSTANCES (healthy of all)
    are of types of agents.
    """
    length = _window(window)
    out = console()
    async with control_api(where) as api:
        found = await _look(api, length, sort)
        if output is Output.JSON:
            print_json(found)
        elif once or not out.is_terminal:
            print_found(found, top_table, output=output, none="no agents are running, and nothing is called")
        else:
            await _watch(api, found, length, sort, out)


async def _watch(
    api: ControlApi, found: list[dict[str, Any]], window: int, sort: Order, out: Console
) -> None:
    """Show it anew, again and again; what the control plane does not tell now it may tell later."""
    notice = ""
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(found, window, sort, notice, out), refresh=True)
            await asyncio.sleep(REFRESH)
            try:
                found, notice = await _look(api, window, sort), ""
            except Unavailable as error:
                notice = error.detail


def _screen(found: list[dict[str, Any]], window: int, sort: Order, notice: str, out: Console) -> Group:
    """All that fits into the terminal, which may have another size than before."""
    about = Text(f"the last {window} s, by {sort.value}; Ctrl-C ends it", style="dim")
    body = top_table(found, max(1, out.height - _LINES_AROUND)) if found else Text("nothing runs yet")
    return Group(about, Text(notice, style="yellow", no_wrap=True, overflow="ellipsis"), body)


async def _look(api: ControlApi, window: int, sort: Order) -> list[dict[str, Any]]:
    destinations, agents = await asyncio.gather(
        TelemetryApi(api).destinations(window), api.agents([("status", "any")])
    )
    return rows(destinations, agents, sort)


def _window(text: str) -> int:
    length = seconds(text, "--window")
    if not SHORTEST_WINDOW <= length <= LONGEST_WINDOW:
        raise InvalidRequest(f"--window must be between {SHORTEST_WINDOW} s and {LONGEST_WINDOW} s")
    return round(length)
