"""Doing at once what is asynchronous only because elsewhere it takes time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def immediately(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, as those of the broker in memory that declare and close.

    Raises RuntimeError if it does wait.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} was to be done at once, and waits")
