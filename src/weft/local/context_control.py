"""A client of the part of the control plane's API that is about what is kept of conversations."""

from __future__ import annotations

from typing import Any

from weft.local.control import ControlApi, document_in, segment

TIMEOUT = 120.0
"""Seconds that an answer may take: there may be many messages to read, or to delete."""


class ContextApi:
    """Contexts, by way of a control plane. Every method raises what ControlApi's do, and NotFound."""

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    async def context(self, context_id: str, tenant: str, *, messages: int) -> dict[str, Any]:
        """What is kept of a conversation, with its last so many messages."""
        query = [("tenant", tenant), ("after", str(-messages)), ("limit", str(messages))]
        return document_in(await self._api.ask("GET", _path(context_id), query=query, timeout=TIMEOUT))

    async def delete(self, context_id: str, tenant: str) -> None:
        """Forget a conversation."""
        await self._api.ask("DELETE", _path(context_id), query=[("tenant", tenant)], timeout=TIMEOUT)


def _path(context_id: str) -> str:
    return f"/v1/contexts/{segment(context_id)}"
