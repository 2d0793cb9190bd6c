"""Keys to be looked at: each once, however often it is added, and never by two at once."""

from __future__ import annotations

import asyncio

from weft.kubernetes.controller.kinds import Key


class WorkQueue:
    """The keys that wait. What is added while it is looked at is looked at once more afterwards."""

    def __init__(self) -> None:
        self._waiting: dict[Key, None] = {}
        self._taken: set[Key] = set()
        self._added_meanwhile: set[Key] = set()
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()

    def add(self, key: Key) -> None:
        """Have `key` looked at."""
        timer = self._later.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._taken:
            self._added_meanwhile.add(key)
            return
        self._waiting[key] = None
        self._filled.set()

    async def take(self) -> Key:
        """The key that has waited longest, once there is one; `done` must follow."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        key = next(iter(self._waiting))
        del self._waiting[key]
        self._taken.add(key)
        return key

    def done(self, key: Key, again: float | None = None) -> None:
        """`key` was looked at, and is to be so `again` in so many seconds, if nothing happens before."""
        self._taken.discard(key)
        if key in self._added_meanwhile:
            self._added_meanwhile.discard(key)
            self.add(key)
        elif again is not None:
            self._later[key] = asyncio.get_running_loop().call_later(again, self.add, key)

    def close(self) -> None:
        """Have nothing come back later."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
