"""What call trees may yet spend on models, over HTTP: for agents in them, too."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from weft.controlplane.api.access import MEMBERS, requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentStanding
from weft.controlplane.llm.ledger_records import Amount, LedgerRecord, TreeAccount
from weft.model.operator import Scope

router = APIRouter(
    prefix="/v1/llm/trees",
    tags=["models"],
    dependencies=[Depends(requires(Scope.VIEWER, peers=MEMBERS))],
)

Trace = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class TreeBudget(Body):
    """The budget of a call tree, or of one of its branches."""

    branch: str
    """Empty: the whole tree's."""
    limit_tokens: int | None
    """The least that any of its calls said; null: as many as you like."""
    limit_usd: float | None
    spent_tokens: int
    spent_usd: float
    set_aside_tokens: int
    """For calls under way: what they may use at most."""
    set_aside_usd: float
    calls: int
    """Under way."""


class TreeBudgets(Body):
    """The whole tree first, where it has a budget. Of one that has called no model yet nothing is known."""

    items: list[TreeBudget]


@router.get("/{trace}")
async def tree_budgets(standing: CurrentStanding, trace: Trace) -> TreeBudgets:
    """What a call tree, by the id of its trace, may spend on models, and what it has spent."""
    return TreeBudgets(items=[_budget(each) for each in await standing.tree(trace)])


def _budget(record: LedgerRecord) -> TreeBudget:
    aside = sum((each.amount for each in record.open.values()), Amount())
    return TreeBudget(
        branch=record.account.branch if isinstance(record.account, TreeAccount) else "",
        limit_tokens=record.limit.tokens,
        limit_usd=None if record.limit.nanos is None else Amount(0, record.limit.nanos).usd,
        spent_tokens=record.spent.tokens,
        spent_usd=record.spent.usd,
        set_aside_tokens=aside.tokens,
        set_aside_usd=aside.usd,
        calls=len(record.open),
    )
