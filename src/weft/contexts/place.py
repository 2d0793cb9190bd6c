"""Where one context is in the store, and for how long."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from weft.aio.backoff import backoff
from weft.contexts.limits import DEFAULT_LIMITS, ContextLimits
from weft.contexts.records import Head, head_bytes, parse_head
from weft.errors import Conflict, NotFound, Unavailable
from weft.model.context_keys import ContextKeys
from weft.store.bucket import Bucket, Entry

_MOST_TRIES = 100
"""How often something is written at most that others write at the same time."""


@dataclass(frozen=True, slots=True)
class Place:
    """The keys of a context, as long as it lasts."""

    bucket: Bucket[bytes]
    keys: ContextKeys
    head: Head
    clock: Callable[[], float]
    """Tells the seconds since 1970."""

    @property
    def ttl(self) -> float:
        """Seconds for which what is written now is kept. Raises NotFound once the context has expired."""
        left = self.head.expires_at - self.clock()
        if left <= 0:
            raise missing(self.keys.id)
        return max(1.0, left)

    def message(self, number: int) -> str:
        """The key of a message."""
        return self.keys.message(self.head.generation, number)

    @property
    def state(self) -> str:
        """The key of the state."""
        return self.keys.state(self.head.generation)

    @property
    def artifacts(self) -> str:
        """The key of the list of artifacts."""
        return self.keys.artifacts(self.head.generation)

    def chunk(self, token: str, number: int) -> str:
        """The key of a piece of an artifact."""
        return self.keys.chunk(self.head.generation, token, number)


async def found(bucket: Bucket[bytes], keys: ContextKeys, clock: Callable[[], float]) -> Place | None:
    """The place of a context; None if there is none, or no longer. Raises Unavailable and Denied."""
    entry = await bucket.get(keys.head)
    head = _head(keys, entry)
    if head is None or head.deleted or head.expires_at <= clock():
        return None
    return Place(bucket, keys, head, clock)


async def begun(
    bucket: Bucket[bytes],
    keys: ContextKeys,
    clock: Callable[[], float],
    limits: ContextLimits = DEFAULT_LIMITS,
) -> Place:
    """The place of a context, which begins now, within `limits`, if it is not there.

    Raises Unavailable and Denied.
    """
    for pause in tries():
        entry = await bucket.get(keys.head)
        known = _head(keys, entry)
        now = clock()
        if known is not None and not known.deleted and known.expires_at > now:
            return Place(bucket, keys, known, clock)
        head = Head(now, now + limits.lifetime, secrets.token_hex(6), limits)
        try:
            if entry is None:
                await bucket.create(keys.head, head_bytes(head), ttl=limits.lifetime)
            else:
                await bucket.update(keys.head, head_bytes(head), revision=entry.revision, ttl=limits.lifetime)
        except Conflict:
            await asyncio.sleep(pause)  # somebody else begins it at this moment
            continue
        return Place(bucket, keys, head, clock)
    raise Unavailable(f"context {keys.id[:100]!r} can neither be begun nor read; try again")


async def marked_deleted(bucket: Bucket[bytes], keys: ContextKeys, clock: Callable[[], float]) -> Place:
    """The place of a context that is there for nobody any more. Raises NotFound, Unavailable and Denied."""
    for pause in tries():
        entry = await bucket.get(keys.head)
        head = _head(keys, entry)
        if entry is None or head is None or head.expires_at <= clock():
            raise missing(keys.id)
        if head.deleted:
            return Place(bucket, keys, head, clock)
        place = Place(bucket, keys, replace(head, deleted=True), clock)
        try:
            await bucket.update(keys.head, head_bytes(place.head), revision=entry.revision, ttl=place.ttl)
        except Conflict:
            await asyncio.sleep(pause)
            continue
        return place
    raise Unavailable(f"context {keys.id[:100]!r} changes all the time; try again")


def tries() -> Iterator[float]:
    """Seconds to wait after each attempt to write what others write too, until it is hopeless."""
    return islice(backoff(first=0.005, longest=0.1), _MOST_TRIES)


def missing(context_id: str) -> NotFound:
    """The error that tells that there is no such context, whatever the reason."""
    return NotFound(
        f"there is no context {context_id[:100]!r}: it never was, is another tenant's, was deleted, or has "
        "expired"
    )


def _head(keys: ContextKeys, entry: Entry[bytes] | None) -> Head | None:
    try:
        return parse_head(entry.value) if entry is not None else None
    except ValueError as error:
        raise Unavailable(f"context {keys.id[:100]!r} cannot be read ({error}): use another id") from error
