"""A waterfall, drawn: a tree that is used by mouse and by keyboard, a page of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nicegui import ui
from nicegui.events import GenericEventArguments

from weft.dashboard.pages.markup import tag
from weft.dashboard.pages.spans import Sort, Span, sort_of
from weft.dashboard.pages.waterfall import MAX_SHOWN_AT_ONCE, Row, Waterfall, ticks
from weft.dashboard.quantities import lasting

_DEEPEST = 12
"""Levels by which rows are moved to the right; what is deeper says how deep it is."""

CSS = """
.weft-wf{background:var(--weft-surface);border:1px solid var(--weft-line);border-radius:8px;width:100%;
  min-width:0;--weft-wf-step:14px;--weft-wf-name:minmax(200px,38%)}
.weft-wf-axis,.weft-wf-row{display:grid;grid-template-columns:var(--weft-wf-name) 1fr;align-items:center}
.weft-wf-axis{position:sticky;top:46px;z-index:2;background:var(--weft-surface);
  border-bottom:1px solid var(--weft-line);border-radius:8px 8px 0 0;height:28px;
  color:var(--weft-muted);font-size:12px}
.weft-wf-axis>.name{padding-left:12px}
.weft-wf-scale{position:relative;height:100%;margin-right:70px}
.weft-wf-scale>span{position:absolute;top:5px;padding-left:4px;border-left:1px solid var(--weft-line);
  height:100%;white-space:nowrap}
.weft-wf-row{min-height:28px;cursor:pointer;border-top:1px solid transparent;font-size:13px}
.weft-wf-row:nth-child(even){background:color-mix(in srgb,var(--weft-raised) 45%,transparent)}
.weft-wf-row:hover{background:var(--weft-raised)}
.weft-wf-row[aria-selected=true]{background:color-mix(in srgb,var(--weft-accent) 16%,var(--weft-surface))}
.weft-wf-name{display:flex;align-items:center;gap:6px;min-width:0;
  padding:2px 8px 2px calc(8px + var(--weft-wf-step)*var(--weft-depth,0));white-space:nowrap;
  overflow:hidden}
.weft-wf-fold{width:16px;flex:none;text-align:center;color:var(--weft-muted);font-size:11px}
.weft-wf-name>.q-icon{font-size:16px;flex:none;color:var(--weft-sort)}
.weft-wf-text{overflow:hidden;text-overflow:ellipsis;min-width:60px}
.weft-wf-service{color:var(--weft-muted);font-size:12px;overflow:hidden;text-overflow:ellipsis;
  flex-shrink:99}
.weft-wf-tag{overflow:hidden;text-overflow:ellipsis;flex-shrink:9;min-width:36px;font-size:11px;
  line-height:16px;padding:0 6px;border-radius:8px;
  border:1px solid currentColor}
.weft-wf-tag.weft-bad{flex:none}
.weft-wf-track{position:relative;height:20px;margin-right:70px;min-width:0}
.weft-wf-bar{position:absolute;top:4px;height:12px;min-width:2px;border-radius:2px;
  background:var(--weft-sort)}
.weft-wf-row.failed .weft-wf-bar{background:repeating-linear-gradient(45deg,var(--weft-bad) 0 5px,
  color-mix(in srgb,var(--weft-bad) 55%,var(--weft-surface)) 5px 8px)}
.weft-wf-row.failed .weft-wf-text{color:var(--weft-bad);font-weight:600}
.weft-wf-length{position:absolute;top:1px;font-size:12px;color:var(--weft-muted);white-space:nowrap;
  padding:0 5px;  font-variant-numeric:tabular-nums}
