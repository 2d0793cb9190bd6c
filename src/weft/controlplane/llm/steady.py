"""The time of a term: it goes on evenly, though the machine's clock be set meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable


def steady_clock() -> Callable[[], float]:
    """A clock of seconds since 1970: the machine's as it is now, and from then on as time goes by.

    Limits are counted in real seconds. By a clock that jumps ahead a minute's window would be over at once,
    and all calls under way would seem forgotten; by one that jumps back nothing would be over for long.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
