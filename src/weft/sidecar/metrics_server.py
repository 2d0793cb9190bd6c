"""Where Prometheus reads a sidecar's metrics, `/metrics`, and its agent's own, `/agent/metrics`.

A kubelet asks there too (see `weft.sidecar.kubelet_answers`): it has to be at the pod's address for both.

Anybody may ask who reaches the address, which is on loopback unless it was set otherwise: there are names of
agents, routes and tools in there, and counts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from weft.errors import AgentFailed, InvalidRequest, NotFound, TimedOut
from weft.model.node import Address, AgentProtocol
from weft.sidecar.agent_stream import StreamedAnswer, agent_stream
from weft.sidecar.kubelet_answers import KubeletAnswers
from weft.sidecar.local_server import LocalAnswer, LocalRequest, LocalServer
from weft.sidecar.metrics import SidecarMetrics

METRICS_PATH: Final = "/metrics"
AGENT_METRICS_PATH: Final = "/agent/metrics"

MAX_AGENT_METRICS_BYTES: Final = 4 * 1024 * 1024
AGENT_METRICS_TIMEOUT: Final = 5.0
"""Seconds in which the agent's metrics must be there: Prometheus waits for ten."""

_ACCEPT: Final = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
_OPEN_METRICS: Final = "application/openmetrics-text"
_NONE: Final = LocalAnswer(200, {"Content-Type": CONTENT_TYPE_LATEST}, b"# EOF\n")
_OK: Final = 200
_WHAT: Final = f"GET {METRICS_PATH}"


class AgentMetrics:
    """The metrics of an agent that may have none."""

    def __init__(self, agent: Address, protocol: AgentProtocol, healthy: Callable[[], bool]) -> None:
        """`healthy` tells whether the agent is there to be asked."""
        self._agent = agent
        self._healthy = healthy
        # What speaks HTTP/2 only has none; others are asked, once.
        self._there: bool | None = None if protocol is not AgentProtocol.H2C else False

    async def read(self) -> LocalAnswer:
        """The agent's metrics as it shows them; an empty page if it has none.

        Raises MeshError if they cannot be had though there are some.
        """
        if self._there is False or (self._there is None and not self._healthy()):
            return _NONE
        try:
            async with asyncio.timeout(AGENT_METRICS_TIMEOUT):
                found = await self._ask()
        except TimeoutError as error:
            raise TimedOut(f"{_WHAT}: no full answer within {AGENT_METRICS_TIMEOUT:g} s") from error
        self._there = self._there or found is not None
        if found is None and self._there:
            raise AgentFailed(f"{_WHAT}: the agent shows no metrics any more")
        return found or _NONE

    async def _ask(self) -> LocalAnswer | None:
        async with agent_stream(self._agent, "GET", METRICS_PATH, {"Accept": _ACCEPT}) as answer:
            if not _is_exposition(answer):
                return None
            body = await answer.body(MAX_AGENT_METRICS_BYTES)
            return LocalAnswer(_OK, {"Content-Type": answer.headers["content-type"]}, body)


class MetricsServer:
    """Serves the metrics of one sidecar."""

    def __init__(
        self,
        collect: Callable[[], Awaitable[SidecarMetrics]],
        agent: AgentMetrics | None,
        more: CollectorRegistry,
        kubelet: KubeletAnswers | None = None,
    ) -> None:
        """`collect` gives the sidecar's own, as they are now; `more` is what else there is of it."""
        self._kubelet = kubelet
        self._collect = collect
        self._agent = agent
        self._more = more
        self._server = LocalServer("metrics", self._answer, max_body=0)

    async def listen(self, listening: socket.socket) -> None:
        """Serve at a socket that is bound. Raises OSError."""
        await self._server.listen_on(listening)

    async def aclose(self) -> None:
        """Serve no more."""
        await self._server.aclose()

    async def _answer(self, request: LocalRequest) -> LocalAnswer:
        if request.method != "GET":
            raise InvalidRequest("metrics are only to be read: GET")
        path = request.path.partition("?")[0]
        answer = self._kubelet.find(path) if self._kubelet is not None else None
        if answer is not None:
            return await answer()
        match path:
            case "/metrics":
                return await self._own()
            case "/agent/metrics" if self._agent is not None:
                return await self._agent.read()
        raise NotFound(f"there are {METRICS_PATH} and {AGENT_METRICS_PATH} here")

    async def _own(self) -> LocalAnswer:
        registry = CollectorRegistry()
        registry.register(await self._collect())
        registry.register(self._more)
        body = generate_latest(registry)  # type: ignore[no-untyped-call]
        return LocalAnswer(_OK, {"Content-Type": CONTENT_TYPE_LATEST}, body)


def _is_exposition(answer: StreamedAnswer) -> bool:
    """Whether it says that it is one: many agents answer whatever is asked, with some text."""
    if answer.status != _OK:
        return False
    versioned = "version=" in answer.headers.get("content-type", "")
    return answer.media_type == _OPEN_METRICS or (answer.media_type == "text/plain" and versioned)
