"""Tools: the catalogue by server, what each takes, how its calls go, and who may call it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard import quantities, wording
from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.tool_figures import (
    MayCall,
    callers_row,
    can_question,
    may_call,
    notes_of,
    schema_text,
    server_rows,
    tool_rows,
    traffic_of,
    uncatalogued,
)
from weft.dashboard.parts import Facts, Figures, heading, link
from weft.dashboard.table import Column, Table
from weft.errors import MeshError, NotFound

_EVERY = 5.0

_WINDOW = 300
"""Seconds of calls that are told."""

_CALLS = f"/v1/traffic/tools?window={_WINDOW}"

_MAX_CALLERS = 100
"""Agent types of which it is asked whether they may call a tool."""

_AT_ONCE = 8

_TOOLS = (
    Column("name", "Tool", least=140, grow=2, link="to"),
    Column("server", "Server", least=100),
    Column("description", "Description", least=160, grow=4, wide=True),
    Column("calls", "Calls, 5 min", format="count", least=120),
    Column("errorShare", "Errors", format="percent", least=80, wide=True),
    Column("p50", "p50", format="ms", least=75, wide=True),
    Column("p99", "p99", format="ms", least=75, wide=True),
    Column("callers", "Called by", least=110, grow=2, wide=True),
)
_SERVERS = (
    Column("server", "Server", least=110, tone="tone"),
    Column("title", "Title", least=110, grow=2, wide=True),
    Column("generation", "Speaks", least=105, wide=True),
    Column("tools", "Tools", format="count", least=75),
    Column("prompts", "Prompts", format="count", least=85, wide=True),
    Column("resources", "Resources", format="count", least=95, wide=True),
    Column("notes", "Notes", format="count", least=75),
)


@page("/tools", title="Tools", icon="build", menu=60)
def tools(view: Page) -> None:
    """The whole catalogue."""
    _Catalogue(view)


class _Catalogue:
    """Tools and servers, as a search finds them."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._tools: Sequence[Mapping[str, Any]] = ()
        self._calls: Sequence[Mapping[str, Any]] = ()
        self._text = ""
        self._after: str | None = None
        self._next: str | None = None
        self._notes_shown: list[tuple[str, str]] = []
        self._stop: Callable[[], None] = lambda: None
        with ui.row().classes("items-center w-full").style("gap:8px"):
            search = ui.input(
                "Search names and descriptions", on_change=lambda it: self._search(str(it.value or ""))
            )
            search.props("dense outlined clearable debounce=300 maxlength=200").style("width:min(360px,80vw)")
            self._more = ui.button("More", on_click=self._further).props("flat dense no-caps")
        self._table = Table(view, _TOOLS, key="id", label="Tools", empty="No tool is there.")
        self._gone = ui.label().classes("weft-muted")
        heading("Servers")
        self._servers = Table(
            view,
            _SERVERS,
            key="id",
            label="Servers",
            empty="No MCP server runs here. `weft run --protocol mcp` joins one.",
        )
        self._notes = ui.element("div").classes("w-full")
        self._watch()
        view.watch(_CALLS, self._show_calls, every=_EVERY)

    def _search(self, text: str) -> None:
        self._text, self._after = text.strip(), None
        self._watch()

    def _further(self) -> None:
        self._after = self._next
        self._watch()

    def _watch(self) -> None:
        self._stop()
        asked = {"q": self._text, "after": self._after or ""}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items() if value)
        self._stop = self._view.watch(
            f"/v1/tools?{query}" if query else "/v1/tools", self._show, every=_EVERY
        )

    def _show(self, answer: Mapping[str, Any]) -> None:
        self._tools = answer["items"]
        self._next = answer["next"]
        self._more.set_visibility(self._next is not None)
        self._servers.show(server_rows(answer["servers"]))
        self._show_notes(notes_of(answer["servers"]))
        self._join()

    def _show_calls(self, answer: Mapping[str, Any]) -> None:
        self._calls = answer["tools"]
        self._join()

    def _join(self) -> None:
        rows = tool_rows(self._tools, self._calls)
        self._table.show([{**each, "to": link_to("tools", each["name"])} for each in rows])
        gone = uncatalogued(self._tools, self._calls)
        partial = bool(self._text or self._after or self._next)
        told = ", ".join(f"{each['tool']} of {each['server']}" for each in gone[:20])
        self._gone.set_text(f"Called of late, and no tool any more: {told}" if gone and not partial else "")

    def _show_notes(self, notes: list[tuple[str, str]]) -> None:
        if notes == self._notes_shown:
            return
        self._notes_shown = notes
        self._notes.clear()
        with self._notes:
            if notes:
                heading("What was left out, or could not be read")
            for server, note in notes:
                ui.label(f"{server}: {note}").classes("weft-notice q-mb-sm")


