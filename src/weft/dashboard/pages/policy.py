"""Policy: who can reach whom, who was refused, who did what, and the AccessPolicies themselves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages import explanation, matrix_drawing
from weft.dashboard.pages.audit_records import (
    OUTCOMES,
    PAGE,
    AuditFilters,
    Record,
    joined,
    records_of,
    short_identity,
)
from weft.dashboard.pages.explanation import CanForm
from weft.dashboard.pages.markup import LISTS, tag
from weft.dashboard.pages.matrix_drawing import MatrixDrawing
from weft.dashboard.pages.policy_words import PolicyRow, policies_of
from weft.dashboard.pages.reach_matrix import Cell, reach_of
from weft.dashboard.parts import State, heading
from weft.dashboard.table import Column, Table
from weft.dashboard.wording import moment

REACH_PAGES = 10
"""Pages of the matrix that are asked for at most."""

MAX_POLICIES = 300

_RECENT = 300.0
"""Seconds: what is told of denials as a number."""

_REACH = "/v1/reach"
_TONES = {"done": "ok", "denied": "bad", "would-be-denied": "warn"}

_CSS = """
.weft-tabs{display:flex;flex-wrap:wrap;gap:4px;border-bottom:1px solid var(--weft-line);width:100%}
.weft-tabs a{padding:6px 12px;color:var(--weft-fg);text-decoration:none;border-bottom:3px solid transparent}
.weft-tabs a:hover{background:var(--weft-raised)}
.weft-tabs a[aria-current=page]{border-bottom-color:var(--weft-accent);color:var(--weft-accent);
  font-weight:600}
.weft-policy{display:grid;grid-template-columns:minmax(0,1fr);gap:14px;width:100%}
.weft-policy>div{display:flex;flex-direction:column;gap:10px;min-width:0}
@media(min-width:1001px){.weft-policy{grid-template-columns:minmax(0,1fr) 330px}
  .weft-policy>section{align-self:start}}
.weft-filters{display:flex;flex-wrap:wrap;gap:8px 10px;align-items:center;width:100%}
.weft-filters>*{flex:1 1 130px;max-width:240px}.weft-filters>.q-btn{flex:none}
.weft-rules{margin:4px 0 0 18px;padding:0}
"""

_RECORDS = (
    Column("time", "When", format="ago", least=88),
    Column("outcome", "Outcome", tone="tone", least=95),
    Column("who", "Who", grow=2, least=100),
    Column("action", "What", least=110, wide=True),
    Column("target", "To", grow=2, least=100),
    Column("policy", "Policy", wide=True, link="to"),
    Column("reason", "Why", grow=3, wide=True),
)


def _tabs(here: str) -> None:
    ui.add_css(_CSS)
    tabs = (("", "Who can reach whom"), ("denials", "Denials"), ("audit", "Audit"), ("policies", "Policies"))
    with tag("nav", "weft-tabs", aria_label="Policy"):
        for name, title in tabs:
            element = tag("a", text=title, href=link_to("policy", name) if name else link_to("policy"))
            if name == here:
                element.props["aria-current"] = "page"


@page("/policy", title="Policy", icon="policy", menu=90)
async def policy(view: Page) -> None:
    """Who can reach whom."""
    ui.add_css(LISTS + matrix_drawing.CSS + explanation.CSS)
    _tabs("")
    with tag("div", "weft-policy"):
        with tag("div"):
            rest: list[Any] = []

            async def select(cell: Cell) -> None:
                await form.about(cell.caller, cell.callee)

            drawing = MatrixDrawing(select)
        form = CanForm(view)

    def show(first: Any) -> None:
        drawing.show(reach_of([first, *rest]))

    view.watch(_REACH, show, every=5.0)
    rest += await _further(view)
    if form.is_filled:
        await form.ask()


async def _further(view: Page) -> list[Any]:
    """The pages of the matrix behind the first: of large meshes, read once."""
    found: list[Any] = []
    after = (await view.ask("GET", _REACH)).get("next")
    while after and len(found) < REACH_PAGES:
        found.append(await view.ask("GET", f"{_REACH}?{urlencode({'after': after})}"))
        after = found[-1].get("next")
    return found


@page("/policy/denials", title="Denials")
def denials(view: Page) -> None:
    """Who was refused, as it happens."""
    _tabs("denials")
    state = State("Nobody was refused yet", "ok")
    empty = "Nobody was refused, as far as the audit goes back."
    table = _records(view, "Denials", empty)
    known: list[Record] = []

    def show(records: list[Record]) -> None:
        known[:] = joined(known, (each for each in records if each.is_denial))
        recent = sum(each.time > time.time() - _RECENT for each in known)
        state.show(f"{recent:,} refused in the last 5 minutes", "bad" if recent else "ok")
        table.show([_record_row(each) for each in known])

    view.watch("/v1/audit?limit=300", show, every=3.0, shape=records_of)


@page("/policy/audit", title="Audit")
def audit(view: Page) -> None:
    """Who did what."""
    _tabs("audit")
    _Audit(view).begin()


class _Audit:
    """The end of the audit: filters, and a page of what passes them."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._records: list[Record] = []
        self._first = 0

    def begin(self) -> None:
        told = AuditFilters.of(self._view.query)
        with tag("div", "weft-filters weft-panel", role="search", aria_label="Search the audit"):
            self._q = self._text("Text", told.q)
            self._who = self._text("Who", told.who)
            self._action = self._text("What", told.action)
            self._policy = self._text("Policy", told.policy)
            self._outcome = ui.select(OUTCOMES, value=told.outcome, label="Outcome", on_change=self._search)
            self._outcome.props("dense outlined options-dense")
        empty = "Nothing matches among the last 1,000 records. `weft audit` goes back further."
        self._table = _records(self._view, "Audit", empty)
        with ui.row().classes("items-center").style("gap:4px"):
            self._newer = ui.button("Newer", icon="chevron_left", on_click=lambda: self._turn(-PAGE))
            self._place = ui.label().classes("weft-muted")
            self._older = ui.button("Older", icon="chevron_right", on_click=lambda: self._turn(PAGE))
            for each in (self._newer, self._older):
                each.props("flat dense no-caps")
        self._view.watch("/v1/audit?limit=1000", self._show, every=5.0, shape=records_of)

    def _text(self, label: str, value: str) -> ui.input:
        field = ui.input(label, value=value, on_change=self._search)
        return field.props("dense outlined clearable debounce=250 maxlength=300")

    @property
    def _filters(self) -> AuditFilters:
        return AuditFilters.of(
            {
                "outcome": self._outcome.value or "",
                "who": self._who.value or "",
                "action": self._action.value or "",
                "policy": self._policy.value or "",
                "q": self._q.value or "",
            }
        )

    def _search(self) -> None:
        self._first = 0
        query = self._filters.query
        ui.navigate.history.replace(link_to("policy", "audit") + (f"?{query}" if query else ""))
        self._draw()

    def _show(self, records: list[Record]) -> None:
        self._records = records
        self._draw()

    def _turn(self, by: int) -> None:
        self._first = max(0, self._first + by)
        self._draw()

    def _draw(self) -> None:
        filters = self._filters
        found = [each for each in self._records if filters.match(each)]
        shown = found[self._first : self._first + PAGE]
        self._table.show([_record_row(each) for each in shown])
        last = self._first + len(shown)
        self._place.set_text(f"{self._first + 1:,} to {last:,} of {len(found):,}" if shown else "")
        self._newer.set_enabled(self._first > 0)
        self._older.set_enabled(last < len(found))


