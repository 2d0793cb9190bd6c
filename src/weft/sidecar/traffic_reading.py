"""Reads the Envoy's counts every two seconds, and tells the control plane what was added."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from weft.aio.reminder import Reminder
from weft.errors import MeshError
from weft.model.spiffe import SpiffeId
from weft.model.subjects import identity_subject
from weft.model.traffic_report import TRAFFIC_SIGNALS
from weft.sidecar.admin import AdminUnavailable
from weft.sidecar.envoy import Envoy
from weft.sidecar.envoy_stats import EnvoyStats
from weft.sidecar.traffic import Traffic
from weft.store.nats import NatsStore

logger = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two readings, give or take a tenth."""

_JITTER: Final = 0.1
_SETTLE_TIMEOUT: Final = 2.0
"""Seconds that NATS has to take a report."""

_PATIENCE: Final = 5.0
"""Seconds that the control plane has to connect to NATS again, once the sidecar has."""


class TrafficReading:
    """Keeps the totals of one agent's traffic, and reports it. `run` it; at the end `finish`."""

    def __init__(
        self,
        envoy: Envoy,
        connect: Callable[[], Awaitable[NatsStore]],
        identity: Callable[[], SpiffeId],
    ) -> None:
        """`connect` gives the connection to NATS, once there is something to tell.

        `identity` gives the sidecar's.
        """
        self.traffic = Traffic()
        self._envoy = envoy
        self._connect = connect
        self._identity = identity
        self._stats = EnvoyStats()
        self._pid: int | None = None
        self._unsettled: bytes | None = None
        self._client: object | None = None
        self._heard_from = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._reminder = Reminder(time.monotonic())

    async def run(self) -> None:
        """Read and report until cancelled."""
        while True:
            # Jitter keeps sidecars that were started together from reporting together for ever.
            await asyncio.sleep(INTERVAL * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
            await self.read()
            await self._report()

    async def finish(self, timeout: float) -> None:
        """Read and report a last time, within `timeout` seconds, while Envoy still runs."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.read()
                await self._report()
                if self._unsettled is None:
                    await self._report()

    async def read(self) -> None:
        """Count what was added since the last reading. While Envoy cannot be asked nothing is."""
        async with self._one_at_a_time:
            pid = self._envoy.pid
            try:
                text = await self._envoy.admin.calls()
            except AdminUnavailable as error:
                logger.debug("the calls cannot be counted now: %s", error)
                return
            if pid != self._envoy.pid:
                return  # who answered is not known
            if pid != self._pid:
                self._pid = pid
                self._stats.begin_again()
            self.traffic.take(self._stats.read(text))
            if self._stats.strange and self._reminder.due(time.monotonic()):
                logger.warning(
                    "Envoy tells of calls in a way that is not known: %d lines", self._stats.strange
                )

    async def _report(self) -> None:
        """Tell what was added. What NATS did not take for certain is told again, as the same report."""
        try:
            if self._unsettled is None:
                report = self.traffic.report(time.time(), self._stats.in_flight)
                if report is None:
                    return
                self._unsettled = report.encode()
            await self._send(await self._connect(), self._unsettled)
        except MeshError as error:
            if self._reminder.due(time.monotonic()):
                logger.warning("the traffic cannot be told, trying on: %s", error.detail)

    async def _send(self, store: NatsStore, report: bytes) -> None:
        if not self._is_heard(store):
            return
        broadcast = store.broadcast(TRAFFIC_SIGNALS, of_members=True)
        key = identity_subject(self._identity())
        if await broadcast.send(key, report) and await broadcast.settled(_SETTLE_TIMEOUT):
            self._unsettled = None

    def _is_heard(self, store: NatsStore) -> bool:
        """Whether the control plane hears what is said now: it may have lost its connection with ours."""
        now, client = time.monotonic(), store.connection.sender
        if client is not None and client is not self._client:
            self._heard_from = now if self._client is None else now + _PATIENCE
            self._client = client
        return client is not None and now >= self._heard_from
