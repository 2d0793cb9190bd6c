"""What is known of one span."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from weft.dashboard.page import link_to
from weft.dashboard.pages.copying import copy_button
from weft.dashboard.pages.markup import tag
from weft.dashboard.pages.spans import Said, Span, messages_of, plain, sort_of
from weft.dashboard.pages.trace_summary import agent_of, context_of, tokens_of
from weft.dashboard.pages.waterfall import Row
from weft.dashboard.parts import heading, link
from weft.dashboard.quantities import lasting
from weft.dashboard.wording import count, moment

MAX_ATTRIBUTES = 100
MAX_EVENTS = 100
MAX_VALUE = 4000
"""Characters of a value that are shown."""

_MESSAGES = {
    "gen_ai.system_instructions": "Instructions",
    "gen_ai.input.messages": "Given",
    "gen_ai.output.messages": "Answered",
}

CSS = """
.weft-span{background:var(--weft-surface);border:1px solid var(--weft-line);border-radius:8px;
  padding:10px 14px 14px;min-width:0;align-self:start;position:sticky;top:56px;
  max-height:calc(100vh - 70px);overflow:auto}
.weft-span-head{display:flex;align-items:flex-start;gap:8px}
.weft-span-head>.name{font-weight:650;font-size:15px;flex:1;overflow-wrap:anywhere;padding-top:4px}
.weft-span-head .q-icon{color:var(--weft-sort)}
.weft-span table{border-collapse:collapse;width:100%;table-layout:fixed;font-size:12.5px}
.weft-span th{width:48%;text-align:left;font-weight:400;color:var(--weft-muted);vertical-align:top;
  padding:3px 8px 3px 0;  overflow-wrap:anywhere}
