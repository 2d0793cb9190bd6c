"""Having instances leave, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, Context
from weft.errors import TimedOut, Unavailable
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/agents", tags=["agents"], dependencies=[Depends(requires(Scope.OPERATOR))])


class DrainOut(Body):
    """An instance is on its way out."""

    type: str
    id: str


@router.post("/{type_}/{id_}/drain", status_code=202)
async def drain(context: Context, changes: Audited, type_: str, id_: str) -> DrainOut:
    """Have an instance finish what it does and stop, as upon SIGTERM; answered once it has begun.

    A mesh of `weft up` puts another one in its place. 504 where its sidecar does not begin within 5 s.
    """
    if context.draining is None:
        raise Unavailable("this control plane was started without a way to tell sidecars anything")
    target = f"agent/{type_}/{id_}"
    try:
        await context.draining.begin(f"{type_}.{id_}")
    except TimedOut as error:
        changes.note("drain agent", target, reason=f"perhaps: {error.detail}")
        raise
    changes.note("drain agent", target)
    return DrainOut(type=type_, id=id_)