@page("/tools/{name}", title="Tool")
async def tool(view: Page) -> None:
    """One tool."""
    name = view.parameters["name"]
    view.title(f"Tool {name}")
    with ui.row().classes("items-center"):
        link("All tools", link_to("tools"))
    found = await _find(view, name)
    figures = Figures(["Calls, 5 min", "Errors", "p50", "p99"])
    Facts().show(_facts(found))
    if found["description"]:
        heading("Description")
        ui.label(found["description"]).classes("weft-panel").style(
            "white-space:pre-wrap;overflow-wrap:anywhere"
        )
    callers = _Callers(view, found)
    heading("What it takes")
    with (
        ui.element("div")
        .classes("weft-panel")
        .style("max-height:420px;overflow:auto")
        .props('tabindex=0 role=region aria-label="JSON Schema"')
    ):
        ui.label(schema_text(found)).classes("weft-mono")

    def show(answer: Mapping[str, Any]) -> None:
        calls = traffic_of(found, answer["tools"])
        figures.show(_call_figures(calls), {"Errors": "bad" if calls is not None and calls["errors"] else ""})
        callers.called(calls["callers"] if calls is not None else [])

    view.watch(_CALLS, show, every=_EVERY)
    await callers.ask()


async def _find(view: Page, name: str) -> dict[str, Any]:
    """The tool of that name. Raises NotFound."""
    after = ""
    while True:
        page_of = await view.ask("GET", f"/v1/tools?q={quote(name, safe='')}{after}")
        for each in page_of["items"]:
            if each["name"] == name:
                return dict(each)
        if page_of["next"] is None:
            raise NotFound(f"there is no tool {name!r} (any more)")
        after = f"&after={quote(page_of['next'], safe='')}"


def _facts(found: Mapping[str, Any]) -> dict[str, str]:
    timeout = found["timeout"]
    facts = {
        "Title": found["title"],
        "Server": found["server"],
        "The server's own name": found["original"],
        "Other names": ", ".join(found["aliases"]),
        "Called again elsewhere if it fails": "yes" if found["idempotent"] else "no",
        "May take": "as the server's TrafficPolicy says" if timeout is None else quantities.lasting(timeout),
        "Size of a call": quantities.size(found["maxArguments"]),
        "Size of an answer": quantities.size(found["maxResult"]),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _call_figures(calls: Mapping[str, Any] | None) -> dict[str, str]:
    if calls is None:
        return {
            "Calls, 5 min": "0",
            "Errors": wording.share(0, 0),
            "p50": wording.rate(None),
            "p99": wording.rate(None),
        }
    return {
        "Calls, 5 min": wording.count(calls["calls"]),
        "Errors": wording.share(calls["errors"], calls["calls"]),
        "p50": quantities.lasting(calls["p50"]),
        "p99": quantities.lasting(calls["p99"]),
    }


class _Callers:
    """Who may call a tool, and who does."""

    def __init__(self, view: Page, found: Mapping[str, Any]) -> None:
        self._view = view
        self._tool = found
        self._may: list[MayCall] = []
        self._called: list[str] = []
        heading("Who may call it")
        self._table = Table(
            view,
            [
                Column("caller", "Agent", least=120, grow=2, filter=True),
                Column("allowed", "May", least=95, tone="tone"),
                Column("policy", "Policy", least=110, grow=2),
                Column("called", "Called, 5 min", least=125, wide=True),
                Column("reason", "Reason", least=160, grow=4, wide=True),
            ],
            key="id",
            label="Who may call it",
            empty="No agent runs or is declared that could.",
        )
        self._note = ui.label().classes("weft-muted")

    def called(self, callers: Sequence[str]) -> None:
        """Who called it of late."""
        self._called = [*callers]
        self._show()

    async def ask(self) -> None:
        """Ask what the policies say, of every agent type there is."""
        types = await self._types()
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(caller: str) -> MayCall:
            async with free:
                question = can_question(caller, self._tool)
                return may_call(caller, await self._view.ask("POST", "/v1/can", question))

        self._may = list(await asyncio.gather(*map(one, types[:_MAX_CALLERS])))
        hidden = len(types) - _MAX_CALLERS
        self._note.set_text(f"{hidden} more types are not shown: ask with 'weft can'" if hidden > 0 else "")
        self._show()

    async def _types(self) -> list[str]:
        try:
            running = await self._view.ask("GET", "/v1/agents?status=any&limit=1000")
            declared = await self._view.ask("GET", "/v1/resources/agent")
        except MeshError as error:
            self._note.set_text(error.detail)
            return []
        types = {each["type"] for each in running["items"]}
        return sorted(types | {each["metadata"]["name"] for each in declared["items"]})

    def _show(self) -> None:
        self._table.show([callers_row(each, self._called) for each in self._may])
