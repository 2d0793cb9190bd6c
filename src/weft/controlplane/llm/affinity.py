"""Which provider has the beginning of a prompt in its cache: the one that had the call before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from weft.controlplane.llm.call import Call

MAX_ENTRIES: Final = 10_000

LIFETIME: Final = 600.0
"""Seconds after its last use for which a provider may still have it."""

OVERLOAD: Final = 1.25
"""Times its fair share of the calls under way that a provider may have, and still be preferred."""


class Affinities:
    """The latest provider of contexts and of beginnings of prompts."""

    def __init__(self) -> None:
        self._latest: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        """The first was not used for longest."""

    def preferred(self, call: Call, now: float) -> str | None:
        """The provider that had its context, else one that had a prompt that begins like its own."""
        for key in _keys(call):
            provider, used = self._latest.get(key, ("", 0.0))
            if provider and now - used < LIFETIME:
                return provider
        return None

    def sent(self, call: Call, provider: str, now: float) -> None:
        """The call goes there."""
        for key in _keys(call):
            self._latest[key] = (provider, now)
            self._latest.move_to_end(key)
        while len(self._latest) > MAX_ENTRIES:
            self._latest.popitem(last=False)


def is_bearable(under_way: int, together: int, weight: float, weights: float) -> bool:
    """Whether a provider of that weight may be preferred, with so many calls of all of them `together`.

    One call more than its share is always borne: with few calls no division is fair.
    """
    return under_way <= OVERLOAD * together * weight / weights + 1


def _keys(call: Call) -> Iterator[tuple[str, str]]:
    if call.context is not None:
        yield "context", call.context
    if call.prefix is not None:
        # Who may not see each other's answers has no use of each other's cache either.
        yield "prefix", call.prefix
