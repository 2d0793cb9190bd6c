"""Results on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from weft.cli.options import Output

STATUS_STYLES = {
    "healthy": "green",
    "ready": "green",
    "ok": "green",
    "starting": "yellow",
    "waiting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "warn": "yellow",
    "unhealthy": "red",
    "restarting": "red",
    "fail": "red",
    "denied": "red",
    "would-be-denied": "yellow",
    "succeeded": "green",
    "running": "cyan",
    "queued": "yellow",
    "failed": "red",
    "cancelled": "magenta",
}
"""Colour of a word that says how something is."""

_UNLIMITED_WIDTH = 10_000
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def console(*, stderr: bool = False) -> Console:
    """A console that never cuts or wraps what goes to a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNLIMITED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def print_json(value: Any) -> None:
    """Print `value` as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, none: str) -> None:
    """Print rows under their columns; if there are none, say `none` on standard error."""
    shown = table(columns, rows)
    if shown.row_count:
        console().print(shown)
    else:
        console(stderr=True).print(none)


def print_found(
    found: Sequence[Any], made: Callable[[Sequence[Any]], Table], *, output: Output, none: str
) -> None:
    """Print what was found, as JSON or in the table `made` of it; where there is nothing, `none` as above."""
    if output is Output.JSON:
        print_json(found)
    elif found:
        console().print(made(found))
    else:
        console(stderr=True).print(none)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Rows under their columns."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(styled(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and what there is to say of each; those of which there is nothing are left out."""
    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value:
            grid.add_row(Text(name, style="bold"), styled(value))
    console().print(grid)


def styled(word: str) -> Text:
    """`word` in the colour of what it says; never taken for markup."""
    return Text(printable(word), style=STATUS_STYLES.get(word, ""))


def printable(text: str) -> str:
    """`text` from others, with escapes for all that a terminal would obey or not show."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "replace").decode() for each in text
    )


def age(since: float) -> str:
    """How long ago a time (seconds since 1970) was, in one unit: `5m`."""
    return duration(time.time() - since)


def duration(length: float) -> str:
    """A length of time, in seconds, in one unit: `5m`."""
    seconds = max(0, int(length))
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def shortened(text: str, most: int = 100) -> str:
    """`text` on one line, cut after `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
