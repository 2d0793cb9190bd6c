"""Queues, topics and tasks: how they stand, what died and why, and what operators do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard import quantities, wording
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.queue_figures import (
    Look,
    body_text,
    dead_event_row,
    dead_task_row,
    done_rate,
    group_rows,
    look,
    queue_row,
    topic_row,
)
from weft.dashboard.pages.task_life import TONES, Life, Phase, Step, life_of, shown_json, task_row
from weft.dashboard.pages.typed_name import ask_for_name
from weft.dashboard.parts import Facts, Figures, State, heading, link
from weft.dashboard.table import Column, Table
from weft.errors import MeshError
from weft.model.operator import Scope
from weft.model.task import TaskState
from weft.model.topic import DEAD_LETTERS

_EVERY = 2.0

_PAGE = 200
"""Tasks that are shown at once."""

_DEAD_SHOWN = 1000
"""Dead letters of a queue, and likewise"""
_DEAD_EVENTS_SHOWN = 200

_DEAD_EVERY = 10.0
"""Seconds between looks at dead letters: reading them costs the broker more than counting."""

_ALL = "any state"

_QUEUE_COLUMNS = (
    Column("name", "Queue", least=120, grow=2, link="to", filter=True),
    Column("depth", "Waiting", format="count", least=85),
    Column("running", "Running", format="count", least=85),
    Column("oldest", "Oldest", format="span", least=80, wide=True),
    Column("arriving", "Arriving/s", format="rate", least=95, wide=True),
    Column("done", "Done/s", format="rate", least=85, wide=True),
    Column("service", "Takes", format="ms", least=80, wide=True),
    Column("workers", "Wanted workers", format="count", least=125, wide=True),
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


@page("/tasks", title="Tasks and events", icon="checklist", menu=40)
def tasks(view: Page) -> None:
    """All queues and topics."""
    figures = Figures(["Waiting", "Running", "Dead letters", "Done/s", "Furthest behind"])
    _search(view)
    heading("Queues")
    queues = Table(view, _QUEUE_COLUMNS, key="id", label="Queues", empty="No Queue is declared.")
    heading("Topics")
    topics = Table(view, _TOPIC_COLUMNS, key="id", label="Topics", empty="No Topic is declared.")
    watched = _Queues()

    def show_queues(answer: Mapping[str, Any]) -> None:
        rows = watched.rows(answer["items"])
        queues.show([{**each, "to": link_to("queues", each["name"])} for each in rows])
        figures.show(_queue_figures(rows), {"Dead letters": "bad" if any(it["dead"] for it in rows) else ""})

    def show_topics(answer: Mapping[str, Any]) -> None:
        rows = [topic_row(each) for each in answer["items"]]
        topics.show([{**each, "to": link_to("topics", each["name"])} for each in rows])
        behind = max((each["lag"] for each in rows), default=0)
        figures.show({"Furthest behind": f"{wording.count(behind)} events"})

    view.watch("/v1/queue-status", show_queues, every=_EVERY)
    view.watch("/v1/topic-status", show_topics, every=_EVERY)


class _Queues:
    """Queues, each time compared with a while ago."""

    def __init__(self) -> None:
        self._looks: list[Look] = []

    def rows(self, queues: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A row for each, with what was done with per second since the oldest look that is kept."""
        now = look(time.monotonic(), queues)
        earlier = self._looks[0] if self._looks else None
        self._looks = [*self._looks[-4:], now]
        return [queue_row(each, done_rate(each["name"], earlier, now)) for each in queues]


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
    watched = _Queues()
    path = f"/v1/queue-status/{quote(name, safe='')}"

    def show(answer: Mapping[str, Any]) -> None:
        [row] = watched.rows([answer])
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
            Column("topic", "Topic", least=110),
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

    latest = f"/v1/topic-status/{quote(where, safe='')}/latest?limit={_DEAD_EVENTS_SHOWN}"
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


@page("/tasks/{task_id}", title="Task")
def task(view: Page) -> None:
    """One task's life."""
    task_id = view.parameters["task_id"]
    view.title(f"Task {task_id}")
    _Task(view, task_id)


