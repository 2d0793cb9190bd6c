"""What the dashboard asks about who looks at it, and codes to sign in at a browser."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller, Operator
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, Context
from weft.controlplane.dashboard_codes import DashboardCodes
from weft.errors import Denied, Unavailable
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/dashboard", tags=["dashboard"], dependencies=[Depends(requires(Scope.VIEWER))])


class SessionOut(Body):
    """Who asks, and of which mesh."""

    name: str
    scope: Scope
    mesh: str
    """The trust domain."""


class CodeOut(Body):
    """A code that was just made."""

    code: str
    """Goes to `/dashboard/login?code=`, once."""
    expires: float
    """Seconds since 1970."""


def _operator(caller: CurrentCaller) -> Operator:
    if not isinstance(caller, Operator):
        raise Denied("the dashboard is for people and programs with a token")
    return caller


def _codes(context: Context) -> DashboardCodes:
    if context.dashboard_codes is None:
        raise Unavailable("this control plane was started without a dashboard")
    return context.dashboard_codes


@router.get("/session")
async def session(context: Context, operator: Annotated[Operator, Depends(_operator)]) -> SessionOut:
    """Whose token this is."""
    mesh = context.access.authentication.trust_domain
    return SessionOut(name=operator.name, scope=operator.scope, mesh=mesh)


@router.post("/codes", status_code=201, dependencies=[Depends(_operator)])
async def make_code(
    request: Request, changes: Audited, codes: Annotated[DashboardCodes, Depends(_codes)]
) -> CodeOut:
    """A code with which the holder of this token signs in at a browser: good for 60 s, and once."""
    _, _, token = request.headers["authorization"].partition(" ")
    code, expires = codes.make(token.strip())
    changes.note("make code", "dashboard")
    return CodeOut(code=code, expires=expires)
