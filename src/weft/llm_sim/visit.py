"""One request that was let in, until it has ended."""

from __future__ import annotations

from weft.llm_sim.counters import Usage
from weft.llm_sim.limits import Limits


class Visit:
    """Its place among those under way, and where its answer is counted."""

    def __init__(self, limits: Limits, usages: tuple[Usage, ...], cached_tokens: int) -> None:
        self.cached_tokens = cached_tokens
        """Of its prompt."""
        self._limits = limits
        self._usages = usages
        self._left = False

    def produced(self, tokens: int) -> None:
        """Count tokens of the answer."""
        for each in self._usages:
            each.completion_tokens += tokens

    def leave(self) -> None:
        """It has ended. A second time this does nothing."""
        if not self._left:
            self._left = True
            self._limits.leave()
