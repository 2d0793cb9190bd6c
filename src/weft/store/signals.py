"""The contract of signals: news that something was written, told to whoever listens at that moment.

A signal has no content and is not kept. It may get lost, so a listener looks by itself every now and then,
too; and it tells nothing that a reader could not find out by reading.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Listener(Protocol):
    """Hears of signals."""

    async def next(self, timeout: float) -> str | None:
        """The key of the next signal, or None if there is none within `timeout` seconds.

        Signals that came since the last call are not missed, but several of one key may be told as one.
        Returns None at once when the connection was lost meanwhile: signals may have been missed.
        """
        ...


class Signals(Protocol):
    """Signals of one name (`tasks`). Keys are made as a bucket's are."""

    async def send(self, key: str) -> None:
        """Tell that something happened to `key`. Never raises for a lost connection, nor waits."""
        ...

    def listen(self, prefix: str) -> AbstractAsyncContextManager[Listener]:
        """Hear of the keys that are `prefix` or begin with `prefix.`, from when the context is entered.

        Raises Unavailable if the store cannot be reached, Denied where it does not permit this.
        """
        ...
