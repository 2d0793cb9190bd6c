"""The instance's place in the registry, kept up to date for as long as it lives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from weft.errors import Unavailable
from weft.model.agent import Instance, Status
from weft.registry.registry import Lease, Registry

logger = logging.getLogger(__name__)

_JITTER = 0.1
_RETRY_PAUSE = 0.5


class Registration:
    """One instance in the registry. `run` renews it; its status is published as soon as it changes."""

    def __init__(
        self,
        registry: Registry,
        instance: Instance,
        *,
        in_flight: Callable[[], Awaitable[int]],
        renew_interval: float,
    ) -> None:
        """`in_flight` is asked at every renewal, `renew_interval` seconds apart give or take a tenth."""
        self._registry = registry
        self._instance = instance
        self._in_flight = in_flight
        self._renew_interval = renew_interval
        self._lease: Lease | None = None
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._store_reachable = True

    async def register(self) -> None:
        """Take the instance's name.

        Raises Conflict if a live namesake has it, Unavailable if the store cannot be reached.
        """
        self._lease = await self._registry.register(self._instance)
        logger.info("registered %s at %s", self._instance.key, self._instance.endpoint)

    def report(self, status: Status, reason: str) -> None:
        """Have a new status published at once, or else a new reason with the next renewal."""
        if status is not self._instance.status:
            self._news.set()
        self._instance = replace(self._instance, status=status, reason=reason)

    def offer(self, capabilities: frozenset[str]) -> None:
        """Have it published at once that the agent has other capabilities, if it has."""
        if capabilities != self._instance.capabilities:
            self._news.set()
        self._instance = replace(self._instance, capabilities=capabilities)

    async def run(self) -> None:
        """Renew until cancelled or released. Raises Conflict if a namesake has taken the name."""
        while self._lease is not None:
            await self._wait_for_news()
            with suppress(Unavailable):
                await self.publish()

    async def publish(self) -> None:
        """Write the instance as it stands. Raises Conflict, or Unavailable: the store cannot be reached."""
        self._news.clear()
        load = await self._in_flight()
        async with self._writing:
            if self._lease is None:
                return
            self._instance = replace(self._instance, in_flight=load)
            try:
                await self._lease.update(self._instance)
            except Unavailable as error:
                self._note_store(reachable=False, reason=error.detail)
                raise
            self._note_store(reachable=True)

    async def release(self) -> None:
        """Leave the registry. A second time it does nothing. Raises Unavailable: then the lease lapses."""
        async with self._writing:
            lease, self._lease = self._lease, None
            if lease is not None:
                await lease.release()

    async def _wait_for_news(self) -> None:
        pause = self._renew_interval if self._store_reachable else min(_RETRY_PAUSE, self._renew_interval)
        # Jitter keeps sidecars that were started together from renewing together for ever.
        pause *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._news.wait()

    def _note_store(self, *, reachable: bool, reason: str = "") -> None:
        if reachable == self._store_reachable:
            return
        self._store_reachable = reachable
        if reachable:
            logger.info("the store can be reached again; %s is registered", self._instance.key)
        else:
            logger.warning("%s cannot be renewed, trying on: %s", self._instance.key, reason)
