"""One task's life."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard import quantities
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.task_life import TONES, Life, Phase, Step, life_of
from weft.dashboard.parts import Facts, State, heading, link

_EVERY = 2.0


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
