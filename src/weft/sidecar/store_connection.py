"""A sidecar's connection to NATS, and what keeps it as good as the sidecar's identity."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from weft.errors import MeshError
from weft.model.subjects import inbox_prefix
from weft.sidecar.identity import SidecarIdentity
from weft.store.nats import DEFAULT_TIMEOUT, NatsStore

logger = logging.getLogger(__name__)


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
