"""A mesh without processes and sockets, in which users test their agents."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

from starlette.types import ASGIApp

from weft.model.agent import Instance, Status
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, agent_id, operator_id
from weft.sdk.agent import Agent
from weft.sdk.mesh import Mesh
from weft.testing.asgi import AsgiTransport
from weft.testing.caller import as_caller
from weft.testing.control import control_app
from weft.testing.members import Member, Members
from weft.testing.router import Router

_DOOR = operator_id(DEFAULT_TRUST_DOMAIN, "local", "door")
"""Whom agents take calls from outside for, as in a mesh of `weft up`."""


class InMemoryMesh:
    """Agents that call each other in one process, by the rules of the real mesh.

        async with InMemoryMesh() as mesh:
            mesh.add(summarizer, instances=2)
            assert await mesh.client.request("summarizer", "summarize", text="...") == "..."

    Calls are balanced round robin; a refused one goes to the next instance, one that broke midway only with
    an idempotency key. `client` is an ordinary `Mesh`, and handlers that ask for a `Mesh` get one too.
    What it does not have is Envoy: no routes, no policies, no time limits but the client's own.
    """

    def __init__(self) -> None:
        self._members = Members()
        self._router = Router(self._members, control_app(self._members))
        self.asgi: ASGIApp = as_caller(self._router, _DOOR)
        """The whole mesh as an ASGI application: once served, its address does for `Mesh(proxy=...)`."""
        self.client = Mesh(transport=AsgiTransport(self.asgi))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._members.aclose()

    def add(
        self,
        agent: Agent,
        instances: int = 1,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> list[Instance]:
        """Start `instances` of `agent`, healthy at once, and return them: `<type>-1`, `<type>-2`, ..."""
        return [self._start(agent, labels or {}) for _ in range(instances)]

    def drain(self, instance: Instance | str) -> None:
        """Have an instance finish what it is doing and take nothing new, as at SIGTERM.

        `instance` is one that `add` returned, or its name, `<id>.<type>`. Raises NoSuchAgent if it is not
        there.
        """
        member = self._members.get(_name(instance))
        member.app.drain()
        self._members.change_status(member, Status.DRAINING)

    def kill(self, instance: Instance | str) -> None:
        """Take an instance away at once: what it is doing breaks off, as at SIGKILL.

        The arguments and errors are those of `drain`.
        """
        self._members.kill(self._members.get(_name(instance)))

    def set_status(self, instance: Instance | str, status: Status) -> None:
        """Give an instance a status, as its health checks would. The rest is as in `drain`."""
        self._members.change_status(self._members.get(_name(instance)), status)

    def _start(self, agent: Agent, labels: Mapping[str, str]) -> Instance:
        settings = agent.settings
        instance = Instance(
            id=f"{settings.type}-{self._members.count(settings.type) + 1}",
            type=settings.type,
            endpoint="in-memory",
            status=Status.HEALTHY,
            capabilities=settings.capabilities,
            version=settings.version,
            labels=dict(labels),
            started_at=time.time(),
        )
        identity = agent_id(DEFAULT_TRUST_DOMAIN, instance.type, instance.id)
        own = Mesh(transport=AsgiTransport(as_caller(self._router, identity)))
        self._members.join(Member(instance, agent.app(own)))
        return instance


def _name(instance: Instance | str) -> str:
    return instance if isinstance(instance, str) else f"{instance.id}.{instance.type}"
