"""For how long a message waits at a stretch, so that there are few different waits.

RabbitMQ has no delays, but queues whose messages all expire after the same time. One for each delay that
somebody thinks of would be too many, so there are levels: a short delay is rounded up to one, by a tenth at
most; of a long one the largest level within it is waited for, and then what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SHORT = 10_000
"""Milliseconds up to which a delay is rounded up."""

SHORTEST = 10
"""Milliseconds; what is shorter becomes this."""

# Of every power of ten. The second are the E24 series of resistors, which are 10% apart.
_COARSE = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
_FINE = (
    *(1.0, 1.1, 1.2, 1.3, 1.5, 1.6, 1.8, 2.0, 2.2, 2.4, 2.7, 3.0),
    *(3.3, 3.6, 3.9, 4.3, 4.7, 5.1, 5.6, 6.2, 6.8, 7.5, 8.2, 9.1, 10.0),
)


_DETOURS = (1.0, 1.15, 1.4, 2.0)
"""How many times as long may be waited where the right level does not work."""


def working_level(delay: float, works: Callable[[int], bool]) -> int:
    """The level for a delay of so many seconds, or one beside it if that does not work; `works` tells."""
    wanted = [level(delay * factor) for factor in _DETOURS]
    return next((each for each in wanted if works(each)), wanted[0])


def level(delay: float) -> int:
    """The milliseconds to wait at first of a delay of so many seconds."""
    wanted = max(SHORTEST, math.ceil(delay * 1000))
    power: int = 10 ** (len(str(wanted)) - 1)
    if wanted <= SHORT:
        return min(step for each in _FINE if (step := round(each * power)) >= wanted)
    return max(step for each in _COARSE if (step := round(each * power)) <= wanted)
