"""One queue: how it stands, its tasks, and its dead letters, with what operators do about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard import quantities, wording
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.queue_figures import QueueLooks, body_text, dead_task_row
from weft.dashboard.pages.task_life import task_row
from weft.dashboard.pages.typed_name import ask_for_name
from weft.dashboard.parts import Facts, Figures, heading, link
from weft.dashboard.table import Column, Table
from weft.errors import MeshError
from weft.model.operator import Scope
from weft.model.task import TaskState

_EVERY = 2.0

_PAGE = 200
"""Tasks that are shown at once."""

_DEAD_SHOWN = 1000
"""Dead letters."""

_DEAD_EVERY = 10.0
"""Seconds between looks at dead letters: reading them costs the broker more than counting."""

_ALL = "any state"

_TASK_COLUMNS = (
    Column("id", "Task", least=150, grow=3, link="to"),
    Column("state", "State", least=128, tone="tone"),
    Column("submitted", "Submitted", format="ago", least=110),
    Column("age", "Took", format="span", least=75, wide=True),
    Column("attempts", "Attempts", format="count", least=90, wide=True),
    Column("progress", "Progress", format="percent", least=90, wide=True),
    Column("worker", "Worker", least=120, grow=2, wide=True),
    Column("error", "Error", least=120, grow=2, wide=True),
)


@page("/queues/{name}", title="Queue")
def queue(view: Page) -> None:
    """One queue: its figures, its tasks, its dead letters."""
    name = view.parameters["name"]
    view.title(f"Queue {name}")
    with ui.row().classes("items-center"):
        link("Tasks and events", link_to("tasks"))
    figures = Figures(
        ["Waiting", "Running", "Oldest", "Arriving/s", "Done/s", "Takes", "Full", "Dead letters"]
    )
    watched = QueueLooks()
    path = f"/v1/queue-status/{quote(name, safe='')}"

    def show(answer: Mapping[str, Any]) -> None:
        [row] = watched.rows([answer], time.monotonic())
        figures.show(_all_figures(row), {"Dead letters": "bad" if row["dead"] else ""})

    view.watch(path, show, every=_EVERY)
    heading("Tasks that changed last")
    _Tasks(view, name)
    heading("Dead letters")
    if view.may(Scope.OPERATOR):
        _DeadTasks(view, name, path)
    else:
        ui.label("What lies there, and why, an operator's token shows.").classes("weft-empty")


def _all_figures(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Waiting": wording.count(row["depth"]),
        "Running": wording.count(row["running"]),
        "Oldest": quantities.lasting(row["oldest"]),
        "Arriving/s": wording.rate(row["arriving"]),
        "Done/s": wording.rate(row["done"]),
        "Takes": quantities.lasting(row["service"]),
        "Full": quantities.percent(row["full"]),
        "Dead letters": wording.count(row["dead"]),
    }


class _Tasks:
    """A queue's tasks, a page of them at a time, the newest kept up to date."""

    def __init__(self, view: Page, queue_name: str) -> None:
        self._view = view
        self._queue = queue_name
        self._state = ""
        self._before: list[str] = []
        self._next: str | None = None
        self._stop: Callable[[], None] = lambda: None
        with ui.row().classes("items-center w-full"):
            ui.select(
                [_ALL, *TaskState], value=_ALL, on_change=lambda change: self._choose(str(change.value))
            ).props('dense outlined aria-label="State"').style("width:150px")
            self._newest = ui.button("Newest", on_click=self._first).props("flat dense no-caps")
            self._older = ui.button("Older", on_click=self._further).props("flat dense no-caps")
        self._table = Table(
            view,
            _TASK_COLUMNS,
            key="id",
            label="Tasks",
            height="380px",
            empty="No such task is kept.",
            sort="changed",
            descending=True,
        )
        self._watch()

    def _choose(self, state: str) -> None:
        self._state = "" if state == _ALL else state
        self._first()

    def _first(self) -> None:
        self._before = []
        self._watch()

    def _further(self) -> None:
        if self._next:
            self._before = [self._next]
            self._watch()

    def _watch(self) -> None:
        self._stop()
        asked = f"queue={quote(self._queue, safe='')}&limit={_PAGE}"
        asked += f"&state={self._state}" if self._state else ""
        asked += "".join(f"&before={quote(each, safe='')}" for each in self._before)
        every = _DEAD_EVERY if self._before else _EVERY
        self._stop = self._view.watch(f"/v1/tasks?{asked}", self._show, every=every)

    def _show(self, answer: Mapping[str, Any]) -> None:
        self._next = answer["next"]
        self._newest.set_enabled(bool(self._before))
        self._older.set_enabled(self._next is not None)
        now = time.time()
        self._table.show(
            [
                {**task_row(each, now), "to": link_to("tasks", each["id"]), "changed": -place}
                for place, each in enumerate(answer["items"])
            ]
        )


