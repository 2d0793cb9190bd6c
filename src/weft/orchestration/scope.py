"""What holds for all calls that an orchestration makes: one call tree, a deadline, a budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from weft.sdk.inheritance import Inheritance, inheritance, inheriting
from weft.sdk.limits import limits


def opened(timeout: float | None, budget: str) -> Inheritance:
    """What all branches of an orchestration that begins here inherit: what this program's calls do, with a
    deadline in `timeout` seconds and a budget that they share. Raises InvalidRequest."""
    with limits(timeout=timeout, budget=budget or None):
        here = inheritance()
    assert here is not None, "limits() begin a call tree where there is none"  # noqa: S101
    return here


@contextmanager
def within(scope: Inheritance, timeout: float, budget: str) -> Iterator[None]:
    """Have the calls made in the block, a branch's, inherit `scope`, and keep the branch's own limits."""
    with (
        inheriting(scope.headers, scope.deadline),
        limits(timeout=timeout, budget=budget or None),
    ):
        yield
