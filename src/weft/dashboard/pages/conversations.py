"""Conversations: those that were seen, and what is kept of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.conversation_view import (
    PAGE,
    ArtifactRow,
    Conversation,
    Known,
    MessageRow,
    Usage,
    asked,
    conversation_of,
    known_of,
    usage_of,
)
from weft.dashboard.pages.copying import copy_button
from weft.dashboard.pages.markup import LISTS, tag
from weft.dashboard.pages.trace_search import TraceFilters, TraceRow, rows_of
from weft.dashboard.parts import When, heading, link
from weft.dashboard.quantities import compact, lasting, size, usd
from weft.dashboard.table import Column, Table
from weft.dashboard.wording import count
from weft.errors import MeshError
from weft.model.operator import Scope

MAX_TRACES = 20
"""Traces of a conversation that are listed."""

_LATEST = "/v1/traces?limit=500"
_USAGE = "/v1/llm/usage?by=context,model"

_CSS = """
.weft-open{display:flex;flex-wrap:wrap;gap:8px 10px;align-items:center;width:100%}
.weft-open>*{flex:1 1 140px;max-width:260px}.weft-open>.grow{flex:3 1 220px;max-width:none}
.weft-open>.q-btn{flex:none}
.weft-talk{display:grid;grid-template-columns:minmax(0,1fr);gap:14px;width:100%}
@media(min-width:1001px){.weft-talk{grid-template-columns:minmax(0,1fr) 340px}}
.weft-talk>div,.weft-talk>aside{display:flex;flex-direction:column;gap:10px;min-width:0}
.weft-message{background:var(--weft-surface);border:1px solid var(--weft-line);
  border-left:4px solid var(--weft-line);
  border-radius:8px;padding:8px 12px}
