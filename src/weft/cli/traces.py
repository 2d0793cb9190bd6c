"""`weft traces` and `weft trace`: which calls led to which."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import console, print_facts, print_found, print_json
from weft.cli.times import moment, seconds
from weft.cli.trace_drawing import facts, notes, traces_table, waterfall_table
from weft.errors import InvalidRequest
from weft.local.control import Parameters
from weft.local.telemetry_control import TelemetryApi

MAX_TRACES = 2000

_HERE = ControlPlane()

_ID_LENGTH = 32
_LOOKED_AT = 100


async def traces(
    search: Annotated[
        str,
        Parameter(
            help="A text in names of spans, services, errors, tasks, tools; or what the id begins with.",
            show_default=False,
        ),
    ] = "",
    /,
    *,
    service: Annotated[
        str, Parameter(help="Only those in which this type did something.", show_default=False)
    ] = "",
    destination: Annotated[
        str, Parameter(help="Only those in which this was called.", show_default=False)
    ] = "",
    caller: Annotated[
        str, Parameter(help="Only those in which this type called somebody.", show_default=False)
    ] = "",
    context: Annotated[str, Parameter(help="Only those of this conversation.", show_default=False)] = "",
    status: Annotated[
        Literal["ok", "error"] | None,
        Parameter(help="Only those with, or without, an error.", show_default=False),
    ] = None,
    min_duration: Annotated[
        str | None, Parameter(help="Only those that took so long: 250ms, 5s.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, Parameter(help="Begun since: 10m, 2h ago, or a time in RFC 3339.", show_default=False)
    ] = None,
    until: Annotated[str | None, Parameter(help="Begun until then, likewise.", show_default=False)] = None,
    limit: Annotated[int, Parameter(help=f"At most so many, up to {MAX_TRACES}.")] = 20,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Find traces that the control plane keeps, the latest first.

    Which calls are traced says a Telemetry resource; `weft call --trace` has one call traced.
    """
    if not 1 <= limit <= MAX_TRACES:
        raise InvalidRequest(f"--limit must be between 1 and {MAX_TRACES}")
    given: Parameters = [
        ("q", search),
        ("service", service),
        ("destination", destination),
        ("caller", caller),
        ("context", context),
        ("status", status or ""),
        ("minDuration", "" if min_duration is None else f"{seconds(min_duration, '--min-duration'):.6g}"),
        ("since", "" if since is None else f"{moment(since, '--since'):.17g}"),
        ("until", "" if until is None else f"{moment(until, '--until'):.17g}"),
    ]
    async with control_api(where) as api:
        found = await TelemetryApi(api).traces([each for each in given if each[1]], limit=limit)
    print_found(found, traces_table, output=output, none="no trace matches")


async def trace(
    trace_id: Annotated[str, Parameter(help="Its id, or what only its id begins with.")],
    /,
    *,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show what happened in one trace: every span below what caused it, with its place in time."""
    async with control_api(where) as api:
        telemetry = TelemetryApi(api)
        found = await telemetry.trace(await _whole(telemetry, trace_id))
    if output is Output.JSON:
        print_json(found)
        return
    out = console()
    print_facts(facts(found))
    out.print()
    out.print(waterfall_table(found, out.width))
    for note in notes(found):
        console(stderr=True).print(note, style="yellow")


async def _whole(telemetry: TelemetryApi, beginning: str) -> str:
    """The id that begins so, where that is one; else what was given."""
    if len(beginning) >= _ID_LENGTH or not beginning:
        return beginning
    found = await telemetry.traces([("q", beginning)], limit=_LOOKED_AT)
    ids = [each["id"] for each in found if str(each["id"]).startswith(beginning.lower())]
    if len(ids) > 1:
        raise InvalidRequest(f"several traces begin with {beginning!r}, {ids[0]} and {ids[1]} among them")
    return str(ids[0]) if ids else beginning
