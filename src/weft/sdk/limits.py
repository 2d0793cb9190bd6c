"""Limits that a part of a call tree is to keep, set by who makes the calls."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from weft.errors import InvalidRequest
from weft.model.call_budget import BUDGET_HEADER, WHOLE_TREE, narrowed, parse_budget
from weft.sdk.inheritance import inheritance, inheriting


@contextmanager
def limits(
    *, timeout: float | None = None, budget: str | None = None, branch: str | None = None
) -> Iterator[None]:
    """Set limits to the calls made in the block, and to all that is done for them.

        with weft.limits(timeout=20, budget="5000 tokens, 0.10 usd"):
            await mesh.request("planner", "plan", goal=goal)

    `timeout` is in seconds from now; the deadline of the request being handled still holds. `budget` is what
    they may spend on models: tokens, US dollars, or both. It is a branch's own, beside what the whole tree
    may spend; blocks one after another, or in tasks beside each other, share nothing. `branch` names it (1 to
    32 letters, digits, `_`, `-`), so that blocks can share one; by default a name is drawn; `""` is the whole
    tree. Outside a handler the block is a call tree of its own, even without limits.

    Raises InvalidRequest for a budget that is none.
    """
    here = inheritance()
    headers = dict(here.headers) if here is not None else {}
    deadline = here.deadline if here is not None else None
    if timeout is not None:
        end = time.time() + timeout
        deadline = end if deadline is None else min(deadline, end)
    if budget is not None:
        headers[BUDGET_HEADER] = _narrowed(headers.get(BUDGET_HEADER, ""), budget, branch)
    with inheriting(headers, deadline):
        yield


def _narrowed(inherited: str, budget: str, branch: str | None) -> str:
    """The budget's header, with `budget` as that of one more branch."""
    [own, *others] = parse_budget(budget)
    if others or own.branch != WHOLE_TREE:
        raise InvalidRequest(f"say the branch of the budget {budget[:40]!r} as `branch=`")
    name = secrets.token_hex(4) if branch is None else branch
    return narrowed(parse_budget(inherited) if inherited else (), replace(own, branch=name))
