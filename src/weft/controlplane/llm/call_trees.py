"""Call trees that have a budget: all calls of a trace that says `x-weft-budget` share what it may spend.

A branch that has a budget of its own has an account beside that of the tree; a call counts towards all that
it names.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from weft.controlplane.llm.account import Account
from weft.controlplane.llm.call import Call
from weft.controlplane.llm.ledger_records import Amount, Limit, TreeAccount
from weft.model.call_budget import WHOLE_TREE, BudgetLimit

TREE_REST: Final = 3600.0
"""Seconds after its last call for which a tree's account is kept, or a branch's."""

MAX_TREES: Final = 20_000
"""Accounts that are kept; beyond it those go that were not used for the longest time."""


class CallTrees:
    """Their accounts, and those of their branches, those used last at the end."""

    def __init__(self, most: int = MAX_TREES) -> None:
        self._most = most
        self._accounts: OrderedDict[TreeAccount, Account] = OrderedDict()

    def restore(self, of: TreeAccount, account: Account) -> None:
        """Take over an account. They have to come in the order in which they were used."""
        self._accounts[of] = account

    def get(self, of: TreeAccount) -> Account | None:
        """The account of a tree, or of a branch, if it has one."""
        return self._accounts.get(of)

    def accounts(self, call: Call, now: float) -> list[Account]:
        """The accounts of `call`'s tree and of the branches that it is in, those of them that have a budget.

        The limit of each is the least that any of its calls said.
        """
        if call.tree is None:
            return []
        limits = [BudgetLimit(WHOLE_TREE, call.tree_tokens, call.tree_usd), *call.branches]
        found = (self._account(TreeAccount(call.tree, each.branch), _limit(each), now) for each in limits)
        return [each for each in found if each is not None]

    def _account(self, of: TreeAccount, said: Limit, now: float) -> Account | None:
        account = self._accounts.get(of)
        if account is None:
            if said == Limit():
                return None
            account = self._accounts[of] = Account(of, used=now, limit=said)
        account.limit = Limit(
            _least(account.limit.tokens, said.tokens), _least(account.limit.nanos, said.nanos)
        )
        account.used = max(account.used, now)
        self._accounts.move_to_end(of)
        return account

    def forget(self, now: float) -> list[Account]:
        """Let go of the accounts that are of no use any more, and of those that are too many."""
        gone = []
        for of, account in list(self._accounts.items()):
            rests = account.used + TREE_REST > now
            if rests and len(self._accounts) <= self._most:
                break
            if not account.open:
                gone.append(self._accounts.pop(of))
        return gone


def _limit(said: BudgetLimit) -> Limit:
    return Limit(said.tokens, None if said.usd is None else Amount.of(0, said.usd).nanos)


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
