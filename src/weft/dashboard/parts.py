"""Small parts of pages: figures, facts, times, states, links."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from weft.dashboard.wording import NOTHING, ago, moment

TONES = ("ok", "warn", "bad", "muted")
"""How things stand: well, not quite, badly, or not known."""


def heading(text: str) -> ui.label:
    """A heading within a page."""
    return ui.label(text).classes("weft-h2").props("role=heading aria-level=2")


def link(text: str, to: str) -> ui.element:
    """A link to a page, as `link_to` gives it."""
    with ui.element("a").classes("weft-link") as element:
        element._props["href"] = to if to.startswith("/dashboard/") else "/dashboard/"
        ui.label(text).style("display:inline")
    return element


class State:
    """A word with a dot in the colour of how it stands."""

    def __init__(self, text: str = "", tone: str = "muted") -> None:
        self.element = ui.label().classes("weft-state")
        self._tone = ""
        self.show(text, tone)

    def show(self, text: str, tone: str) -> None:
        """`tone` is one of TONES."""
        self.element.set_text(text)
        if tone != self._tone and tone in TONES:
            self.element.classes(remove=f"weft-{self._tone}" if self._tone else "", add=f"weft-{tone}")
            self._tone = tone


class When:
    """A moment, told as distance from now, which goes on by itself; the absolute time is its tooltip."""

    def __init__(self, at: float | None = None) -> None:
        self.element = ui.element("time")
        self._at: float | None = None
        if at is not None:
            self.show(at)

    def show(self, at: float) -> None:
        """`at` is in seconds since 1970."""
        if at == self._at:
            return
        self._at = at
        self.element._props.update({"data-at": float(at), "title": moment(at)})
        self.element._text = ago(at, time.time())
        self.element.update()


class Figures:
    """A row of figures, each with a name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._values: dict[str, ui.label] = {}
        self._tones: dict[str, str] = {}
        with ui.element("div").classes("weft-figures"):
            for name in names:
                with ui.element("div").classes("weft-figure").props("role=group"):
                    ui.label(name).classes("name")
                    self._values[name] = ui.label(NOTHING).classes("value")

    def show(self, values: Mapping[str, str], tones: Mapping[str, str] | None = None) -> None:
        """Some or all of the figures, as text; `tones` colours them ("ok", "warn", "bad")."""
        for name, value in values.items():
            label = self._values[name]
            label.set_text(value)
            tone = (tones or {}).get(name, "")
            if tone != self._tones.get(name, ""):
                label.classes(
                    remove=f"weft-{self._tones[name]}" if self._tones.get(name) else "",
                    add=f"weft-{tone}" if tone in TONES else "",
                )
                self._tones[name] = tone


class Facts:
    """Names and values, one below the other."""

    def __init__(self) -> None:
        self._list = ui.element("dl").classes("weft-facts")
        self._shown: dict[str, Any] = {}

    def show(self, facts: Mapping[str, str]) -> None:
        """Have these facts. Nothing is sent where nothing changed."""
        if self._shown == facts:
            return
        self._shown = dict(facts)
        self._list.clear()
        with self._list:
            for name, value in facts.items():
                with ui.element("dt"):
                    ui.label(name)
                with ui.element("dd"):
                    ui.label(value)
