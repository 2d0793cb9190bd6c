"""Which agent types have an inbox: a queue for what they are sent by A2A."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

from weft.errors import Conflict
from weft.model.inbox import A2A_TASKS_BUCKET
from weft.store.bucket import Bucket, Store
from weft.store.followed import Followed

INBOXES_BUCKET = "inboxes"
"""Keys are agent types; the value says since when."""


class Inboxes:
    """The inboxes, as all replicas of the control plane know them. Open it with `follow`."""

    def __init__(self, bucket: Bucket[float], followed: Followed[float]) -> None:
        self._bucket = bucket
        self._followed = followed

    @classmethod
    @asynccontextmanager
    async def follow(cls, store: Store) -> AsyncIterator[Inboxes]:
        """Those in `store`, kept up to date within the context. Raises Unavailable."""
        bucket = await store.bucket(INBOXES_BUCKET, _Since())
        # Members write into it, and cannot make it.
        await store.bucket(A2A_TASKS_BUCKET, _Since(), direct=True)
        async with Followed.follow(bucket, name="inboxes") as followed:
            yield cls(bucket, followed)

    @property
    def types(self) -> Collection[str]:
        """The agent types that have one."""
        return self._followed.values.keys()

    @property
    def generation(self) -> int:
        """Grows with every change."""
        return self._followed.generation

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._followed.changed_since(generation)

    async def have(self, agent_type: str) -> None:
        """See that this type has one, and this replica knows it. Raises Unavailable."""
        if agent_type in self.types:
            return
        with suppress(Conflict):
            await self._bucket.create(agent_type, time.time())
        while agent_type not in self.types:
            generation = self.generation
            if agent_type not in self.types:
                await self.changed_since(generation)


class _Since:
    """When an inbox was first asked for, in seconds since 1970."""

    def encode(self, value: float) -> bytes:
        return json.dumps({"since": value}).encode()

    def decode(self, data: bytes) -> float:
        try:
            return float(json.loads(data)["since"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"not an inbox: {error!r}") from error
