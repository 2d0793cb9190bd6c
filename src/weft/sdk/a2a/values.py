"""How many values a request's JSON may have: a2a-sdk takes some 10 microseconds for each of them."""

from __future__ import annotations

from typing import Any

MAX_VALUES = 25_000
"""Objects, lists, texts, numbers and so on, all together."""


def too_many_values(body: bytes, parsed: Any) -> bool:
    """Whether a body, which holds the JSON `parsed`, has more than MAX_VALUES."""
    # Every value but the first follows one of these, which may also be in texts.
    at_most = 1 + body.count(b",") + body.count(b"[") + body.count(b"{")
    return at_most > MAX_VALUES and _counted(parsed) > MAX_VALUES


def _counted(parsed: Any) -> int:
    """The values in it, as far as just beyond MAX_VALUES."""
    count, left = 1, [parsed]
    while left and count <= MAX_VALUES:
        inner = left.pop()
        if isinstance(inner, dict | list):
            count += len(inner)
            left.extend(inner.values() if isinstance(inner, dict) else inner)
    return count
