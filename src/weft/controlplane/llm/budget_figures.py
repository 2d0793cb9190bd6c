"""How budgets stand, for people and programs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.account import Account
from weft.controlplane.llm.ledger_records import BudgetAccount
from weft.controlplane.llm.periods import began, ends
from weft.model.budget import BudgetScope, BudgetSpec, Period

MAX_FIGURES: Final = 500
"""Accounts that are told of at once."""


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """One account of a budget in its present period. Times are seconds since 1970."""

    budget: str
    scope: BudgetScope
    value: str | None
    """The tenant, key or context; empty for the mesh; None: nobody has spent anything yet."""
    period: Period
    begins: float
    ends: float | None
    """When it begins anew; None: never."""
    limit_tokens: int | None
    limit_usd: float | None
    spent_tokens: int = 0
    spent_usd: float = 0.0
    set_aside_tokens: int = 0
    """For calls under way: what they may use at most."""
    set_aside_usd: float = 0.0
    calls: int = 0
    """Under way."""

    @property
    def share(self) -> float:
        """How much of the limit is spent or set aside, of tokens or money: whichever is nearer to its end."""
        tokens = (self.spent_tokens + self.set_aside_tokens) / (self.limit_tokens or float("inf"))
        usd = (self.spent_usd + self.set_aside_usd) / (self.limit_usd or float("inf"))
        return max(tokens, usd)


def budget_figures(
    budgets: Iterable[tuple[str, BudgetSpec]], accounts: Mapping[BudgetAccount, Account], now: float
) -> list[BudgetFigures]:
    """The accounts of `budgets`, those nearest to their limit first, at most MAX_FIGURES."""
    specs = dict(budgets)
    present = {(name, spec.scope, spec.period, began(spec.period, now)): spec for name, spec in specs.items()}
    # There may be many thousands, every second: figures are made of those only that are shown.
    found = [
        (of, account, spec)
        for of, account in accounts.items()
        if (spec := present.get((of.budget, of.scope, of.period, of.start))) is not None
    ]
    nearest = heapq.nsmallest(MAX_FIGURES, found, key=_nearness)
    used = {of.budget for of, _, _ in found}
    shown = [_figures(*each) for each in nearest]
    shown += [_unused(name, spec, now) for name, spec in specs.items() if name not in used]
    return shown[:MAX_FIGURES]


def _nearness(found: tuple[BudgetAccount, Account, BudgetSpec]) -> tuple[float, str, str]:
    of, account, spec = found
    taken = account.taken
    tokens = taken.tokens / spec.tokens if spec.tokens is not None else 0.0
    usd = taken.usd / spec.usd if spec.usd is not None else 0.0
    return -max(tokens, usd), of.budget, of.value


def _figures(of: BudgetAccount, account: Account, spec: BudgetSpec) -> BudgetFigures:
    return BudgetFigures(
        of.budget,
        of.scope,
        of.value,
        of.period,
        of.start,
        ends(of.period, of.start),
        spec.tokens,
        spec.usd,
        account.spent.tokens,
        account.spent.usd,
        account.set_aside.tokens,
        account.set_aside.usd,
        len(account.open),
    )


def _unused(name: str, spec: BudgetSpec, now: float) -> BudgetFigures:
    start = began(spec.period, now)
    return BudgetFigures(
        name, spec.scope, None, spec.period, start, ends(spec.period, start), spec.tokens, spec.usd
    )
