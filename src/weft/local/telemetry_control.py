"""A client of the part of the control plane's API that tells what goes on: traffic and traces."""

from __future__ import annotations

from typing import Any

from weft.local.control import ControlApi, Parameters, document_in, items_in, segment

SHORTEST_WINDOW = 5
"""Seconds."""

LONGEST_WINDOW = 3600
"""Seconds."""

_PAGE = 200


class TelemetryApi:
    """Traffic and traces, by way of a control plane. Every method raises what those of ControlApi raise."""

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    async def destinations(self, window: int) -> list[dict[str, Any]]:
        """What was called within the last `window` seconds, that with most calls first."""
        answer = await self._api.ask("GET", "/v1/traffic/destinations", query=[("window", str(window))])
        return items_in(answer, "destinations")

    async def traces(self, query: Parameters, *, limit: int) -> list[dict[str, Any]]:
        """The traces that match the endpoint's `query`, at most `limit`, the latest first."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            size = min(_PAGE, limit - len(found))
            page_query = [*query, ("limit", str(size)), *([("after", after)] if after else [])]
            page = document_in(await self._api.ask("GET", "/v1/traces", query=page_query))
            found += items_in(page, "traces")
            after = page.get("next") or ""
            if not after or len(found) >= limit:
                return found

    async def trace(self, trace_id: str) -> dict[str, Any]:
        """One trace with its spans. Raises NotFound."""
        return document_in(await self._api.ask("GET", f"/v1/traces/{segment(trace_id)}"))
