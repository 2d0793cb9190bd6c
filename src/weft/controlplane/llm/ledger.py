"""The ledger of budgets: what each has spent, and what is set aside for calls under way.

A state machine without I/O: what `changed` returns has to be written down before the calls start that it was
asked about, and a ledger made of what was written goes on where the other stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from weft.controlplane.llm.account import Account
from weft.controlplane.llm.budget_figures import BudgetFigures, budget_figures
from weft.controlplane.llm.budget_refusal import exceeded, too_many
from weft.controlplane.llm.call import Call, Refusal
from weft.controlplane.llm.call_trees import CallTrees
from weft.controlplane.llm.ledger_records import (
    MAX_OPEN,
    Amount,
    BudgetAccount,
    LedgerRecord,
    Limit,
    Reservation,
    TreeAccount,
)
from weft.controlplane.llm.periods import began, ends
from weft.model.budget import BudgetScope, BudgetSpec, Period

LONGEST_CALL: Final = 3600.0
"""Seconds after which what is set aside for a call whose end was never heard of counts as spent."""

MAX_ACCOUNTS: Final = 10_000
"""Of one budget. Tenants, keys and contexts beyond it share one more, as large as each of theirs."""

CONTEXT_REST: Final = 30 * 86_400.0
"""Seconds after its last call for which the account of a context is kept whose budget never begins anew."""

OTHERS: Final = "(other)"
"""The scope value of the account that those share for whom there is none."""

NONE: Final = "(none)"
"""The scope value of calls that name no key, or no context: they share one account."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """A budget, in the form in which it is asked about."""

    name: str
    spec: BudgetSpec
    limit: Limit
    pools: frozenset[str] | None
    only: frozenset[str] | None

    @classmethod
    def of(cls, name: str, spec: BudgetSpec) -> _Budget:
        limit = Limit(spec.tokens, None if spec.usd is None else Amount.of(0, spec.usd).nanos)
        pools = None if spec.pools is None else frozenset(spec.pools)
        return cls(name, spec, limit, pools, None if spec.only is None else frozenset(spec.only))

    def value(self, call: Call) -> str | None:
        """The scope value under which `call` falls; None: the budget is not about it."""
        if self.pools is not None and call.pool not in self.pools:
            return None
        value = _scope_value(self.spec.scope, call)
        return value if self.only is None or value in self.only else None

    def account(self, value: str, now: float) -> BudgetAccount:
        period = self.spec.period
        return BudgetAccount(self.name, self.spec.scope, period, began(period, now), value)


@dataclass(slots=True)
class _Held:
    """What is set aside for one call, and in which accounts."""

    reservation: Reservation
    accounts: list[Account] = field(default_factory=list)


class BudgetLedger:
    """Every budget of the mesh: what `call.Budgets` asks for. For one thread."""

    def __init__(
        self, budgets: Iterable[tuple[str, BudgetSpec]], records: Iterable[LedgerRecord] = ()
    ) -> None:
        """`records` are those that a predecessor wrote down last."""
        self._budgets: tuple[_Budget, ...] = ()
        self._accounts: dict[BudgetAccount, Account] = {}
        self._count: Counter[str] = Counter()
        self._trees = CallTrees()
        self._held: dict[str, _Held] = {}
        self._dirty: dict[str, Account] = {}
        self.reconfigure(budgets)
        self._restore(records)

    def reconfigure(self, budgets: Iterable[tuple[str, BudgetSpec]]) -> None:
        """Keep these budgets, by name, from now on. What was spent in the present period stays spent."""
        self._budgets = tuple(_Budget.of(name, spec) for name, spec in budgets)

    def concerns(self, pool: str) -> bool:
        """Whether any budget is about this pool: no call to it may start without being asked about."""
        return any(each.pools is None or pool in each.pools for each in self._budgets)

    def reserve(self, call: Call, tokens: int, usd: float, now: float) -> Refusal | None:
        """Set aside what `call` may use at most, in all accounts that it concerns.

        If one of them has not got so much: nothing, and a refusal that tells which.
        """
        if call.id in self._held:
            return None
        self._lapse(now)
        reservation = Reservation(Amount.of(tokens, usd), now)
        accounts = []
        for account, limit in self._concerned(call, now):
            if not limit.holds(account.taken + reservation.amount):
                return exceeded(call.id, account, limit, reservation.amount, now)
            if len(account.open) >= MAX_OPEN:
                return too_many(call.id, account)
            accounts.append(account)
        if accounts:
            self._set(call.id, reservation, accounts)
        return None

    def settle(self, call_id: str, tokens: int, usd: float, now: float) -> None:
        """Count what a call has used in place of what was set aside for it.

        Harmless if nothing is: settled before, released, or after LONGEST_CALL.
        """
        held = self._held.pop(call_id, None)
        if held is None:
            return
        for account in held.accounts:
            account.settle(call_id, Amount.of(tokens, usd), now)
            self._dirty[account.key] = account

    def release(self, call_id: str, now: float) -> None:
        """Give back what was set aside for a call that used nothing."""
        self.settle(call_id, 0, 0.0, now)

    def changed(self) -> list[LedgerRecord]:
        """The accounts that changed since the last time, to be written before admissions are sent."""
        changed = [each.record() for each in self._dirty.values()]
        self._dirty.clear()
        return changed

    def not_written(self, records: Iterable[LedgerRecord]) -> None:
        """What `changed` returned could not be written down: it will return it again, as it stands then."""
        for record in records:
            account = self._known(record)
            if account is not None:
                self._dirty[record.key] = account

    def expired(self, now: float) -> list[str]:
        """Forget the accounts that are of no use any more; the keys of their records, to be deleted.

        They have to be deleted before what `changed` returns next is written: an account may come back. It
        looks at all of them, so have it do so now and then, a minute apart.
        """
        self._lapse(now)
        declared = {(each.name, each.spec.scope, each.spec.period) for each in self._budgets}
        over = [each for of, each in self._accounts.items() if _is_over(of, each, declared, now)]
        for account in over:
            assert isinstance(account.of, BudgetAccount)  # noqa: S101
            del self._accounts[account.of]
            self._count[account.of.budget] -= 1
        gone = [each.key for each in (*over, *self._trees.forget(now))]
        for key in gone:
            self._dirty.pop(key, None)
        return gone

    def figures(self, now: float) -> list[BudgetFigures]:
        """How every budget stands in its present period, those nearest to their limit first.

        At most `budget_figures.MAX_FIGURES`; a budget of which nothing was spent yet has one without a value.
        """
        return budget_figures([(each.name, each.spec) for each in self._budgets], self._accounts, now)

    def _concerned(self, call: Call, now: float) -> Iterator[tuple[Account, Limit]]:
        for tree in self._trees.accounts(call, now):
            self._dirty[tree.key] = tree
            yield tree, tree.limit
        for budget in self._budgets:
            value = budget.value(call)
            if value is not None:
                yield self._account(budget, value, now), budget.limit

    def _account(self, budget: _Budget, value: str, now: float) -> Account:
        of = budget.account(value, now)
        if of not in self._accounts and self._count[budget.name] >= MAX_ACCOUNTS:
            of = budget.account(OTHERS, now)
        account = self._accounts.get(of)
        if account is None:
            account = self._accounts[of] = Account(of, used=now)
            self._count[budget.name] += 1
        return account

    def _set(self, call_id: str, reservation: Reservation, accounts: list[Account]) -> None:
        self._held[call_id] = _Held(reservation, accounts)
        for account in accounts:
            account.set(call_id, reservation)
            self._dirty[account.key] = account

    def _lapse(self, now: float) -> None:
        """Count as spent what was set aside too long ago. The calls are in the order of that."""
        while self._held:
            call_id, held = next(iter(self._held.items()))
            if held.reservation.since + LONGEST_CALL > now:
                return
            amount = held.reservation.amount
            del self._held[call_id]
            for account in held.accounts:
                account.settle(call_id, amount, account.used)
                self._dirty[account.key] = account

    def _known(self, record: LedgerRecord) -> Account | None:
        if isinstance(record.account, TreeAccount):
            return self._trees.get(record.account)
        return self._accounts.get(record.account)

    def _restore(self, records: Iterable[LedgerRecord]) -> None:
        held: dict[str, _Held] = {}
        for record in sorted(records, key=lambda each: each.used):
            account = Account.restored(record)
            if isinstance(record.account, TreeAccount):
                self._trees.restore(record.account, account)
            else:
                self._accounts[record.account] = account
                self._count[record.account.budget] += 1
            for call_id, reservation in record.open.items():
                held.setdefault(call_id, _Held(reservation)).accounts.append(account)
        self._held = dict(sorted(held.items(), key=lambda each: each[1].reservation.since))


def _scope_value(scope: BudgetScope, call: Call) -> str:
    match scope:
        case BudgetScope.TENANT:
            return call.tenant
        case BudgetScope.KEY:
            return call.key or NONE
        case BudgetScope.CONTEXT:
            return call.context or NONE
    return ""


def _is_over(
    of: BudgetAccount,
    account: Account,
    declared: set[tuple[str, BudgetScope, Period]],
    now: float,
) -> bool:
    """Whether nobody will ask about an account again."""
    if account.open:
        return False
    end = ends(of.period, of.start)
    if end is not None:
        return end <= now
    if (of.budget, of.scope, of.period) not in declared:
        return True
    return of.scope is BudgetScope.CONTEXT and account.used + CONTEXT_REST <= now
