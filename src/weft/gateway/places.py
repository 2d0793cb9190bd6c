"""How many long answers one caller may have open at a time: each costs a connection and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from weft.errors import TooMany

MAX_PER_CALLER = 256
"""Streams and waits that one caller may have open at one instance of a gateway."""

MAX_ALL = 10_000
"""Streams and waits that one instance of a gateway has open for all callers."""

_RETRY_AFTER = 5.0


class Places:
    """Counts what is open."""

    def __init__(self, per_caller: int = MAX_PER_CALLER, all_callers: int = MAX_ALL) -> None:
        self._per_caller = per_caller
        self._all = all_callers
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many are open."""
        return self._open.total()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Have a place for the block. Raises TooMany if there is none."""
        if self._open[caller] >= self._per_caller:
            raise TooMany(
                f"you have {self._per_caller} streams and waits open here already: close some, or ask for "
                "the task every now and then",
                retry_after=_RETRY_AFTER,
            )
        if self.open >= self._all:
            raise TooMany("this gateway has no place for another stream or wait", retry_after=_RETRY_AFTER)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
