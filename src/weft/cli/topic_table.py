"""Topics and their events as people see them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.cli.show import printable, table

COLUMNS = ("NAME", "EVENTS", "SIZE", "SEQUENCES", "PARTITIONS", "GROUPS", "LAG")


def topic_table(topics: Iterable[dict[str, Any]]) -> Table:
    """How topics stand, one in a row. The lag is that of the group that is furthest behind."""
    return table(COLUMNS, (_row(each) for each in topics))


def topic_facts(topic: dict[str, Any]) -> list[tuple[str, str]]:
    """How one stands, in names and values."""
    names = ("  Events", "  Size", "  Sequences")
    return list(zip(names, _row(topic)[1:4], strict=True))


def group_table(topic: dict[str, Any]) -> Table:
    """Who reads a topic, and how far behind each is."""
    rows = ((f"  {each['name']}", str(each["pending"]), str(each["inFlight"])) for each in topic["groups"])
    return table(("  GROUP", "LAG", "IN FLIGHT"), rows)


def event_line(document: dict[str, Any]) -> Text:
    """One event on one line: when, where, what, and its data."""
    event = document["event"]
    when = datetime.fromtimestamp(document["publishedAt"]).astimezone()
    line = Text(when.isoformat(" ", "milliseconds"), style="dim")
    line.append(f" {printable(document['topic'])}", style="cyan")
    line.append(f" #{document['sequence']}", style="dim")
    about = [str(event.get(name)) for name in ("type", "subject", "partitionkey") if event.get(name)]
    line.append(f" {printable(' '.join(about))}", style="bold")
    return line.append(f" {printable(_data(event))}", style="default")


def _row(topic: dict[str, Any]) -> tuple[str, ...]:
    first, last = topic["firstSequence"], topic["lastSequence"]
    groups = topic["groups"]
    return (
        topic["name"],
        str(topic["messages"]),
        _size(topic["size"]),
        f"{first}-{last}" if topic["messages"] else "",
        str(topic["partitions"] or ""),
        str(len(groups)),
        str(max((each["pending"] for each in groups), default="")),
    )


def _size(count: int) -> str:
    for size, unit in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _data(event: dict[str, Any]) -> str:
    if event.get("encrypted"):
        return "(encrypted)"
    if "invalid" in event:
        return f"(no event: {event['invalid']})"
    if "data" in event:
        return json.dumps(event["data"], ensure_ascii=False)
    return str(event.get("data_base64", ""))
