"""Trying anew what a sidecar needs when it starts, which may be before NATS and the control plane do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 2.0


async def persistently(attempt: Callable[[], Awaitable[T]], *, what: str, timeout: float) -> T:
    """The result of `attempt`, made again and again while it raises Unavailable.

    After `timeout` seconds the last Unavailable is raised, saying `what` was tried for how long.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + timeout
    reminder = Reminder(now(), first=0.0)
    for pause in backoff(longest=_LONGEST_PAUSE):
        try:
            return await attempt()
        except Unavailable as error:
            if now() + pause > deadline:
                raise Unavailable(f"{what} failed for {timeout:g} s: {error.detail}") from error
            if reminder.due(now()):
                logger.warning("%s: %s; trying on for %.0f s", what, error.detail, deadline - now())
        await asyncio.sleep(pause)
    raise AssertionError("pauses never run out")
