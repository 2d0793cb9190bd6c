"""What the leader writes before it says yes, fenced against leaders that do not know that they are none.

Every write names the revision that this term saw last. A new leader writes each record anew before it decides
anything; so what an old one still has on its way comes either before that, and is read, or fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Generic, TypeVar

from weft.controlplane.llm.records import Kept
from weft.errors import Conflict, Unavailable
from weft.store.bucket import Bucket

T = TypeVar("T")


class Superseded(Conflict):
    """Somebody else has written what this term believed to be its own: what it knows is not the truth."""


class KeptRecords(Generic[T]):
    """The records of one bucket, for one term."""

    def __init__(self, bucket: Bucket[Kept[T]], term: str) -> None:
        self._bucket = bucket
        self._term = term
        self._revisions: dict[str, int] = {}
        self._unsure: set[str] = set()

    async def load(self) -> Mapping[str, T]:
        """All values by their keys, as they stand. Raises Unavailable."""
        entries = await self._bucket.entries()
        self._revisions = {each.key: each.revision for each in entries}
        return {each.key: each.value.value for each in entries}

    async def write(self, values: Mapping[str, T]) -> None:
        """Write all these. Raises Superseded, and Unavailable if some may not have been written."""
        await _all(self._write(key, value) for key, value in values.items())

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove these. Raises Superseded and Unavailable."""
        await _all(self._delete(key) for key in keys if key in self._revisions)

    async def _write(self, key: str, value: T) -> None:
        if key in self._unsure:
            await self._look(key)
        record = Kept(self._term, value)
        revision = self._revisions.get(key)
        try:
            if revision is None:
                self._revisions[key] = await self._bucket.create(key, record)
            else:
                self._revisions[key] = await self._bucket.update(key, record, revision=revision)
        except Conflict as error:
            raise Superseded(f"{key!r} was written by another leader: {error.detail}") from error
        except BaseException:
            # It may have been done, and then it stands at a revision that this does not know.
            self._unsure.add(key)
            raise

    async def _look(self, key: str) -> None:
        """Find out whether a write of this term, of which no answer came, was done."""
        entry = await self._bucket.get(key)
        if entry is None:
            self._revisions.pop(key, None)
        elif entry.value.term == self._term:
            self._revisions[key] = entry.revision
        elif entry.revision != self._revisions.get(key):
            raise Superseded(f"{key!r} was written by another leader")
        self._unsure.discard(key)

    async def _delete(self, key: str) -> None:
        try:
            await self._bucket.delete(key, revision=self._revisions[key])
        except Conflict as error:
            raise Superseded(f"{key!r} was written by another leader: {error.detail}") from error
        del self._revisions[key]


async def _all(writes: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of them at once, each to its end; raise what is the worst of what went wrong."""
    each_once = list(writes)
    if len(each_once) <= 1:  # as is most often
        for only in each_once:
            await only
        return
    results = await asyncio.gather(*each_once, return_exceptions=True)
    errors = [each for each in results if isinstance(each, BaseException)]
    for error in errors:
        if not isinstance(error, Unavailable):
            raise error
    if errors:
        raise errors[0]
