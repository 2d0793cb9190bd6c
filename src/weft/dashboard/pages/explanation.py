"""Asking whether somebody may do something, and showing the answer: `weft can`, as a form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from weft.dashboard.page import Page, link_to
from weft.dashboard.pages.markup import tag
from weft.dashboard.pages.reach_matrix import action_for
from weft.dashboard.parts import State, heading, link
from weft.errors import MeshError

ACTIONS = ("call", "publish", "subscribe", "submit", "consume")
_DETAILS = ("method", "path", "rpc", "tool")
MAX_CASES = 50

CSS = """
.weft-can{display:flex;flex-direction:column;gap:8px}
.weft-can>.pair{display:grid;grid-template-columns:1fr 1fr;gap:8px}
.weft-can .q-field{min-width:0}
.weft-answer{border-top:1px solid var(--weft-line);padding-top:8px;display:flex;flex-direction:column;
  gap:6px;
  overflow-wrap:anywhere}
"""


class CanForm:
    """The form, and below it the answer."""

    def __init__(self, view: Page) -> None:
        self._view = view
        told = view.query
        target = told.get("callee") or told.get("target") or ""
        action = told.get("action") or action_for(target)
        with tag("section", "weft-panel weft-can", aria_label="May somebody do something?"):
            heading("May …?")
            self._caller = self._text("Who: a type, type/instance, operator/name", told.get("caller", ""))
            self._action = ui.select([*ACTIONS], value=action if action in ACTIONS else "call", label="Does")
            self._action.props("dense outlined options-dense")
            self._target = self._text("What: a type, capability/…, topic/…, queue/…, pool/…", target)
            with tag("div", "pair"):
                self._details = {
                    "method": self._text("HTTP method", told.get("method", "")),
                    "path": self._text("Path", told.get("path", "")),
                    "rpc": self._text("RPC method", told.get("rpc", "")),
                    "tool": self._text("Tool", told.get("tool", "")),
                }
            ui.button("Ask", icon="help_outline", on_click=self.ask).props("unelevated no-caps dense")
            self._answer = tag("div", "weft-answer", role="status", aria_live="polite")
            self._answer.set_visibility(False)

    @property
    def is_filled(self) -> bool:
        """Whether there is something to ask."""
        return bool(self._caller.value and self._target.value)

    async def about(self, caller: str, callee: str) -> None:
        """Ask of a caller and what it calls, nothing more."""
        self._caller.value, self._target.value = caller, callee
        self._action.value = action_for(callee)
        for each in self._details.values():
            each.value = ""
        await self.ask()

    async def ask(self) -> None:
        """Ask what the form says."""
        if not self.is_filled:
            self._say("Say who, and what is to be reached.")
            return
        told = {name: (field.value or "").strip() for name, field in self._details.items()}
        question = {
            "caller": self._caller.value.strip(),
            "action": self._action.value,
            "target": self._target.value.strip(),
        }
        if self._view.client.has_socket_connection:
            ui.navigate.history.replace(link_to("policy", **question, **told))
        try:
            answer = await self._view.ask("POST", "/v1/can", {**question, **told})
        except MeshError as error:
            self._say(error.detail)
            return
        self._answer.clear()
        self._answer.set_visibility(True)
        with self._answer:
            _draw_answer(f"{question['caller']} {question['action']} {question['target']}", answer)

    def _text(self, label: str, value: str) -> ui.input:
        field = ui.input(label, value=value).props("dense outlined maxlength=2048")
        return field.on("keydown.enter", self.ask)

    def _say(self, text: str) -> None:
        self._answer.clear()
        self._answer.set_visibility(True)
        with self._answer:
            ui.label(text).classes("weft-notice")


def _draw_answer(question: str, answer: Mapping[str, Any]) -> None:
    _draw_verdict(answer)
    request = f" ({answer['request']})" if answer.get("request") else ""
    ui.label(f"{question}{request}")
    ui.label(str(answer.get("reason") or "")).classes("weft-muted")
    if policy := str(answer.get("policy") or ""):
        link(f"Policy {policy}", link_to("policy", "policies", name=policy))
    _draw_dry_run(answer)
    cases = answer.get("cases") or []
    if len(cases) > 1:
        heading("It depends on which is meant")
        with tag("ul", "weft-list"):
            for each in cases[:MAX_CASES]:
                _draw_case(each)
    if depends := answer.get("depends"):
        names = ", ".join(map(str, depends))
        ui.label(f"Other requests may be answered otherwise, by {names}: say the method, path, RPC or tool.")


def _draw_case(case: Mapping[str, Any]) -> None:
    version = f" version {case['version']}" if case.get("version") else ""
    with tag("li"):
        _draw_verdict(case)
        tag("div", text=f"{case.get('caller', '')} to {case.get('target', '')}{version}")
        tag("div", "weft-muted", str(case.get("reason") or ""))
        _draw_dry_run(case)


def _draw_verdict(decision: Mapping[str, Any]) -> None:
    if decision.get("allowed") is True:
        State("✓ allowed", "ok")
    else:
        State("✕ denied", "bad")


def _draw_dry_run(decision: Mapping[str, Any]) -> None:
    would = "denied" if decision.get("allowed") is True else "allowed"
    for each in decision.get("dryRun") or []:
        ui.label(f"Policy {each} would have {would} it (dry run).").classes("weft-warn")
