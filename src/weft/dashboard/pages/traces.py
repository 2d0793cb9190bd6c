"""Traces: which there are, and one as a waterfall."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages import span_details, waterfall_drawing
from weft.dashboard.pages.copying import copy_button
from weft.dashboard.pages.markup import LISTS, tag
from weft.dashboard.pages.span_details import SpanDetails
from weft.dashboard.pages.trace_search import (
    STATUSES,
    WINDOWS,
    TraceFilters,
    TraceRow,
    milliseconds,
    rows_of,
    seconds,
)
from weft.dashboard.pages.trace_summary import Trace, trace_of
from weft.dashboard.pages.waterfall import Row
from weft.dashboard.pages.waterfall_drawing import WaterfallDrawing
from weft.dashboard.parts import State, When, link
from weft.dashboard.quantities import lasting
from weft.dashboard.table import Column, Table
from weft.dashboard.wording import count, span

SETTLED = 120.0
"""Seconds after its end for which a trace is followed: spans come late."""

_TRACE_ID = re.compile(r"[0-9a-f]{32}")

_CSS = """
.weft-search{display:flex;flex-wrap:wrap;gap:8px 10px;align-items:center;width:100%}
.weft-search>*{flex:1 1 120px;min-width:110px;max-width:240px}
.weft-search>.grow{flex:3 1 220px;max-width:none}
.weft-search>.q-btn{flex:none;min-width:0}
.weft-trace{display:grid;grid-template-columns:minmax(0,1fr);gap:14px;width:100%}
.weft-trace>div{display:flex;flex-direction:column;gap:8px;min-width:0}
@media(min-width:1001px){.weft-trace.beside{grid-template-columns:minmax(0,1fr) 380px}
  .weft-trace.beside .weft-wf{--weft-wf-name:minmax(200px,48%);--weft-wf-step:9px}}
"""

_COLUMNS = (
    Column("start", "Began", format="ago", least=100),
    Column("name", "Trace", link="to", grow=3, least=150),
    Column("service", "Begun by", wide=True),
    Column("duration", "Took", format="ms", least=80),
    Column("spans", "Spans", format="count", least=70, wide=True),
    Column("errors", "Failed", tone="tone", least=80),
    Column("services", "Through", grow=2, wide=True),
    Column("context", "Conversation", link="conversation", wide=True),
)

_EMPTY = (
    "No traces are found. What agents do by themselves is recorded as often as the mesh samples, "
    "a call by `weft call --trace` always."
)


@page("/traces", title="Traces", icon="account_tree", menu=70)
def traces(view: Page) -> None:
    """Search traces."""
    ui.add_css(_CSS)
    _Search(view).begin()


class _Search:
    """The form, and what is found."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._filters = TraceFilters.of(view.query)
        self._stop: Callable[[], None] = lambda: None
        self._after = ""
        """By which the present page is asked for; empty: the first."""
        self._next = ""

    def begin(self) -> None:
        self._form()
        self._kept = ui.label().classes("weft-muted")
        self._table = Table(
            self._view,
            _COLUMNS,
            key="id",
            label="Traces",
            empty=_EMPTY,
            sort="start",
            descending=True,
            on_open=self._open,
        )
        with ui.row().classes("items-center").style("gap:4px"):
            self._newer = ui.button("Newest", icon="first_page", on_click=self._to_newest)
            self._older = ui.button("Older", icon="chevron_right", on_click=self._to_older)
            for each in (self._newer, self._older):
                each.props("flat dense no-caps").set_visibility(False)
        self._watch()
        self._view.watch("/v1/telemetry", self._show_kept, every=10.0)

    def _form(self) -> None:
        told = self._filters
        with tag("div", "weft-search weft-panel", role="search", aria_label="Search traces"):
            self._q = self._text("Text or trace id", told.q).classes("grow")
            self._service = self._text("Service", told.service)
            self._destination = self._text("Destination", told.destination)
            self._caller = self._text("Caller", told.caller)
            self._context = self._text("Conversation", told.context)
            self._least = self._text("At least, ms", milliseconds(told.minDuration))
            self._least.props("inputmode=decimal")
            self._status = ui.select(STATUSES, value=told.status, label="Status", on_change=self._search)
            known = told.last if told.last in WINDOWS else ""
            self._last = ui.select(WINDOWS, value=known, label="Last", on_change=self._search)
            for each in (self._status, self._last):
                each.props("dense outlined options-dense")
            ui.button("Search", icon="search", on_click=self._search).props("unelevated no-caps dense")
            self._clear = ui.button("Show all", on_click=lambda: self._go(link_to("traces"))).props(
                "flat no-caps dense"
            )
            self._clear.set_visibility(not told.are_none)

    def _text(self, label: str, value: str) -> ui.input:
        field = ui.input(label, value=value).props("dense outlined clearable maxlength=300")
        return field.on("keydown.enter", self._search)

    def _search(self) -> None:
        wanted = (self._q.value or "").strip()
        if _TRACE_ID.fullmatch(wanted):
            self._go(link_to("traces", wanted))
            return
        self._filters = TraceFilters.of(
            {
                "q": wanted,
                "service": self._service.value or "",
                "destination": self._destination.value or "",
                "caller": self._caller.value or "",
                "context": self._context.value or "",
                "minDuration": seconds(self._least.value or ""),
                "status": self._status.value or "",
                "last": self._last.value or "",
                "since": self._filters.since,
                "until": self._filters.until,
            }
        )
        self._after = ""
        self._clear.set_visibility(not self._filters.are_none)
        query = self._filters.query
        ui.navigate.history.replace(link_to("traces") + (f"?{query}" if query else ""))
        self._watch()

    def _open(self, row: Any) -> None:
        self._go(str(row["to"]))

    def _go(self, address: str) -> None:
        self._view.script("location.assign", address)

    def _to_newest(self) -> None:
        self._after = ""
        self._watch()

    def _to_older(self) -> None:
        self._after = self._next
        self._watch()

    def _watch(self) -> None:
        self._stop()
        # Rounded, so that those who look for the same ask for the same.
        now = time.time() // 10 * 10
        path = self._filters.asked(now, self._after)
        self._stop = self._view.watch(path, self._show, every=3.0)

    def _show(self, answer: Any) -> None:
        self._table.show([_row(each) for each in rows_of(answer)])
        self._next = str((answer.get("next") if isinstance(answer, dict) else "") or "")
        self._newer.set_visibility(bool(self._after))
        self._older.set_visibility(bool(self._next))

    def _show_kept(self, answer: Any) -> None:
        spans = answer.get("spans") if isinstance(answer, dict) else None
        if not isinstance(spans, dict):
            return
        told = f"{count(_number(spans.get('kept')))} spans are kept"
        if oldest := _number(spans.get("oldest")):
            told += f", the oldest for {span(max(0.0, time.time() - oldest))}"
        if dropped := _number(spans.get("dropped")):
            told += f"; {count(dropped)} were dropped"
        self._kept.set_text(told)


