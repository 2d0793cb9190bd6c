"""A conversation, as whoever takes part in it uses it.

There is nothing of it in this process but what it has seen: all is in the store, so the next process that
opens it finds it whole.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from weft.contexts.artifacts import ArtifactShelf
from weft.contexts.at_once import each_of
from weft.contexts.limits import DEFAULT_LIMITS, ContextLimits
from weft.contexts.messages import MAX_PAGE, MessageLog
from weft.contexts.place import Place, begun, found, marked_deleted, missing, tries
from weft.contexts.records import Artifact, ArtifactInfo, Message, State, parse_json, state_bytes
from weft.errors import Conflict, Unavailable
from weft.model.context_keys import ContextKeys
from weft.store.bucket import Bucket

CONTEXT_HEADER = "x-weft-context"

_LAG = 0.1
"""Seconds that one replica of the store may be behind another: who finds nothing looks again after them."""

_AT_ONCE = 16
"""Messages that are deleted at the same time."""


@dataclass(frozen=True, slots=True)
class Seat:
    """By what somebody takes part in a conversation."""

    bucket: Bucket[bytes]
    tenant: str
    author: str
    """Who appends: a SPIFFE ID."""
    clock: Callable[[], float]
    """Tells the seconds since 1970."""


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """What holds of a context from its beginning to its end. Times are in seconds since 1970."""

    id: str
    created_at: float
    expires_at: float
    limits: ContextLimits


@dataclass(slots=True)
class _Seen:
    """What somebody has seen of a context, and so sees again, whichever replica of the store answers."""

    generation: str = ""
    message: int = 0
    """The last message that is known to be there."""
    revision: int = 0
    """Of the state."""


class ConversationStore:
    """What is kept of one conversation: messages, a state, artifacts. `mesh.context()` gives one.

    Every method raises Unavailable if the store cannot be reached, after which what was to be written may
    have been, and NotFound if there is no such context: it never was, is another tenant's, was deleted or has
    expired. One that may begin (`mesh.context()`, `mesh.context(id, create=True)`) begins with what is
    first written to it, and reads as empty before.
    """

    def __init__(
        self,
        context_id: str,
        seat: Callable[[], Awaitable[Seat]],
        *,
        may_begin: bool,
        limits: ContextLimits = DEFAULT_LIMITS,
    ) -> None:
        """`seat` is asked at every use; it raises Unavailable. `limits` are for one that begins here."""
        self.id = context_id
        self._seat = seat
        self._may_begin = may_begin
        self._limits = limits
        self._seen = _Seen()

    @property
    def headers(self) -> dict[str, str]:
        """What makes a call part of this conversation: `mesh.request(..., headers=conversation.headers)`."""
        return {CONTEXT_HEADER: self.id}

    async def append(self, role: str, content: Any, /, **metadata: Any) -> Message:
        """Add a message behind the last one; when this returns it is stored, and has its number.

        `content` and `metadata` are what JSON can say. Of those who append at the same time each gets a
        number of its own, and none is left out. Raises InvalidRequest beyond the limits.
        """
        seat, place = await self._writing()
        seen, log = self._seen, self._log(place)
        appended = await log.append(Message(0, role, content, seat.clock(), seat.author, metadata))
        seen.message = max(seen.message, log.known)
        return appended

    async def messages(self, after: int = 0, limit: int = MAX_PAGE) -> list[Message]:
        """Up to `limit` messages (1 to 1000) behind number `after`, oldest first.

        `after=-20` gives the last 20. Fewer than there are come where they have more than 64 MiB together:
        the number of the last of them is the next `after`.
        """
        place = await self._reading()
        if place is None:
            return []
        seen, log = self._seen, self._log(place)
        messages = await log.read(after, limit)
        seen.message = max(seen.message, log.known)
        return messages

    async def count(self) -> int:
        """How many messages there are."""
        place = await self._reading()
        if place is None:
            return 0
        seen, log = self._seen, self._log(place)
        last = await log.last()
        seen.message = max(seen.message, last)
        return last

    async def state(self) -> State:
        """The state, and the revision by which it can be changed."""
        place = await self._reading()
        return State(None, 0) if place is None else await self._state(place)

    async def compare_and_set(self, value: Any, revision: int) -> State:
        """Write the state if it is still at `revision`; 0: if nothing was written yet.

        Raises Conflict if it is not, and InvalidRequest if `value` is too large, or no JSON.
        """
        _, place = await self._writing()
        return await self._set(place, value, revision)

    async def update(self, change: Callable[[Any], Any]) -> State:
        """Write what `change` makes of the state (None, as long as there is none); return it.

        If somebody else was faster it is called again. It may be a coroutine function. Raises Conflict if
        others are faster all the time, and what `change` raises.
        """
        _, place = await self._writing()
        for pause in tries():
            state = await self._state(place)
            changed = change(state.value)
            value = await changed if inspect.isawaitable(changed) else changed
            try:
                return await self._set(place, value, state.revision)
            except Conflict:
                await asyncio.sleep(pause)
        raise Conflict(f"the state of context {self.id[:100]!r} changes all the time; try again")

    async def put_artifact(
        self, name: str, data: bytes, media_type: str = "application/octet-stream"
    ) -> ArtifactInfo:
        """Keep `data` under a name, in place of what was there. Raises InvalidRequest beyond the limits."""
        _, place = await self._writing()
        return await ArtifactShelf(place).put(name, data, media_type)

    async def artifact(self, name: str) -> Artifact:
        """What is kept under a name, as it was put there. Raises NotFound."""
        return await ArtifactShelf(self._there(await self._reading())).get(name)

    async def artifacts(self) -> list[ArtifactInfo]:
        """What is kept under names, by name."""
        place = await self._reading()
        return [] if place is None else await ArtifactShelf(place).all()

    async def remove_artifact(self, name: str) -> None:
        """Forget what is kept under a name. Raises NotFound."""
        await ArtifactShelf(self._there(await self._reading())).remove(name)

    async def about(self) -> ContextFacts:
        """Since when and until when it is kept, and within which limits. Raises NotFound."""
        head = self._there(await self._reading()).head
        return ContextFacts(self.id, head.created_at, head.expires_at, head.limits)

    async def delete(self) -> None:
        """Forget all of it. At once it is there for nobody; when this returns nothing is left.

        If that breaks off, do it again. What others write at this moment goes with its lifetime. Raises
        NotFound.
        """
        seat = await self._seat()
        place = await marked_deleted(seat.bucket, self._keys(seat), seat.clock)
        await ArtifactShelf(place).drop_all()
        await seat.bucket.delete(place.state)
        # From the end, so that what is left is found again; one that broke off may have left gaps behind it.
        last = await MessageLog(place).last() + _AT_ONCE
        for end in range(last, 0, -_AT_ONCE):
            numbers = range(max(1, end - _AT_ONCE + 1), end + 1)
            await each_of(numbers, lambda number: seat.bucket.delete(place.message(number)), at_once=_AT_ONCE)
        await seat.bucket.delete(place.keys.head)

    def __repr__(self) -> str:
        return f"ConversationStore({self.id!r})"

    async def _reading(self) -> Place | None:
        """Where it is; None where it may begin and has not."""
        seat = await self._seat()
        place = await found(seat.bucket, self._keys(seat), seat.clock)
        if place is None and (self._seen.generation or not self._may_begin):
            await asyncio.sleep(_LAG)
            place = await found(seat.bucket, self._keys(seat), seat.clock)
        self._note(place)
        return place if self._may_begin else self._there(place)

    async def _writing(self) -> tuple[Seat, Place]:
        """Where it is, from now on if it may begin."""
        seat = await self._seat()
        if not self._may_begin:
            return seat, self._there(await self._reading())
        place = await begun(seat.bucket, self._keys(seat), seat.clock, self._limits)
        self._note(place)
        return seat, place

    def _note(self, place: Place | None) -> None:
        """Forget what was seen of it if it has ended since, whether it began anew or not."""
        generation = place.head.generation if place is not None else ""
        if generation != self._seen.generation:
            self._seen = _Seen(generation)

    def _keys(self, seat: Seat) -> ContextKeys:
        return ContextKeys(seat.tenant, self.id)

    def _there(self, place: Place | None) -> Place:
        if place is None:
            raise missing(self.id)
        return place

    def _log(self, place: Place) -> MessageLog:
        return MessageLog(place, self._seen.message)

    async def _state(self, place: Place) -> State:
        entry = await place.bucket.get(place.state)
        if (entry.revision if entry is not None else 0) < self._seen.revision:
            await asyncio.sleep(_LAG)
            entry = await place.bucket.get(place.state)
        if entry is None:
            return State(None, 0)
        self._seen.revision = max(self._seen.revision, entry.revision)
        try:
            return State(parse_json(entry.value), entry.revision)
        except ValueError as error:
            raise Unavailable(
                f"the state of context {self.id[:100]!r} is no JSON: delete the context"
            ) from error

    async def _set(self, place: Place, value: Any, revision: int) -> State:
        data = state_bytes(value, place.head.limits.state_bytes)
        try:
            if revision:
                written = await place.bucket.update(place.state, data, revision=revision, ttl=place.ttl)
            else:
                written = await place.bucket.create(place.state, data, ttl=place.ttl)
        except Conflict as error:
            raise Conflict(
                f"the state of context {self.id[:100]!r} is no longer at revision {revision}: read it again"
            ) from error
        self._seen.revision = max(self._seen.revision, written)
        return State(parse_json(data), written)
