"""What a call is told that a budget has no room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from weft.controlplane.llm.account import Account
from weft.controlplane.llm.call import Reason, Refusal
from weft.controlplane.llm.ledger_records import MAX_OPEN, NANOS, Amount, BudgetAccount, Limit, TreeAccount
from weft.controlplane.llm.periods import ends
from weft.model.budget import BudgetScope

SETTLING: Final = 1.0
"""Seconds after which a call may be tried again that only what is set aside for others keeps out."""

_MAX_SHOWN = 64


@dataclass(frozen=True, slots=True)
class _Excess:
    """Of what there is too little: tokens, or billionths of a dollar."""

    limit: int
    spent: int
    set_aside: int
    wanted: int
    shown: Callable[[int], str]

    @property
    def left(self) -> int:
        return max(0, self.limit - self.spent - self.set_aside)


def exceeded(call_id: str, account: Account, limit: Limit, wanted: Amount, now: float) -> Refusal:
    """The refusal of a call that wants more than `limit` leaves: of whom, what is left, and until when."""
    excess = _excess(account, limit, wanted)
    shown = excess.shown
    parts = [
        f"{_owner(account)} has {shown(excess.left)} of {shown(excess.limit)} left, and this call may use "
        f"{shown(excess.wanted)}"
    ]
    if excess.set_aside:
        parts.append(f"{shown(excess.set_aside)} are set aside for calls under way")
    anew = _anew(account.of)
    if excess.wanted > excess.limit:
        parts.append("ask for a shorter answer (max_completion_tokens): it never has so much")
    elif anew is None:
        parts.append("it does not begin anew")
    else:
        parts.append(f"it begins anew at {datetime.fromtimestamp(anew, UTC):%Y-%m-%d %H:%M} UTC")
    return Refusal(call_id, Reason.BUDGET, "; ".join(parts), _retry_after(excess, anew, now))


def too_many(call_id: str, account: Account) -> Refusal:
    """The refusal of a call that would be one too many of those under way in one account."""
    detail = f"{_owner(account)} has {MAX_OPEN} calls under way, and no account is kept of more at once"
    return Refusal(call_id, Reason.BUDGET, detail, SETTLING)


def _excess(account: Account, limit: Limit, wanted: Amount) -> _Excess:
    spent, aside = account.spent, account.set_aside
    if limit.tokens is not None and account.taken.tokens + wanted.tokens > limit.tokens:
        return _Excess(limit.tokens, spent.tokens, aside.tokens, wanted.tokens, _tokens)
    return _Excess(limit.nanos or 0, spent.nanos, aside.nanos, wanted.nanos, _dollars)


def _retry_after(excess: _Excess, anew: float | None, now: float) -> float | None:
    if excess.wanted > excess.limit:
        return None
    rest = None if anew is None else max(0.0, anew - now)
    if excess.spent + excess.wanted <= excess.limit:
        return SETTLING if rest is None else min(SETTLING, rest)
    return rest


def _anew(of: BudgetAccount | TreeAccount) -> int | None:
    """When the account begins anew; None: never."""
    return None if isinstance(of, TreeAccount) else ends(of.period, of.start)


def _owner(account: Account) -> str:
    of = account.of
    if isinstance(of, TreeAccount):
        of_whom = f"branch {of.branch!r} of the call tree" if of.branch else "the call tree"
        return f"the budget (x-weft-budget) of {of_whom} {of.trace[:_MAX_SHOWN]}"
    of_whom = "" if of.scope is BudgetScope.MESH else f" of {of.scope} {of.value[:_MAX_SHOWN]!r}"
    return f"budget {of.budget}{of_whom}"


def _tokens(count: int) -> str:
    return f"{count} tokens"


def _dollars(nanos: int) -> str:
    return f"{nanos / NANOS:.6g} USD"
