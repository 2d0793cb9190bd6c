"""Charts: ECharts, in the colours of the theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from weft.dashboard.page import Page
from weft.dashboard.plain import plain
from weft.dashboard.theme import SERIES


class Chart:
    """A chart. Beside it there should be a table or a text that tells the same."""

    def __init__(self, view: Page, option: Mapping[str, Any], *, label: str, height: str = "260px") -> None:
        """`option` is ECharts'; `label` says what the chart tells, for whoever cannot see it."""
        self._view = view
        whole = {
            "animation": False,
            "color": list(SERIES),
            "grid": {"left": 8, "right": 16, "top": 36, "bottom": 8, "containLabel": True},
            **option,
        }
        self.element = ui.echart(plain(whole), renderer="svg").classes("weft-chart w-full")
        self.element.style(f"height:{height}")
        self.element.props("role=img")
        self.describe(label)
        view.client.on_connect(lambda: view.script("weft.theme"))

    def describe(self, label: str) -> None:
        """Say what the chart tells."""
        self.element._props["aria-label"] = label
        self.element.update()

    def show(self, option: Mapping[str, Any], *, replace: Sequence[str] = ()) -> None:
        """Merge `option` into what is shown; series by their place, or by their `id`.

        What is named in `replace`, such as "series", is all there is then: others of it go.
        """
        safe = plain(option)
        if self._view.client.has_socket_connection:
            self.element.run_chart_method("setOption", safe, {"replaceMerge": list(replace)})
        else:
            self.element.options.update(safe)
            self.element.update()
