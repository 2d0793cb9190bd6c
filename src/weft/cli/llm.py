"""`weft llm`: pools of models, who waits for them, what was used, and what budgets have left."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.live import Live

from weft.cli.api import control_api
from weft.cli.llm_tables import (
    budgets_table,
    pool_facts,
    pools_table,
    providers_table,
    top_table,
    usage_table,
    waiting_table,
)
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import console, print_facts, print_found, print_json
from weft.cli.times import moment
from weft.errors import InvalidRequest
from weft.local.llm_control import LlmApi

app = App(name="llm", help="See pools of models, who waits, what was used, and budgets.")

REFRESH = 2.0
"""Seconds between two looks of `weft llm top`."""

_HERE = ControlPlane()

_Pool = Annotated[str | None, Parameter(help="Only this pool.")]
_NOBODY = "nobody used a model in the last minute, and nobody waits for one"


@app.command
async def pools(
    pool: _Pool = None, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> None:
    """Show how pools stand: who waits, what is under way, how their providers are."""
    async with control_api(where) as api:
        if pool is not None:
            _print_pool(await LlmApi(api).pool(pool), output)
            return
        found = await LlmApi(api).pools()
    print_found(found, pools_table, output=output, none="no pools of models are declared")


@app.command
async def queue(
    pool: _Pool = None, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> None:
    """Show the calls that wait, in about the order in which they will be served."""
    async with control_api(where) as api:
        found = await LlmApi(api).queue(pool)
    print_found(found, waiting_table, output=output, none="nobody waits")


@app.command
async def usage(
    *,
    by: Annotated[
        str,
        Parameter(help="What it is told apart by: some of day,tenant,agent,model,pool,provider,context."),
    ] = "day,tenant,model",
    since: Annotated[
        str | None, Parameter(help="From which day (UTC): 2026-11-21, or 30d ago (default: the last 7).")
    ] = None,
    until: Annotated[str | None, Parameter(help="To which day, that one included (default: today).")] = None,
    csv: Annotated[
        bool, Parameter(help="As CSV, for spreadsheets.", negative="", show_default=False)
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show what was used of models, in tokens and money."""
    query = [("by", by)]
    query += [("since", _day(since, "--since"))] if since is not None else []
    query += [("until", _day(until, "--until"))] if until is not None else []
    if csv and output is Output.JSON:
        raise InvalidRequest("give either --csv or --output json")
    async with control_api(where) as api:
        if csv:
            sys.stdout.write(await LlmApi(api).usage_csv(query))
            return
        found = await LlmApi(api).usage(query)
    fields = by.split(",")
    print_found(found, lambda rows: usage_table(rows, fields), output=output, none="no model was used")


@app.command
async def budgets(*, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> None:
    """Show what budgets have spent, and what is set aside; those nearest to their limit first."""
    async with control_api(where) as api:
        found = await LlmApi(api).budgets()
    print_found(found, budgets_table, output=output, none="no budgets are declared")


@app.command
async def top(*, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> None:
    """Show who uses most tokens, over the last minute; in a terminal anew every two seconds, until Ctrl-C."""
    out = console()
    async with control_api(where) as api:
        llm = LlmApi(api)
        found = await llm.top()
        if output is Output.JSON or not out.is_terminal:
            print_found(found, top_table, output=output, none=_NOBODY)
            return
        with Live(top_table(found), console=out, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(REFRESH)
                live.update(top_table(await llm.top()), refresh=True)


def _print_pool(pool: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(pool)
        return
    print_facts(pool_facts(pool))
    if pool["providers"]:
        console().print(providers_table(pool))


def _day(text: str, option: str) -> str:
    """The day (UTC) that is meant by a day, a time, or so long ago. Raises InvalidRequest."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        found = moment(text, option)
    return datetime.fromtimestamp(min(found, time.time()), UTC).date().isoformat()
