"""Tables: AG Grid, fed with what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from weft.dashboard.page import Page
from weft.dashboard.plain import plain

MAX_ROWS = 5000
"""Rows that a table takes; beyond that it shows the first ones."""

FORMATS = frozenset({"plain", "rate", "ms", "span", "percent", "count", "money", "ago"})
"""How a column's values are written: as they are; per second; a call's duration in seconds; a longer one; a
share of 1; a whole number; in dollars; a moment (seconds since 1970) as distance from now."""

_NUMBERS = FORMATS - {"plain", "ago"}

Row = Mapping[str, Any]

MOST_SHOWN = 15
"""Rows of a table without a height that are in sight; it scrolls beyond that."""

_HEADER_HEIGHT = 36  # pixels, as are the next two
_ROW_HEIGHT = 34
_BORDERS = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `field` of a row under `title`."""

    field: str
    title: str
    format: str = "plain"
    """One of FORMATS."""
    link: str = ""
    """The field of a row that has the page (`link_to`) to which the value leads."""
    tone: str = ""
    """The field that says how the value is coloured: "ok", "warn", "bad" or "muted"."""
    wide: bool = False
    """Left out where the window is narrow: below 700 pixels."""
    grow: int = 1
    """Its share of the width."""
    least: int = 90
    """Pixels it has at least."""
    filter: bool = False
    """Whether rows can be searched by it."""


class Table:
    """A table of rows, each with a key of its own in the field `key`."""

    def __init__(
        self,
        view: Page,
        columns: Sequence[Column],
        *,
        key: str,
        label: str,
        height: str = "",
        empty: str = "Nothing here yet.",
        sort: str = "",
        descending: bool = False,
        on_open: Callable[[Row], Any] | None = None,
    ) -> None:
        """`label` says what this is to whoever cannot see it. `height` is CSS; without one it fits the rows,
        up to MOST_SHOWN.

        `sort` is the field by which rows are sorted at first; without one they come as given, new ones last.
        `on_open` is called with a row that is clicked, or on which Enter is pressed.
        """
        self._view = view
        self._key = key
        self._sent: dict[str, Row] = {}
        options: dict[str, Any] = {
            "columnDefs": _sorted_by(sort, [_definition(each) for each in columns], descending=descending),
            "rowData": [],
            "defaultColDef": {"sortable": True, "resizable": True, "suppressMovable": True},
            ":getRowId": f"(p) => String(p.data.{_identifier(key)})",
            ":onGridReady": "(e) => weft.ready(e.api)",
            ":onCellKeyDown": "(e) => weft.enter(e)",
            "ensureDomOrder": True,
            "enableCellTextSelection": True,
            "headerHeight": _HEADER_HEIGHT,
            "rowHeight": _ROW_HEIGHT,
            "animateRows": False,
            "suppressColumnVirtualisation": True,
            "overlayNoRowsTemplate": "<span></span>",
        }
        # What changes of the grid itself makes NiceGUI build it anew: these are of an element around it.
        self._around = ui.element("div").classes("w-full")
        self._fits = not height
        self._height = height
        self._around.style(f"height:{height}" if height else "")
        with self._around:
            self.element = ui.aggrid(options, auto_size_columns=False).classes("weft-grid")
        self.element.props(f'aria-label="{_attribute(label)}" role=region')
        if on_open is not None:
            self._on_open = on_open
            self.element.on("rowClicked", self._opened, ["rowId"])
        self._empty = ui.label(empty).classes("weft-empty")
        self._show_empty()

    def show(self, rows: Sequence[Row]) -> None:
        """Have these rows, in this order where nobody sorts; only what changed is sent."""
        new = {str(each[self._key]): each for each in rows[:MAX_ROWS]}
        if not self._view.client.has_socket_connection:
            self.element.options["rowData"] = [plain(each) for each in new.values()]
            self.element.update()
        else:
            self._send(new)
        was_empty = not self._sent
        self._sent = new
        self._fit()
        if was_empty != (not new):
            self._show_empty()

    def _send(self, new: Mapping[str, Row]) -> None:
        key = self._key
        change = {
            "add": [plain(row) for name, row in new.items() if name not in self._sent],
            "update": [
                plain(row) for name, row in new.items() if name in self._sent and self._sent[name] != row
            ],
            "remove": [{key: self._sent[name][key]} for name in self._sent if name not in new],
        }
        if any(change.values()):
            self.element.run_grid_method("applyTransactionAsync", change)

    def _fit(self) -> None:
        """Be as high as the rows: only those in sight are drawn, so all of them must not be."""
        height = f"{_HEADER_HEIGHT + _ROW_HEIGHT * min(len(self._sent), MOST_SHOWN) + _BORDERS}px"
        if self._fits and height != self._height:
            self._height = height
            self._around.style(f"height:{height}")

    def _opened(self, event: GenericEventArguments) -> Any:
        row = self._sent.get(str(event.args.get("rowId"))) if isinstance(event.args, dict) else None
        if row is not None:
            return self._on_open(row)
        return None

    def _show_empty(self) -> None:
        self._empty.set_visibility(not self._sent)
        # A grid that is not displayed has no width, and would lay its columns out for that.
        self._around.classes(add="" if self._sent else "weft-none", remove="weft-none" if self._sent else "")


def _sorted_by(field: str, definitions: list[dict[str, Any]], *, descending: bool) -> list[dict[str, Any]]:
    if not field:
        return definitions
    order = {"sort": "desc" if descending else "asc"}
    if not any(each["field"] == field for each in definitions):
        return [*definitions, {"field": field, "hide": True, **order}]
    return [each | order if each["field"] == field else each for each in definitions]


def _definition(column: Column) -> dict[str, Any]:
    if column.format not in FORMATS:
        raise ValueError(f"{column.format!r} is no format of a column")
    numeric = column.format in _NUMBERS
    classes = [
        *(["weft-wide-column"] if column.wide else []),
        *(["weft-time-column"] if column.format == "ago" else []),
    ]
    definition: dict[str, Any] = {
        "field": column.field,
        "headerName": column.title,
        "flex": column.grow,
        "minWidth": column.least,
        "headerClass": " ".join([*classes, *(["ag-right-aligned-header"] if numeric else [])]),
        **({"cellClass": "ag-right-aligned-cell"} if numeric else {}),
        **({"filter": "agTextColumnFilter", "floatingFilter": False} if column.filter else {}),
        ":valueFormatter": f"(p) => weft.{column.format}(p.value)",
        **(
            {":tooltipValueGetter": "(p) => weft.at(p.value)"}
            if column.format == "ago"
            else {"tooltipField": column.field}
        ),
    }
    if column.link:
        definition[":cellRenderer"] = f'weft.link("{_identifier(column.link)}")'
    elif column.tone:
        definition[":cellRenderer"] = f'weft.state("{_identifier(column.tone)}")'
    return definition


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name!r} is no name of a field")
    return name


def _attribute(text: str) -> str:
    return text.replace('"', "'").replace("\\", "")
