"""Hearing from the control plane that this instance is to leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from weft.aio.backoff import backoff
from weft.errors import MeshError
from weft.model.subjects import DRAIN_SIGNALS
from weft.store.nats import NatsStore
from weft.store.signals import Listener

logger = logging.getLogger(__name__)

_LOOK = 3600.0  # seconds after which it listens again, which changes nothing
_LONGEST_PAUSE = 30.0


async def drain_wanted(connect: Callable[[], Awaitable[NatsStore]], key: str) -> None:
    """Wait until an operator wants the instance `key` drained; where NATS is away, until it is back."""
    for pause in backoff(longest=_LONGEST_PAUSE):
        try:
            store = await connect()
            async with store.signals(DRAIN_SIGNALS).listen(key) as listener:
                await _signal(listener)
        except MeshError as error:
            # Nothing but this depends on it, and an operator who asks is told that nobody heard.
            logger.debug("no wish to drain can be heard now: %s", error.detail)
        else:
            return
        await asyncio.sleep(pause)


async def _signal(listener: Listener) -> None:
    while await listener.next(_LOOK) is None:
        pass
