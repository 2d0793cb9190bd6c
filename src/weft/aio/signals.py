"""Being asked to stop, by whichever signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a supervisor's wish, and the end of the terminal."""


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within the context, have `stop` called at each of STOP_SIGNALS. For the event loop's main thread."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