def _records(view: Page, label: str, empty: str) -> Table:
    """Records of the audit, the latest first."""
    return Table(
        view,
        _RECORDS,
        key="key",
        label=label,
        empty=empty,
        sort="time",
        descending=True,
        on_open=_tell,
    )


def _record_row(record: Record) -> dict[str, Any]:
    return {
        "key": f"{record.time:.6f} {record.observer} {record.who} {record.action} {record.target}",
        "time": record.time,
        "outcome": OUTCOMES.get(record.outcome, record.outcome),
        "tone": _TONES.get(record.outcome, "muted"),
        "who": short_identity(record.who),
        "identity": record.who,
        "action": record.action,
        "target": record.target,
        "policy": record.policy,
        "to": link_to("policy", "policies", name=record.policy) if record.policy else "",
        "reason": record.reason,
        "observer": record.observer,
        "details": ", ".join(f"{name}={value}" for name, value in record.details),
    }


def _tell(row: Mapping[str, Any]) -> None:
    """All of a record."""
    facts = {
        "When": moment(row["time"]),
        "Outcome": row["outcome"],
        "Who": row["identity"],
        "What": row["action"],
        "To": row["target"],
        "Policy": row["policy"],
        "Why": row["reason"],
        "Told by": row["observer"],
        "Details": row["details"],
    }
    with ui.dialog(value=True) as dialog, ui.card().classes("weft-panel"):
        dialog.props('aria-label="Record of the audit"').on("hide", dialog.delete)
        with tag("dl", "weft-facts"):
            for name, value in facts.items():
                if value:
                    tag("dt", text=name)
                    tag("dd", text=str(value))
        with ui.row().classes("justify-end w-full"):
            ui.button("Close", on_click=dialog.close).props("flat no-caps autofocus")


@page("/policy/policies", title="AccessPolicies")
def policies(view: Page) -> None:
    """The AccessPolicies."""
    _tabs("policies")
    wanted = view.query.get("name", "")
    box = tag("div").classes("w-full").style("display:flex;flex-direction:column;gap:10px")
    shown: list[list[PolicyRow]] = []

    def show(found: list[PolicyRow]) -> None:
        if shown and shown[-1] == found:
            return
        shown[:] = [found]
        box.clear()
        with box:
            if not found:
                ui.label("There is no AccessPolicy: whoever has an identity may call everybody.").classes(
                    "weft-empty"
                )
            for each in sorted(found, key=lambda each: each.name != wanted)[:MAX_POLICIES]:
                _draw_policy(each, is_wanted=each.name == wanted)

    view.watch("/v1/resources/AccessPolicy", show, every=5.0, shape=policies_of)


def _draw_policy(row: PolicyRow, *, is_wanted: bool) -> None:
    with tag("article", "weft-panel", aria_label=f"AccessPolicy {row.name}"):
        heading(row.name)
        State(row.sentence, row.tone).element.style("white-space:normal")
        if row.rules:
            with tag("ul", "weft-rules"):
                for each in row.rules:
                    tag("li", text=each)
        with ui.expansion("All of it", value=is_wanted).props("dense").classes("w-full"):
            tag("pre", "weft-mono", row.spec, tabindex=0).style("margin:0;max-height:400px;overflow:auto")
