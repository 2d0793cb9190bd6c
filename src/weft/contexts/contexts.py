"""The contexts that a member of the mesh, or the control plane, can get at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from weft.contexts.conversation import ConversationStore, Seat
from weft.contexts.limits import DEFAULT_LIMITS, ContextLimits
from weft.contexts.records import BytesCodec
from weft.errors import Denied, MeshError, NotFound, Unavailable
from weft.model.context_keys import CONTEXTS_BUCKET, check_context_id
from weft.model.tenant import MAX_TENANT_LENGTH
from weft.store.bucket import Bucket, Store

TENANT_PATH = "/v1/tenant"
"""Where the control plane tells a member which tenant it is of."""

_FRESHNESS = 30.0
"""Seconds for which the tenant is not asked for again."""

Tenancy = Callable[[], Awaitable[str]]
"""Tells whose contexts they are. Raises Unavailable."""


class Contexts:
    """The contexts of one tenant. Open them with `open`."""

    def __init__(
        self, bucket: Bucket[bytes], tenant: Tenancy, *, author: str, clock: Callable[[], float] = time.time
    ) -> None:
        """As `open` says."""
        self._bucket = bucket
        self._tenant = tenant
        self._author = author
        self._clock = clock

    @classmethod
    async def open(
        cls, store: Store, tenant: Tenancy, *, author: str, clock: Callable[[], float] = time.time
    ) -> Contexts:
        """The contexts that `store` holds of the tenant that `tenant` tells.

        `author` is who appends messages; `clock` tells the seconds since 1970. Raises Unavailable.
        """
        bucket = await store.bucket(CONTEXTS_BUCKET, BytesCodec(), direct=True)
        return cls(bucket, tenant, author=author, clock=clock)

    def conversation(
        self, context_id: str, *, may_begin: bool = False, limits: ContextLimits = DEFAULT_LIMITS
    ) -> ConversationStore:
        """The context of that id, which begins if it may and is not there. Raises InvalidRequest."""
        return ConversationStore(check_context_id(context_id), self.seat, may_begin=may_begin, limits=limits)

    async def seat(self) -> Seat:
        """By what to take part in conversations. Raises Unavailable."""
        return Seat(self._bucket, await self._tenant(), self._author, self._clock)


class AskedTenant:
    """The tenant of this member, as the control plane told a short while ago."""

    def __init__(self, ask: Callable[[str, str, Mapping[str, Any] | None], Awaitable[Any]]) -> None:
        """`ask` asks the control plane: method, path, JSON body."""
        self._ask = ask
        self._known = ""
        self._fresh_until = 0.0

    async def __call__(self) -> str:
        """Tell it. Raises Unavailable if it was never told."""
        now = asyncio.get_running_loop().time()
        if self._known and now < self._fresh_until:
            return self._known
        try:
            self._known = _tenant_in(await self._ask("GET", TENANT_PATH, None))
        except (NotFound, Denied):
            raise
        except MeshError:
            # What it was is better than nothing while the control plane is away.
            if not self._known:
                raise
        self._fresh_until = now + _FRESHNESS
        return self._known


def of_tenant(tenant: str) -> Tenancy:
    """The tenancy of who knows it."""

    async def told() -> str:
        return tenant

    return told


def _tenant_in(answer: Any) -> str:
    tenant = answer.get("tenant") if isinstance(answer, dict) else None
    if not isinstance(tenant, str) or not 1 <= len(tenant) <= MAX_TENANT_LENGTH:
        raise Unavailable("the control plane's answer does not say of which tenant this program is")
    return tenant
