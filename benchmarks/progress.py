"""What is being measured now, on standard error."""

from __future__ import annotations

import sys
import time

_started = time.monotonic()


def step(what: str) -> None:
    """Say what begins, and how many seconds into the run."""
    print(f"{time.monotonic() - _started:6.1f} s  {what}", file=sys.stderr, flush=True)
