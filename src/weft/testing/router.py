"""What Envoy does in a real mesh: brings a call to an instance, and to the next one where that is allowed."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.errors import Interrupted, MeshError
from weft.model.names import MESH_DOMAIN
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.problem import Problem
from weft.sdk.replay import replayed
from weft.sdk.request import problem_response
from weft.sdk.tools import HOST as TOOLS_HOST
from weft.sdk.wire import IDEMPOTENCY_HEADER, REFUSED_HEADER
from weft.testing.members import Member, Members
from weft.testing.models import MODELS_HOST
from weft.testing.tools import Tools


class Router:
    """An ASGI application that passes each call on to a member, by its `Host`, round robin.

    A call that was refused before it began goes to the next instance, one that broke midway only if it
    carries an `Idempotency-Key`.
    """

    def __init__(self, members: Members, control: ASGIApp, models: ASGIApp | None = None) -> None:
        """`control` answers at `control.mesh`, and `models` at `llm.mesh`; `tools.mesh` has all handlers."""
        self._members = members
        tools: ASGIApp = Tools(members, self._deliver)
        self._hosts = {CONTROL_HOST: control, TOOLS_HOST: tools} | (
            {MODELS_HOST: models} if models is not None else {}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        if host in self._hosts:
            await self._hosts[host](scope, receive, send)
            return
        try:
            await self._deliver(host.removesuffix(f".{MESH_DOMAIN}"), scope, receive, send)
        except MeshError as error:
            await problem_response(Problem.of(error))(scope, receive, send)

    async def _deliver(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        repeatable = IDEMPOTENCY_HEADER in Headers(scope=scope)
        body = await Request(scope, receive).body() if repeatable else b""
        candidates = self._members.candidates(name)
        broken = False
        for number, member in enumerate(candidates, 1):
            attempt = _Attempt(member, send, final=number == len(candidates))
            await attempt.run(scope, replayed(body, receive) if repeatable else receive)
            broken = attempt.broken
            if not (attempt.refused or (broken and repeatable)):
                break
        if broken:
            raise Interrupted(f"the call to {name!r} broke midway: it may or may not have been processed")


class _Attempt:
    """One call to one member. Passes its answer on, but for a refusal that another member can make good."""

    def __init__(self, member: Member, send: Send, *, final: bool) -> None:
        self._member = member
        self._send = send
        self._final = final
        self._answering = False
        self.refused = False
        """Whether it was turned away, and another member may be asked."""
        self.broken = False
        """Whether the member died at it."""

    async def run(self, scope: Scope, receive: Receive) -> None:
        """Raises ConnectionError when the member dies while its answer is being passed on."""
        call = asyncio.create_task(self._member.app(scope, receive, self._pass_on), name="call to a member")
        self._member.calls.add(call)
        try:
            await asyncio.wait((call,))
        finally:
            self._member.calls.discard(call)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        self.broken = call.cancelled()
        if not self.broken:
            call.result()
        elif self._answering:
            raise ConnectionResetError("the member died while it was answering")

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.refused = not self._final and REFUSED_HEADER in Headers(raw=message["headers"])
        if not self.refused:
            self._answering = True
            await self._send(message)
