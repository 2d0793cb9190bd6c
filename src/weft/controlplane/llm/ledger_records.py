"""What is kept of a budget's account, and of a call tree's, so that a successor knows all that was admitted.

Amounts of money are whole billionths of a US dollar: sums of them are exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict

from weft.model.budget import BudgetScope, Period
from weft.model.call_budget import WHOLE_TREE

LEDGER_BUCKET: Final = "llm-budgets"
"""Where the records are."""

NANOS: Final = 1_000_000_000
"""In one dollar."""

MAX_OPEN: Final = 10_000
"""Calls under way that share one account: its record must fit into one value of the store."""

_MAX_VALUE_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class BudgetAccount:
    """Whose account it is: of one budget, for one scope value, in one period."""

    budget: str
    scope: BudgetScope
    period: Period
    start: int
    """When the period began, in seconds since 1970."""
    value: str
    """The tenant, key or context; empty for the mesh."""

    @property
    def key(self) -> str:
        """Where its record is kept."""
        return f"budget.{self.budget}.{self.scope}-{self.period}.{self.start}.{_digest(self.value)}"


@dataclass(frozen=True, slots=True)
class TreeAccount:
    """The account of a call tree, or of a branch of one."""

    trace: str
    branch: str = WHOLE_TREE

    @property
    def key(self) -> str:
        """Where its record is kept: a branch's below that of its tree."""
        whole = f"tree.{_digest(self.trace)}"
        return f"{whole}.{_digest(self.branch)}" if self.branch else whole


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens and money."""

    tokens: int = 0
    nanos: int = 0

    @classmethod
    def of(cls, tokens: int, usd: float) -> Amount:
        """So many tokens and dollars; nothing is less than nothing."""
        return cls(max(0, tokens), round(max(0.0, usd) * NANOS))

    @property
    def usd(self) -> float:
        """The money in dollars."""
        return self.nanos / NANOS

    def __add__(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(self.tokens + other.tokens, self.nanos + other.nanos)

    def __sub__(self, other: Amount) -> Amount:
        """What `other` leaves of it."""
        return Amount(self.tokens - other.tokens, self.nanos - other.nanos)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much there may be of each; None: of that as much as you like."""

    tokens: int | None = None
    nanos: int | None = None

    def holds(self, amount: Amount) -> bool:
        """Whether that much may be."""
        return (self.tokens is None or amount.tokens <= self.tokens) and (
            self.nanos is None or amount.nanos <= self.nanos
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call under way may use at most."""

    amount: Amount
    since: float
    """When it was set aside, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """An account as it stands."""

    account: BudgetAccount | TreeAccount
    spent: Amount
    used: float
    """When it was used last, in seconds since 1970."""
    open: Mapping[str, Reservation]
    """By call id."""
    limit: Limit = Limit()
    """Of a call tree. A budget's stands in its resource."""

    @property
    def key(self) -> str:
        """Where it is kept in LEDGER_BUCKET."""
        return self.account.key

    def to_json(self) -> bytes:
        """This record as JSON."""
        return to_json(
            {
                **_identity(self.account, self.limit),
                "spent": (self.spent.tokens, self.spent.nanos),
                "used": self.used,
                "open": {
                    call: (each.amount.tokens, each.amount.nanos, each.since)
                    for call, each in self.open.items()
                },
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> LedgerRecord:
        """The record in `data`. Raises ValueError if it holds none."""
        try:
            given = _RECORD.validate_json(data)
        except ValidationError as error:
            raise ValueError("not an account of a budget or a call tree") from error
        return cls(
            _account(given),
            Amount(*given["spent"]),
            given["used"],
            {call: Reservation(Amount(*amount), since) for call, (*amount, since) in given["open"].items()},
            Limit(*given.get("limit", ())),
        )


class LedgerCodec:
    """The records as their bucket keeps them."""

    def encode(self, value: LedgerRecord) -> bytes:
        """Return the JSON of `value`."""
        return value.to_json()

    def decode(self, data: bytes) -> LedgerRecord:
        """Return the record in `data`; raise ValueError if it holds none."""
        return LedgerRecord.from_json(data)


_Count = Annotated[int, Field(ge=0)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Value = Annotated[str, StringConstraints(max_length=_MAX_VALUE_LENGTH)]

# Versions of Weft mix in one mesh: a field that this one does not know is none of its business.
_LENIENT = ConfigDict(extra="ignore")


@with_config(_LENIENT)
class _Budget(TypedDict):
    name: _Id
    scope: BudgetScope
    period: Period
    start: _Count
    value: _Value


@with_config(_LENIENT)
class _Required(TypedDict):
    spent: tuple[_Count, _Count]
    used: _Time
    open: dict[_Id, tuple[_Count, _Count, _Time]]


@with_config(_LENIENT)
class _Record(_Required, total=False):
    budget: _Budget
    tree: _Id
    branch: _Id
    limit: tuple[_Count | None, _Count | None]


_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)


def _identity(account: BudgetAccount | TreeAccount, limit: Limit) -> dict[str, object]:
    if isinstance(account, TreeAccount):
        branch = {"branch": account.branch} if account.branch else {}
        return {"tree": account.trace, **branch, "limit": (limit.tokens, limit.nanos)}
    return {
        "budget": {
            "name": account.budget,
            "scope": account.scope.value,
            "period": account.period.value,
            "start": account.start,
            "value": account.value,
        }
    }


def _account(given: _Record) -> BudgetAccount | TreeAccount:
    if budget := given.get("budget"):
        return BudgetAccount(
            budget["name"], budget["scope"], budget["period"], budget["start"], budget["value"]
        )
    if tree := given.get("tree"):
        return TreeAccount(tree, given.get("branch", WHOLE_TREE))
    raise ValueError("the record of nobody's account")


def _digest(text: str) -> str:
    """What stands for `text` in keys, which have few characters to choose from."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
