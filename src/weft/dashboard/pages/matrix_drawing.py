"""The matrix of who can reach whom, drawn: a grid that is used by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui
from nicegui.events import GenericEventArguments

from weft.dashboard.pages.markup import tag
from weft.dashboard.pages.reach_matrix import (
    PAGE,
    Cell,
    Matrix,
    MatrixFilters,
    Reach,
    Verdict,
    kind_of,
    matrix,
    totals,
)

CSS = """
.weft-reach{overflow:auto;max-height:72vh;background:var(--weft-surface);border:1px solid var(--weft-line);
  border-radius:8px;width:100%}
.weft-reach table{border-collapse:separate;border-spacing:0;font-size:13px}
.weft-reach thead th{position:sticky;top:0;z-index:2;background:var(--weft-surface);vertical-align:bottom;
  border-bottom:1px solid var(--weft-line);padding:6px 0;font-weight:500;min-width:34px}
.weft-reach thead th>span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:150px;
  overflow:hidden;
  text-overflow:ellipsis;white-space:nowrap;display:inline-block}
.weft-reach .corner,.weft-reach tbody th{position:sticky;left:0;background:var(--weft-surface);
  text-align:left;
  border-right:1px solid var(--weft-line);padding:4px 10px;max-width:200px;overflow:hidden;
  text-overflow:ellipsis;
  white-space:nowrap;font-weight:500}
.weft-reach .corner{z-index:3;color:var(--weft-muted);font-size:12px}
.weft-reach tbody th{z-index:1}
.weft-reach td{text-align:center;min-width:34px;height:30px;cursor:pointer;
  border-bottom:1px solid var(--weft-line);
  border-right:1px solid var(--weft-line);font-weight:700;position:relative}
.weft-reach td.ok{background:color-mix(in srgb,var(--weft-ok) 16%,transparent);color:var(--weft-ok)}
.weft-reach td.bad{background:color-mix(in srgb,var(--weft-bad) 16%,transparent);color:var(--weft-bad)}
.weft-reach td.warn{background:color-mix(in srgb,var(--weft-warn) 18%,transparent);color:var(--weft-warn)}
.weft-reach td.muted{color:var(--weft-muted)}
.weft-reach td.tried::after{content:"?";position:absolute;top:0;right:3px;font-size:10px;
  color:var(--weft-warn)}
.weft-reach td:hover{outline:2px solid var(--weft-accent);outline-offset:-2px}
.weft-reach td[aria-selected=true]{outline:3px solid var(--weft-accent);outline-offset:-3px}
.weft-reach-legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px}
@media(max-width:699px){.weft-reach .corner,.weft-reach tbody th{max-width:110px;padding:4px 6px}
  .weft-reach thead th>span{max-height:110px}}
