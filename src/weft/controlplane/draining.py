"""Having an instance leave: it takes no more calls, ends those it has, and stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from weft.errors import NotFound, TimedOut
from weft.model.agent import Instance, Status
from weft.registry.view import View
from weft.store.signals import Signals

HEARING_TIMEOUT = 5.0
"""Seconds that a sidecar has to begin."""

_REPEAT = 0.5  # seconds after which it is told again, since signals may get lost


class Draining:
    """Tells sidecars to drain, and sees that they do."""

    def __init__(self, signals: Signals, instances: View, *, timeout: float = HEARING_TIMEOUT) -> None:
        """`signals` are those that sidecars listen to; `timeout` is in seconds."""
        self._signals = signals
        self._instances = instances
        self._timeout = timeout

    async def begin(self, key: str) -> None:
        """Return once the instance `key` drains, or has left.

        Raises NotFound if there is none, TimedOut if its sidecar does not begin in time: it may not have
        heard, or not be able to say that it has.
        """
        before = self._instances.instances.get(key)
        if before is None:
            agent_type, _, instance = key.partition(".")
            raise NotFound(
                f"no instance {instance!r} of type {agent_type!r} is registered; see 'weft agents'"
            )
        try:
            async with asyncio.timeout(self._timeout):
                await self._tell_until_it_drains(before)
        except TimeoutError:
            raise TimedOut(
                f"the sidecar of {key} did not begin to drain within {self._timeout:g} s: its connection to "
                f"NATS may be lost; ask again, or send it SIGTERM on its machine"
            ) from None

    async def _tell_until_it_drains(self, before: Instance) -> None:
        while True:
            generation = self._instances.generation
            if self._drains(before):
                return
            await self._signals.send(before.key)
            with suppress(TimeoutError):
                async with asyncio.timeout(_REPEAT):
                    await self._instances.changed_since(generation)

    def _drains(self, before: Instance) -> bool:
        now = self._instances.instances.get(before.key)
        return now is None or now.status is Status.DRAINING or now.started_at != before.started_at
