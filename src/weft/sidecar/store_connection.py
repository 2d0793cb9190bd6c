"""A sidecar's connection to NATS, and reaching it when a sidecar starts, which may be before NATS does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.errors import MeshError, Unavailable
from weft.model.subjects import inbox_prefix
from weft.sidecar.identity import SidecarIdentity
from weft.store.nats import DEFAULT_TIMEOUT, NatsStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 2.0


class StoreConnection:
    """One sidecar's connection to NATS, made when it is first needed, and anew with its identity."""

    def __init__(
        self, identity: SidecarIdentity, servers: Sequence[str], *, name: str, timeout: float
    ) -> None:
        """`name` is for the logs of NATS; `timeout`: seconds to connect within."""
        self._identity = identity
        self._servers = servers
        self._name = name
        self._timeout = timeout
        self._store: NatsStore | None = None
        self._one_connects = asyncio.Lock()
        self._renewed = asyncio.Event()

    async def connected(self) -> NatsStore:
        """The connection. Raises Unavailable."""
        async with self._one_connects:
            if self._store is None:
                self._store = await NatsStore.connect(
                    self._servers,
                    name=self._name,
                    timeout=min(DEFAULT_TIMEOUT, self._timeout),
                    tls=self._identity.nats_tls if self._identity.nats_secured else None,
                    inbox_prefix=inbox_prefix(self._identity.id),
                )
            return self._store

    def renew(self) -> None:
        """The identity was renewed: `follow_identity` is to connect anew."""
        self._renewed.set()

    async def follow_identity(self) -> None:
        """Connect anew with every renewal, so that the connection lasts as long as the identity does.

        Else it would end while the control plane, without which there is no other, may be away. Renewals must
        not wait for NATS: this is for a task of its own.
        """
        while True:
            await self._renewed.wait()
            self._renewed.clear()
            if self._store is None:
                continue
            try:
                await self._store.reconnect()
            except MeshError as error:
                logger.warning("the connection to NATS ends before the identity does: %s", error.detail)

    async def aclose(self) -> None:
        """Close it, if it was made."""
        if self._store is not None:
            await self._store.close()


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
