"""The signals that a listener has not been told yet."""

from __future__ import annotations

import asyncio

_MAX_KEYS = 4096
"""Beyond so many different ones all are forgotten, and the listener is told that it missed some."""


class SignalBuffer:
    """Keys, each once, in the order in which they were first signalled; and whether any may be missing."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._news = asyncio.Event()
        self.missed = False

    def add(self, key: str) -> None:
        """There was a signal of `key`."""
        if len(self._keys) >= _MAX_KEYS and key not in self._keys:
            self.miss()
            return
        self._keys[key] = None
        self._news.set()

    def miss(self) -> None:
        """There may have been signals of any key."""
        self._keys.clear()
        self.missed = True
        self._news.set()

    async def next(self, timeout: float) -> str | None:
        """The next key; None if there is none within `timeout` seconds, or at once if any were missed."""
        try:
            async with asyncio.timeout(timeout):
                while not self._keys and not self.missed:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        if self.missed:
            self.missed = False
            return None
        key = next(iter(self._keys))
        del self._keys[key]
        return key
