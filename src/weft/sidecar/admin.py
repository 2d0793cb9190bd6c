"""Envoy's admin interface, on its Unix socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

from weft.sidecar.bootstrap import AGENT_CLUSTER
from weft.sidecar.envoy_stats import FILTER as CALLS_FILTER
from weft.sidecar.http import Answer, BadAnswer, exchange

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_TIMEOUT = 2.0
_IN_FLIGHT = rf"^cluster\.{AGENT_CLUSTER}\.upstream_rq(_pending)?_active$"


class AdminUnavailable(Exception):
    """Envoy does not answer: it is starting, stopping or dead."""


class Admin:
    """Questions to a running Envoy. Every method raises AdminUnavailable if it does not answer in 2 s."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def ready(self) -> bool:
        """Whether Envoy has its configuration and serves."""
        return (await self._ask("GET", "/ready")).ok

    async def listeners(self) -> frozenset[str]:
        """The names of the listeners that accept connections."""
        answer = await self._ask("GET", "/listeners?format=json")
        try:
            return frozenset(each["name"] for each in json.loads(answer.body).get("listener_statuses", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AdminUnavailable(f"unexpected answer to /listeners: {error!r}") from error

    async def in_flight(self) -> int:
        """How many calls the agent has at hand, those waiting for a connection to it included."""
        answer = await self._ask("GET", f"/stats?filter={quote(_IN_FLIGHT)}")
        try:
            return sum(int(line.rpartition(b":")[2]) for line in answer.body.splitlines())
        except ValueError as error:
            raise AdminUnavailable(f"unexpected answer to /stats: {error}") from error

    async def calls(self) -> str:
        """What it has counted of the agent's calls, as `weft.sidecar.envoy_stats` reads it."""
        target = f"/stats?usedonly&histogram_buckets=cumulative&filter={quote(CALLS_FILTER)}"
        answer = await self._ask("GET", target)
        if not answer.ok:
            raise AdminUnavailable(f"/stats: status {answer.status}")
        return answer.body.decode("utf-8", "replace")

    async def begin_drain(self) -> None:
        """Ask callers to close their connections; new ones are still accepted."""
        await self._ask("POST", "/drain_listeners?inboundonly&graceful&skip_exit")

    async def close_inbound(self) -> None:
        """Accept no more connections from callers; those that are open go on."""
        await self._ask("POST", "/drain_listeners?inboundonly")

    async def _ask(self, method: str, target: str) -> Answer:
        try:
            async with asyncio.timeout(_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                return await exchange(reader, writer, target, method=method, max_body=_MAX_ANSWER_BYTES)
        except (OSError, TimeoutError, BadAnswer) as error:
            raise AdminUnavailable(f"{method} {target}: {error!r}") from error