.weft-sort-call{--weft-sort:#3f7fdb}.weft-sort-attempt{--weft-sort:#7d9dc9}
  .weft-sort-serve{--weft-sort:#1fa3a8}
.weft-sort-handler{--weft-sort:#6c7ea8}.weft-sort-tool{--weft-sort:#d18700}
  .weft-sort-model{--weft-sort:#9467d6}
.weft-sort-task{--weft-sort:#8a7a3c}.weft-sort-event{--weft-sort:#d1549a}
  .weft-sort-gateway{--weft-sort:#2f9e62}
.weft-sort-workflow{--weft-sort:#b5632d}.weft-sort-other{--weft-sort:#7d8896}
.weft-wf-legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12px;color:var(--weft-muted)}
.weft-wf-legend>span{display:inline-flex;align-items:center;gap:4px}
.weft-wf-legend .q-icon{font-size:15px;color:var(--weft-sort)}
@media(max-width:699px){.weft-wf{--weft-wf-step:8px}
  .weft-wf-row{grid-template-columns:1fr;padding-bottom:4px}
  .weft-wf-axis{grid-template-columns:1fr}.weft-wf-axis>.name{display:none}
  .weft-wf-track,.weft-wf-scale{margin-left:8px;margin-right:64px}
  .weft-wf-track{height:16px}.weft-wf-bar{top:2px}.weft-wf-length{top:-1px}}
"""

# Arrows walk the tree as in every tree; what changes it is said to the server by the row's number.
_KEYS = """
(event) => {
  const row = event.target.closest('[role=treeitem]');
  if (!row) return;
  const rows = [...row.parentElement.querySelectorAll('[role=treeitem]')];
  const at = rows.indexOf(row);
  const go = (to) => {
    const next = rows[Math.max(0, Math.min(rows.length - 1, to))];
    for (const each of rows) each.tabIndex = each === next ? 0 : -1;
    next.focus();
  };
  const say = (what) => emit([what, Number(row.dataset.row)]);
  const open = row.getAttribute('aria-expanded');
  const level = (each) => Number(each.getAttribute('aria-level'));
  switch (event.key) {
    case 'ArrowDown': go(at + 1); break;
    case 'ArrowUp': go(at - 1); break;
    case 'PageDown': go(at + 10); break;
    case 'PageUp': go(at - 10); break;
    case 'Home': go(0); break;
    case 'End': go(rows.length - 1); break;
    case 'ArrowRight':
      if (open === 'false') say('fold'); else if (open === 'true') go(at + 1); else return;
      break;
    case 'ArrowLeft':
      if (open === 'true') { say('fold'); break; }
      for (let up = at - 1; up >= 0; up--) if (level(rows[up]) < level(row)) { go(up); break; }
      break;
    case 'Enter': case ' ': say('select'); break;
    default: return;
  }
  event.preventDefault();
}
"""
_CLICK = """
(event) => {
  const row = event.target.closest('[role=treeitem]');
  if (!row) return;
  for (const each of row.parentElement.children) each.tabIndex = each === row ? 0 : -1;
  setTimeout(() => row.scrollIntoView({block: "nearest"}), 300);
  const fold = event.target.closest('.weft-wf-fold') && row.hasAttribute('aria-expanded');
  emit([fold ? 'fold' : 'select', Number(row.dataset.row)]);
}
"""


class WaterfallDrawing:
    """Draws a waterfall in the present slot; `show` it again when spans have come."""

    def __init__(self, on_select: Callable[[Row], None]) -> None:
        """`on_select` is called with the row that somebody wants to know more of."""
        self._on_select = on_select
        self._waterfall = Waterfall((), 0.0, 0.0)
        self._collapsed: set[str] | None = None
        self._selected = ""
        self._page = 0
        self._numbers: dict[str, int] = {}
        with ui.row().classes("items-center w-full").style("gap:8px"):
            ui.button("Expand all", icon="unfold_more", on_click=self.expand).props("flat dense no-caps")
            ui.button("Collapse", icon="unfold_less", on_click=self.collapse).props("flat dense no-caps")
            self._to_error = ui.button("Next error", icon="error_outline", on_click=self.next_error)
            self._to_error.props("flat dense no-caps color=none").classes("weft-bad")
            ui.space()
            self._pager = ui.row().classes("items-center").style("gap:4px")
        self._legend = tag("div", "weft-wf-legend", aria_label="Signs")
        with tag("div", "weft-wf"):
            self._axis = tag("div", "weft-wf-axis", aria_hidden="true")
            self._tree = tag("div", role="tree", aria_label="Spans")
        self._tree.on("click", self._said, js_handler=_CLICK)
        self._tree.on("keydown", self._said, js_handler=_KEYS)

    def show(self, waterfall: Waterfall) -> None:
        """Draw `waterfall`; what was collapsed and selected stays so."""
        if waterfall == self._waterfall:
            return
        self._waterfall = waterfall
        self._numbers = {row.key: number for number, row in enumerate(waterfall.rows)}
        if self._collapsed is None:
            self._collapsed = waterfall.collapsed_at_first()
        self._draw_axis()
        self._draw_legend()
        self._to_error.set_visibility(any(row.span.failed for row in waterfall.rows))
        self._draw()

    def select(self, key: str) -> None:
        """Show a span, wherever it is, and tell of it."""
        if key not in self._numbers:
            return
        self._selected = key
        way = self._waterfall.way_to(key)
        self._closed.difference_update(way)
        keys = [row.key for row in self._waterfall.visible(self._closed)]
        self._page = keys.index(key) // MAX_SHOWN_AT_ONCE
        self._draw()
        self._on_row(self._numbers[key], "scrollIntoView({block: 'center'})")
        self._on_select(self._waterfall.rows[self._numbers[key]])

    def expand(self) -> None:
        """Collapse nothing."""
        self._closed.clear()
        self._draw()

    def collapse(self) -> None:
        """Collapse all below the second level."""
        self._closed.update(row.key for row in self._waterfall.rows if row.children and row.depth >= 1)
        self._page = 0
        self._draw()

    def focus(self) -> None:
        """Have the keyboard where the selected span is."""
        if self._selected in self._numbers:
            self._on_row(self._numbers[self._selected], "focus()")

    def next_error(self) -> None:
        """Select the first span that failed behind the selected one; at the end, the first of all."""
        failed = [number for number, row in enumerate(self._waterfall.rows) if row.span.failed]
        if not failed:
            return
        here = self._numbers.get(self._selected, -1)
        number = next((each for each in failed if each > here), failed[0])
        self.select(self._waterfall.rows[number].key)

    @property
    def _closed(self) -> set[str]:
        if self._collapsed is None:
            self._collapsed = set()
        return self._collapsed

    def _said(self, event: GenericEventArguments) -> None:
        match event.args:
            case ["fold", int(number)] if 0 <= number < len(self._waterfall.rows):
                self._closed.symmetric_difference_update({self._waterfall.rows[number].key})
                self._draw(focus=number)
            case ["select", int(number)] if 0 <= number < len(self._waterfall.rows):
                self._mark(self._waterfall.rows[number].key)
                self._on_select(self._waterfall.rows[number])

    def _mark(self, key: str) -> None:
        """Only what changes: the row that was selected, and the one that is."""
        for each in self._tree.default_slot.children:
            number = each.props.get("data-row")
            selected = number == self._numbers[key]
            if each.props.get("aria-selected") != str(selected).lower():
                each.props["aria-selected"] = str(selected).lower()
        self._selected = key

    def _draw(self, focus: int = -1) -> None:
        visible = self._waterfall.visible(self._closed)
        self._page = min(self._page, max(0, (len(visible) - 1) // MAX_SHOWN_AT_ONCE))
        first = self._page * MAX_SHOWN_AT_ONCE
        shown = visible[first : first + MAX_SHOWN_AT_ONCE]
        numbers = [self._numbers[row.key] for row in shown]
        wished = (focus, self._numbers.get(self._selected, -1), *numbers[:1])
        reached = next((each for each in wished if each in numbers), -1)
        self._tree.clear()
        with self._tree:
            for number, row in zip(numbers, shown, strict=True):
                self._draw_row(row, number, is_reached=number == reached)
        self._draw_pager(first, len(shown), len(visible))
        if focus >= 0:
            self._on_row(focus, "focus()")

    def _on_row(self, number: int, call: str) -> None:
        """Have the browser call a method of a row's element: `focus()`."""
        tree, row = int(self._tree.id), int(number)
        ui.run_javascript(f"getHtmlElement({tree})?.querySelector('[data-row=\"{row}\"]')?.{call}")

    def _draw_row(self, row: Row, number: int, *, is_reached: bool) -> None:
        sort = sort_of(row.span)
        item = tag(
            "div",
            f"weft-wf-row weft-sort-{sort.word}" + (" failed" if row.span.failed else ""),
            role="treeitem",
            tabindex=0 if is_reached else -1,
            aria_level=row.depth + 1,
            aria_selected=str(row.key == self._selected).lower(),
            aria_label=described(row, sort),
            data_row=number,
        )
        if row.children:
            item.props["aria-expanded"] = str(row.key not in self._closed).lower()
        with item:
            with tag("div", "weft-wf-name", style={"--weft-depth": str(min(row.depth, _DEEPEST))}):
                fold = "" if not row.children else "▸" if row.key in self._closed else "▾"
                tag("span", "weft-wf-fold", fold)
                ui.icon(sort.sign).props("aria-hidden=true")
                tag("span", "weft-wf-text", row.span.name or "(no name)", title=row.span.name)
                tag("span", "weft-wf-service", row.span.service)
                for text, tone in _notes(row, is_closed=row.key in self._closed):
                    tag("span", f"weft-wf-tag weft-{tone}", text)
            with tag("div", "weft-wf-track"):
                place = {"left": f"{row.left * 100:.3f}%", "width": f"{row.width * 100:.3f}%"}
                tag("div", "weft-wf-bar", style=place)
                tag("span", "weft-wf-length", lasting(row.span.duration), style=_beside(row))

    def _draw_axis(self) -> None:
        length = self._waterfall.length
        self._axis.clear()
        with self._axis:
            tag("span", "name", "Span")
            with tag("div", "weft-wf-scale"):
                for at in ticks(length, 4):
                    share = at / length if length > 0 else 0.0
                    tag("span", text=lasting(at) if at else "0", style={"left": f"{share * 100:.3f}%"})

    def _draw_legend(self) -> None:
        present = {sort_of(row.span) for row in self._waterfall.rows}
        self._legend.clear()
        with self._legend:
            for sort in Sort:
                if sort in present:
                    with tag("span", f"weft-sort-{sort.word}"):
                        ui.icon(sort.sign).props("aria-hidden=true")
                        tag("span", text=sort.word)

    def _draw_pager(self, first: int, shown: int, everything: int) -> None:
        self._pager.clear()
        if everything <= MAX_SHOWN_AT_ONCE:
            return
        with self._pager:
            back = ui.button(icon="chevron_left", on_click=lambda: self._turn(-1))
            back.props('flat dense aria-label="Rows before"').set_enabled(first > 0)
            ui.label(f"{first + 1:,} to {first + shown:,} of {everything:,}")
            on = ui.button(icon="chevron_right", on_click=lambda: self._turn(1))
            on.props('flat dense aria-label="Further rows"').set_enabled(first + shown < everything)

    def _turn(self, pages: int) -> None:
        self._page = max(0, self._page + pages)
        self._draw()


def described(row: Row, sort: Sort) -> str:
    """A row in words, for those who do not see it."""
    span = row.span
    parts = [sort.word, span.name, f"in {span.service}" if span.service else "", lasting(span.duration)]
    parts += [text for text, _ in _notes(row, is_closed=True)]
    return ", ".join(each for each in parts if each)


def attempts_of(span: Span) -> int:
    """How often a call was tried, as far as it tells; 0: it does not."""
    value = span.attributes.get("weft.attempts")
    try:
        return int(value) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return 0


def _notes(row: Row, *, is_closed: bool) -> Sequence[tuple[str, str]]:
    """What is to be seen of a row at once, each with its tone."""
    attempts = attempts_of(row.span)
    notes = (
        (row.span.failed, "error", "bad"),
        (attempts > 1, f"{attempts} attempts", "warn"),
        (is_closed and row.errors_below, f"{row.errors_below:,} failed below", "bad"),
        (is_closed and row.below, f"+{row.below:,}", "muted"),
        (row.is_orphan, "parent not recorded", "muted"),
        (row.is_circle, "its own ancestor", "warn"),
        (row.was_moved, "clock adjusted", "muted"),
        (row.depth > _DEEPEST, f"↳{row.depth + 1}", "muted"),
    )
    return [(text, tone) for holds, text, tone in notes if holds]


def _beside(row: Row) -> dict[str, str]:
    """Where the length stands: behind the bar. There is room for it behind the whole axis."""
    return {"left": f"{min(1.0, row.left + row.width) * 100:.3f}%"}
