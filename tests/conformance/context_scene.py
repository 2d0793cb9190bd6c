"""Contexts under one suite: in memory, and in a real nats-server as members use it with their own rights."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from tests.secured_nats import Secured, secured_nats

from weft.contexts.contexts import Contexts, of_tenant
from weft.contexts.records import BytesCodec
from weft.controlplane.message_grants import Declared, message_grants
from weft.model.context_keys import CONTEXTS_BUCKET
from weft.model.spiffe import agent_id
from weft.store.bucket import Bucket, Store
from weft.store.memory import MemoryStore


class ContextScene(Protocol):
    """Where members of tenants come together."""

    async def member(
        self, name: str, tenant: str = "default", *, clock: Callable[[], float] = time.time
    ) -> Contexts:
        """The contexts that another member can get at."""
        ...

    async def bucket(self) -> Bucket[bytes]:
        """What all contexts are in, past all rights."""
        ...


def identity(name: str) -> str:
    """Who a member is."""
    return str(agent_id("weft.local", "scribe", name))


class InMemory:
    """Everybody in one process."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()

    async def member(
        self, name: str, tenant: str = "default", *, clock: Callable[[], float] = time.time
    ) -> Contexts:
        """As ContextScene says."""
        return await Contexts.open(self.store, of_tenant(tenant), author=identity(name), clock=clock)

    async def bucket(self) -> Bucket[bytes]:
        """As ContextScene says."""
        return await self.store.bucket(CONTEXTS_BUCKET, BytesCodec(), direct=True)


class InNats:
    """Everybody with a connection and a certificate of their own."""

    def __init__(self, secured: Secured, ends: AsyncExitStack) -> None:
        self._secured = secured
        self._ends = ends

    async def member(
        self, name: str, tenant: str = "default", *, clock: Callable[[], float] = time.time
    ) -> Contexts:
        """As ContextScene says."""
        who = agent_id("weft.local", "scribe", name)
        self._secured.messages[who] = message_grants({}, who, Declared({}, []), labels={"tenant": tenant})
        store = await self._ends.enter_async_context(self._secured.member(who))
        return await Contexts.open(store, of_tenant(tenant), author=str(who), clock=clock)

    async def bucket(self) -> Bucket[bytes]:
        """As ContextScene says."""
        return await self._secured.control.bucket(CONTEXTS_BUCKET, BytesCodec(), direct=True)


@asynccontextmanager
async def nats_with_contexts(tmp_path: Path) -> AsyncIterator[Secured]:
    """A server that keeps contexts."""
    async with secured_nats(tmp_path) as secured:
        await secured.control.bucket(CONTEXTS_BUCKET, BytesCodec(), direct=True)
        yield secured
