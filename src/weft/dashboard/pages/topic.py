"""One topic: how it stands, who is how far behind, and its dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard import wording
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.queue_figures import dead_event_row, group_rows, topic_row
from weft.dashboard.pages.task_life import shown_json
from weft.dashboard.parts import Facts, Figures, heading, link
from weft.dashboard.table import Column, Table
from weft.model.operator import Scope
from weft.model.topic import DEAD_LETTERS

_EVERY = 2.0

_DEAD_SHOWN = 200
"""Dead letters: the last so many."""

_DEAD_EVERY = 10.0
"""Seconds between looks at them: reading them costs the broker more than counting."""


@page("/topics/{name}", title="Topic")
async def topic(view: Page) -> None:
    """One topic: its figures, who is how far behind, and its dead letters."""
    name = view.parameters["name"]
    view.title(f"Topic {name}")
    with ui.row().classes("items-center"):
        link("Tasks and events", link_to("tasks"))
    figures = Figures(["Events", "Size", "Last sequence", "Partitions", "Groups", "Furthest behind"])
    heading("Groups")
    groups = Table(
        view,
        [
            Column("group", "Group", least=140, grow=3, filter=True),
            Column("lag", "Lag", format="count", least=80),
            Column("inFlight", "Under way", format="count", least=100),
        ],
        key="id",
        label="Groups",
        empty="Nobody subscribes to it.",
    )

    def show(answer: Mapping[str, Any]) -> None:
        row = topic_row(answer)
        figures.show(
            {
                "Events": wording.count(row["messages"]),
                "Size": row["size"],
                "Last sequence": wording.count(row["last"]),
                "Partitions": str(answer["partitions"] or "none"),
                "Groups": wording.count(row["groups"]),
                "Furthest behind": wording.count(row["lag"]),
            }
        )
        groups.show(group_rows([answer]))

    view.watch(f"/v1/topic-status/{quote(name, safe='')}", show, every=_EVERY)
    await _dead_events(view, name)


async def _dead_events(view: Page, name: str) -> None:
    """What could not be processed of a topic; of a topic of dead letters all that lies in it."""
    where = name if name == DEAD_LETTERS else await _dead_letter_topic(view, name)
    heading("What lies in it" if where == name else "Dead letters")
    if where is None:
        ui.label("The topic keeps none: what cannot be processed is dropped.").classes("weft-empty")
        return
    if not view.may(Scope.OPERATOR):
        ui.label("What lies there, and why, an operator's token shows.").classes("weft-empty")
        return
    if where != name:
        with ui.row().classes("items-center"):
            link(f"All in {where}", link_to("topics", where))
    table = Table(
        view,
        [
            Column("sequence", "Sequence", format="count", least=95, wide=True),
            Column("topic", "Topic", least=110, wide=True),
            Column("group", "Group", least=110),
            Column("reason", "Reason", least=170, grow=4),
            Column("published", "Published", format="ago", least=105, wide=True),
        ],
        key="id",
        label="Dead letters",
        empty="There are none among the last 200.",
        on_open=lambda row: _show_event(detail, found.get(str(row["id"]))),
        sort="sequence",
        descending=True,
    )
    detail = ui.element("div").classes("w-full").props("role=status aria-live=polite")
    found: dict[str, Mapping[str, Any]] = {}

    def show(answer: Mapping[str, Any]) -> None:
        rows = [(dead_event_row(each), each) for each in answer["items"]]
        shown = [(row, each) for row, each in rows if where == name or row["topic"] == name]
        found.clear()
        found.update({row["id"]: each for row, each in shown})
        table.show([row for row, _ in shown])

    latest = f"/v1/topic-status/{quote(where, safe='')}/latest?limit={_DEAD_SHOWN}"
    view.watch(latest, show, every=_DEAD_EVERY)


async def _dead_letter_topic(view: Page, name: str) -> str | None:
    declared = await view.ask("GET", f"/v1/topics/{quote(name, safe='')}")
    where = declared["spec"].get("deadLetter")
    return None if where is None else str(where)


def _show_event(detail: ui.element, item: Mapping[str, Any] | None) -> None:
    detail.clear()
    if item is None:
        return
    with detail, ui.column().classes("weft-panel items-stretch"):
        heading(f"Event {item['sequence']}")
        Facts().show({"Reason": str(item["event"].get("weftreason") or "unknown")})
        ui.label(shown_json(item["event"])).classes("weft-mono")
