"""All queues and topics: how deep, how far behind, what died."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard import wording
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.queue_figures import QueueLooks, topic_row
from weft.dashboard.parts import Figures, heading
from weft.dashboard.table import Column, Table
from weft.errors import MeshError
from weft.model.inbox import is_inbox
from weft.model.message_subjects import WEBHOOK_QUEUE

_EVERY = 2.0

_QUEUE_COLUMNS = (
    Column("name", "Queue", least=120, grow=2, link="to", filter=True),
    Column("depth", "Waiting", format="count", least=85),
    Column("running", "Running", format="count", least=85),
    Column("oldest", "Oldest", format="span", least=80, wide=True),
    Column("arriving", "Arriving/s", format="rate", least=95, wide=True),
    Column("done", "Done/s", format="rate", least=85, wide=True),
    Column("service", "Takes", format="ms", least=80, wide=True),
    Column("workers", "Workers wanted", format="count", least=145, wide=True),
    Column("dead", "Dead", least=80, tone="deadTone"),
)

_TOPIC_COLUMNS = (
    Column("name", "Topic", least=120, grow=2, link="to", filter=True),
    Column("messages", "Events", format="count", least=85),
    Column("size", "Size", least=85, wide=True),
    Column("groups", "Groups", format="count", least=85, wide=True),
    Column("lag", "Lag", format="count", least=75),
    Column("inFlight", "Under way", format="count", least=95, wide=True),
)


@page("/tasks", title="Tasks and events", icon="checklist", menu=40)
def tasks(view: Page) -> None:
    """All queues and topics."""
    figures = Figures(["Waiting", "Running", "Dead letters", "Done/s", "Furthest behind"])
    _search(view)
    heading("Queues")
    ui.label("Those of the mesh itself, for A2A and webhooks, are there while something is in them.").classes(
        "weft-muted"
    )
    queues = Table(view, _QUEUE_COLUMNS, key="id", label="Queues", empty="No Queue is declared.")
    heading("Topics")
    topics = Table(view, _TOPIC_COLUMNS, key="id", label="Topics", empty="No Topic is declared.")
    watched = QueueLooks()

    def show_queues(answer: Mapping[str, Any]) -> None:
        rows = watched.rows(answer["items"], time.monotonic())
        queues.show([{**each, "to": link_to("queues", each["name"])} for each in rows if _is_told_of(each)])
        figures.show(_queue_figures(rows), {"Dead letters": "bad" if any(it["dead"] for it in rows) else ""})

    def show_topics(answer: Mapping[str, Any]) -> None:
        rows = [topic_row(each) for each in answer["items"]]
        topics.show([{**each, "to": link_to("topics", each["name"])} for each in rows])
        behind = max((each["lag"] for each in rows), default=0)
        figures.show({"Furthest behind": f"{wording.count(behind)} events"})

    view.watch("/v1/queue-status", show_queues, every=_EVERY)
    view.watch("/v1/topic-status", show_topics, every=_EVERY)


def _is_told_of(row: Mapping[str, Any]) -> bool:
    """The mesh's own queues are, while something is in them."""
    own = is_inbox(row["name"]) or row["name"] == WEBHOOK_QUEUE
    return not own or any(row[each] for each in ("depth", "running", "dead"))


def _queue_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    done = [each["done"] for each in rows if each["done"] is not None]
    return {
        "Waiting": wording.count(sum(each["depth"] for each in rows)),
        "Running": wording.count(sum(each["running"] for each in rows)),
        "Dead letters": wording.count(sum(each["dead"] for each in rows)),
        "Done/s": wording.rate(sum(done) if done else None),
    }


def _search(view: Page) -> None:
    async def go() -> None:
        wanted = str(field.value or "").strip()
        if not wanted:
            return
        try:
            await view.ask("GET", f"/v1/tasks/{quote(wanted, safe='')}")
        except MeshError as error:
            ui.notify(error.detail, type="negative", position="bottom-left")
        else:
            view.script("location.assign", link_to("tasks", wanted))

    with ui.row().classes("items-center").style("gap:8px"):
        field = ui.input("Id of a task").props("dense outlined").on("keydown.enter", go)
        field.style("width:min(360px,70vw)")
        ui.button(icon="search", on_click=go).props('flat dense aria-label="Show the task"')