.weft-message.user{border-left-color:#3f7fdb}.weft-message.assistant{border-left-color:#2f9e62}
.weft-message.tool{border-left-color:#d18700}.weft-message.system{border-left-color:#9467d6}
.weft-message>.head{display:flex;flex-wrap:wrap;gap:2px 12px;color:var(--weft-muted);font-size:12.5px}
.weft-message>.head>.role{color:var(--weft-fg);font-weight:650}
.weft-message>.text{white-space:pre-wrap;overflow-wrap:anywhere;margin-top:4px;max-height:480px;
  overflow:auto}
.weft-message>.more{color:var(--weft-muted);font-size:12px;white-space:pre-wrap;overflow-wrap:anywhere;
  margin-top:4px}
.weft-messages{display:flex;flex-direction:column;gap:10px;margin:0;padding:0;list-style:none}
.weft-pre{white-space:pre-wrap;overflow-wrap:anywhere;max-height:320px;overflow:auto;margin:0}
"""

_COLUMNS = (
    Column("id", "Conversation", link="to", grow=3, least=160),
    Column("seen", "Seen", format="ago", least=100),
    Column("traces", "Traces", format="count", least=80, wide=True),
    Column("errors", "Failed", tone="tone", least=80),
    Column("services", "Agents", grow=2, wide=True),
    Column("calls", "Model calls", format="count", wide=True),
    Column("tokens", "Tokens", format="count", wide=True),
    Column("usd", "Cost", format="money", least=80, wide=True),
)


@page("/conversations", title="Conversations", icon="forum", menu=80)
async def conversations(view: Page) -> None:
    """Those that were seen of late; with `?id=`, one of them."""
    ui.add_css(LISTS + _CSS)
    if view.query.get("id"):
        await _One(view).begin()
    else:
        _Several(view).begin()


class _Several:
    """The conversations of which traces, and the usage of models, tell."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._traces: Any = None
        self._usage: Any = None

    def begin(self) -> None:
        with tag("div", "weft-open weft-panel", role="search", aria_label="Open a conversation"):
            self._id = (
                ui.input("Conversation's id").props("dense outlined clearable maxlength=8192").classes("grow")
            )
            self._tenant = ui.input("Tenant").props("dense outlined clearable maxlength=256")
            for each in (self._id, self._tenant):
                each.on("keydown.enter", self._open)
            ui.button("Open", icon="forum", on_click=self._open).props("unelevated no-caps dense")
        ui.label(
            "Seen in the traces that are kept, and in the usage of models of the last seven days. "
            "Open any other by its id. To read one takes the scope operator, and is audited."
        ).classes("weft-muted")
        self._table = Table(
            self._view,
            _COLUMNS,
            key="id",
            label="Conversations",
            sort="seen",
            descending=True,
            empty="No calls of a conversation were seen yet: they carry the header x-weft-context.",
        )
        self._view.watch(_LATEST, self._show_traces, every=5.0)
        self._view.watch(_USAGE, self._show_usage, every=30.0)

    def _open(self) -> None:
        if wanted := (self._id.value or "").strip():
            tenant = (self._tenant.value or "").strip()
            self._view.script("location.assign", link_to("conversations", id=wanted, tenant=tenant))

    def _show_traces(self, answer: Any) -> None:
        self._traces = answer
        self._show()

    def _show_usage(self, answer: Any) -> None:
        self._usage = answer
        self._show()

    def _show(self) -> None:
        self._table.show([_known_row(each) for each in known_of(self._traces, self._usage)])


class _One:
    """What is kept of one conversation. It is read when somebody asks for it, for each time is audited."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._id = view.query["id"]
        self._tenant = view.query.get("tenant", "")
        self._calls_seen: tuple[str, ...] | None = None
        self._after = -PAGE

    async def begin(self) -> None:
        view = self._view
        view.title("Conversation")
        with tag("div", "weft-line"):
            tag("span", "weft-mono", self._id)
            copy_button(self._id, "the conversation's id")
            link("All conversations", link_to("conversations"))
        with tag("div", "weft-talk"):
            with tag("div"):
                self._messages = tag("div").classes("w-full")
                self._messages.style("display:flex;flex-direction:column;gap:10px")
            with tag("aside", aria_label="About the conversation"):
                self._side = tag("div", "weft-panel")
                with tag("div", "weft-panel"):
                    heading("Calls")
                    self._traces = tag("ul", "weft-list")
                with tag("div", "weft-panel"):
                    heading("Cost of models, seven days")
                    self._usage = tag("ul", "weft-list")
        if view.may(Scope.OPERATOR):
            await self._read()
        else:
            self._side.set_visibility(False)
            self._explain("What was said is private: to read it takes a token with the scope operator.")
        view.watch(TraceFilters(context=self._id).asked(0), self._show_traces, every=3.0)
        query = urlencode({"by": "context,model", "context": self._id})
        view.watch(f"/v1/llm/usage?{query}", self._show_usage, every=15.0)

    async def _read(self, after: int = -PAGE) -> None:
        try:
            answer = await self._view.ask("GET", asked(self._id, self._tenant, after))
        except MeshError as error:
            self._side.set_visibility(False)
            self._explain(error.detail)
            return
        self._after = after
        found = conversation_of(answer)
        self._side.set_visibility(True)
        self._draw_messages(found)
        self._draw_side(found)

    def _explain(self, text: str) -> None:
        self._messages.clear()
        with self._messages:
            ui.label(text).classes("weft-empty")

    def _draw_messages(self, found: Conversation) -> None:
        self._messages.clear()
        with self._messages:
            self._draw_pager(found)
            if not found.messages:
                ui.label("There are no messages.").classes("weft-empty")
            with tag("ol", "weft-messages", aria_label="Messages"):
                for each in found.messages:
                    _draw_message(each)

    def _draw_pager(self, found: Conversation) -> None:
        with ui.row().classes("items-center w-full").style("gap:4px 10px"):
            text = f"Messages {found.first:,} to {found.last:,} of {found.count:,}" if found.messages else ""
            ui.label(text).classes("weft-muted")
            ui.space()
            older = max(0, found.first - 1 - PAGE)
            _button("Older", "expand_less", lambda: self._read(older)).set_enabled(found.first > 1)
            is_last = found.last >= found.count
            _button("Newer", "expand_more", lambda: self._read(found.last)).set_enabled(not is_last)
            self._again = _button("Read again", "refresh", lambda: self._read(self._after))

    def _draw_side(self, found: Conversation) -> None:
        self._side.clear()
        with self._side:
            with tag("dl", "weft-facts"):
                tag("dt", text="Tenant")
                tag("dd", text=found.tenant)
                tag("dt", text="Began")
                with tag("dd"):
                    When(found.created_at)
                tag("dt", text="Kept until")
                with tag("dd"):
                    When(found.expires_at)
            heading("Artifacts")
            if not found.artifacts:
                ui.label("None.").classes("weft-muted")
            with tag("ul", "weft-list"):
                for each in found.artifacts:
                    _draw_artifact(each)
            heading("State")
            if found.state:
                tag("pre", "weft-mono weft-pre", found.state, tabindex=0)
            else:
                ui.label("None was written.").classes("weft-muted")

    def _show_traces(self, answer: Any) -> None:
        found = rows_of(answer)[:MAX_TRACES]
        seen = tuple(each.id for each in found)
        if seen == self._calls_seen:
            return
        if self._calls_seen is not None and hasattr(self, "_again"):
            self._again.set_text("Read again: there were calls since")
        self._calls_seen = seen
        self._traces.clear()
        with self._traces:
            if not found:
                tag("li", "weft-muted", "None is in the traces that are kept.")
            for each in found:
                _draw_trace(each)

    def _show_usage(self, answer: Any) -> None:
        self._usage.clear()
        with self._usage:
            found = usage_of(answer, self._id)
            if not found:
                tag("li", "weft-muted", "No model was used.")
            for each in found:
                tag("li", text=_used(each))


def _button(text: str, icon: str, run: Callable[[], Any]) -> ui.button:
    return ui.button(text, icon=icon, on_click=run).props("flat no-caps dense")


def _draw_message(message: MessageRow) -> None:
    with tag("li", f"weft-message {message.voice}"):
        with tag("div", "head"):
            tag("span", text=f"{message.number:,}")
            tag("span", "role", message.role)
            if message.agent_type:
                link(message.author, link_to("agents", *message.author.split("/", 1)))
            else:
                tag("span", text=message.author)
            When(message.at)
        tag("div", "text", message.text)
        if message.left_out:
            tag("div", "more", f"… {message.left_out:,} characters more: `weft context show` has all of it")
        if message.metadata:
            tag("div", "more", message.metadata)


def _draw_artifact(artifact: ArtifactRow) -> None:
    with tag("li"):
        tag("div", text=artifact.name)
        with tag("div", "weft-muted"):
            tag("span", text=f"{artifact.media_type}, {size(artifact.size)}, ")
            When(artifact.at)


def _draw_trace(trace: TraceRow) -> None:
    with tag("li"):
        link(trace.name, link_to("traces", trace.id))
        with tag("div", "weft-muted"):
            failed = f", {trace.errors:,} failed" if trace.errors else ""
            tag("span", text=f"{lasting(trace.duration)}{failed}, ")
            When(trace.start)


def _used(usage: Usage) -> str:
    failed = f" ({count(usage.failed)} failed)" if usage.failed else ""
    calls = f"{count(usage.calls)} call{'' if usage.calls == 1 else 's'}{failed}"
    return f"{usage.model}: {calls}, {compact(usage.tokens)} tokens, {usd(usage.usd)}"


def _known_row(known: Known) -> dict[str, Any]:
    return {
        "id": known.id,
        "to": link_to("conversations", id=known.id),
        "seen": known.last_seen or None,
        "traces": known.traces,
        "errors": count(known.errors) if known.errors else "no",
        "tone": "bad" if known.errors else "ok",
        "services": ", ".join(known.services),
        "calls": known.calls or None,
        "tokens": known.tokens or None,
        "usd": known.usd if known.calls else None,
    }