class _Task:
    """What is known of a task, and what can be done about it."""

    def __init__(self, view: Page, task_id: str) -> None:
        self._view = view
        self._id = task_id
        self._path = f"/v1/tasks/{quote(task_id, safe='')}"
        queue_name = task_id.partition(".")[0]
        with ui.row().classes("items-center w-full").style("gap:8px 18px"):
            link(f"Queue {queue_name}", link_to("queues", queue_name))
            link("Traces", link_to("traces", q=task_id))
            self._state = State()
            self._cancel = view.action(
                "Cancel the task", self._stop, confirm=f"Cancel {task_id}?", icon="cancel"
            )
        self._facts = Facts()
        heading("Its life")
        self._bar = ui.element("div").classes("w-full").props("role=img")
        self._bar.style(
            "position:relative;height:26px;border-radius:6px;background:var(--weft-raised);overflow:hidden"
        )
        self._steps = ui.element("ol").classes("w-full weft-panel").style("margin:0;padding-left:34px")
        self._shown: tuple[Any, ...] = ()
        view.watch(f"{self._path}/history", self._show, every=_EVERY)

    def _show(self, answer: Mapping[str, Any]) -> None:
        document = answer["task"]
        life = life_of(document, answer["events"], time.time())
        self._state.show(life.state, TONES.get(life.state, "muted"))
        if self._cancel is not None:
            self._cancel.set_visibility(not life.ended)
        self._facts.show(_facts(document, answer["leftOut"]))
        self._draw(life)

    def _draw(self, life: Life) -> None:
        if self._shown == (life.spans, life.steps):
            return
        if self._shown[:1] != (life.spans,):
            _draw_spans(self._bar, life)
        if self._shown[1:] != (life.steps,):
            self._steps.clear()
            with self._steps:
                for each in life.steps:
                    _draw_step(each)
        self._shown = (life.spans, life.steps)

    async def _stop(self) -> str:
        answer = await self._view.ask("POST", f"{self._path}/cancel")
        self._view.refresh(f"{self._path}/history")
        return f"the task is {answer['state']}"


def _facts(document: Mapping[str, Any], left_out: int) -> dict[str, str]:
    told = {
        "Priority": document["priority"],
        "Submitted by": document["submitter"],
        "Attempts": str(document["attempts"]),
        "Worker": document.get("worker", ""),
        "Conversation": document.get("context", ""),
        "Labels": ", ".join(f"{name}={value}" for name, value in document.get("labels", {}).items()),
        "Webhook": document.get("webhook", ""),
        "Left out": f"the first {left_out} of what its workers told" if left_out else "",
    }
    return {name: str(value) for name, value in told.items() if value}


def _draw_spans(bar: ui.element, life: Life) -> None:
    bar.clear()
    length = life.end - life.begin
    told = [f"{each.label}: {quantities.lasting(each.width * length)}" for each in life.spans]
    bar._props["aria-label"] = f"Timeline: {', '.join(told)}"
    bar.update()
    with bar:
        for each, text in zip(life.spans, told, strict=True):
            colour = "var(--weft-line)" if each.phase is Phase.WAITING else "var(--weft-accent)"
            ink = "var(--weft-fg)" if each.phase is Phase.WAITING else "var(--weft-surface)"
            part = ui.element("div").style(
                "position:absolute;top:0;bottom:0;min-width:3px;overflow:hidden;white-space:nowrap;"
                f"padding:3px 6px;font-size:12px;background:{colour};color:{ink};"
                f"left:{100 * each.left:.3f}%;width:{100 * each.width:.3f}%"
            )
            with part:
                ui.label(text)


def _draw_step(step: Step) -> None:
    with ui.element("li").style("margin:3px 0"):
        with ui.row().classes("items-baseline").style("gap:4px 12px"):
            at = quantities.date_and_clock(step.at) if step.at is not None else "time not known"
            ui.label(at).classes("weft-mono weft-muted")
            ui.label(step.title).style("font-weight:600")
        if step.detail:
            ui.label(step.detail).classes("weft-mono")
