"""The declared resources as they stand now, followed in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from weft.aio.generation import Generation
from weft.aio.tasks import TaskOwner
from weft.model.resource import AnyResource
from weft.resources.store import Resources, versioned
from weft.store.bucket import Change, Put, Removed, Snapshot


class ResourceView:
    """A live copy of all resources. Open it with `follow`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._current: Mapping[str, AnyResource] = {}
        self._generation = Generation()

    @classmethod
    @asynccontextmanager
    async def follow(cls, resources: Resources) -> AsyncIterator[ResourceView]:
        """Within the context, a view that is complete and kept up to date."""
        view = cls(resources)
        async with TaskOwner("view of resources") as tasks:
            tasks.start(view._follow(), name="follow the store", endless=True)
            await view.changed_since(0)
            yield view

    @property
    def resources(self) -> Mapping[str, AnyResource]:
        """All resources, by key (`<kind>.<name>`, the kind in lower case). A change makes a new mapping."""
        return self._current

    @property
    def generation(self) -> int:
        """Grows with every change; 0 until the first snapshot."""
        return self._generation.number

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._generation.later_than(generation)

    async def _follow(self) -> None:
        async with self._resources.bucket.watch() as changes:
            async for change in changes:
                self._take(change)

    def _take(self, change: Change[AnyResource]) -> None:
        current = _after(self._current, change)
        if current == self._current and self._generation.number:
            return  # a lost connection begins with a snapshot again, which may say nothing new
        self._current = current
        self._generation.advance()


def _after(current: Mapping[str, AnyResource], change: Change[AnyResource]) -> Mapping[str, AnyResource]:
    match change:
        case Snapshot(entries):
            return {entry.key: versioned(entry) for entry in entries}
        case Put(entry):
            return {**current, entry.key: versioned(entry)}
        case Removed(key):
            return {name: each for name, each in current.items() if name != key}