def _row(trace: TraceRow) -> dict[str, Any]:
    return {
        "id": trace.id,
        "start": trace.start,
        "name": trace.name,
        "to": link_to("traces", trace.id),
        "service": trace.service,
        "duration": trace.duration,
        "spans": trace.spans,
        "errors": count(trace.errors) if trace.errors else "no",
        "tone": "bad" if trace.errors else "ok",
        "services": ", ".join(trace.services),
        "context": trace.context,
        "conversation": link_to("conversations", id=trace.context) if trace.context else "",
    }


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


@page("/traces/{trace_id}", title="Trace")
def trace(view: Page) -> None:
    """One trace."""
    ui.add_css(LISTS + _CSS + waterfall_drawing.CSS + span_details.CSS)
    _TracePage(view).begin()


class _TracePage:
    """A trace, and what is known of the span that is selected."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._id = view.parameters["trace_id"]
        self._shown: Trace | None = None
        self._stop: Callable[[], None] | None = None
        self._line = tag("div", "weft-line")
        self._cut = ui.label("There are more spans than are shown.").classes("weft-notice")
        self._cut.set_visibility(False)
        self._body = tag("div", "weft-trace")
        with self._body:
            with tag("div"):
                self._drawing = WaterfallDrawing(self._select)
            self._details = SpanDetails(self._deselect)
        self._body.on("keydown.escape", self._details.close)

    def begin(self) -> None:
        path = f"/v1/traces/{quote(self._id, safe='')}"
        self._stop = self._view.watch(path, self._show, every=3.0, shape=trace_of)

    def _show(self, found: Trace) -> None:
        if time.time() > found.end + SETTLED and self._stop is not None:
            self._stop()
        if found == self._shown:
            return
        is_first, self._shown = self._shown is None, found
        self._view.title(found.name)
        self._draw_line(found)
        self._cut.set_visibility(found.is_cut)
        self._drawing.show(found.waterfall)
        if is_first and (wanted := self._view.query.get("span")):
            self._drawing.select(wanted)

    def _draw_line(self, found: Trace) -> None:
        self._line.clear()
        with self._line:
            if found.errors:
                State(f"{found.errors:,} failed", "bad")
            else:
                State("no errors", "ok")
            with tag("span"):
                When(found.waterfall.begin)
            tag("span", text=f"took {lasting(found.waterfall.length)}")
            spans, services = len(found.waterfall.rows), len(found.services)
            tag("span", text=f"{_many(spans, 'span')} in {_many(services, 'service')}")
            if found.input_tokens or found.output_tokens:
                tag("span", text=f"{count(found.input_tokens)} + {count(found.output_tokens)} tokens")
            for each in found.contexts[:3]:
                with tag("span"):
                    link("Conversation", link_to("conversations", id=each))
            with tag("span"):
                tag("span", "weft-mono", self._id)
                copy_button(self._id, "the trace's id")

    def _select(self, row: Row) -> None:
        self._details.show(row)
        self._body.classes(add="beside")
        self._remember(row.key)

    def _deselect(self) -> None:
        self._body.classes(remove="beside")
        self._remember("")
        self._drawing.focus()

    def _remember(self, key: str) -> None:
        """Have the address lead to the span, for who copies it."""
        if self._view.client.has_socket_connection:
            ui.navigate.history.replace(link_to("traces", self._id, span=key))
