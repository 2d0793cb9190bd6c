"""Which A2A tasks are whose: for each caller a list of the latest. Members of a mesh cannot list keys."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from weft.errors import Conflict, MeshError
from weft.model.inbox import A2A_TASKS_BUCKET
from weft.sdk.a2a.record import LIFETIME
from weft.store.bucket import Bucket, Store

MAX_OWNED = 500
"""Tasks of one caller that can be listed: the latest of each agent type."""

_MOST_TRIES = 50
_PAUSE = 0.02


@dataclass(slots=True)
class _Pending:
    """What is to be added for one owner by the next write."""

    tokens: list[str] = field(default_factory=list)
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Owned:
    """The lists of one agent type. What is added at the same time is written together."""

    def __init__(self, bucket: Bucket[list[str]], agent_type: str) -> None:
        self._bucket = bucket
        self._type = agent_type
        self._pending: dict[str, _Pending] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    @classmethod
    async def open(cls, store: Store, agent_type: str) -> Owned:
        """The lists, over `store`. Raises Unavailable."""
        return cls(await store.bucket(A2A_TASKS_BUCKET, _Tokens(), direct=True), agent_type)

    async def add(self, owner: str, token: str) -> None:
        """Put a task into its owner's list. Raises Unavailable, and Conflict if others write all the time."""
        pending = self._pending.setdefault(owner, _Pending())
        pending.tokens.append(token)
        if owner not in self._writing:
            self._writing[owner] = asyncio.create_task(self._write_all(owner), name="list of A2A tasks")
        await asyncio.shield(pending.written)

    async def of(self, owner: str) -> list[str]:
        """The tokens of an owner's tasks, oldest first. Raises Unavailable."""
        entry = await self._bucket.get(self._key(owner))
        return entry.value if entry is not None else []

    async def _write_all(self, owner: str) -> None:
        try:
            while (pending := self._pending.pop(owner, None)) is not None:
                try:
                    await self._write(owner, pending.tokens)
                except MeshError as error:
                    pending.written.set_exception(error)
                    pending.written.exception()  # who waits for it may be gone
                else:
                    pending.written.set_result(None)
        finally:
            del self._writing[owner]

    async def _write(self, owner: str, tokens: list[str]) -> None:
        key = self._key(owner)
        for _ in range(_MOST_TRIES):
            entry = await self._bucket.get(key)
            try:
                if entry is None:
                    await self._bucket.create(key, tokens[-MAX_OWNED:], ttl=LIFETIME)
                else:
                    together = [*entry.value, *tokens][-MAX_OWNED:]
                    await self._bucket.update(key, together, revision=entry.revision, ttl=LIFETIME)
            except Conflict:
                await asyncio.sleep(_PAUSE)
                continue
            return
        raise Conflict("the list of this caller's tasks changes all the time; try again")

    def _key(self, owner: str) -> str:
        return f"{self._type}.of-{hashlib.sha256(owner.encode(errors='replace')).hexdigest()[:32]}"


class _Tokens:
    """Lists of tokens as JSON."""

    def encode(self, value: list[str]) -> bytes:
        return to_json({"tasks": value})

    def decode(self, data: bytes) -> list[str]:
        try:
            fields: dict[str, Any] = from_json(data)
            return [str(each) for each in fields["tasks"]]
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a list of A2A tasks: {error!r}") from error
