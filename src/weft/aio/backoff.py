"""Pauses between attempts: exponential, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff(*, first: float = 0.1, longest: float = 10.0, factor: float = 2.0) -> Iterator[float]:
    """Yield, without end, how many seconds to pause before the next attempt.

    Each pause is drawn evenly from 0 to a ceiling, so those who failed together don't return together.
    The ceiling is `first` seconds, grows by `factor` with every attempt, and stays at `longest` seconds.
    """
    ceiling = min(first, longest)
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 -- jitter, not a secret
        ceiling = min(ceiling * factor, longest)
