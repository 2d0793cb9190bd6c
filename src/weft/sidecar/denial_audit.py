"""The sidecar's part of the audit: whom its Envoy refused."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from weft.audit.trail import Audit
from weft.model.audit import AuditRecord
from weft.model.spiffe import SpiffeId
from weft.model.subjects import identity_subject
from weft.sidecar.access_lines import AccessLines
from weft.sidecar.attempts import persistently
from weft.sidecar.denials import relay_denials
from weft.store.bucket import Store

logger = logging.getLogger(__name__)

_BACKLOG = 1000
"""Records that may wait until NATS can be reached; further ones are dropped."""


class DenialAudit:
    """Takes denials from Envoy's output and writes them down. `run` it while Envoy runs."""

    def __init__(self, *, callee: str, observer: str, identity: Callable[[], SpiffeId]) -> None:
        """`callee` is the type of the agent that is called, `observer` this sidecar's name.

        `identity` tells who this sidecar is; it is asked once there is something to relay.
        """
        self._callee = callee
        self._observer = observer
        self._identity = identity
        self._access = AccessLines()
        self._waiting: asyncio.Queue[AuditRecord] = asyncio.Queue(_BACKLOG)

    async def relay(self, output: asyncio.StreamReader) -> None:
        """Take in what Envoy writes to its standard output until that ends; lines of calls are passed on."""
        await relay_denials(
            output,
            self._report,
            callee=self._callee,
            observer=self._observer,
            own=str(self._identity()),
            access=self._access.write,
        )

    async def run(self, connect: Callable[[], Awaitable[Store]]) -> None:
        """Write down what was taken in, until cancelled; `connect` is tried for as long as it takes."""
        store = await persistently(connect, what="connecting to NATS", timeout=math.inf)
        subject = identity_subject(self._identity())
        audit = await persistently(
            lambda: Audit.open(store, subject), what="opening the audit", timeout=math.inf
        )
        async with audit:
            while True:
                audit.record(await self._waiting.get())

    def _report(self, record: AuditRecord) -> None:
        try:
            self._waiting.put_nowait(record)
        except asyncio.QueueFull:
            logger.debug("a denial is not written down: NATS cannot be reached, and %d wait", _BACKLOG)
