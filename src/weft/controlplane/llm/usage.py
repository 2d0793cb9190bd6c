"""What a call has used, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.call import Ended, Usage
from weft.model.model_pool import Prices

_PER: Final = 1_000_000
"""Tokens to which prices apply."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What is counted of a call."""

    usage: Usage | None
    """As the provider says; None: it did not."""
    estimated_tokens: int
    """Of prompt and answer together, where it did not; 0 where nothing was used."""

    @property
    def tokens(self) -> int:
        """All that is counted."""
        return self.estimated_tokens if self.usage is None else self.usage.tokens


def charge(end: Ended) -> Charge:
    """What is counted of a call that ended so: nothing that was not used.

    A provider that answered with an error used nothing, unless it says so; nor did one whose caller left
    before the answer began. An answer that does not tell what it used is counted as Envoy estimated it.
    """
    if end.usage is not None:
        return Charge(end.usage, 0)
    answered = end.provider is not None and 200 <= end.status < 300
    return Charge(None, max(0, end.estimated_tokens) if answered else 0)


def price(prices: Prices, usage: Usage) -> float:
    """What `usage` costs, in US dollars."""
    cached = min(max(0, usage.cached_tokens), usage.prompt_tokens)
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    return (
        (usage.prompt_tokens - cached) * prices.input
        + cached * cached_price
        + usage.completion_tokens * prices.output
    ) / _PER


def highest_price(prices: Prices, tokens: int) -> float:
    """What so many tokens cost at most, if one knows not which are the answer's."""
    return tokens * max(prices.input, prices.output) / _PER
