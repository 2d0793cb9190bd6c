"""Queues as people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.cli.show import table
from weft.cli.times import short

COLUMNS = (
    "NAME",
    "READY",
    "IN FLIGHT",
    "DELAYED",
    "DEAD",
    "OLDEST",
    "ARRIVALS/S",
    "SERVICE TIME",
    "WORKERS WANTED",
)


def queue_table(queues: Iterable[dict[str, Any]]) -> Table:
    """How queues stand, one in a row."""
    return table(COLUMNS, (_row(each) for each in queues))


def queue_facts(queue: dict[str, Any]) -> list[tuple[str, str]]:
    """How one stands, in names and values."""
    cells = (cell.plain if isinstance(cell, Text) else cell for cell in _row(queue))
    facts = [(f"  {name.capitalize()}", cell or "-") for name, cell in zip(COLUMNS, cells, strict=True)]
    return facts[1:]


def _row(queue: dict[str, Any]) -> tuple[str | Text, ...]:
    rate, wanted = queue["arrivalRate"], queue["desiredWorkers"]
    dead = str(queue["dead"])
    return (
        queue["name"],
        str(queue["ready"]),
        str(queue["inFlight"]),
        str(queue["delayed"]),
        Text(dead, style="red") if queue["dead"] else dead,
        short(queue["oldestAge"]),
        "" if rate is None else f"{rate:.1f}",
        short(queue["serviceTime"]),
        "" if wanted is None else str(wanted),
    )
