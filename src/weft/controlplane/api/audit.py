"""The audit over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentAccess
from weft.model.audit import Outcome
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=[Depends(requires(Scope.VIEWER))])

MAX_RECORDS = 1000


class AuditRecordOut(Body):
    """One change, or one denial."""

    time: float
    """Seconds since 1970."""
    who: str
    action: str
    target: str
    outcome: Outcome
    policy: str
    """The AccessPolicy that decided; empty where it was another rule, which `reason` then tells."""
    reason: str
    observer: str
    """The replica or the sidecar that reports it."""
    details: dict[str, str]


class AuditList(Body):
    """The end of the audit, what was written last at the end."""

    items: list[AuditRecordOut]


@router.get("")
async def recent(
    access: CurrentAccess,
    limit: Annotated[int, Query(ge=1, le=MAX_RECORDS)] = 100,
    since: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
) -> AuditList:
    """The last records, at most `limit`; with `since` (seconds since 1970) only those from then on."""
    records = await access.log.recent(limit, since=since)
    return AuditList(items=[AuditRecordOut.model_validate(each) for each in records])
