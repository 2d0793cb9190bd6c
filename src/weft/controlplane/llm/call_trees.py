"""Call trees that have a budget: all calls of a trace that says `x-weft-budget` share what it may spend."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from weft.controlplane.llm.account import Account
from weft.controlplane.llm.call import Call
from weft.controlplane.llm.ledger_records import Amount, Limit, TreeAccount

TREE_REST: Final = 3600.0
"""Seconds after its last call for which a tree's account is kept."""

MAX_TREES: Final = 20_000
"""Trees whose accounts are kept; beyond it those go that were not used for the longest time."""


class CallTrees:
    """Their accounts, those used last at the end."""

    def __init__(self, most: int = MAX_TREES) -> None:
        self._most = most
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def restore(self, trace: str, account: Account) -> None:
        """Take over an account. They have to come in the order in which they were used."""
        self._accounts[trace] = account

    def get(self, trace: str) -> Account | None:
        """The account of a tree, if it has one."""
        return self._accounts.get(trace)

    def account(self, call: Call, now: float) -> Account | None:
        """The account of `call`'s tree, its limit the least that any of its calls said; None: it has none."""
        if call.tree is None:
            return None
        account = self._accounts.get(call.tree)
        said = _limit(call)
        if account is None:
            if said == Limit():
                return None
            account = self._accounts[call.tree] = Account(TreeAccount(call.tree), used=now, limit=said)
        account.limit = Limit(
            _least(account.limit.tokens, said.tokens), _least(account.limit.nanos, said.nanos)
        )
        account.used = max(account.used, now)
        self._accounts.move_to_end(call.tree)
        return account

    def forget(self, now: float) -> list[Account]:
        """Let go of the accounts that are of no use any more, and of those that are too many."""
        gone = []
        for trace, account in list(self._accounts.items()):
            rests = account.used + TREE_REST > now
            if rests and len(self._accounts) <= self._most:
                break
            if not account.open:
                gone.append(self._accounts.pop(trace))
        return gone


def _limit(call: Call) -> Limit:
    usd = call.tree_usd
    return Limit(call.tree_tokens, None if usd is None else Amount.of(0, usd).nanos)


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
