"""What the simulator counts, for those who judge whether its limits were kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from weft.llm_sim.limits import Limit, Limits

MAX_NAMES: Final = 1000
"""Keys, and models, that are counted one by one; the rest together as `others`."""

NO_KEY: Final = "none"


@dataclass(slots=True)
class Usage:
    """Requests that were let in, and their tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True)
class Counters:
    """Since the start, or the last reset."""

    total: Usage = field(default_factory=Usage)
    by_key: dict[str, Usage] = field(default_factory=dict)
    by_model: dict[str, Usage] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Limit, 0))
    invalid: int = 0
    """Requests refused for what they are: no key, unknown model, makes no sense."""
    answered: int = 0
    """Answers that were given to their end."""
    failed: int = 0
    """Failures, HTML and connections closed, instead of answers."""
    broken: int = 0
    """Answers that broke off, stalled or ended in an error midway, as planned."""
    cancelled: int = 0
    """Answers whose client left before the end."""

    def enter(self, key: str, model: str, prompt: int, cached: int) -> tuple[Usage, ...]:
        """Count a request that is let in; return where its answer is to be counted."""
        where = (self.total, _usage(self.by_key, key), _usage(self.by_model, model))
        for each in where:
            each.requests += 1
            each.prompt_tokens += prompt
            each.cached_tokens += cached
        return where

    def document(self, limits: Limits) -> dict[str, Any]:
        """All of it, as JSON types."""
        return {
            **_camel(self.total),
            "answered": self.answered,
            "failed": self.failed,
            "broken": self.broken,
            "cancelled": self.cancelled,
            "invalid": self.invalid,
            "refused": {str(name): number for name, number in self.refused.items()},
            "inFlight": limits.in_flight,
            "mostInFlight": limits.most_in_flight,
            "mostRequestsPerMinute": limits.window.most_requests,
            "mostTokensPerMinute": limits.window.most_tokens,
            "byKey": {name: _camel(usage) for name, usage in self.by_key.items()},
            "byModel": {name: _camel(usage) for name, usage in self.by_model.items()},
        }


@lru_cache(MAX_NAMES)
def key_name(key: str | None) -> str:
    """What a key that has no name is called: nobody can tell the key from it."""
    return (
        NO_KEY if key is None else "sha256:" + sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    )


def _usage(usages: dict[str, Usage], name: str) -> Usage:
    found = usages.get(name)
    if found is None:
        found = usages.setdefault(name if len(usages) < MAX_NAMES else "others", Usage())
    return found


def _camel(usage: Usage) -> dict[str, int]:
    return {
        "requests": usage.requests,
        "promptTokens": usage.prompt_tokens,
        "completionTokens": usage.completion_tokens,
        "cachedTokens": usage.cached_tokens,
    }
