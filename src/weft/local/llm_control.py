"""A client of the part of the control plane's API that is about calls to models."""

from __future__ import annotations

from typing import Any

from weft.local.control import ControlApi, Parameters, document_in, items_in, segment

USAGE_TIMEOUT = 60.0
"""Seconds that an answer may take that is about many days."""


class LlmApi:
    """Pools, queues, usage and budgets, by way of a control plane.

    Every method raises what those of ControlApi raise, Unavailable also while no replica schedules.
    """

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    async def pools(self) -> list[dict[str, Any]]:
        """How all pools stood a moment ago."""
        return items_in(await self._api.ask("GET", "/v1/llm/pools"), "items")

    async def pool(self, name: str) -> dict[str, Any]:
        """How a pool stood a moment ago. Raises NotFound."""
        return document_in(await self._api.ask("GET", f"/v1/llm/pools/{segment(name)}"))

    async def queue(self, pool: str | None) -> list[dict[str, Any]]:
        """Who waits, for one pool or for any."""
        query = [] if pool is None else [("pool", pool)]
        return items_in(await self._api.ask("GET", "/v1/llm/queue", query=query), "items")

    async def usage(self, query: Parameters) -> list[dict[str, Any]]:
        """What was used: `query` is the endpoint's (`by`, `since`, `until`)."""
        answer = await self._api.ask("GET", "/v1/llm/usage", query=query, timeout=USAGE_TIMEOUT)
        return items_in(answer, "items")

    async def usage_csv(self, query: Parameters) -> str:
        """The same as CSV."""
        return await self._api.text("/v1/llm/usage", query=[*query, ("format", "csv")], timeout=USAGE_TIMEOUT)

    async def budgets(self) -> list[dict[str, Any]]:
        """How budgets stand, those nearest to their limit first."""
        return items_in(await self._api.ask("GET", "/v1/llm/budgets"), "items")

    async def top(self) -> list[dict[str, Any]]:
        """Who uses most, first."""
        return items_in(await self._api.ask("GET", "/v1/llm/top"), "items")
