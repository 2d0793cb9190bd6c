"""Envoy's admin interface, on its Unix socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from weft.sidecar.bootstrap import AGENT_CLUSTER, INBOUND_LISTENER, OUTSIDE_LISTENER
from weft.sidecar.envoy_stats import FILTER as CALLS_FILTER
from weft.sidecar.http import Answer, BadAnswer, exchange

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_TIMEOUT = 2.0
_IN_FLIGHT = rf"^cluster\.{AGENT_CLUSTER}\.upstream_rq(_pending)?_active$"
_CALLS: Final = "downstream_rq_active"
_CONNECTIONS: Final = "downstream_cx_active"
_HTTP2: Final = "downstream_cx_http2_active"
_CALLERS: Final = rf"^http\.({INBOUND_LISTENER}|{OUTSIDE_LISTENER})\.({_CALLS}|{_CONNECTIONS}|{_HTTP2})$"


class Callers(NamedTuple):
    """What there is of those who call the agent."""

    calls: int
    """Calls under way, from the first header to the last byte, also where the agent has not heard of them."""
    silent: int
    """Connections that are not HTTP/2's: whoever has made one may be about to call for the first time.
    HTTP/2's belong to Envoys, which the control plane tells to call others, or to who was sent a GOAWAY."""


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

    async def callers(self) -> Callers:
        """The calls under way from outside this sidecar, and the connections on which others may come."""
        answer = await self._ask("GET", f"/stats?filter={quote(_CALLERS)}")
        counted = dict.fromkeys((_CALLS, _CONNECTIONS, _HTTP2), 0)
        try:
            for line in answer.body.decode().splitlines():
                name, _, value = line.rpartition(": ")
                counted[name.rpartition(".")[2]] += int(value)
        except (ValueError, KeyError) as error:
            raise AdminUnavailable(f"unexpected answer to /stats: {error!r}") from error
        return Callers(counted[_CALLS], max(0, counted[_CONNECTIONS] - counted[_HTTP2]))

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
