"""Which of the traces that begin in this process are recorded."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

logger = logging.getLogger(__name__)

SAMPLING_VARIABLE: Final = "WEFT_TRACE_SAMPLING"
"""Environment variable: percent of the traces that begin here that are recorded. A sidecar sets it."""


def sampling_of(environ: Mapping[str, str]) -> float | None:
    """The percentage that `environ` says; None if it says none, or nonsense, of which the log tells."""
    return _percent(environ.get(SAMPLING_VARIABLE, "").strip())


def drawn(percent: float | None) -> bool | None:
    """Whether a trace that begins now is recorded; None where nobody has said how many are to be."""
    return None if percent is None else random.random() * 100 < percent  # noqa: S311 -- a sample, no secret


@lru_cache(maxsize=8)
def _percent(text: str) -> float | None:
    if not text:
        return None
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if 0.0 <= percent <= 100.0:
        return percent
    logger.error("%s is a percentage, 0 to 100, not %r: it counts as not set", SAMPLING_VARIABLE, text[:32])
    return None
