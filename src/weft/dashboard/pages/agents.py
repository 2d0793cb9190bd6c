"""Agents: all instances, and one in detail."""

from __future__ import annotations

from typing import Any

from weft.dashboard.page import Page, link_to, page
from weft.dashboard.table import Column, Table

_PATH = "/v1/agents?status=any&watch=true"


@page("/agents", title="Agents", icon="smart_toy", menu=20)
def agents(view: Page) -> None:
    """All instances."""
    table = Table(
        view,
        [
            Column("id", "Instance", link="to", filter=True, grow=2),
            Column("type", "Agent", filter=True, grow=2),
            Column("status", "Status", tone="tone"),
            Column("version", "Version", wide=True),
            Column("inFlight", "In flight", "count", wide=True),
            Column("startedAt", "Started", "ago", wide=True),
        ],
        key="key",
        label="Instances",
        height="70vh",
    )
    view.watch(_PATH, table.show, every=1.0, shape=_rows)


def _rows(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            **{name: each[name] for name in ("id", "type", "status", "version", "inFlight", "startedAt")},
            "key": f"{each['type']}.{each['id']}",
            "to": link_to("agents", each["type"], each["id"]),
            "tone": "ok" if each["status"] == "healthy" else "bad",
        }
        for each in answer["items"]
    ]
