"""One Route or TrafficPolicy: looked at, and changed by operators after a look at what would change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.route_edit import (
    DifferenceLine,
    Mistake,
    Split,
    check_edited,
    difference,
    manifest_of,
    mistakes_in,
    reweighted,
    split_text,
    splits,
    target_of,
)
from weft.dashboard.parts import Facts, heading, link
from weft.errors import InvalidRequest, InvalidResource, MeshError, NotFound
from weft.model.operator import Scope
from weft.model.resource import canonical_kind
from weft.model.route import MAX_WEIGHT

_EDITABLE = frozenset({"Route", "TrafficPolicy"})

_EVERY = 5.0
"""Seconds between looks at whether somebody else changed it."""

_MAX_DRAFT = 200_000
"""Characters of a draft that are taken back."""

_SELECT_LINE = """((id, line) => {
  const area = document.querySelector("#" + id + " textarea") || document.getElementById(id);
  if (!area || !area.value) return;
  const lines = area.value.split("\\n");
  const start = lines.slice(0, line - 1).join("\\n").length + (line > 1 ? 1 : 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1] || "").length);
  area.scrollIntoView({block: "nearest"});
})"""
"""Shows a line of a text area, by selecting it."""


@page("/routing/{kind}/{name}", title="Routing")
async def routing(view: Page) -> None:
    """A Route or a TrafficPolicy."""
    kind, name = canonical_kind(view.parameters["kind"]) or "", view.parameters["name"]
    if kind not in _EDITABLE:
        raise NotFound("Routes and TrafficPolicies are shown here, nothing else")
    view.title(f"{kind} {name}")
    with ui.row().classes("items-center"):
        link("Traffic", link_to("traffic"))
    path = f"/v1/resources/{kind.lower()}/{name}"
    editor = _Editor(view, path, await view.ask("GET", path))
    view.watch(path, editor.compare, every=_EVERY)


class _Editor:
    """The resource as it was read, what is made of it, and what that would change."""

    def __init__(self, view: Page, path: str, document: dict[str, Any]) -> None:
        self._view = view
        self._path = path
        self._document = document
        self._previewed = ""
        self._may = view.may(Scope.OPERATOR)
        self._facts = Facts()
        self._stale = ui.row().classes("weft-notice items-center").props("role=status")
        self._weights = ui.column().classes("w-full")
        heading("Manifest")
        if not self._may:
            ui.label("Your token lets you look at it, not change it.").classes("weft-muted")
        self._text = ui.textarea(value="").classes("w-full weft-panel")
        self._text.props(
            'autogrow borderless spellcheck=false aria-label="Manifest" input-class="weft-mono" dense'
            + ("" if self._may else " readonly")
        )
        if self._may:
            with ui.row():
                ui.button("Show what would change", icon="difference", on_click=self._preview_text).props(
                    "outline no-caps dense padding='2px 10px'"
                )
            self._kept = ""
            self._offer = ui.row().classes("weft-notice items-center").props("role=status")
            with self._offer:
                ui.label("What you typed here before this page was loaded anew is kept.")
                for name, run in (("Take it up", self._take_up), ("Forget it", self._forget)):
                    ui.button(name, on_click=run).props("outline no-caps dense")
            self._offer.set_visibility(False)
            ui.on("weft-draft", lambda event: self._offer_draft(event.args))
            view.script("weft.draft", self._text.html_id)
        self._preview = ui.column().classes("w-full items-stretch").props("role=status aria-live=polite")
        self._load(document)

    def compare(self, current: dict[str, Any]) -> None:
        """Say so if somebody else has changed it since it was read."""
        changed = current["metadata"]["resourceVersion"] != self._document["metadata"]["resourceVersion"]
        if changed == self._stale.visible:
            return
        self._stale.set_visibility(changed)

    def _load(self, document: dict[str, Any]) -> None:
        self._document = document
        self._previewed = ""
        metadata = document["metadata"]
        changes = (metadata.get("generation") or 1) - 1
        self._facts.show(
            {
                "Destination": target_of(document),
                "Declared": str(metadata.get("creationTimestamp") or "unknown"),
                "Changed since": "never" if not changes else f"{changes} times" if changes > 1 else "once",
            }
        )
        self._stale.clear()
        with self._stale:
            ui.label("Somebody else has changed it since: what is below cannot be applied any more.")
            ui.button("Load it anew", on_click=self._reload).props("outline no-caps dense")
        self._stale.set_visibility(False)
        self._text.set_value(manifest_of(document))
        self._preview.clear()
        self._show_splits()

    def _offer_draft(self, text: object) -> None:
        self._kept = str(text)[:_MAX_DRAFT]
        self._offer.set_visibility(True)

    def _take_up(self) -> None:
        self._text.set_value(self._kept)
        self._offer.set_visibility(False)

    def _forget(self) -> None:
        self._offer.set_visibility(False)
        self._view.script("weft.forget")

    async def _reload(self) -> None:
        try:
            self._load(await self._view.ask("GET", self._path))
            if self._may:
                self._forget()
        except MeshError as error:
            self._complain(error.detail)

    def _show_splits(self) -> None:
        self._weights.clear()
        with self._weights:
            for split in splits(self._document):
                heading(f"Split of {split.name}")
                if self._may:
                    self._weight_form(split)
                else:
                    ui.label(split_text(split))

    def _weight_form(self, split: Split) -> None:
        with ui.row().classes("items-center w-full weft-panel").style("gap:12px 18px"):
            fields = [
                ui.number(each.label, value=each.weight, min=0, max=MAX_WEIGHT, step=1, precision=0)
                .props(f'dense outlined input-style="width:110px" suffix="{each.share:.0%}"')
                .classes("weft-weight")
                for each in split.parts
            ]

            def shares() -> None:
                given = [max(0.0, float(each.value or 0)) for each in fields]
                for each, weight in zip(fields, given, strict=True):
                    each.props(f'suffix="{weight / sum(given) if sum(given) else 0:.0%}"')

            async def preview() -> None:
                try:
                    changed = reweighted(
                        self._document, split.rule, [int(each.value or 0) for each in fields]
                    )
                except InvalidRequest as error:
                    self._complain(error.detail)
                    return
                self._text.set_value(manifest_of(changed))
                await self._preview_text()

            for each in fields:
                each.on_value_change(shares)
            ui.button("Show what would change", icon="difference", on_click=preview).props(
                "outline no-caps dense padding='2px 10px'"
            )

    async def _preview_text(self) -> None:
        text = str(self._text.value or "")
        try:
            check_edited(text, self._document)
            answer = await self._view.ask("POST", "/v1/diff", {"manifest": text})
        except InvalidResource as error:
            self._show_mistakes(mistakes_in(error, text))
        except MeshError as error:
            self._complain(error.detail)
        else:
            lines = [it for each in answer["differences"] for it in difference(each["before"], each["after"])]
            self._show_difference(text, lines)

    def _complain(self, detail: str) -> None:
        self._preview.clear()
        with self._preview:
            ui.label(detail).classes("weft-notice weft-bad")

    def _show_mistakes(self, found: Sequence[Mistake]) -> None:
        self._preview.clear()
        with self._preview:
            heading("Mistakes")
            with ui.element("ul").classes("weft-panel").style("list-style:none;margin:0"):
                for each in found:
                    with ui.element("li"):
                        self._mistake(each)

    def _mistake(self, found: Mistake) -> None:
        place = f"line {found.line}" if found.line else "the whole"
        with ui.row().classes("items-center").style("gap:10px"):
            go = ui.button(place, on_click=lambda: self._select(found.line)).props("flat dense no-caps")
            go.set_enabled(found.line > 0)
            ui.label(": ".join(each for each in (found.field, found.message) if each)).classes("weft-bad")
        if found.text:
            ui.label(found.text).classes("weft-mono weft-muted")

    def _select(self, line: int) -> None:
        self._view.script(_SELECT_LINE, self._text.html_id, line)

    def _show_difference(self, text: str, lines: Sequence[DifferenceLine]) -> None:
        self._preview.clear()
        self._previewed = text
        with self._preview:
            heading("What would change")
            if not lines:
                ui.label("Nothing: it says what is declared already.").classes("weft-empty")
                return
            with ui.element("div").classes("weft-panel weft-difference"):
                for each in lines:
                    _difference_line(each)
            kind, name = self._document["kind"], self._document["metadata"]["name"]
            self._view.action("Apply", self._apply, confirm=f"Change {kind} {name} as shown?", icon="check")

    async def _apply(self) -> str:
        """What was looked at, not what was typed since."""
        answer = await self._view.ask("POST", "/v1/resources", {"manifest": self._previewed})
        self._load(await self._view.ask("GET", self._path))
        self._forget()
        done = ", ".join(f"{each['kind']} {each['name']}: {each['outcome']}" for each in answer["results"])
        self._view.refresh(self._path)
        return done


def _difference_line(line: DifferenceLine) -> None:
    tone = {"+": "weft-ok", "-": "weft-bad", "@": "weft-muted"}.get(line.sign, "")
    text = line.text if line.sign == "@" else f"{line.sign or ' '} {line.text}"
    ui.label(text).classes(f"weft-mono {tone}")
