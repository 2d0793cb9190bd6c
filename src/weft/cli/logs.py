"""`weft logs`: what the processes of the mesh on this machine write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from weft.cli.log_lines import document, is_access, record_of, rendered
from weft.cli.options import MeshOption, Output, OutputOption
from weft.cli.progress import prefixed
from weft.cli.show import console
from weft.cli.times import moment
from weft.errors import InvalidRequest
from weft.local.home import LOGS
from weft.local.log_files import LogLine, follow, recent
from weft.model.local_state import mesh_directory, mesh_name

DEFAULT_TAIL = 100
"""Lines that are shown where nobody says how many."""

MAX_TAIL = 100_000


async def logs(
    of: Annotated[
        str | None,
        Parameter(
            help="A type, TYPE/INSTANCE, control, nats or door; everything if omitted.", show_default=False
        ),
    ] = None,
    /,
    *,
    following: Annotated[
        bool,
        Parameter(
            name=["--follow", "-f"], help="Go on with what is written.", negative="", show_default=False
        ),
    ] = False,
    access: Annotated[
        bool,
        Parameter(
            help="Only the lines of calls that a Telemetry wants (`accessLog`), which are left out else.",
            negative="",
            show_default=False,
        ),
    ] = False,
    since: Annotated[
        str | None,
        Parameter(help="Only later lines: 90s, 10m, 2h ago, or a time in RFC 3339.", show_default=False),
    ] = None,
    tail: Annotated[
        int | None,
        Parameter(
            help=f"At most so many lines at first (default: {DEFAULT_TAIL}; with --since all).",
            show_default=False,
        ),
    ] = None,
    mesh: MeshOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what agents, their sidecars and the rest of a mesh of `weft up` write, or wrote before it ended.

    Lines of several processes are in the order of time. Those that are JSON are shown for people; with
    `-o json` each line is a JSON object: `process`, `at`, `line`, and `record` where the line itself is one.
    """
    begin = 0.0 if since is None else moment(since, "--since")
    most = _tail(tail, everything=since is not None)
    directory = mesh_directory(os.environ, mesh or mesh_name(os.environ)) / LOGS

    def keep(line: LogLine) -> bool:
        return line.at >= begin and is_access(record_of(line)) is access

    show = _printer(of, output)
    if not following:
        for line in recent(directory, of, tail=most, keep=keep):
            show(line)
        return
    async with aclosing(follow(directory, of, tail=most, keep=keep)) as lines:
        async for line in lines:
            show(line)


def _printer(of: str | None, output: Output) -> Callable[[LogLine], None]:
    """What shows a line, as JSON or for people."""
    out = console()

    def as_json(line: LogLine) -> None:
        print(json.dumps(document(line), ensure_ascii=False), flush=True)

    def as_text(line: LogLine) -> None:
        text = rendered(line)
        # One process needs no name before each line.
        out.print(
            text
            if of is not None and line.process in {of, of.partition("/")[2]}
            else prefixed(line.process, text)
        )

    return as_json if output is Output.JSON else as_text


def _tail(tail: int | None, *, everything: bool) -> int:
    if tail is None:
        return MAX_TAIL if everything else DEFAULT_TAIL
    if not 0 <= tail <= MAX_TAIL:
        raise InvalidRequest(f"--tail must be between 0 and {MAX_TAIL}")
    return tail
