"""`weft queue`: how queues stand, what lies in them, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.live import Live

from weft.cli.api import control_api
from weft.cli.describe import describe as describe_resource
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.queue_table import queue_table
from weft.cli.show import age, console, print_found, print_json, print_table, shortened
from weft.errors import InvalidRequest
from weft.local.messaging_control import BULK, MessagingApi

app = App(name="queue", help="See how queues stand, and handle what lies in them.")

REFRESH = 2.0
"""Seconds between two looks with --watch; the control plane looks as often."""

_HERE = ControlPlane()

_Queue = Annotated[str, Parameter(help="The queue's name.")]
_Dead = Annotated[
    bool, Parameter(help="The dead letters: tasks that failed.", negative="", show_default=False)
]


@app.command(name="ls")
async def list_all(
    *,
    watch: Annotated[
        bool, Parameter(name=["--watch", "-w"], help="Show them anew until Ctrl-C.", negative="")
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """List the queues: what waits in each, what workers have, how fast it comes, how many workers it takes.

    With `--watch` and `-o json`, each look is a line.
    """
    async with control_api(where) as api:
        queues = MessagingApi(api)
        if watch:
            await _watch(queues, output)
            return
        found = await queues.queues()
    print_found(found, queue_table, output=output, none="no queues are declared")


@app.command
async def describe(
    queue: _Queue, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> None:
    """Show all about one queue: how it is declared, and how it stands."""
    await describe_resource("queue", queue, output=output, where=where)


@app.command
async def peek(
    queue: _Queue,
    /,
    *,
    dead: _Dead = False,
    limit: Annotated[int, Parameter(help=f"At most so many, up to {BULK}.")] = 20,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Look at the oldest tasks that wait, or that failed, and leave them where they are."""
    if not 1 <= limit <= BULK:
        raise InvalidRequest(f"--limit must be 1 to {BULK}")
    async with control_api(where) as api:
        found = await MessagingApi(api).peek(queue, dead=dead, limit=limit)
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("ID", "PRIORITY", "AGE", *(("REASON",) if dead else ()), "PAYLOAD")
    rows = (
        (
            each["id"],
            each["priority"],
            age(each["sentAt"]),
            *((shortened(each["reason"]),) if dead else ()),
            _body(each),
        )
        for each in found
    )
    print_table(columns, rows, none=f"queue {queue} has no {'dead letters' if dead else 'tasks that wait'}")


@app.command
async def redrive(
    queue: _Queue,
    /,
    *ids: Annotated[str, Parameter(help="Which tasks.")],
    all_: Annotated[
        bool, Parameter(name="--all", help="All that failed.", negative="", show_default=False)
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Put tasks that failed back into the queue, with all their attempts."""
    if bool(ids) == all_:
        raise InvalidRequest("say which tasks to try anew: either their ids, or --all")
    async with control_api(where) as api:
        count = await MessagingApi(api).redrive(queue, ids or None)
    if output is Output.JSON:
        print_json({"count": count})
    else:
        print(f"queue/{queue}: {_tasks(count)} put back")


@app.command
def purge(
    queue: _Queue,
    /,
    *,
    dead: _Dead = False,
    yes: Annotated[
        bool, Parameter(name=["--yes", "-y"], help="Don't ask.", negative="", show_default=False)
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Throw away all tasks that wait, or all dead letters. They are gone for good: so it asks first."""
    # Asked outside of an event loop, so that Ctrl-C ends it at once.
    if not yes:
        _ask_first(asyncio.run(_standing(queue, where)), dead=dead)
    count = asyncio.run(_purge(queue, where, dead=dead))
    if output is Output.JSON:
        print_json({"count": count})
    else:
        print(f"queue/{queue}: {_tasks(count)} thrown away")


async def _standing(queue: str, where: ControlPlane) -> dict[str, Any]:
    async with control_api(where) as api:
        return await MessagingApi(api).queue(queue)


async def _purge(queue: str, where: ControlPlane, *, dead: bool) -> int:
    async with control_api(where) as api:
        return await MessagingApi(api).purge(queue, dead=dead)


def _ask_first(queue: dict[str, Any], *, dead: bool) -> None:
    """Return if somebody at a terminal agrees; else raise InvalidRequest."""
    what = (
        f"{queue['dead']} dead letters of queue {queue['name']}"
        if dead
        else f"{queue['ready'] + queue['delayed']} waiting tasks of queue {queue['name']}"
    )
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{what} would be gone for good: give --yes if you mean it")
    print(f"Throw away {what}, for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise InvalidRequest("nothing was thrown away")


async def _watch(queues: MessagingApi, output: Output) -> None:
    out = console()
    async with aclosing(_looks(queues)) as looks:
        if out.is_terminal and output is Output.TABLE:
            with Live(console=out, auto_refresh=False) as live:
                async for found in looks:
                    live.update(queue_table(found), refresh=True)
        async for found in looks:
            if output is Output.JSON:
                print(json.dumps(found), flush=True)
            else:
                out.print(queue_table(found), "")


async def _looks(queues: MessagingApi) -> AsyncGenerator[list[dict[str, Any]], None]:
    while True:
        yield await queues.queues()
        await asyncio.sleep(REFRESH)


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _body(message: dict[str, Any]) -> str:
    if message["body"] is not None:
        return shortened(message["body"])
    return f"{len(message['bodyBase64'] or '') * 3 // 4} bytes"