class _DeadTasks:
    """A queue's dead letters, and what can be done about them."""

    def __init__(self, view: Page, name: str, path: str) -> None:
        self._view = view
        self._name = name
        self._path = path
        self._watched = f"{path}/messages?dead=true&limit={_DEAD_SHOWN}"
        self._messages: dict[str, Mapping[str, Any]] = {}
        with ui.row().classes("items-center").style("gap:8px"):
            view.action(
                "Redrive all",
                lambda: self._redrive(None),
                confirm=f"Try all dead letters of {name} anew (1,000 at most)?",
                icon="replay",
            )
            ui.button("Throw away…", icon="delete_forever", on_click=self._purge).props(
                "outline no-caps dense color=negative padding='2px 10px'"
            )
        self._table = Table(
            view,
            [
                Column("id", "Task", least=140, grow=2),
                Column("reason", "Reason", least=180, grow=4),
                Column("sent", "Submitted", format="ago", least=110, wide=True),
                Column("priority", "Priority", least=90, wide=True),
            ],
            key="id",
            label="Dead letters",
            empty="There are none.",
            on_open=self._open,
        )
        self._detail = ui.element("div").classes("w-full").props("role=status aria-live=polite")
        view.watch(self._watched, self._show, every=_DEAD_EVERY)

    def _show(self, answer: Mapping[str, Any]) -> None:
        self._messages = {each["id"]: each for each in answer["items"]}
        self._table.show([dead_task_row(each) for each in answer["items"]])

    def _open(self, row: Mapping[str, Any]) -> None:
        message = self._messages.get(str(row["id"]))
        self._detail.clear()
        if message is None:
            return
        with self._detail, ui.column().classes("weft-panel items-stretch"):
            heading(f"Dead letter {message['id']}")
            facts = Facts()
            facts.show({"Reason": message["reason"], "Submitted": wording.moment(message["sentAt"])})
            ui.label(body_text(message)).classes("weft-mono")
            with ui.row().classes("items-center").style("gap:8px"):
                self._view.action(
                    "Redrive this one",
                    lambda: self._redrive([str(message["id"])]),
                    confirm=f"Try {message['id']} anew?",
                    icon="replay",
                )
                link("The task's life", link_to("tasks", str(message["id"])))

    async def _redrive(self, ids: list[str] | None) -> str:
        answer = await self._view.ask("POST", f"{self._path}/redrive", {"ids": ids})
        self._changed()
        return f"{answer['count']} of {self._name} are tried anew"

    async def _purge(self) -> None:
        chosen = await ask_for_name(
            f"Throw away what lies in {self._name}? What is gone is gone.",
            self._name,
            {"dead": "Dead letters", "waiting": "What waits; its tasks are cancelled"},
        )
        if chosen is None:
            return
        dead = str(chosen == "dead").lower()
        try:
            answer = await self._view.ask(
                "POST", f"{self._path}/purge?dead={dead}&confirm={quote(self._name, safe='')}"
            )
        except MeshError as error:
            ui.notify(error.detail, type="negative", position="bottom-left", timeout=10_000)
            return
        self._changed()
        ui.notify(f"{answer['count']} messages are gone", type="positive", position="bottom-left")

    def _changed(self) -> None:
        self._detail.clear()
        for each in (self._watched, self._path):
            self._view.refresh(each)
