"""The wish to stop, which grows with every signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Urgency(IntEnum):
    """How many signals asked to stop."""

    DRAIN = 1
    """Finish the calls in flight."""
    HURRY = 2
    """Don't wait for them, but let the program stop in its own way."""
    NOW = 3
    """Kill it."""


class ShutdownRequested(Exception):
    """Something was given up because a signal asked to stop."""


class Shutdown:
    """Counts the requests to stop, and lets others wait for them."""

    def __init__(self) -> None:
        self.signal: int = signal.SIGTERM
        """The signal that came first."""
        self._requests = 0
        self._reached = {urgency: asyncio.Event() for urgency in Urgency}

    def request(self, number: int) -> None:
        """Ask to stop, as signal `number` does."""
        if self._requests == 0:
            self.signal = number
        self._requests += 1
        for urgency, reached in self._reached.items():
            if self._requests >= urgency:
                reached.set()

    async def unless(self, urgency: Urgency, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; cancels it and raises ShutdownRequested once stopping is that urgent."""
        task = asyncio.create_task(work)
        reached = asyncio.create_task(self._reached[urgency].wait())
        try:
            await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ShutdownRequested
            return await task
        finally:
            for each in (task, reached):
                each.cancel()
            await asyncio.wait({task, reached})


@contextmanager
def signals(stop: Callable[[int], None], forward: Callable[[int], None]) -> Iterator[None]:
    """Within the context SIGTERM and SIGINT call `stop`; SIGHUP, SIGUSR1 and SIGUSR2 call `forward`."""
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop}
    handlers |= {signal.SIGHUP: forward, signal.SIGUSR1: forward, signal.SIGUSR2: forward}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler, number)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
