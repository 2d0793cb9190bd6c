"""What a call tree may spend on models, as the header `x-weft-budget` says it.

`5000 tokens`, `0.25 usd`, or both: `5000 tokens, 0.25 usd`. That is for the whole tree, all calls of one
trace. A branch of it may have less: `5000 tokens, 1000 tokens;id=b1`. A call counts towards all that its
header names; they stand in it outermost first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from weft.errors import InvalidRequest

Number = TypeVar("Number", int, float)

BUDGET_HEADER: Final = "x-weft-budget"

WHOLE_TREE: Final = ""
"""The branch that is none: all calls of the trace."""

MAX_LIMITS: Final = 17
"""Of one header: the tree's own, and those of branches within branches."""

MAX_LENGTH: Final = 1024
"""Characters of the header."""

_PART: Final = re.compile(
    r"(?:(?P<tokens>\d{1,15}) *tokens|(?P<usd>\d{1,12}(?:\.\d{1,9})?) *usd)"
    r"(?: *; *id *= *(?P<branch>[A-Za-z0-9_-]{1,32}))?"
)


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """What the whole tree, or one of its branches, may spend."""

    branch: str = WHOLE_TREE
    """1 to 32 of `[A-Za-z0-9_-]`."""
    tokens: int | None = None
    """Of prompts and answers together; None: as many as you like."""
    usd: float | None = None
    """US dollars, by the providers' prices."""

    def parts(self) -> list[str]:
        """It as the header has it."""
        of = f";id={self.branch}" if self.branch else ""
        tokens = [] if self.tokens is None else [f"{self.tokens} tokens{of}"]
        return tokens if self.usd is None else [*tokens, f"{_plain(self.usd)} usd{of}"]


def parse_budget(text: str) -> tuple[BudgetLimit, ...]:
    """What a header says, outermost first. Raises InvalidRequest."""
    found: dict[str, BudgetLimit] = {}
    parts = text.split(",", 2 * MAX_LIMITS) if len(text) <= MAX_LENGTH else []
    for part in parts:
        said = _PART.fullmatch(part.strip())
        if said is None:
            raise _senseless(text)
        branch = said["branch"] or WHOLE_TREE
        known = found.get(branch, BudgetLimit(branch))
        if (known.tokens if said["tokens"] else known.usd) is not None:
            raise _senseless(text)
        if said["tokens"]:
            found[branch] = replace(known, tokens=int(said["tokens"]))
        else:
            found[branch] = replace(known, usd=float(said["usd"]))
    if not 0 < len(found) <= MAX_LIMITS:
        raise _senseless(text)
    return tuple(found.values())


def narrowed(limits: Iterable[BudgetLimit], own: BudgetLimit) -> str:
    """The header that says `limits`, and that a part of what is in them has no more than `own`.

    Where `limits` have that branch already, the less counts. Raises InvalidRequest for too many.
    """
    found = {each.branch: each for each in limits}
    known = found.get(own.branch, own)
    tokens, usd = _least(known.tokens, own.tokens), _least(known.usd, own.usd)
    found[own.branch] = BudgetLimit(own.branch, tokens, usd)
    text = ", ".join(part for limit in found.values() for part in limit.parts())
    parse_budget(text)
    return text


def _least(one: Number | None, other: Number | None) -> Number | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _plain(usd: float) -> str:
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def _senseless(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"{BUDGET_HEADER} must be as '5000 tokens', '0.25 usd', or both with a comma between, each followed "
        f"by ';id=BRANCH' where it is for a branch alone, at most {MAX_LIMITS} of them, not {text[:40]!r}"
    )