"""

_AT = "emit([Number(cell.dataset.row), Number(cell.dataset.column)])"
_CLICK = f"""
(event) => {{
  const cell = event.target.closest('td[data-row]');
  if (!cell) return;
  for (const each of event.currentTarget.querySelectorAll('td[tabindex="0"]')) each.tabIndex = -1;
  cell.tabIndex = 0;
  {_AT};
}}
"""
_KEYS = f"""
(event) => {{
  const cell = event.target.closest('td[data-row]');
  if (!cell) return;
  const go = (row, column) => {{
    const next = event.currentTarget.querySelector(`td[data-row="${{row}}"][data-column="${{column}}"]`);
    if (!next) return;
    cell.tabIndex = -1; next.tabIndex = 0; next.focus();
  }};
  const row = Number(cell.dataset.row), column = Number(cell.dataset.column);
  const columns = cell.parentElement.querySelectorAll('td').length;
  switch (event.key) {{
    case 'ArrowDown': go(row + 1, column); break;
    case 'ArrowUp': go(row - 1, column); break;
    case 'ArrowRight': go(row, column + 1); break;
    case 'ArrowLeft': go(row, column - 1); break;
    case 'Home': go(row, 0); break;
    case 'End': go(row, columns - 1); break;
    case 'Enter': case ' ': {_AT}; break;
    default: return;
  }}
  event.preventDefault();
}}
"""

_ONLY = {
    "": "everything",
    **{each.name: each.word for each in (Verdict.DENIED, Verdict.ALLOWED, Verdict.PARTLY)},
}


class MatrixDrawing:
    """Draws the matrix in the present slot; `show` it again when it may have changed."""

    def __init__(self, on_select: Callable[[Cell], Awaitable[None]]) -> None:
        """`on_select` is called with the cell that somebody wants to know more of."""
        self._on_select = on_select
        self._reach = Reach()
        self._shown: Matrix | None = None
        self._row = self._column = 0
        self._selected: tuple[str, str] | None = None
        with ui.row().classes("items-center w-full").style("gap:8px"):
            self._caller = self._filter("Callers")
            self._callee = self._filter("Can reach")
            self._only = ui.select(_ONLY, value="", label="Show", on_change=self._draw)
            self._only.props("dense outlined options-dense").style("min-width:130px")
        self._legend = tag("div", "weft-reach-legend", aria_label="Signs")
        with ui.row().classes("items-center w-full").style("gap:4px 16px"):
            self._rows = _Pager("callers", self._turn_rows)
            self._columns = _Pager("of what they reach", self._turn_columns)
        self._empty = ui.label().classes("weft-empty")
        self._box = tag("div", "weft-reach")
        self._box.on("click", self._said, js_handler=_CLICK)
        self._box.on("keydown", self._said, js_handler=_KEYS)

    def show(self, reach: Reach) -> None:
        """Draw `reach`, as far as it passes the filters. Nothing is sent where nothing changed."""
        if reach != self._reach or self._shown is None:
            self._reach = reach
            self._draw_legend()
            self._draw()

    def _filter(self, label: str) -> ui.input:
        field = ui.input(label, on_change=self._draw).props(
            "dense outlined clearable debounce=250 maxlength=128"
        )
        return field.style("flex:1 1 120px")

    def _draw(self) -> None:
        only = Verdict[self._only.value] if self._only.value else None
        filters = MatrixFilters(self._caller.value or "", self._callee.value or "", only)
        shown = matrix(self._reach, filters, row=self._row, column=self._column)
        if shown == self._shown:
            return
        self._shown = shown
        self._row, self._column = shown.first_row, shown.first_column
        self._rows.show(shown.first_row, len(shown.rows), shown.all_rows)
        self._columns.show(shown.first_column, len(shown.columns), shown.all_columns)
        is_empty = not shown.rows or not shown.columns
        nothing = "No agent runs or is declared." if not self._reach.callers else "Nothing matches."
        self._empty.set_text(nothing)
        self._empty.set_visibility(is_empty)
        self._box.set_visibility(not is_empty)
        self._box.clear()
        if not is_empty:
            with self._box, tag("table", role="grid", aria_label="Who can reach whom"):
                self._draw_table(shown)

    def _draw_table(self, shown: Matrix) -> None:
        with tag("thead"), tag("tr", role="row"):
            tag("th", "corner", "caller ↓  reaches →", scope="col")
            for each in shown.columns:
                kind, name = kind_of(each)
                with tag("th", scope="col", title=each):
                    tag("span", text=name if kind == "agent" else f"{kind}/{name}")
        with tag("tbody"):
            for row, caller in enumerate(shown.rows):
                with tag("tr", role="row"):
                    tag("th", text=caller, scope="row", title=caller)
                    for column, cell in enumerate(shown.cells[row]):
                        self._draw_cell(cell, row, column)

    def _draw_cell(self, cell: Cell, row: int, column: int) -> None:
        selected = self._selected == (cell.caller, cell.callee)
        tag(
            "td",
            cell.verdict.tone + (" tried" if cell.dry_run else ""),
            cell.verdict.sign,
            role="gridcell",
            tabindex=0 if row == column == 0 else -1,
            title=cell.summary,
            aria_label=cell.summary,
            aria_selected=str(selected).lower(),
            data_row=row,
            data_column=column,
        )

    def _draw_legend(self) -> None:
        self._legend.clear()
        with self._legend:
            for verdict, number in totals(self._reach).items():
                if number:
                    tag("span", f"weft-{verdict.tone}", f"{verdict.sign} {verdict.word}: {number:,}")
            if any(each.dry_run for each in self._reach.cells):
                tag("span", "weft-warn", "? a policy on trial would change it")

    async def _said(self, event: GenericEventArguments) -> None:
        shown = self._shown
        match event.args:
            case [int(row), int(column)] if (
                shown is not None and 0 <= row < len(shown.rows) and 0 <= column < len(shown.columns)
            ):
                cell = shown.cells[row][column]
                self._selected = (cell.caller, cell.callee)
                await self._on_select(cell)

    def _turn_rows(self, pages: int) -> None:
        self._row = max(0, self._row + pages * PAGE)
        self._draw()

    def _turn_columns(self, pages: int) -> None:
        self._column = max(0, self._column + pages * PAGE)
        self._draw()


class _Pager:
    """Which of many are shown, and the way to the others; hidden where all are."""

    def __init__(self, what: str, turn: Callable[[int], None]) -> None:
        self._what = what
        self._box = ui.row().classes("items-center").style("gap:2px")
        with self._box:
            self._back = ui.button(icon="chevron_left", on_click=lambda: turn(-1))
            self._back.props("flat dense")
            self._back.props.update({"aria-label": f"Earlier {what}"})
            self._text = ui.label()
            self._on = ui.button(icon="chevron_right", on_click=lambda: turn(1))
            self._on.props("flat dense")
            self._on.props.update({"aria-label": f"Further {what}"})
        self._box.set_visibility(False)

    def show(self, first: int, shown: int, everything: int) -> None:
        self._box.set_visibility(shown < everything)
        self._text.set_text(f"{first + 1:,} to {first + shown:,} of {everything:,} {self._what}")
        self._back.set_enabled(first > 0)
        self._on.set_enabled(first + shown < everything)
