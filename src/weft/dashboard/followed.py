"""What a stream of changes comes to: what is there, and what has left a while ago."""

from __future__ import annotations

from typing import Any

REMEMBERED = 120.0
"""Seconds for which something that left is told of."""

MAX_REMEMBERED = 200
"""Of those that left, the last ones."""


class Followed:
    """Instances, as the API's watch tells of them. A state machine without I/O."""

    def __init__(self) -> None:
        self._there: dict[str, dict[str, Any]] = {}
        self._left: dict[str, dict[str, Any]] = {}
        self._synced = False
        self._changed = False

    def take(self, name: str, item: Any, now: float) -> None:
        """One event: `added`, `changed`, `removed` of an instance, or `synced`.

        `now` is in seconds since 1970.
        """
        if name == "synced":
            self._synced = self._changed = True
            return
        key = f"{item['type']}.{item['id']}"
        self._changed = True
        if name == "removed":
            last = self._there.pop(key, item)
            self._left[key] = {**last, "leftAt": now}
            while len(self._left) > MAX_REMEMBERED:
                del self._left[next(iter(self._left))]
        else:
            self._there[key] = item
            self._left.pop(key, None)

    def changed(self, now: float) -> bool:
        """Whether `news` is other than it was when last asked."""
        gone = [key for key, item in self._left.items() if item["leftAt"] < now - REMEMBERED]
        for key in gone:
            del self._left[key]
        changed = self._synced and (self._changed or bool(gone))
        if changed:
            self._changed = False
        return changed

    def news(self) -> dict[str, Any]:
        """`items`: what is there, by key; `left`: what left, as it was last, with `leftAt`."""
        return {
            "items": [self._there[key] for key in sorted(self._there)],
            "left": [self._left[key] for key in sorted(self._left)],
        }
