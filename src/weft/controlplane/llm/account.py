"""An account: what was spent of a budget, and what is set aside for calls under way."""

from __future__ import annotations

from collections.abc import Mapping

from weft.controlplane.llm.ledger_records import (
    Amount,
    BudgetAccount,
    LedgerRecord,
    Limit,
    Reservation,
    TreeAccount,
)


class Account:
    """Of one budget, scope value and period; or of one call tree, which has its limit here."""

    def __init__(
        self,
        of: BudgetAccount | TreeAccount,
        *,
        used: float,
        limit: Limit = Limit(),  # noqa: B008 -- it is a value
        spent: Amount = Amount(),  # noqa: B008 -- likewise
        open_: Mapping[str, Reservation] | None = None,
    ) -> None:
        """The arguments are as in LedgerRecord."""
        self.of = of
        self.key = of.key
        self.limit = limit
        self.spent = spent
        self.used = used
        self._open = dict(open_ or {})
        self.set_aside = sum((each.amount for each in self._open.values()), Amount())

    @classmethod
    def restored(cls, record: LedgerRecord) -> Account:
        """The account that `record` tells of."""
        return cls(
            record.account, used=record.used, limit=record.limit, spent=record.spent, open_=record.open
        )

    @property
    def taken(self) -> Amount:
        """What was spent and what is set aside."""
        return self.spent + self.set_aside

    @property
    def open(self) -> Mapping[str, Reservation]:
        """What is set aside, by call id."""
        return self._open

    def set(self, call_id: str, reservation: Reservation) -> None:
        """Set something aside for a call for which nothing is yet."""
        self._open[call_id] = reservation
        self.set_aside += reservation.amount
        self.used = max(self.used, reservation.since)

    def settle(self, call_id: str, amount: Amount, now: float) -> None:
        """Count `amount` as spent in place of what was set aside for a call; if nothing was, nothing."""
        reservation = self._open.pop(call_id, None)
        if reservation is not None:
            self.set_aside -= reservation.amount
            self.spent += amount
            self.used = max(self.used, now)

    def record(self) -> LedgerRecord:
        """How it stands."""
        return LedgerRecord(self.of, self.spent, self.used, dict(self._open), self.limit)