.weft-span td{padding:3px 0;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere}
.weft-span tr{border-top:1px solid var(--weft-line)}
.weft-said{border-left:3px solid var(--weft-line);padding:2px 0 2px 10px;margin:6px 0}
.weft-said.user{border-color:#3f7fdb}.weft-said.assistant{border-color:#2f9e62}
  .weft-said.tool{border-color:#d18700}
.weft-said>.role{font-size:12px;color:var(--weft-muted)}
.weft-said>.text{white-space:pre-wrap;overflow-wrap:anywhere}
.weft-span .weft-facts{grid-template-columns:max-content minmax(0,1fr)}
@media(max-width:1000px){.weft-trace.beside{padding-bottom:62vh}
  .weft-trace.beside .weft-wf-row{scroll-margin:80px 0 64vh}
  .weft-span{position:fixed;inset:auto 0 0 0;z-index:1500;max-height:62vh;
  border-radius:12px 12px 0 0;box-shadow:0 -6px 24px rgba(0,0,0,.35)}}
"""


class SpanDetails:
    """A panel beside the waterfall, hidden until a span is to be shown."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        """`on_close` is called when somebody is done with a span."""
        self._on_close = on_close
        self._panel = tag("aside", "weft-span", aria_label="Span", role="region", tabindex=-1)
        self._panel.set_visibility(False)

    def show(self, row: Row) -> None:
        """Tell all of a span."""
        self._panel.clear()
        self._panel.set_visibility(True)
        with self._panel:
            self._draw(row)

    def close(self) -> None:
        """Hide the panel."""
        if not self._panel.visible:
            return
        self._panel.set_visibility(False)
        self._panel.clear()
        self._on_close()

    def _draw(self, row: Row) -> None:
        span, sort = row.span, sort_of(row.span)
        with tag("div", f"weft-span-head weft-sort-{sort.word}"):
            ui.icon(sort.sign).props("aria-hidden=true").style("padding-top:7px;font-size:18px")
            tag("div", "name", span.name or "(no name)", role="heading", aria_level=2)
            close = ui.button(icon="close", on_click=self.close).props("flat dense round color=none")
            close.props('aria-label="Close the span"')
        if span.failed:
            ui.label(f"Failed: {span.message}" if span.message else "Failed").classes("weft-notice q-my-sm")
        _draw_facts(row, sort.word)
        _draw_links(span)
        for attribute, title in _MESSAGES.items():
            _draw_said(title, messages_of(span, attribute))
        others = {name: value for name, value in span.attributes.items() if name not in _MESSAGES}
        _draw_values("Attributes", others, "No attributes.")
        _draw_events(row)


def _draw_facts(row: Row, sort: str) -> None:
    span = row.span
    given, answered = tokens_of(span)
    facts = {
        "Took": lasting(span.duration),
        "Began": f"{lasting(max(0.0, row.start))} into the trace, {moment(span.start)}",
        "Service": " ".join(each for each in (span.service, span.version and f"v{span.version}") if each),
        "Instance": span.instance,
        "Kind": f"{sort} ({span.kind or 'internal'})",
        "Tokens": f"{count(given)} in, {count(answered)} out" if given or answered else "",
        "Note": " ".join(_notes(row)),
    }
    with tag("dl", "weft-facts q-mt-sm"):
        for name, value in facts.items():
            if value:
                tag("dt", text=name)
                tag("dd", text=value)
        tag("dt", text="Span")
        with tag("dd"):
            tag("span", "weft-mono", span.id)
            copy_button(span.id, "the span's id")


def _notes(row: Row) -> list[str]:
    notes = []
    if row.is_orphan:
        notes.append(f"Its parent ({row.span.parent}) is not among the spans of this trace.")
    if row.is_circle:
        notes.append("Its parents lead back to itself.")
    if row.was_moved:
        direction = "later" if row.shift > 0 else "earlier"
        notes.append(
            f"The clock there differs: it is drawn {lasting(abs(row.shift))} {direction} than it said, "
            "so as not to begin before its parent."
        )
    return notes


def _draw_links(span: Span) -> None:
    agent, context = agent_of(span), context_of(span)
    if agent is None and not context:
        return
    with ui.row().classes("q-my-xs").style("gap:4px 16px"):
        if agent is not None:
            link(f"Agent {agent[1]}", link_to("agents", *agent))
        if context:
            link("Conversation", link_to("conversations", id=context))


def _draw_said(title: str, messages: tuple[Said, ...]) -> None:
    if not messages:
        return
    heading(title)
    for each in messages:
        voice = each.role if each.role in {"user", "assistant", "tool"} else ""
        with tag("div", f"weft-said {voice}"):
            if each.role:
                tag("div", "role", each.role)
            tag("div", "text", cut(each.text))


def _draw_values(title: str, values: Mapping[str, Any], empty: str) -> None:
    heading(title)
    if not values:
        ui.label(empty).classes("weft-muted")
        return
    _draw_table(values)
    if len(values) > MAX_ATTRIBUTES:
        ui.label(f"… and {len(values) - MAX_ATTRIBUTES:,} more").classes("weft-muted")


def _draw_events(row: Row) -> None:
    if not row.span.events:
        return
    heading("Events")
    for each in row.span.events[:MAX_EVENTS]:
        at = lasting(max(0.0, each.at - row.span.start))
        tag("div", text=f"{at}: {each.name}").style("margin-top:4px")
        if each.attributes:
            _draw_table(each.attributes)
    if len(row.span.events) > MAX_EVENTS:
        ui.label(f"… and {len(row.span.events) - MAX_EVENTS:,} more").classes("weft-muted")


def _draw_table(values: Mapping[str, Any]) -> None:
    with tag("table"), tag("tbody"):
        for name in sorted(values)[:MAX_ATTRIBUTES]:
            with tag("tr"):
                tag("th", text=name, scope="row")
                tag("td", text=cut(plain(values[name])))


def cut(text: str) -> str:
    """As much of a text as is shown."""
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}… ({len(text) - MAX_VALUE:,} more)"
