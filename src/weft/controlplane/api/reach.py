"""Who can reach whom, over HTTP."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.can import mesh_of
from weft.controlplane.api.context import Context
from weft.controlplane.reach import ReachCell, ReachMatrix
from weft.model.access import Action
from weft.model.operator import Scope

router = APIRouter(prefix="/v1", tags=["access"], dependencies=[Depends(requires(Scope.VIEWER))])

MAX_CALLERS = 500
"""Rows of one page, at most."""

MAX_CELLS = 20_000
"""Where there is much to be reached, a page has fewer rows: no more cells than these, but a row."""


class ReachCellOut(Body):
    """What holds between all agents of one type and one thing they may reach."""

    caller: str
    callee: str
    allowed: bool
    """Whether all that can be done to it is, to `POST /rpc` where it is an agent."""
    actions: list[Action]
    """What of it is allowed."""
    policy: str
    """The AccessPolicy that decided; empty: there is none."""
    reason: str
    partly: bool
    """Whether it depends: on the request, the action, the caller's instance or the callee's version."""
    dry_run: list[str]
    """Policies in dry-run mode that would have changed it."""


class ReachOut(Body):
    """Some rows of the matrix."""

    callers: list[str]
    """Types of agents that run or are declared."""
    callees: list[str]
    """All of them, then `topic/<name>`, `queue/<name>` and `pool/<name>`."""
    cells: list[ReachCellOut]
    next: str | None
    """Goes into `after` to get the rest; null where there is none."""


@router.get("/reach")
async def reach(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=MAX_CALLERS)] = 100,
    after: Annotated[str, Query(max_length=256)] = "",
) -> ReachOut:
    """Who can reach whom by the AccessPolicies, in pages of callers: what `weft can` says to each pair."""
    matrix = ReachMatrix(mesh_of(context))
    rest = matrix.callers[bisect_right(matrix.callers, after) :]
    callers = rest[: min(limit, max(1, MAX_CELLS // max(1, len(matrix.callees))))]
    cells: list[ReachCellOut] = []
    for each in callers:
        cells += [_cell(cell) for cell in matrix.row(each)]
        await asyncio.sleep(0)  # a large mesh takes a while, and others are waiting
    return ReachOut(
        callers=callers,
        callees=matrix.callees,
        cells=cells,
        next=callers[-1] if len(callers) < len(rest) else None,
    )


def _cell(cell: ReachCell) -> ReachCellOut:
    decision = cell.decision
    return ReachCellOut(
        caller=cell.caller,
        callee=cell.callee,
        allowed=decision.allowed,
        actions=list(cell.actions),
        policy=decision.policy,
        reason=decision.reason,
        partly=cell.partly,
        dry_run=list(decision.dry_run),
    )
