"""The declared resources as they stand now, followed in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from weft.model.resource import AnyResource
from weft.resources.store import Resources, versioned
from weft.store.followed import Followed


class ResourceView:
    """A live copy of all resources. Open it with `follow`."""

    def __init__(self, followed: Followed[AnyResource]) -> None:
        self._followed = followed

    @classmethod
    @asynccontextmanager
    async def follow(cls, resources: Resources) -> AsyncIterator[ResourceView]:
        """Within the context, a view that is complete and kept up to date."""
        following = Followed[AnyResource].follow(resources.bucket, name="resources", value_of=versioned)
        async with following as followed:
            yield cls(followed)

    @property
    def resources(self) -> Mapping[str, AnyResource]:
        """All resources, by key (`<kind>.<name>`, the kind in lower case). A change makes a new mapping."""
        return self._followed.values

    @property
    def generation(self) -> int:
        """Grows with every change; 0 until the first snapshot."""
        return self._followed.generation

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._followed.changed_since(generation)
