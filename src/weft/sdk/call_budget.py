"""What the call that is being handled may yet spend on models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from weft.errors import Unavailable
from weft.model.call_budget import WHOLE_TREE, BudgetLimit

Number = TypeVar("Number", int, float)

TREES_PATH = "/v1/llm/trees"
"""Where the control plane answers what call trees have spent."""


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """What is left of the budget of the whole tree, or of one branch that the call is in."""

    branch: str
    """Empty: the whole tree's."""
    tokens: int | None
    """None: as many as you like."""
    usd: float | None
    spent_tokens: int = 0
    spent_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class CallBudget:
    """What a call may yet spend: the least that any of the budgets it is in leaves."""

    parts: tuple[BudgetLeft, ...] = ()
    """The whole tree's first, then those of branches, outermost first; none without any budget."""

    @property
    def tokens(self) -> int | None:
        """Of prompts and answers together, calls under way left out; None: as many as you like."""
        return min((each.tokens for each in self.parts if each.tokens is not None), default=None)

    @property
    def usd(self) -> float | None:
        """US dollars, likewise."""
        return min((each.usd for each in self.parts if each.usd is not None), default=None)


class _Account(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    branch: str
    limit_tokens: int | None = None
    limit_usd: float | None = None
    spent_tokens: int = 0
    spent_usd: float = 0.0
    set_aside_tokens: int = 0
    set_aside_usd: float = 0.0

    def left(self) -> BudgetLeft:
        taken, cost = self.spent_tokens + self.set_aside_tokens, self.spent_usd + self.set_aside_usd
        return BudgetLeft(
            self.branch,
            None if self.limit_tokens is None else max(0, self.limit_tokens - taken),
            None if self.limit_usd is None else max(0.0, self.limit_usd - cost),
            self.spent_tokens,
            self.spent_usd,
        )


class _Accounts(BaseModel):
    items: list[_Account]


def call_budget(limits: Iterable[BudgetLimit], answer: bytes) -> CallBudget:
    """What is left of `limits`, given what the control plane answers. Raises Unavailable for nonsense."""
    try:
        accounts = {each.branch: each for each in _Accounts.model_validate_json(answer).items}
    except ValidationError as error:
        raise Unavailable(f"what the control plane says of the call tree makes no sense: {error}") from error
    said = {each.branch: each for each in limits}
    # The tree's own counts for all calls of the trace, whether they say so or not.
    order = [*([WHOLE_TREE] if WHOLE_TREE in accounts else []), *said]
    return CallBudget(tuple(_left(said.get(name), accounts.get(name), name) for name in dict.fromkeys(order)))


def _left(limit: BudgetLimit | None, account: _Account | None, branch: str) -> BudgetLeft:
    account = account or _Account(branch=branch)
    if limit is not None:
        account.limit_tokens = _least(account.limit_tokens, limit.tokens)
        account.limit_usd = _least(account.limit_usd, limit.usd)
    return account.left()


def _least(one: Number | None, other: Number | None) -> Number | None:
    return min((each for each in (one, other) if each is not None), default=None)
