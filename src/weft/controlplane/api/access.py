"""Who may call what of the API: a rule at every endpoint, and a gate before all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from weft.controlplane.api.authentication import (
    Authentication,
    Caller,
    Nobody,
    Operator,
    Peer,
    address,
)
from weft.controlplane.api.recorder import AuditLog, Recorder
from weft.controlplane.tokens import Tokens
from weft.errors import Denied, MeshError, Unauthenticated
from weft.identity.bundle import TrustBundles
from weft.model.operator import Scope
from weft.model.spiffe import Role
from weft.problems.answers import problem_response

PUBLIC = frozenset(
    {("GET", "/livez"), ("GET", "/readyz"), ("POST", "/v1/identity"), ("GET", "/v1/trust-bundles")}
)
"""What anybody may call. POST /v1/identity proves who asks by means of its own; roots are no secret."""

MEMBERS = frozenset(Role)
"""Every process of the mesh, whatever its role."""


@dataclass(frozen=True)
class Rule:
    """Who may call an endpoint: operators with `scope` or more, and processes of the mesh with a role."""

    scope: Scope
    peers: frozenset[Role] = field(default=frozenset())
    in_person: bool = False
    """Of those, only the process itself: not an agent through its sidecar."""

    async def __call__(self, request: Request) -> None:
        """Raise Denied unless the caller, who is somebody (the Gate saw to that), may."""
        context = request.app.state.context
        caller: Caller = request.scope["state"]["caller"]
        if not self.admits(caller):
            what = _what(request.scope)
            error = self._refusal(caller, what)
            context.access.recorder.denied(caller.who, "call api", what, error.detail)
            raise error

    def admits(self, caller: Caller) -> bool:
        """Whether `caller` may."""
        match caller:
            case Operator(_, scope):
                return scope.includes(self.scope)
            case Peer(spiffe_id, through_sidecar):
                return spiffe_id.role in self.peers and not (through_sidecar and self.in_person)
        return False

    def _refusal(self, caller: Caller, what: str) -> Denied:
        needed = f"{what} needs a token of scope {self.scope}"
        if isinstance(caller, Operator):
            return Denied(f"{needed}: token {caller.name!r} has scope {caller.scope}")
        through = (
            ", asked through its sidecar," if isinstance(caller, Peer) and caller.through_sidecar else ""
        )
        return Denied(f"{needed}: {caller.who}{through} may not")


def requires(scope: Scope, *, peers: Collection[Role] = (), in_person: bool = False) -> Rule:
    """What an endpoint depends on, as `Depends(requires(Scope.VIEWER))`. The arguments are as in Rule."""
    return Rule(scope, frozenset(peers), in_person)


def admit(app: FastAPI, router: APIRouter) -> None:
    """Take in the endpoints of `router`. Raises TypeError if one has no rule and is not PUBLIC.

    They become the application's own: FastAPI would build each of an included router's once more.
    """
    for route in router.routes:
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is no endpoint for which a rule could stand")
        ruled = any(isinstance(each.call, Rule) for each in route.dependant.dependencies)
        if not ruled and any((method, route.path) not in PUBLIC for method in route.methods or ()):
            raise TypeError(f"{route.path} has no rule for who may call it")
    app.router.routes.extend(router.routes)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call the API, and where it is written down what they did. Made by `control_access`."""

    tokens: Tokens
    log: AuditLog
    authentication: Authentication
    recorder: Recorder

    def refuse_certificate(self, reason: str) -> None:
        """Note that a handshake failed because of the client's certificate: what `server_tls` is given."""
        self.recorder.denied(Nobody().who, "connect", "api", f"the client's certificate: {reason}")


def control_access(
    tokens: Tokens,
    log: AuditLog,
    *,
    bundles: Callable[[], TrustBundles],
    observer: str,
    revoked: Callable[[str], bool] = lambda _spiffe_id: False,
) -> Access:
    """Access for operators with `tokens` and for processes of the mesh that `bundles` vouch for.

    `bundles` gives the current ones, `revoked` says whether a SPIFFE ID was taken back, and `observer` is how
    the audit calls this replica.
    """
    return Access(tokens, log, Authentication(tokens, bundles, revoked=revoked), Recorder(log, observer))


class Gate:
    """Finds out who calls before anything else is done; whoever shows something false gets no further."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """An ASGI application around `app`."""
        self._app = app
        self._access = access

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["caller"] = self._caller(scope)
        except MeshError as error:
            if isinstance(error, Unauthenticated):
                who = Nobody(address(scope)).who
                self._access.recorder.denied(who, "call api", _what(scope), error.detail)
            await problem_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: AsgiScope) -> Caller:
        caller = self._access.authentication.caller(scope)
        if isinstance(caller, Nobody) and (scope["method"], scope["path"]) not in PUBLIC:
            # Before anything of the request is read. The rule of the endpoint is for those who are somebody.
            raise Unauthenticated(f"{_what(scope)} needs a token: send it as `Authorization: Bearer TOKEN`")
        return caller


def _what(scope: AsgiScope) -> str:
    """How the audit calls a request."""
    return f"{scope['method']} {scope['path'][:200]}"
