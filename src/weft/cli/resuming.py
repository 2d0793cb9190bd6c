"""Streams of events that go on after the connection was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from weft.aio.backoff import backoff
from weft.cli.show import console
from weft.errors import Unavailable
from weft.local.messaging_control import Events
from weft.sdk.sse import Event

PATIENCE = 120.0
"""Seconds that a lost connection is tried again for."""


async def resumed(begin: Callable[[], Events]) -> AsyncGenerator[Event, None]:
    """The events of the streams that `begin` makes, one after the other, for ever.

    `begin` is asked again when a stream has ended or broken; where it goes on is its own affair. Raises what
    beginning for the first time does, what the control plane answers otherwise than with Unavailable, and
    that if it is away for longer than PATIENCE.
    """
    lost_at: float | None = None
    begun = False
    pauses = backoff(longest=3.0)
    while True:
        try:
            async with begin() as events:
                begun = True
                async for event in events:
                    lost_at, pauses = None, backoff(longest=3.0)
                    yield event
        except Unavailable as error:
            if not begun or (lost_at is not None and time.monotonic() - lost_at > PATIENCE):
                raise
            if lost_at is None:
                console(stderr=True).print(f"{error.detail}\ntrying again…", markup=False, style="yellow")
                lost_at = time.monotonic()
        await asyncio.sleep(next(pauses))
