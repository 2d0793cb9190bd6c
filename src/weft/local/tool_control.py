"""A client of the part of the control plane's API that is about tools."""

from __future__ import annotations

from typing import Any

from weft.local.control import ControlApi, Parameters, document_in, items_in


class ToolApi:
    """The tools of a mesh, by way of a control plane. Every method raises what those of ControlApi raise."""

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    async def tools(self, *, server: str | None = None, text: str | None = None) -> dict[str, Any]:
        """The tools (`items`) and their `servers`: all, those of one server, those with `text` in them."""
        given = (("server", server), ("q", text))
        query: Parameters = [(name, value) for name, value in given if value is not None]
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            asked = [*query, *([("after", after)] if after else [])]
            page = document_in(await self._api.ask("GET", "/v1/tools", query=asked))
            found += items_in(page, "items")
            after = page.get("next") or ""
            if not after:
                return {**page, "items": found}
