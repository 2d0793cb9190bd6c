"""How much is worked on at once, of all senders and of each: one that sends a lot leaves room for others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from weft.errors import TooMany

RETRY_AFTER = 2.0
"""Seconds after which it makes sense to come again."""


class UnderWay:
    """Counts it, in whatever unit."""

    def __init__(self, most: int, most_of_one: int, detail: str) -> None:
        """At most `most`, and `most_of_one` of one sender; `detail` is what is told beyond that."""
        self._most = most
        self._most_of_one = most_of_one
        self._detail = detail
        self._all = 0
        self._of: dict[str, int] = {}

    @contextmanager
    def taking(self, sender: str, amount: int) -> Iterator[None]:
        """Have `amount` of `sender` be under way within the context. Raises TooMany."""
        own = self._of.get(sender, 0) + amount
        if self._all + amount > self._most or own > self._most_of_one:
            raise TooMany(self._detail, retry_after=RETRY_AFTER)
        self._all += amount
        self._of[sender] = own
        try:
            yield
        finally:
            self._all -= amount
            self._of[sender] -= amount
            if not self._of[sender]:
                del self._of[sender]
